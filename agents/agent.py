"""An agent: a name, a version, and the actions registered on it by decorator."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Concatenate, Final, Literal, ParamSpec, Protocol, get_args, overload

from pydantic import BaseModel

from agents.action import (
    DEFAULT_MEMORY,
    DEFAULT_TIMEOUT_S,
    NAME,
    Action,
    ExecutionKind,
    InputT,
    OutputT,
    Risk,
)
from agents.cost import RATE_LIMIT, Number, number
from streams.errors import AgentError

AgentType = Literal["LLM", "RULE", "API", "SCRIPT"]

DEFAULT_CONCURRENCY: Final = 64

_Rest = ParamSpec("_Rest")


class _Decorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[Concatenate[InputT, _Rest], Awaitable[OutputT]], /
    ) -> Action[InputT, OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[InputT, _Rest], OutputT], /
    ) -> Action[InputT, OutputT]: ...


class Agent:
    """One kind of agent. Its tasks travel on the topic `tasks.<name>`.

    `type` tells people what decides in it: `RULE` plain code, `LLM` a language model, `API` another
    system that it calls, `SCRIPT` a script that the task brings. `concurrency` is how many of its
    tasks one worker has in hand at once: small for heavy work. `rate` is the price of a minute at
    work in USD, as in `"0.05"`; where it is unsaid, the worker's setting counts.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str,
        type: AgentType = "RULE",  # noqa: A002 -- the contract's word for it
        version: str = "1.0.0",
        concurrency: int = DEFAULT_CONCURRENCY,
        rate: Number | None = None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise AgentError(
                f"agent {name!r}: the name is letters, digits, '-' and '_', first a lower-case "
                "letter, at most 63 characters"
            )
        if type not in get_args(AgentType):
            known = ", ".join(map(repr, get_args(AgentType)))
            raise AgentError(f"agent {name!r}: type is {type!r}; it must be one of {known}")
        if concurrency < 1:
            raise AgentError(f"agent {name!r}: concurrency is {concurrency}; it must be at least 1")
        self.name = name
        self.description = description
        self.type: AgentType = type
        self.version = version
        self.concurrency = concurrency
        self.rate = None if rate is None else number(rate, f"agent {name!r}: rate", RATE_LIMIT)
        self._actions: dict[str, Action[Any, Any]] = {}

    @property
    def actions(self) -> Mapping[str, Action[BaseModel, BaseModel]]:
        """The registered actions by name."""
        return MappingProxyType(self._actions)

    @overload
    def action(
        self, function: Callable[Concatenate[InputT, _Rest], Awaitable[OutputT]], /
    ) -> Action[InputT, OutputT]: ...
    @overload
    def action(
        self, function: Callable[Concatenate[InputT, _Rest], OutputT], /
    ) -> Action[InputT, OutputT]: ...
    @overload
    def action(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        risk: Risk = "AUTO",
        memory: int | str = DEFAULT_MEMORY,
        execution: ExecutionKind = "light",
        preload: Sequence[str] = (),
    ) -> _Decorator: ...
    def action(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        risk: Risk = "AUTO",
        memory: int | str = DEFAULT_MEMORY,
        execution: ExecutionKind = "light",
        preload: Sequence[str] = (),
    ) -> Any:
        """Register a function as an action: `@agent.action` or `@agent.action(timeout=300)`.

        Args:
            function: async or sync; takes a pydantic model, optionally a `Context`; returns a
                pydantic model.
            name: by default the function's name.
            description: by default the first line of the function's docstring.
            timeout: seconds for one attempt; a workflow can only shorten it.
            memory: what it may use, as `"512MB"` or in bytes; binds only in the sandbox.
            execution: `light` in the worker itself, an async function in its loop and any other in
                a thread; `sandbox` for what is heavy or not to be trusted. The function is the
                same.
            preload: modules that the sandbox imports before the first task comes, and the worker
                does not: slow libraries that the function imports itself.
            risk: `APPROVAL_REQUIRED` for what a person has to agree to first. A workflow can ask
                for approval of any action; it cannot do without where the action wants it.

        Raises:
            AgentError: the declaration is wrong; the text says what to change.
        """

        def register(function: Callable[..., Any]) -> Action[Any, Any]:
            made: Action[Any, Any] = Action(
                self.name,
                function,
                name=name,
                description=description,
                timeout=timeout,
                risk=risk,
                memory=memory,
                execution=execution,
                preload=preload,
            )
            if made.name in self._actions:
                raise AgentError(f"agent {self.name!r} has two actions called {made.name!r}")
            self._actions[made.name] = made
            return made

        return register if function is None else register(function)

    def descriptor(self) -> dict[str, Any]:
        """The agent as others see it: plain JSON with the JSON Schemas of its actions."""
        return {
            "name": self.name,
            "version": self.version,
            "type": self.type,
            "description": self.description,
            "concurrency": self.concurrency,
            "rate": None if self.rate is None else f"{self.rate:f}",
            "actions": [action.descriptor() for action in self._actions.values()],
        }

    def __repr__(self) -> str:
        return f"Agent({self.name} {self.version}: {', '.join(self._actions)})"

"""An action: a plain function with a pydantic input and output model, checked when decorated.

Rules:
- The models are on the function's annotations; nothing is guessed. A fault in the declaration is
  an `AgentError` when the module is imported, not when the first task arrives.
- On the wire inputs and outputs are JSON by alias, so both are validated and written as JSON.
"""

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeVar, cast, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from agents.context import Context
from streams.errors import AgentError

InputT = TypeVar("InputT", bound=BaseModel)
OutputT = TypeVar("OutputT", bound=BaseModel)

Risk = Literal["AUTO", "APPROVAL_REQUIRED"]
"""Whether a worker executes the action as it is asked to, or only what a person has agreed to."""

ExecutionKind = Literal["light", "sandbox"]
"""Where it is executed: in the worker (its loop, or a thread of it), or confined."""

DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_MEMORY: Final = "512MB"
_LEAST_MEMORY: Final = 1024 * 1024
_MEMORY: Final = re.compile(r"(\d+) ?(B|KB|MB|GB|KiB|MiB|GiB)?")
_UNITS: Final = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
NAME: Final = re.compile(r"[a-z][a-zA-Z0-9_-]{0,62}")
_PROBLEMS_SHOWN: Final = 10


class Action(Generic[InputT, OutputT]):
    """One thing that an agent can do; made by `Agent.action`, called by the runtime.

    `timeout` is in seconds and bounds one attempt. A sync function runs in a thread of its own.
    Where `risk` is `APPROVAL_REQUIRED`, no worker executes a task that nobody has approved.
    """

    __slots__ = (
        "_parse",
        "_parse_output",
        "_write",
        "agent",
        "description",
        "execution",
        "function",
        "input",
        "input_schema",
        "is_async",
        "memory",
        "name",
        "output",
        "output_schema",
        "preload",
        "risk",
        "takes_context",
        "timeout",
    )

    def __init__(
        self,
        agent: str,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        risk: Risk = "AUTO",
        memory: int | str = DEFAULT_MEMORY,
        execution: ExecutionKind = "light",
        preload: Sequence[str] = (),
    ) -> None:
        self.agent = agent
        self.function = function
        self.name = name if name is not None else str(getattr(function, "__name__", ""))
        where = f"action {self.name!r} of agent {agent!r}"
        if not NAME.fullmatch(self.name):
            raise AgentError(
                f"{where}: an action's name is letters, digits, '-' and '_', first a lower-case "
                "letter, at most 63 characters"
            )
        if not timeout > 0:
            raise AgentError(f"{where}: timeout is {timeout!r}; it must be more than 0 seconds")
        for what, given, allowed in (
            ("risk", risk, get_args(Risk)),
            ("execution", execution, get_args(ExecutionKind)),
        ):
            if given not in allowed:
                known = " or ".join(map(repr, allowed))
                raise AgentError(f"{where}: {what} is {given!r}; it must be {known}")
        self.memory = _bytes(where, memory)
        self.execution: ExecutionKind = execution
        self.preload = tuple(preload)
        self.timeout = timeout
        self.risk: Risk = risk
        self.description = description or (inspect.getdoc(function) or "").partition("\n")[0]
        self.input, self.output, self.takes_context = _signature(where, function)
        self.is_async = inspect.iscoroutinefunction(function)
        try:
            self.input.model_rebuild()
            self.output.model_rebuild()
            self.input_schema = self.input.model_json_schema(mode="validation")
            self.output_schema = self.output.model_json_schema(mode="serialization")
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise AgentError(f"{where}: a model is not usable as JSON: {error.message}") from error
        # Looked up once: these are what the runtime calls for every task.
        self._parse = self.input.__pydantic_validator__.validate_json
        self._parse_output = self.output.__pydantic_validator__.validate_python
        self._write = self.output.__pydantic_serializer__.to_json

    def parse(self, inputs: bytes) -> InputT:
        """Validate a task's inputs, a JSON object. Raises `pydantic.ValidationError`."""
        return cast("InputT", self._parse(inputs))

    def write(self, output: object) -> bytes:
        """The JSON of what the function returned, by alias.

        A dict of the right shape is as good as the model. Raises `pydantic.ValidationError` or
        `pydantic_core.PydanticSerializationError` for anything else.
        """
        return self._write(self._shaped(output), by_alias=True, warnings="error")

    async def test(
        self, inputs: InputT | Mapping[str, Any], context: Context | None = None
    ) -> OutputT:
        """Call the action as the runtime would, with no server; for tests and notebooks.

        Whatever its risk, nobody is asked. Returns the validated output. Raises
        `pydantic.ValidationError` for inputs or an output of the wrong shape, `TimeoutError` after
        the action's time-out, and whatever the function raises.
        """
        value = inputs if isinstance(inputs, self.input) else self.input.model_validate(inputs)
        arguments = [value, context or Context()] if self.takes_context else [value]
        async with asyncio.timeout(self.timeout):
            output = await (
                self.function(*arguments)
                if self.is_async
                else asyncio.to_thread(self.function, *arguments)
            )
        shaped = self._shaped(output)
        self.write(shaped)
        return shaped

    def descriptor(self) -> dict[str, Any]:
        """The action as others see it: plain JSON, `timeoutMs` in milliseconds."""
        return {
            "name": self.name,
            "description": self.description,
            "risk": self.risk,
            "timeoutMs": int(self.timeout * 1000),
            "execution": self.execution,
            "memoryBytes": self.memory,
            "inputSchema": self.input_schema,
            "outputSchema": self.output_schema,
        }

    def _shaped(self, output: object) -> OutputT:
        return cast(
            "OutputT",
            output if isinstance(output, self.output) else self._parse_output(output),
        )

    def __repr__(self) -> str:
        return f"Action({self.agent} {self.name})"


def wrong_inputs(error: ValidationError) -> str:
    """What is wrong with the inputs of an action: they come from the workflow."""
    return f"the inputs are not what the action takes: {explain(error)}"


def wrong_output(error: ValidationError) -> str:
    """What is wrong with what an action gave: that is the agent's fault."""
    return f"the output is not what the action declares: {explain(error)}"


def explain(error: ValidationError) -> str:
    """Every fault as `path: text`, without the values: they may be secrets."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        ": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"])))
        for problem in problems[:_PROBLEMS_SHOWN]
    ]
    if len(problems) > _PROBLEMS_SHOWN:
        shown.append(f"and {len(problems) - _PROBLEMS_SHOWN} more")
    return "; ".join(shown)


def _bytes(where: str, memory: int | str) -> int:
    found = _MEMORY.fullmatch(str(memory))
    size = int(found[1]) * _UNITS[found[2] or "B"] if found else 0
    if size < _LEAST_MEMORY:
        raise AgentError(
            f"{where}: memory is {memory!r}; write it as in '512MB' or '2GiB', 1MiB at least"
        )
    return size


def _signature(
    where: str, function: Callable[..., Any]
) -> tuple[type[BaseModel], type[BaseModel], bool]:
    """The input model, the output model, and whether the function wants the context."""
    if not inspect.isfunction(function) or inspect.isasyncgenfunction(function):
        raise AgentError(f"{where}: an action is a plain function, sync or async")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise AgentError(
            f"{where}: an annotation cannot be resolved ({error}); "
            "define the models at module level, before the action"
        ) from error
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) not in {1, 2} or any(each.kind not in positional for each in parameters):
        raise AgentError(f"{where}: it takes the inputs and, if it likes, a Context; nothing else")
    if len(parameters) == 2 and hints.get(parameters[1].name) is not Context:
        raise AgentError(f"{where}: annotate {parameters[1].name!r} as agents.Context")
    takes = _model(where, f"parameter {parameters[0].name!r}", hints.get(parameters[0].name))
    gives = _model(where, "the return value", hints.get("return"))
    return takes, gives, len(parameters) == 2


def _model(where: str, what: str, annotation: object) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = "has no annotation" if annotation is None else f"is annotated {annotation!r}"
    raise AgentError(f"{where}: {what} {found}; annotate it with a pydantic model")

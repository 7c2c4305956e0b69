"""Which agents a worker serves: the built-in ones and those that its command line names.

Modules are imported only when asked for, so that starting a worker, or a process that serves none
of them, stays quick.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from agents.action import Action
from agents.agent import Agent
from streams.errors import AgentError, OperatorError

BUILTIN: Final = (
    "agents.security_scanner:scanner",
    "agents.compliance_checker:checker",
    "agents.report:report",
    "agents.notifier:notifier",
    "agents.patcher:patcher",
    "agents.code_reviewer:reviewer",
    "agents.architecture_diagrammer:diagrammer",
    "agents.http_request:http",
    "agents.script_runner:script",
    "agents.llm:llm",
)


class AgentRegistry:
    """A fixed set of agents, by name. Raises `OperatorError` when two have the same name."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        self.agents: dict[str, Agent] = {}
        for agent in agents:
            if agent.name in self.agents:
                raise OperatorError(
                    f"two agents are called {agent.name!r}; rename one or load only one of them"
                )
            self.agents[agent.name] = agent
        self._actions: dict[tuple[str, str], Action[Any, Any]] = {
            (agent.name, name): action
            for agent in self.agents.values()
            for name, action in agent.actions.items()
        }

    def find(self, agent: str, action: str) -> Action[Any, Any] | None:
        """The action, or `None` where the agent or the action is unknown."""
        return self._actions.get((agent, action))

    def explain_missing(self, agent: str, action: str) -> str:
        """Why `find` gave `None`, and what there is instead."""
        if agent not in self.agents:
            known = ", ".join(sorted(self.agents)) or "none"
            return f"no agent is called {agent!r} (this worker serves: {known})"
        known = ", ".join(sorted(self.agents[agent].actions)) or "none"
        return f"agent {agent!r} has no action {action!r} (it has: {known})"

    def descriptors(self) -> list[dict[str, Any]]:
        """What goes on the `agents` topic: one plain JSON object for each agent."""
        return [agent.descriptor() for agent in self.agents.values()]


def builtin() -> tuple[Agent, ...]:
    """The agents that come with the product."""
    return tuple(load(reference) for reference in BUILTIN)


def load(reference: str) -> Agent:
    """Import the agent at `package.module:variable`.

    Raises:
        OperatorError: the reference leads nowhere.
        AgentError: the module cannot be imported, or a declaration in it is wrong.
    """
    module_name, colon, variable = reference.partition(":")
    if not (module_name and colon and variable):
        raise OperatorError(f"{reference!r} names no agent; write module:variable")
    try:
        module = import_module(module_name)
    except AgentError as error:
        raise AgentError(f"{reference}: {error}") from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_within(module_name, error.name):
            raise OperatorError(
                f"{reference}: there is no module {error.name!r}; "
                "install it, or add its folder to PYTHONPATH"
            ) from error
        raise AgentError(
            f"{reference}: importing it failed: {type(error).__name__}: {error}"
        ) from error
    agent = getattr(module, variable, None)
    if not isinstance(agent, Agent):
        raise OperatorError(
            f"{reference}: {variable!r} in {module_name} is "
            f"{'missing' if agent is None else type(agent).__name__}, not an agents.Agent"
        )
    return agent


def _is_within(module: str, missing: str | None) -> bool:
    return missing is not None and (module + ".").startswith(missing + ".")

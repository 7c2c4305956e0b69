"""Which agents there are: a view of the compacted `agents` topic."""

from typing import Any, Self

import msgspec
import structlog

from gateway.action_inputs import input_problems
from streams import codec
from streams.compacted_reader import CompactedReader
from streams.errors import NotFoundError, Problem, UnreadableRecordError
from streams.records import AgentRecord
from streams.topics import AGENTS
from streams.workflow import WorkflowSpec

_log = structlog.get_logger(__name__)


class AgentsView:
    """The latest registration of every agent, kept current; an async context manager."""

    def __init__(self, bootstrap: str) -> None:
        self._agents: dict[str, AgentRecord] = {}
        self._reader = CompactedReader(bootstrap, AGENTS, self._read)

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.__aexit__(*error)

    @property
    def trouble(self) -> str:
        """Why the view may be out of date; empty while all is well."""
        return self._reader.trouble

    async def caught_up(self) -> None:
        """Wait until every registration made so far has been read."""
        await self._reader.caught_up()

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record; one without a value takes the agent off the list."""
        if value is None:
            self._agents.pop((key or b"").decode(errors="replace"), None)
            return
        record = codec.agents.decode(value)
        self._agents[record.name] = record

    def all(self) -> list[AgentRecord]:
        """Every agent, by name."""
        return [self._agents[name] for name in sorted(self._agents)]

    def get(self, name: str) -> AgentRecord:
        """The agent of this name; `NotFoundError` names the known ones if there is none."""
        record = self._agents.get(name)
        if record is None:
            raise NotFoundError(f"there is no agent {name!r} (agents: {self._known()})")
        return record

    def problems(self, spec: WorkflowSpec) -> list[Problem]:
        """Nodes whose agent or action nobody serves, or that give it what it does not take."""
        found: list[Problem] = []
        for path, agent, action, inputs in spec.actions():
            record = self._agents.get(agent)
            if record is None:
                text = f"no agent is called {agent!r} (agents: {self._known()})"
                found.append(Problem((*path, "agent"), text))
                continue
            actions = _actions(record)
            if actions is not None and action not in actions:
                text = (
                    f"agent {agent!r} has no action {action!r}"
                    f" (it has: {', '.join(sorted(actions)) or 'none'})"
                )
                found.append(Problem((*path, "action"), text))
            elif actions is not None and isinstance(schema := actions[action], dict):
                faults = input_problems(agent, action, inputs, schema)
                found += [Problem((*path, *fault.path), fault.message) for fault in faults]
        return found

    def _known(self) -> str:
        return ", ".join(sorted(self._agents)) or "none; is a worker running?"

    def _read(self, record: Any) -> None:
        try:
            self.apply(record.key, record.value)
        except UnreadableRecordError as error:
            _log.error(
                "an agent's registration cannot be read", offset=record.offset, why=str(error)
            )


def _actions(record: AgentRecord) -> dict[str, Any] | None:
    """The agent's actions with the schemas of their inputs; None where it does not say them."""
    descriptor = msgspec.json.decode(record.descriptor)
    try:
        return {action["name"]: action.get("inputSchema") for action in descriptor["actions"]}
    except (AttributeError, KeyError, TypeError):
        return None

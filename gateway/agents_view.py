"""Which agents there are, and who serves them: a view of the compacted `agents` topic.

Rules:
- An agent is known by its registration, for ever. It is alive while a worker says that it serves
  it.
- A worker is gone when it says so, and when it has been silent for three of its intervals. Live
  records count from when they are read here: the clocks of two machines may differ. Those that are
  read at the start are as old as they say.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

import msgspec
import structlog

from streams import codec
from streams.action_inputs import KnownAction, input_problems, known_actions, use_problems
from streams.compacted_reader import CompactedReader
from streams.errors import NotFoundError, Problem, UnreadableRecordError
from streams.ids import WORKER_KEYS
from streams.registry import AgentRecord, Serving, WorkerRecord
from streams.topics import AGENTS
from streams.workflow import WorkflowSpec

SILENT_INTERVALS: Final = 3

_log = structlog.get_logger(__name__)


class Server(NamedTuple):
    """A worker that serves an agent now: since when, and when it was last heard of (seconds)."""

    worker: str
    serving: Serving
    started_at: int
    last_seen: float


class _Heard(NamedTuple):
    """A worker's newest sign of life, and when it was given, by the clock of this process."""

    record: WorkerRecord
    at: float


class AgentsView:
    """The registrations and the workers, kept current; an async context manager.

    Args:
        bootstrap: Kafka, `host:port[,host:port]`.
        clock: seconds since the epoch.
    """

    def __init__(self, bootstrap: str, clock: Callable[[], float] = time.time) -> None:
        self._agents: dict[str, AgentRecord] = {}
        self._workers: dict[str, _Heard] = {}
        self._clock = clock
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

    def apply(self, key: bytes | None, value: bytes | None, at: float | None = None) -> None:
        """Take in a record; one without a value takes the agent or worker off the list.

        `at` is when a worker's sign of life was given, where that is not now (seconds).
        """
        name = (key or b"").decode(errors="replace")
        if name.startswith(WORKER_KEYS):
            self._workers.pop(name, None)
            if value is not None:
                now = self._clock()
                self._workers[name] = _Heard(
                    codec.workers.decode(value), now if at is None else min(at, now)
                )
            return
        if value is None:
            self._agents.pop(name, None)
            return
        record = codec.agents.decode(value)
        self._agents[record.name] = record

    def servers(self, agent: str) -> list[Server]:
        """The workers that serve the agent now, by name."""
        found = [
            Server(heard.record.worker, serving, heard.record.started_at, heard.at)
            for heard in self._alive()
            for serving in heard.record.agents
            if serving.name == agent
        ]
        return sorted(found)

    def troubled(self) -> list[str]:
        """What workers say that they cannot read now, one sentence for each such worker."""
        records = (heard.record for heard in self._alive())
        return sorted(f"worker {r.worker}: {r.trouble}" for r in records if r.trouble)

    def _alive(self) -> Iterator[_Heard]:
        now = self._clock()
        for heard in self._workers.values():
            if now - heard.at <= SILENT_INTERVALS * heard.record.interval_ms / 1000:
                yield heard

    def unserved(self, agent: str) -> str:
        """Why nobody does the tasks of this agent now; empty where somebody does, or may."""
        if self.trouble or self.servers(agent):
            return ""
        if agent in self._agents:
            return f"no worker serves agent {agent!r} now; start one that does"
        return f"no worker serves agent {agent!r}, and none ever has"

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
            elif actions is not None:
                undoes = path[-1] == "compensate"
                faults = use_problems(agent, action, inputs, actions[action], undoes=undoes)
                found += [Problem((*path, *fault.path), fault.message) for fault in faults]
        return found

    def output_of(self, agent: str, action: str) -> Mapping[str, Any] | None:
        """The JSON Schema of what the action gives; None where that is not known."""
        known = self._action(agent, action)
        return None if known is None else known.output

    def _action(self, agent: str, action: str) -> KnownAction | None:
        record = self._agents.get(agent)
        return None if record is None else (_actions(record) or {}).get(action)

    def refused(self, agent: str, action: str, inputs: Mapping[str, Any]) -> list[Problem]:
        """Why the action cannot take these inputs; empty where it may, or is not known."""
        known = self._action(agent, action)
        if known is None:
            return []
        return list(input_problems(agent, action, inputs, known.inputs or {}))

    def _known(self) -> str:
        return ", ".join(sorted(self._agents)) or "none; is a worker running?"

    def _read(self, record: Any) -> None:
        try:
            # What stood there before is as old as it says; what comes now is new, by any clock.
            at = record.timestamp / 1000 if self._reader.trouble else None
            self.apply(record.key, record.value, at)
        except UnreadableRecordError as error:
            _log.error(
                "an agent's registration cannot be read", offset=record.offset, why=str(error)
            )


def _actions(record: AgentRecord) -> dict[str, KnownAction] | None:
    """What is known of the agent's actions; None where it does not say them."""
    descriptor = msgspec.json.decode(record.descriptor)
    try:
        return known_actions(descriptor["actions"])
    except (AttributeError, KeyError, TypeError):
        return None

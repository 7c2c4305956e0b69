"""The topics that tasks travel on: made by a worker that needs one, or sees an agent registered.

Rules:
- A worker in another language registers its agent and waits for the topic; it need not know how
  many partitions that has.
- A registration whose topic cannot be made harms nobody else: it is logged, and tried again when it
  is made again, or when a task for the agent is sent.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import structlog

from agents.action import NAME
from infra.topic_admin import ensure_topics
from streams import codec, topics
from streams.compacted_reader import CompactedReader
from streams.errors import OperatorError, UnreadableRecordError
from streams.ids import WORKER_KEYS

_log = structlog.get_logger(__name__)


class TaskTopics:
    """Makes sure that an agent's task topic exists, once for each agent."""

    def __init__(self, bootstrap: str, partitions: int, replication: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._replication = replication
        self._known: set[str] = set()

    async def prepare(self, *agents: str) -> None:
        """Create what is missing. Raises `OperatorError`."""
        missing: Sequence[str] = [agent for agent in agents if agent not in self._known]
        if missing:
            await ensure_topics(
                self._bootstrap,
                [topics.tasks_topic(agent) for agent in missing],
                partitions=self._partitions,
                replication=self._replication,
            )
            self._known.update(missing)


class RegisteredAgents:
    """Has the task topic of each agent that is registered made; an async context manager."""

    def __init__(self, bootstrap: str, task_topics: TaskTopics) -> None:
        self._task_topics = task_topics
        self._reader = CompactedReader(bootstrap, topics.AGENTS, self._read)
        self._new: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.__aexit__(*error)

    async def failure(self) -> None:
        """Wait until reading ends, and raise by what."""
        await self._reader.failure()

    async def run(self) -> None:
        """Make the topics, until cancelled."""
        while True:
            agent = await self._new.get()
            try:
                await self._task_topics.prepare(agent)
            except OperatorError as error:
                _log.error("the task topic of an agent is missing", agent=agent, why=str(error))

    def _read(self, record: Any) -> None:
        if record.value is None or (record.key or b"").startswith(WORKER_KEYS.encode()):
            return
        try:
            name = codec.agents.decode(record.value).name
        except UnreadableRecordError as error:
            _log.warning("a registration cannot be read", offset=record.offset, why=str(error))
            return
        if NAME.fullmatch(name):
            self._new.put_nowait(name)
        else:
            _log.warning("a registered agent has no usable name", agent=name)

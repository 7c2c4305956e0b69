"""The workflows and agents topics into the store: what each record says, as rows that replace.

These topics are small and compacted. They are read whole at every start, and written again: a row's
key and precedence come from the log, so the same records make the same tables, however often. What
cannot be read becomes a dead letter, that of the budgets and of the orders to agents too, which
have no table.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from sinks.decision_record import COUNT_LIMIT, TIME_LIMIT
from sinks.recording import DeadLetterBox, LogRecord
from sinks.store import Store
from streams import codec, topics
from streams.catalog import Definition
from streams.compacted_reader import CompactedReader
from streams.errors import OperatorError, UnreadableRecordError
from streams.ids import WORKER_KEYS

_log = structlog.get_logger(__name__)
_unreadable = Counter(
    "commandcenter_catalog_unreadable_total", "Records that make no row, by topic.", ["topic"]
)

_PRECEDENCE: Final = 2**63
_RETRY_S: Final = 2.0
_AT_ONCE: Final = 500

_WORKFLOWS: Final = (
    *("project", "name", "kind", "version", "at", "digest", "definition"),
    *("offset", "precedence"),
)
_AGENTS: Final = (
    *("name", "version", "worker", "registered_at", "descriptor"),
    *("offset", "removed"),
)

Row = tuple[Any, ...]
Poison = tuple[LogRecord, Exception]


def workflow_row(offset: int, value: bytes | None) -> Row | None:
    """The row of a record of the workflows topic; None where there is none to make.

    Raises:
        UnreadableRecordError: It is not one, or has numbers that the store cannot keep.
    """
    if value is None:
        return None
    record = codec.catalog.decode(value)
    _within(record.version, COUNT_LIMIT, "version")
    key = (record.project, record.name)
    precedence = _PRECEDENCE - offset
    if isinstance(record, Definition):
        _within(record.published_at, TIME_LIMIT, "publishedAt")
        definition = bytes(record.definition).decode()
        said = (record.version, record.published_at, record.digest, definition)
        return (*key, "definition", *said, offset, precedence)
    _within(record.retired_at, TIME_LIMIT, "retiredAt")
    return (*key, "retirement", record.version, record.retired_at, "", "", offset, precedence)


def agent_row(offset: int, key: bytes | None, value: bytes | None) -> Row | None:
    """The row of a record of the agents topic; None for a worker's sign of life.

    Raises:
        UnreadableRecordError: It is not one, or has numbers that the store cannot keep.
    """
    name = (key or b"").decode(errors="replace")
    if name.startswith(WORKER_KEYS):
        return None
    if value is None:
        return (name, "", "", 0, "", offset, 1)
    record = codec.agents.decode(value)
    _within(record.registered_at, TIME_LIMIT, "registeredAt")
    descriptor = bytes(record.descriptor).decode()
    said = (record.name, record.version, record.worker, record.registered_at, descriptor)
    return (*said, offset, 0)


def budget_row(value: bytes | None) -> None:
    """No row: budgets have no table.

    Raises:
        UnreadableRecordError: It is no budget.
    """
    if value is not None:
        codec.budgets.decode(value)


def order_row(value: bytes | None) -> None:
    """No row: orders to end tasks have no table.

    Raises:
        UnreadableRecordError: It is no order.
    """
    codec.cancellations.decode(value)


def _within(number: int, limit: int, name: str) -> None:
    if not 0 <= number < limit:
        raise UnreadableRecordError(f"{name} is {number}, out of range")


class CatalogRecording:
    """Keeps the tables of workflows and agents current; an async context manager.

    A store or Kafka that is away is tried again until it is there.

    Args:
        bootstrap: Kafka, `host:port[,host:port]`.
        store: With the schema applied.
        dead_letter: Keeps a record that cannot be read; None: it is told in the log alone.
    """

    def __init__(
        self, bootstrap: str, store: Store, dead_letter: DeadLetterBox | None = None
    ) -> None:
        self._store = store
        self._dead_letter = dead_letter
        self._poison: list[Poison] = []
        self._waiting: dict[str, list[Row]] = {"workflows_log": [], "agents_log": []}
        self._changed = asyncio.Event()
        self._written = asyncio.Condition()
        self._writing = 0
        self._readers = (
            CompactedReader(bootstrap, topics.WORKFLOWS, self._workflow),
            CompactedReader(bootstrap, topics.AGENTS, self._agent),
            CompactedReader(bootstrap, topics.BUDGETS, self._budget),
            CompactedReader(bootstrap, topics.CONTROL, self._order),
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for reader in self._readers:
            await reader.__aenter__()
        self._task = asyncio.create_task(self._write(), name="record workflows and agents")
        return self

    async def __aexit__(self, *error: object) -> None:
        for reader in self._readers:
            await reader.__aexit__(*error)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def caught_up(self) -> None:
        """Wait until all that is on the topics now is in the store, or a dead letter."""
        for reader in self._readers:
            await reader.caught_up()
        async with self._written:
            await self._written.wait_for(
                lambda: not (self._writing or self._poison or any(self._waiting.values()))
            )

    def _workflow(self, record: Any) -> None:
        self._take("workflows_log", record, lambda: workflow_row(record.offset, record.value))

    def _agent(self, record: Any) -> None:
        self._take("agents_log", record, lambda: agent_row(record.offset, record.key, record.value))

    def _budget(self, record: Any) -> None:
        self._take("", record, lambda: budget_row(record.value))

    def _order(self, record: Any) -> None:
        self._take("", record, lambda: order_row(record.value))

    def _take(self, table: str, record: Any, make: Callable[[], Row | None]) -> None:
        try:
            row = make()
        except (UnreadableRecordError, UnicodeDecodeError) as error:
            _unreadable.labels(record.topic).inc()
            _log.warning("a record makes no row", topic=record.topic, why=str(error))
            if self._dead_letter is not None:
                self._poison.append((record, error))
                self._changed.set()
            return
        if row is not None:
            self._waiting[table].append(row)
            self._changed.set()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for table, names in (("workflows_log", _WORKFLOWS), ("agents_log", _AGENTS)):
                while rows := self._waiting[table][:_AT_ONCE]:
                    del self._waiting[table][:_AT_ONCE]
                    self._writing += 1
                    await self._insert(table, names, rows)
                    self._writing -= 1
            await self._bury()
            async with self._written:
                self._written.notify_all()

    async def _bury(self) -> None:
        while self._poison and self._dead_letter is not None:
            try:
                await self._dead_letter(*self._poison[0])
            except (OperatorError, KafkaError) as error:
                _log.warning("a dead letter is written later", error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                del self._poison[0]

    async def _insert(self, table: str, names: Sequence[str], rows: list[Row]) -> None:
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        while True:
            try:
                await self._store.insert(table, columns)
            except OperatorError as error:
                _log.warning("workflows and agents are recorded later", error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

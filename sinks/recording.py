"""Records of the events topic into the store, exactly once, whatever fails in between.

The order of a batch is what makes it so: the parts of runs and attempts and the costs first (they
may come twice), then the events in one atomic insert, which also holds the position. After a crash
anywhere in between, the batch is read again and changes nothing that is there.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from sinks import decision_record
from sinks.decision_record import DecisionRecord
from sinks.history import History
from sinks.known_runs import CAPACITY, KnownRuns
from sinks.projection import (
    AGENT_RUN_COLUMNS,
    COST_COLUMNS,
    EVENT_COLUMNS,
    PLACE_COLUMNS,
    RUN_COLUMNS,
    Table,
    project,
)
from sinks.store import Store
from streams.errors import OperatorError, UnreadableRecordError

_log = structlog.get_logger(__name__)
_records = Counter("commandcenter_recorder_records_total", "Records read, by fate.", ["fate"])
_gaps = Counter("commandcenter_recorder_gaps_total", "Places where history misses something.")
_retries = Counter("commandcenter_recorder_retries_total", "Attempts that failed: store away.")
_stuck = Gauge("commandcenter_recorder_stuck", "1 while the store takes nothing.")
T = TypeVar("T")

RETRY_FIRST_S: Final = 0.2
RETRY_LONGEST_S: Final = 10.0


class LogRecord(Protocol):
    """A record as aiokafka gives it (`ConsumerRecord`)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


DeadLetterBox = Callable[[LogRecord, Exception], Awaitable[None]]
"""Keeps a record that cannot be read, and why; returns when it is kept. May raise OperatorError."""


@dataclass(slots=True)
class Counts:
    """What happened since the start."""

    decisions: int = 0
    events: int = 0
    batches: int = 0
    duplicates: int = 0
    conflicts: int = 0
    gaps: int = 0
    dead_letters: int = 0
    retries: int = 0


class _Read(NamedTuple):
    """A batch, read: by partition, and what could not be read."""

    by_partition: dict[int, list[DecisionRecord]]
    unreadable: list[tuple[LogRecord, UnreadableRecordError]]


@dataclass(slots=True)
class _Made:
    """What a batch makes: its rows by table, in the order in which they are inserted."""

    tables: dict[str, Table]
    duplicates: list[DecisionRecord] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


_TABLES: Final = {
    "runs_log": RUN_COLUMNS,
    "agent_runs_log": AGENT_RUN_COLUMNS,
    "costs_log": COST_COLUMNS,
    "run_places": PLACE_COLUMNS,
    "events": EVENT_COLUMNS,
}

_AT_ONCE: Final = 128
"""Decisions that are projected at once: their rows stay in the processor's cache. All of a batch at
once takes ten times as long to be turned into columns."""


class Recording:
    """The recorded state of some partitions, and how it goes on.

    Args:
        store: With the schema applied.
        topic: The events topic.
        dead_letter: Where a record goes that cannot be read.
        capacity: Runs remembered of each partition.
    """

    def __init__(
        self, store: Store, topic: str, dead_letter: DeadLetterBox, *, capacity: int = CAPACITY
    ) -> None:
        self._store = store
        self._history = History(store, topic)
        self._topic = topic
        self._dead_letter = dead_letter
        self._capacity = capacity
        self._known: dict[int, KnownRuns] = {}
        self.watermark: dict[int, int] = {}
        self.counts = Counts()
        self.last_error: str | None = None
        self._giving_up = asyncio.Event()

    def give_up(self) -> None:
        """From now on a fault ends `record` instead of being tried again."""
        self._giving_up.set()

    async def resume(self, partitions: Iterable[int]) -> None:
        """Take over partitions: afterwards `watermark` has their last recorded offset, or -1."""
        positions = await self._insist(self._history.positions)
        for partition in partitions:
            last = positions.get(partition, -1)
            known = KnownRuns(capacity=self._capacity)
            if last >= 0:
                start = max(0, last + 1 - self._capacity)
                recent, since = await self._insist(
                    partial(self._history.recent_runs, partition, start)
                )
                # Nothing is left out when the window reaches back to the beginning.
                known = KnownRuns(recent, since if start else None, self._capacity)
            self._known[partition] = known
            self.watermark[partition] = last

    def release(self) -> None:
        """Give up every partition."""
        self._known.clear()
        self.watermark.clear()

    def skipped(self, partition: int, first: int) -> None:
        """The log begins only at `first`: what came before is gone without being recorded."""
        self.gap(
            f"{self._topic}-{partition}: offsets {self.watermark[partition] + 1} to {first - 1} "
            "were removed from the log before they were recorded"
        )
        self.watermark[partition] = first - 1

    async def record(self, records: Sequence[LogRecord]) -> None:
        """Record a batch: any partitions, each in order. Returns when all of it is in the store.

        While the store is away it is tried again and again; `last_error` says so.
        """
        fresh = [record for record in records if record.offset > self.watermark[record.partition]]
        if not fresh:
            return
        read = await asyncio.to_thread(_read, fresh)
        for record, error in read.unreadable:
            await self._insist(partial(self._dead_letter, record, error))
            self.counts.dead_letters += 1
            _records.labels("dead_letter").inc()
        await self._look_up(read.by_partition)
        made = await asyncio.to_thread(self._project, read.by_partition)
        await self._insert(made, _block_name(fresh))
        await self._compare(made.duplicates)
        for gap in made.gaps:
            self.gap(gap)
        for known in self._known.values():
            known.forget_oldest()
        for record in fresh:
            self.watermark[record.partition] = record.offset
        self.counts.batches += 1
        recorded = len(fresh) - len(read.unreadable) - len(made.duplicates)
        self.counts.decisions += recorded
        _records.labels("recorded").inc(recorded)

    async def _look_up(self, by_partition: dict[int, list[DecisionRecord]]) -> None:
        for partition, records in by_partition.items():
            known = self._known[partition]
            unknown = known.unknown(records)
            if unknown:
                found = await self._insist(partial(self._history.recorded_runs, sorted(unknown)))
                for run, recorded in found.items():
                    known.learn(run, recorded)

    def _project(self, by_partition: dict[int, list[DecisionRecord]]) -> _Made:
        made = _Made({table: Table(names) for table, names in _TABLES.items()})
        for partition, records in by_partition.items():
            known = self._known[partition]
            for start in range(0, len(records), _AT_ONCE):
                rows = project(records[start : start + _AT_ONCE], known, self._topic)
                made.tables["runs_log"].add(rows.runs)
                made.tables["agent_runs_log"].add(rows.agent_runs)
                made.tables["costs_log"].add(rows.costs)
                made.tables["run_places"].add(rows.places)
                made.tables["events"].add(rows.events)
                made.duplicates += rows.duplicates
                made.gaps += rows.gaps
        return made

    async def _insert(self, made: _Made, block: str) -> None:
        parts = [
            self._insist(partial(self._store.insert, table, rows.columns))
            for table, rows in made.tables.items()
            if rows.length and table != "events"
        ]
        # Which of these comes first does not matter. All have ended before one's fault is told.
        for fault in await asyncio.gather(*parts, return_exceptions=True):
            if fault is not None:
                raise fault
        if (events := made.tables["events"]).length:
            await self._insist(partial(self._insert_events, events, block))
            self.counts.events += events.length

    async def _insert_events(self, rows: Table, block: str) -> None:
        """One insert. One that failed may have succeeded nevertheless: the store knows."""
        try:
            await self._store.insert("events", rows.columns, token=block)
        except OperatorError:
            partition, last = rows.columns["partition"][-1], rows.columns["offset"][-1]
            positions = await self._insist(self._history.positions)
            if positions.get(partition, -1) < last:
                raise

    async def _compare(self, duplicates: list[DecisionRecord]) -> None:
        """Two owners of a partition may make the same decision: then it has the same bytes."""
        if not duplicates:
            return
        runs = sorted({duplicate.head.run for duplicate in duplicates})
        recorded = await self._insist(partial(self._history.decisions_of, runs))
        conflicts = [
            duplicate
            for duplicate in duplicates
            if recorded.get((duplicate.head.run, duplicate.head.seq)) != duplicate.value
        ]
        self.counts.duplicates += len(duplicates)
        self.counts.conflicts += len(conflicts)
        _records.labels("duplicate").inc(len(duplicates))
        if conflicts:
            _records.labels("conflict").inc(len(conflicts))
            first = conflicts[0]
            _log.error(
                "decisions differ from those recorded with their sequence numbers",
                conflicts=len(conflicts),
                first_run=first.head.run,
                first_seq=first.head.seq,
                first_source=f"{self._topic}/{first.partition}/{first.offset}",
            )

    def gap(self, text: str) -> None:
        """Count and log that something is missing."""
        self.counts.gaps += 1
        _gaps.inc()
        _log.error("history has a gap", gap=text)

    async def _insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works; ever more rarely."""
        pause = RETRY_FIRST_S
        while True:
            try:
                result = await attempt()
            except OperatorError as error:
                self._trouble(error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._giving_up.wait(), pause)
                    raise
                pause = min(2 * pause, RETRY_LONGEST_S)
            else:
                self.last_error = None
                _stuck.set(0)
                return result

    def _trouble(self, error: OperatorError) -> None:
        self.counts.retries += 1
        _retries.inc()
        self.last_error = str(error)
        _stuck.set(1)
        _log.warning("the recorder tries again", error=str(error))


def _read(records: Sequence[LogRecord]) -> _Read:
    read = _Read({}, [])
    for record in records:
        try:
            decision = decision_record.read(record.partition, record.offset, record.value)
        except UnreadableRecordError as error:
            read.unreadable.append((record, error))
        else:
            read.by_partition.setdefault(record.partition, []).append(decision)
    return read


def _block_name(records: Sequence[LogRecord]) -> str:
    """The same batch tried again has the same name; no other batch has it."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for record in records:
        first.setdefault(record.partition, record.offset)
        last[record.partition] = record.offset
    return ",".join(f"{p}:{first[p]}-{last[p]}" for p in sorted(first))

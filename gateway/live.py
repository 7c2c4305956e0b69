"""The live tail: the newest decisions of the log, kept in memory for whoever watches.

Rules:
- Records are kept as the bytes they are, in a ring bounded by bytes over all partitions. Of each
  only the heading is decoded: enough to filter by and to recognise a duplicate.
- For each partition the ring holds all from `first` up to `end`, without a hole. What is older is
  in the store.
- A decision that was published twice (same run and sequence number, law 4) is kept once.
- Everything happens on the event loop: `on_records` is called by whoever reads the log there.
"""

import asyncio
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog
from prometheus_client import Counter, Gauge

_log = structlog.get_logger(__name__)
_bytes = Gauge("commandcenter_live_bytes", "Bytes of decisions held for live readers.")
_dropped = Counter(
    "commandcenter_live_dropped_total", "Decisions not shown live, by reason.", ["reason"]
)

RING_BYTES: Final = 64 * 1024 * 1024
RUNS_REMEMBERED: Final = 50_000
_OVERHEAD: Final = 400  # of one record in memory, besides its bytes
_offset = attrgetter("offset")


class Heading(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The part of a decision that says what it is about (see `streams.events.Decision`)."""

    run: str
    project: str
    workflow: str
    seq: int
    at: int
    status: str
    previous: str


class LiveDecision(NamedTuple):
    """A decision where it stands on the log; `raw` is the record's JSON."""

    partition: int
    offset: int
    heading: Heading
    raw: bytes


class LogRecord(Protocol):
    """A record of the log as any consumer gives it."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def value(self) -> bytes | None:
        """Its bytes."""


_heading: Final = msgspec.json.Decoder(Heading)


def read_decision(partition: int, offset: int, value: bytes | None) -> LiveDecision | None:
    """The decision of a record, or None where the record is not readable as one."""
    if value is None:
        return None
    try:
        return LiveDecision(partition, offset, _heading.decode(value), value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Seen:
    """The last sequence number of each run, for the runs heard of last."""

    __slots__ = ("_last", "_limit")

    def __init__(self, limit: int) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()
        self._limit = limit

    def __contains__(self, run: str) -> bool:
        return run in self._last

    def is_new(self, run: str, seq: int) -> bool:
        """Whether the run's decision is its newest so far; from then on it is not new any more."""
        last = self._last.get(run, -1)
        if seq <= last:
            return False
        self._last[run] = seq
        self._last.move_to_end(run)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        return True


class _Partition:
    """What the ring holds of one partition."""

    __slots__ = ("end", "entries", "first")

    def __init__(self, first: int) -> None:
        self.entries: deque[LiveDecision] = deque()
        self.first = first
        self.end = first


class LiveTail:
    """The ring, and those who wait for it to grow."""

    def __init__(self, limit: int = RING_BYTES, runs: int = RUNS_REMEMBERED) -> None:
        """Keep at most `limit` bytes, and know duplicates among the last `runs` runs."""
        self._limit = limit
        self._partitions: dict[int, _Partition] = {}
        self._order: deque[int] = deque()
        self._size = 0
        self._seen = Seen(runs)
        self._watchers: set[asyncio.Event] = set()

    def on_records(self, partition: int, records: Iterable[LogRecord]) -> None:
        """Take in records of a partition, in order, as they are read from the log.

        Records that were taken in before are ignored; if some are left out, what was held of the
        partition is given up, since the ring has no holes.
        """
        part = self._partitions.get(partition)
        for record in records:
            offset = record.offset
            if part is None:
                part = self._partitions[partition] = _Partition(offset)
            elif offset < part.end:
                continue
            elif offset > part.end:
                part = self._restart(partition, offset)
            part.end = offset + 1
            self._keep(partition, part, offset, record.value)
        _bytes.set(self._size)
        for event in self._watchers:
            event.set()

    def start_at(self, partition: int, offset: int) -> None:
        """Say that the partition will be taken in from this offset on."""
        if partition not in self._partitions:
            self._partitions[partition] = _Partition(offset)

    def ends(self) -> dict[int, int]:
        """Partition → the next offset to come, for the partitions heard of."""
        return {number: part.end for number, part in self._partitions.items()}

    def first(self, partition: int) -> int | None:
        """The offset from which on all is held; None for a partition not heard of."""
        part = self._partitions.get(partition)
        return None if part is None else part.first

    def read(self, partition: int, start: int, limit: int) -> tuple[list[LiveDecision], int]:
        """The first `limit` decisions from `start` on, and the offset to go on from.

        `start` must not be before `first(partition)`.
        """
        part = self._partitions[partition]
        entries = part.entries
        if start >= part.end:
            return [], start
        index = bisect_left(entries, start, key=_offset)
        upto = min(index + limit, len(entries))
        # One by one: near its end, where readers are, a deque is quick to index, slow to slice.
        found = [entries[i] for i in range(index, upto)]
        return found, part.end if upto == len(entries) else found[-1].offset + 1

    def saw(self, run: str) -> bool:
        """Whether a decision of the run came by, not too long ago."""
        return run in self._seen

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set when records come in; whoever waits clears it."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    def _keep(self, partition: int, part: _Partition, offset: int, value: bytes | None) -> None:
        decision = read_decision(partition, offset, value)
        if decision is None:
            _dropped.labels("unreadable").inc()
            return
        if not self._seen.is_new(decision.heading.run, decision.heading.seq):
            _dropped.labels("duplicate").inc()
            return
        part.entries.append(decision)
        self._order.append(partition)
        self._size += len(decision.raw) + _OVERHEAD
        while self._size > self._limit:
            self._evict()

    def _evict(self) -> None:
        """Forget the decision that came first."""
        part = self._partitions[self._order.popleft()]
        oldest = part.entries.popleft()
        part.first = oldest.offset + 1
        self._size -= len(oldest.raw) + _OVERHEAD

    def _restart(self, partition: int, offset: int) -> _Partition:
        _log.warning("the live tail skipped records; they come from the store", partition=partition)
        part = self._partitions[partition]
        for entry in part.entries:
            self._size -= len(entry.raw) + _OVERHEAD
        self._order = deque(number for number in self._order if number != partition)
        fresh = self._partitions[partition] = _Partition(offset)
        return fresh

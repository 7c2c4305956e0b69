"""One reader of the stream: all decisions that its filter wants, from a position on, each once.

Rules:
- A partition is read from the ring where that covers the position, else from the store, which has
  all that the ring gave up (and is waited for where it has not recorded it yet).
- The position only moves over what was read. It is the cursor: whoever comes back with it goes on
  at the very next decision.
- A decision of which a copy was delivered, or which the snapshot shows already, is left out.
"""

from collections.abc import Mapping
from heapq import merge
from typing import Any, Final, NamedTuple

import msgspec

from gateway.live import Heading, LiveDecision, LiveTail, Seen, read_decision
from gateway.recorded_log import RecordedLog
from streams.errors import CallerError
from streams.records import RunStatus

MAX_DECISIONS: Final = 300
MAX_BYTES: Final = 1024 * 1024
_RUNS_REMEMBERED: Final = 10_000
_QUIET: Final = 5_000
"""Records read without one that is wanted, after which the reader gets a fresh cursor anyway."""


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs are wanted; a field that is None wants all."""

    workflow: str | None = None
    run: str | None = None
    status: RunStatus | None = None
    project: str | None = None

    def wants(self, heading: Heading) -> bool:
        """Whether a decision is wanted: of a run that has the status now, or had it before."""
        return (
            (self.run is None or self.run == heading.run)
            and (self.workflow is None or self.workflow == heading.workflow)
            and (self.project is None or self.project == heading.project)
            and (self.status is None or self.status in (heading.status, heading.previous))
        )


def parse_filter(value: Any) -> Filter:
    """The filter of a subscribe frame; `CallerError` says what is wrong with it."""
    try:
        return msgspec.convert({} if value is None else value, Filter)
    except msgspec.ValidationError as error:
        raise CallerError(f"filter: {error}") from error


class Batch(NamedTuple):
    """What is next for a reader.

    `due` says that the reader should hear of it (and of its new cursor), `moved` that there may be
    more right away, `waiting` that more is there but not recorded yet.
    """

    decisions: list[LiveDecision]
    due: bool
    moved: bool
    waiting: bool


class Subscription:
    """Reads on from a position (which it takes over) in the ring and the store."""

    def __init__(
        self,
        tail: LiveTail,
        log: RecordedLog,
        wanted: Filter,
        position: dict[int, int],
        shown: Mapping[str, int] | None = None,
    ) -> None:
        """`shown` are the runs that the reader knows already: run → next sequence number."""
        self.position = position
        self._tail = tail
        self._log = log
        self._wanted = wanted
        self._recorded: Mapping[int, int] | None = None
        self._seen = Seen(_RUNS_REMEMBERED)
        self._silent = 0
        for run, seq in (shown or {}).items():
            self._seen.is_new(run, seq - 1)

    async def next(self) -> Batch:
        """What is there now; empty where nothing is. Decisions of a run keep their order."""
        recorded = await self._refreshed()
        partitions = sorted({*self.position, *self._tail.ends(), *recorded})
        limit = max(1, MAX_DECISIONS // max(1, len(partitions)))
        room = MAX_BYTES
        lists: list[list[LiveDecision]] = []
        moved = waiting = False
        for partition in partitions:
            start = self.position.get(partition, 0)
            found, end = await self._read(partition, start, limit, recorded.get(partition, 0))
            wanted, end, room = self._choose(found, end, room)
            lists.append(wanted)
            self.position[partition] = end
            self._silent += end - start
            moved |= end > start
            first = self._tail.first(partition)
            waiting |= first is not None and end < first
        decisions = list(merge(*lists, key=lambda decision: decision.heading.at))
        due = bool(decisions) or self._silent >= _QUIET
        if due:
            self._silent = 0
        return Batch(decisions, due, moved, waiting)

    async def _refreshed(self) -> Mapping[int, int]:
        """How far the store is; asked anew where what is needed next may have been recorded."""
        recorded = self._recorded
        if recorded is None or any(
            recorded.get(partition, 0) <= self.position.get(partition, 0) < (first or 0)
            for partition in self._tail.ends()
            if (first := self._tail.first(partition)) is not None
        ):
            recorded = self._recorded = await self._log.watermark()
        return recorded

    async def _read(
        self, partition: int, start: int, limit: int, recorded: int
    ) -> tuple[list[LiveDecision], int]:
        """Decisions from `start` on, and the offset up to which these are all."""
        first = self._tail.first(partition)
        if first is not None and start >= first:
            return self._tail.read(partition, start, limit)
        end = recorded if first is None else min(recorded, first)
        if start >= end:
            return [], start
        rows = await self._log.decisions(partition, start, end, limit)
        found = [
            decision
            for offset, value in rows
            if (decision := read_decision(partition, offset, value)) is not None
        ]
        return found, rows[-1][0] + 1 if len(rows) >= limit else end

    def _choose(
        self, found: list[LiveDecision], end: int, room: int
    ) -> tuple[list[LiveDecision], int, int]:
        """The wanted ones that fit, the offset behind them, and the room that is left."""
        wanted: list[LiveDecision] = []
        for decision in found:
            if room <= 0:
                return wanted, decision.offset, room
            heading = decision.heading
            if self._wanted.wants(heading) and self._seen.is_new(heading.run, heading.seq):
                wanted.append(decision)
                room -= len(decision.raw)
        return wanted, end, room

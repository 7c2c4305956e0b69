"""How far each run of a partition is recorded: what tells a new decision from a duplicate.

The store knows every run, this memory the most recent ones. It is asked in the place of the store,
and says when the store has to be asked: never for a run that began after `horizon`, since whatever
was forgotten began before.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from sinks.decision_record import DecisionRecord

CAPACITY: Final = 20_000
"""Runs remembered of each partition; some 250 bytes each."""

_CLOCK_SKEW_MS: Final = 5_000
"""By how much the times of one partition may be out of order."""


class Recorded(Struct, frozen=True, gc=False):
    """What is recorded of a run: the sequence number to come, and when it started."""

    next_seq: int
    started_at: int


class KnownRuns:
    """The recorded runs of one partition.

    Args:
        recent: Of the runs of the last decisions in the store, those recorded from their start.
        since: Time of the oldest of these decisions: every other run began before; None when the
            store has none.
    """

    def __init__(
        self,
        recent: Iterable[tuple[str, Recorded]] = (),
        since: int | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._runs = OrderedDict(recent)
        self._horizon = -1 if since is None else since + _CLOCK_SKEW_MS
        self._capacity = capacity

    def unknown(self, records: Iterable[DecisionRecord]) -> set[str]:
        """The runs that the store has to be asked about before these records are projected."""
        runs, horizon = self._runs, self._horizon
        begun: set[str] = set()
        unknown: set[str] = set()
        for record in records:
            head = record.head
            if head.run in runs or head.run in begun:
                continue
            if head.seq == 0 and head.at > horizon:
                begun.add(head.run)
            else:
                unknown.add(head.run)
        return unknown

    def learn(self, run: str, recorded: Recorded) -> None:
        """Take over what the store, or the recorder's own batch, has of a run."""
        self._runs[run] = recorded
        self._runs.move_to_end(run)

    def get(self, run: str) -> Recorded | None:
        """What is recorded of the run; None: nothing."""
        return self._runs.get(run)

    def forget_oldest(self) -> None:
        """Keep to the capacity. Not during a batch: what was asked for it must stay."""
        while len(self._runs) > self._capacity:
            _, oldest = self._runs.popitem(last=False)
            self._horizon = max(self._horizon, oldest.started_at + _CLOCK_SKEW_MS)

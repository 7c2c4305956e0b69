"""The runs that this gateway accepted lately: known before the log has decided anything of them."""

from collections import OrderedDict
from typing import Final, NamedTuple

from streams.messages import Start

_KEPT: Final = 10_000


class AcceptedStart(NamedTuple):
    """A start that the broker has acknowledged, and when (ms since the epoch)."""

    start: Start
    at: int


class RecentStarts:
    """The last starts, by run id."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._starts: OrderedDict[str, AcceptedStart] = OrderedDict()
        self._kept = kept

    def add(self, start: Start, at: int) -> None:
        """Remember a start; the oldest is forgotten where there are too many."""
        self._starts.setdefault(start.run, AcceptedStart(start, at))
        if len(self._starts) > self._kept:
            self._starts.popitem(last=False)

    def get(self, run: str) -> AcceptedStart | None:
        """The start of this run, if it was accepted here lately."""
        return self._starts.get(run)

    def repetitions(self, run: str) -> list[str]:
        """The runs that repeat this one, of those that were accepted here lately."""
        starts = (accepted.start for accepted in self._starts.values())
        return [s.run for s in starts if s.origin is not None and s.origin.run == run]

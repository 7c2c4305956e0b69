"""How far a partition is done: the first offset that is not, and what is done beyond it.

The first goes to the group as the committed offset; the second with it, as the commit's metadata,
so that one long task is no reason to do again what finished behind it. Metadata is bounded: what
does not fit is done again.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

NOTE_BYTES: Final = 4_000
"""Brokers take 4,096 bytes of metadata by default."""

_FORM: Final = "done:"

Intervals = tuple[tuple[int, int], ...]
"""Ranges of offsets in order, each from its first to before its last."""


class Watermark:
    """Contiguous finished work of one partition.

    `begin` and `done` take offsets; `next_offset` is what may be committed: everything below it is
    done. None until something is.
    """

    __slots__ = ("_finished", "_last", "_open", "next_offset")

    def __init__(self, finished: Intervals = ()) -> None:
        """`finished` is what an owner before has done already: it does not begin again."""
        self._open: dict[int, None] = {}  # in order of beginning, which is the order of offsets
        self._last = -1
        self._finished = finished
        self.next_offset: int | None = None

    def begin(self, offset: int) -> bool:
        """Work on this offset begins; False if it has begun or is done (offsets ascend)."""
        if offset <= self._last:
            return False
        self._last = offset
        if self._is_finished(offset):
            self._move()
            return False
        self._open[offset] = None
        return True

    def done(self, offset: int) -> None:
        """Work on this offset is finished."""
        del self._open[offset]
        self._move()

    def _move(self) -> None:
        self.next_offset = next(iter(self._open), self._last + 1)

    def _is_finished(self, offset: int) -> bool:
        while self._finished and self._finished[0][1] <= offset:
            self._finished = self._finished[1:]
        return bool(self._finished) and self._finished[0][0] <= offset

    @property
    def in_progress(self) -> int:
        """How many offsets have begun and are not done."""
        return len(self._open)

    def note(self) -> str:
        """What is done beyond `next_offset`, for the commit's metadata."""
        if not self._open:
            return ""
        return encode(next(iter(self._open)), self._beyond())

    def _beyond(self) -> Iterator[tuple[int, int]]:
        for before, after in pairwise([*self._open, self._last + 1]):
            if before + 1 < after:
                yield before + 1, after
        # Not reached yet by this owner, but done by the one before.
        yield from ((max(a, self._last + 1), b) for a, b in self._finished if b > self._last + 1)


def encode(committed: int, finished: Iterable[tuple[int, int]]) -> str:
    """Write down ranges beyond the committed offset, as many as `NOTE_BYTES` hold."""
    steps: list[str] = []
    size, at = len(_FORM), committed
    for start, stop in finished:
        step = f"{start - at:x}+{stop - start:x}"
        size += len(step) + 1
        if size > NOTE_BYTES:
            break
        steps.append(step)
        at = stop
    return _FORM + ",".join(steps) if steps else ""


def decode(committed: int, note: str) -> Intervals:
    """Read what `encode` wrote; nothing of what somebody else did."""
    if not note.startswith(_FORM):
        return ()
    intervals = []
    at = committed
    try:
        for step in note.removeprefix(_FORM).split(","):
            gap, length = (int(number, 16) for number in step.split("+"))
            if gap < 0 or length <= 0:
                return ()
            intervals.append((at + gap, at + gap + length))
            at += gap + length
    except ValueError:
        return ()
    return tuple(intervals)

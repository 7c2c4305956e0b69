"""How far a partition is done: the first offset that is not, whatever the order of finishing."""


class Watermark:
    """Contiguous finished work of one partition.

    `begin` and `done` take offsets; `next_offset` is what may be committed: everything below it is
    done. None until something is.
    """

    __slots__ = ("_last", "_open", "next_offset")

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # in order of beginning, which is the order of offsets
        self._last = -1
        self.next_offset: int | None = None

    def begin(self, offset: int) -> bool:
        """Work on this offset begins; False if it has begun before (offsets ascend)."""
        if offset <= self._last:
            return False
        self._open[offset] = None
        self._last = offset
        return True

    def done(self, offset: int) -> None:
        """Work on this offset is finished."""
        del self._open[offset]
        self.next_offset = next(iter(self._open), self._last + 1)

    @property
    def in_progress(self) -> int:
        """How many offsets have begun and are not done."""
        return len(self._open)

"""What a live stream needs of the store: the log of decisions as far as it is recorded."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class RecordedLog(Protocol):
    """The recorded part of the log of decisions."""

    async def watermark(self) -> Mapping[int, int]:
        """Partition → the next offset that is not recorded yet; all before it is."""
        ...

    async def decisions(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        """The first `limit` recorded decisions with start ≤ offset < end: (offset, its JSON)."""
        ...

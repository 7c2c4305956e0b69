"""Which keys are to be woken when: a wheel of small time slots, so that cancelling costs nothing.

Most timers never fire (a time-out is set for every attempt and cancelled by its result), so
setting and cancelling are one set operation each. Keys fire up to one slot late, never early.
"""

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

SLOT_MS: Final = 20

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """Keys with the time, in milliseconds, at which each is due. A key may be set at many times."""

    def __init__(self) -> None:
        self._slots: dict[int, set[K]] = {}
        self._order: list[int] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def set(self, key: K, due: int) -> None:
        """Wake `key` at `due`."""
        slot = -(-due // SLOT_MS)
        keys = self._slots.get(slot)
        if keys is None:
            keys = self._slots[slot] = set()
            heappush(self._order, slot)
        if key not in keys:
            keys.add(key)
            self._length += 1

    def cancel(self, key: K, due: int) -> None:
        """Take back what `set` was told; unknown is no error."""
        keys = self._slots.get(-(-due // SLOT_MS))
        if keys is not None and key in keys:
            keys.discard(key)
            self._length -= 1

    @property
    def next_due(self) -> int | None:
        """When the first slot with a key is due, in milliseconds."""
        while self._order:
            slot = self._order[0]
            if self._slots[slot]:
                return slot * SLOT_MS
            del self._slots[heappop(self._order)]
        return None

    def pop_due(self, now: int) -> list[K]:
        """Take out every key that is due by `now`, earliest first."""
        fired: list[K] = []
        while self._order and self._order[0] * SLOT_MS <= now:
            fired.extend(self._slots.pop(heappop(self._order)))
        self._length -= len(fired)
        return fired

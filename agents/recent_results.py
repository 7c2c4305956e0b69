"""The results of the last tasks, by task id: a task that comes again is answered from here."""

from collections import OrderedDict
from typing import Final

RESULTS: Final = 10_000
BYTES: Final = 16 * 1024 * 1024


class RecentResults:
    """As many results as the bounds allow, the newest ones."""

    def __init__(self, results: int = RESULTS, size: int = BYTES) -> None:
        self._most = results
        self._largest = size
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def put(self, task: str, result: bytes) -> None:
        """Remember a task's result; the oldest ones make room."""
        self._size += len(result) - len(self._kept.pop(task, b""))
        self._kept[task] = result
        while len(self._kept) > self._most or self._size > self._largest:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)

    def get(self, task: str) -> bytes | None:
        """The result of this task, if it is remembered."""
        return self._kept.get(task)

"""What a worker has of one partition of the run table: its records, and how they stand to the log.

The table's changelog is written by the owner of the partition, and for a moment perhaps by one that
was replaced and does not know it yet. Each record says with `READS` up to where the inbox is read
into it. Rules:

- Who restores, or follows as a standby, takes the records in order and skips those that reflect
  less of the inbox than what it has: the same messages make the same state, so it has that already.
- What it is given says from where it was read. Behind a gap nothing is taken, or runs would be
  there without their first records: it is read again from `offset`, at the latest by a next owner.
- The owner takes nothing from the log. What another one wrote may be ahead of its own memory, and a
  table of both would be neither's. It gets there by the inbox, and until then `offset` stays before
  that record, so that whoever goes on from this table reads it then.
- Compaction keeps the last record of a key. Where that is not the newest state, the key is written
  again (`to_mend`): as soon as the owner has read as far as what it repairs.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

READS: Final = "reads"
"""Header of the table's changelog: the inbox offset up to which the record is the state."""

Change = tuple[bytes, bytes | None]
"""A record of the table by its key; None for one that is gone."""


def reads_of(record: Any) -> int:
    """The inbox offset that a record of the changelog reflects."""
    return int(dict(record.headers).get(READS, b"0"))


class StateLog:
    """One partition of the table, as of a place in its changelog."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        """The table's records, live."""
        self.reads = 0
        """The inbox offset that they reflect."""
        self.offset = -1
        """Whoever goes on from this table reads the changelog behind this offset."""
        self._seen = -1
        """As the owner: up to here it is known what is in the changelog, and from whom."""
        self._own: deque[tuple[int, int]] = deque()
        """Own writes behind that: first and last offset."""
        self._ahead: deque[tuple[int, int]] = deque()
        """Offset and reads of what others wrote and the owner has not come to yet."""
        self._mend: dict[bytes, int] = {}

    def apply(self, changes: Iterable[Change]) -> None:
        """Set and delete (None) keys."""
        data = self.data
        for key, value in changes:
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value

    def restore(self, records: Iterable[Any], since: int = 0) -> None:
        """Take what follows in the changelog, in order. Values stay unread, so none can fail.

        `since` is the offset from which they were read. Where something between that and `offset`
        was read and given up, as in a rebalance, nothing is taken: it is read again from `offset`.
        """
        if since > self.offset + 1:
            return
        self._own.clear()
        self._ahead.clear()
        for record in records:
            if record.offset <= self.offset:
                continue
            reads = reads_of(record)
            if reads >= self.reads:
                self.reads = reads
                self.apply([(record.key, record.value)])
                self._mend.pop(record.key, None)
            else:
                self._to_mend(record.key, reads)
            self.offset = record.offset
        self._seen = self.offset

    def written(self, first: int | None, count: int, reads: int) -> bool:
        """The owner wrote `count` records from offset `first` on, and has them in the data.

        False where somebody else wrote before it, or `first` is not known: what follows `seen` in
        the changelog has to be looked at.
        """
        self.reads = reads
        if first is not None:
            self._own.append((first, first + count - 1))
        self._advance()
        return first is not None and not self._own

    @property
    def seen(self) -> int:
        """The last offset of which the owner knows who wrote it, none before it missing."""
        return self._seen

    def look(self, records: Iterable[Any]) -> None:
        """Learn, as the owner, what others wrote: `records` follow `seen`, in order."""
        for record in records:
            if record.offset <= self._seen:
                continue
            while self._own and self._own[0][1] < record.offset:
                self._own.popleft()
            if not self._own or record.offset < self._own[0][0]:
                reads = reads_of(record)
                self._to_mend(record.key, reads)
                if reads > self.reads:
                    self._ahead.append((record.offset, reads))
            self._seen = record.offset
        self._advance()

    def to_mend(self, reads: int) -> set[bytes]:
        """Keys to write again with what reflects the inbox up to `reads`; told once.

        None while `reads` is behind any of what was found: a restore would skip what is written.
        """
        if any(needed > reads for needed in self._mend.values()):
            return set()
        due = set(self._mend)
        self._mend.clear()
        return due

    def _to_mend(self, key: bytes, reads: int) -> None:
        self._mend[key] = max(reads, self._mend.get(key, 0))

    def _advance(self) -> None:
        while self._own and self._own[0][0] <= self._seen + 1:
            self._seen = max(self._seen, self._own.popleft()[1])
        while self._ahead and self._ahead[0][1] <= self.reads:
            self._ahead.popleft()
        self.offset = self._ahead[0][0] - 1 if self._ahead else self._seen

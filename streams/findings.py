"""What an audit finds: differences, what is still open, and what a dead letter may excuse."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

KEPT: Final = 50
"""Findings of each check that are kept with their text; the rest is counted."""


class LogRecord(Protocol):
    """A record as aiokafka gives it (`ConsumerRecord`)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Place(NamedTuple):
    """Where a record stands on the log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Finding(NamedTuple):
    """One thing that is not as it should be: `subject` is a run, a task or a record's place."""

    check: str
    subject: str
    text: str


class Findings:
    """What an audit found: the differences, and what is still open."""

    def __init__(self) -> None:
        self.differences: list[Finding] = []
        self.open: list[Finding] = []
        self.difference_counts: Counter[str] = Counter()
        self.open_counts: Counter[str] = Counter()
        self._excusable: list[tuple[Place, Finding, bool]] = []

    def differ(self, check: str, subject: object, text: str) -> None:
        """A law is broken."""
        self.difference_counts[check] += 1
        if self.difference_counts[check] <= KEPT:
            self.differences.append(Finding(check, str(subject), text))

    def wait(self, check: str, subject: object, text: str) -> None:
        """Something is not done yet."""
        self.open_counts[check] += 1
        if self.open_counts[check] <= KEPT:
            self.open.append(Finding(check, str(subject), text))

    def unless_letter(
        self, place: Place, check: str, subject: object, text: str, *, late: bool
    ) -> None:
        """As `wait` where it may be late, else as `differ`; unless the record has a dead letter."""
        self._excusable.append((place, Finding(check, str(subject), text), late))

    def excuse(self, letters: Iterable[Place]) -> None:
        """All dead letters have been read: what is in none of them counts now."""
        known = set(letters) if self._excusable else ()
        for place, finding, late in self._excusable:
            if place not in known:
                (self.wait if late else self.differ)(*finding)
        self._excusable.clear()

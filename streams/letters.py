"""The dead-letters topic as a log of its own: letters, and what became of them.

Rules:
- The log is append-only. A replay and a purge are records of their own, in the partition of the
  letter that they are about, so every reader sees the same state.
- A letter is named by where it stands: `partition-offset`.
- A record has one letter. A reader that starts anew may write it again; only the first one counts.
- A letter keeps all of the original. One that is too large for a record stands in several: its
  parts first, then the letter without key, value and headers. Where a writer is killed in between,
  the parts come again, and the last ones count.
- Letters of older releases have no `type`, and may have a cut value: these cannot be replayed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from streams import codec, topics
from streams.errors import CallerError, NotFoundError, UnreadableRecordError
from streams.messages import DeadLetter
from streams.records import FORMAT

REPLAYED: Final = "commandcenter-replayed"
"""Header of a replayed record: the id of its letter."""

ATTEMPT: Final = "commandcenter-attempt"
"""Header of a replayed record: which attempt at it this is; the first one has no header."""

PART_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a letter that one record takes; in base64 they are a third more."""

PREVIEW_BYTES: Final = 2 * 1024
"""Originals up to this size are kept by readers; larger ones are fetched from the log."""

_REASON_LENGTH: Final = 1_000
_CUT: Final = re.compile(r"\(value of [\d,]+ bytes, cut to [\d,]+\)$")
_ID: Final = re.compile(r"(\d{1,9})-(\d{1,18})")


class LetterState(StrEnum):
    """What became of a letter."""

    OPEN = "OPEN"
    REPLAYED = "REPLAYED"
    PURGED = "PURGED"


class Replayed(
    Struct, tag_field="type", tag="replayed", frozen=True, kw_only=True, rename="camel",
    omit_defaults=True, gc=False,
):  # fmt: skip
    """The original of letter `letter` stands once more at `topic`, `partition`, `offset`."""

    letter: str
    at: int
    topic: str
    partition: int
    offset: int
    by: str = ""
    v: Literal[1] = FORMAT


class Purged(
    Struct, tag_field="type", tag="purged", frozen=True, kw_only=True, rename="camel",
    omit_defaults=True, gc=False,
):  # fmt: skip
    """Letter `letter` needs no more attention, because `reason`."""

    letter: str
    at: int
    reason: str
    by: str = ""
    v: Literal[1] = FORMAT


class Part(
    Struct, tag_field="type", tag="part", frozen=True, kw_only=True, rename="camel",
    omit_defaults=True, gc=False,
):  # fmt: skip
    """Bytes of the letter about the record at `of`, the `number`-th from 0."""

    of: str
    number: int
    content: bytes
    v: Literal[1] = FORMAT


LetterRecord = DeadLetter | Replayed | Purged | Part


class _Kind(Struct):
    type: str = "letter"


_kinds: Final = codec.Reader[_Kind](_Kind, "a record of the dead letters")
_others: Final = codec.Reader[Replayed | Purged | Part](
    Replayed | Purged | Part, "a record of the dead letters"
)


def read(value: bytes | None) -> LetterRecord:
    """A record of the topic; `UnreadableRecordError` says why it is none."""
    if _kinds.decode(value).type == "letter":
        return codec.dead_letters.decode(value)
    return _others.decode(value)


def write(letter: DeadLetter) -> list[bytes]:
    """The records of a letter, in order: one, unless it is large."""
    whole = codec.encode(letter)
    if len(whole) <= PART_BYTES:
        return [whole]
    slices = [whole[at : at + PART_BYTES] for at in range(0, len(whole), PART_BYTES)]
    of = place(letter)
    parts = [codec.encode(Part(of=of, number=n, content=part)) for n, part in enumerate(slices)]
    head = replace(letter, key=None, value=None, headers=(), parts=len(parts))
    return [*parts, codec.encode(head)]


def join(records: Iterable[bytes | None], head: DeadLetter) -> DeadLetter:
    """The whole letter, from the records that stand between its first part and its head."""
    parts: list[bytes] = []
    for value in records:
        try:
            record = read(value)
        except UnreadableRecordError:
            continue
        if isinstance(record, Part) and record.of == place(head):
            del parts[record.number :]
            parts.append(record.content)
    if len(parts) != head.parts:
        raise NotFoundError(f"{head.parts - len(parts)} parts of the letter are gone from the log")
    return codec.dead_letters.decode(b"".join(parts))


def place(letter: DeadLetter) -> str:
    """Where the original stood."""
    return f"{letter.topic}/{letter.partition}/{letter.offset}"


def attempts_of(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Which attempt at a record this is, by its headers; a header of somebody else's counts 1."""
    for name, value in headers:
        if name == ATTEMPT and value is not None and re.fullmatch(rb"[0-9]{1,9}", value):
            return max(1, int(value))
    return 1


class LetterId(NamedTuple):
    """Where a letter stands on its own topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "LetterId":
        """The id of this text; `NotFoundError` where it is none."""
        match = _ID.fullmatch(text)
        if match is None:
            raise NotFoundError(f"{text[:50]!r} is no dead letter's id, such as 2-17")
        return cls(int(match[1]), int(match[2]))


class Entry(NamedTuple):
    """A letter and what became of it.

    `begin` is the offset of its first record, None where parts of it are missing. `letter` is
    without key, value and headers where `whole` is false.
    """

    id: LetterId
    letter: DeadLetter
    whole: bool
    begin: int | None
    state: LetterState = LetterState.OPEN
    replays: int = 0
    last: Replayed | Purged | None = None

    @property
    def is_cut(self) -> bool:
        """Whether an older release kept only a part of the value."""
        return _CUT.search(self.letter.reason) is not None


class LetterBook:
    """Every letter with its state, from the records of the topic in the order of each partition.

    `open_by_topic` counts the open letters by the topic that they are from.
    """

    def __init__(self) -> None:
        self._entries: dict[LetterId, Entry] = {}
        self._places: dict[str, LetterId] = {}
        self._parts: dict[tuple[int, str], list[int]] = {}
        self.open_by_topic: Counter[str] = Counter()

    def apply(self, partition: int, offset: int, timestamp: int, value: bytes | None) -> None:
        """The next record of a partition; one that cannot be read is shown as a letter itself."""
        at = LetterId(partition, offset)
        try:
            record = read(value)
        except UnreadableRecordError as error:
            record = DeadLetter(
                topic=topics.DEAD_LETTERS,
                partition=partition,
                offset=offset,
                at=timestamp,
                error=type(error).__name__,
                reason=f"this dead letter itself cannot be read: {error}",
                worker="",
                value=value,
            )
        match record:
            case DeadLetter():
                self._add(at, record)
            case Part():
                parts = self._parts.setdefault((partition, record.of), [])
                del parts[record.number :]
                parts.append(offset)
            case Replayed() | Purged():
                self._close(record)

    def _add(self, at: LetterId, letter: DeadLetter) -> None:
        begin: int | None = at.offset
        if letter.parts:
            parts = self._parts.pop((at.partition, place(letter)), [])
            begin = parts[0] if len(parts) == letter.parts else None
        known = self._entries.get(self._places.setdefault(place(letter), at))
        if known is not None and known.begin is not None:
            return
        size = len(letter.key or b"") + len(letter.value or b"")
        size += sum(len(name) + len(value or b"") for name, value in letter.headers)
        whole = not letter.parts and size <= PREVIEW_BYTES
        if not whole:
            letter = replace(letter, key=None, value=None, headers=())
        if len(letter.reason) > _REASON_LENGTH and not _CUT.search(letter.reason):
            letter = replace(letter, reason=letter.reason[:_REASON_LENGTH] + "…")
        self._entries[at] = Entry(at, letter, whole, begin)
        self.open_by_topic[letter.topic] += 1

    def _close(self, record: Replayed | Purged) -> None:
        try:
            entry = self._entries[LetterId.parse(record.letter)]
        except (KeyError, NotFoundError):
            return  # about a letter that retention has removed
        replayed = isinstance(record, Replayed)
        self.open_by_topic[entry.letter.topic] -= entry.state is LetterState.OPEN
        self._entries[entry.id] = entry._replace(
            state=LetterState.REPLAYED if replayed else LetterState.PURGED,
            replays=entry.replays + replayed,
            last=record,
        )

    def get(self, text: str) -> Entry:
        """The letter of this id; `NotFoundError` if there is none."""
        entry = self._entries.get(LetterId.parse(text))
        if entry is None:
            raise NotFoundError(f"there is no dead letter {text}")
        return entry

    def newest(
        self,
        *,
        topic: str | None = None,
        error: str | None = None,
        state: LetterState | None = None,
        since: int = 0,
    ) -> list[Entry]:
        """The letters that fit, the newest first."""
        found = [
            entry
            for entry in self._entries.values()
            if (topic is None or entry.letter.topic == topic)
            and (error is None or entry.letter.error == error)
            and (state is None or entry.state is state)
            and entry.letter.at >= since
        ]
        return sorted(found, key=sort_key, reverse=True)


def sort_key(entry: Entry) -> tuple[int, LetterId]:
    """By time, then by id."""
    return entry.letter.at, entry.id


def check_replay(entry: Entry, *, again: bool) -> None:
    """`CallerError` where the letter cannot be replayed."""
    topic = entry.letter.topic
    if entry.is_cut:
        raise CallerError(
            f"dead letter {entry.id} has only the beginning of the record's value, as an older "
            "release cut it: it cannot be replayed. Send the original again, and purge the letter"
        )
    if entry.begin is None:
        raise CallerError(
            f"parts of dead letter {entry.id} are gone from the log: it cannot be replayed"
        )
    if topic not in _REPLAYABLE and not topic.startswith(topics.TASKS_PREFIX):
        raise CallerError(f"dead letter {entry.id} is from {topic}: nothing is replayed to there")
    if entry.state is not LetterState.OPEN and not again:
        raise AlreadyClosedError(
            f"{closed(entry)}. Ask for it with again (--again) to replay it nevertheless"
        )


def check_purge(entry: Entry) -> None:
    """`CallerError` where the letter is not open any more."""
    if entry.state is not LetterState.OPEN:
        raise AlreadyClosedError(f"{closed(entry)}: there is nothing to purge")


_REPLAYABLE: Final = frozenset({topics.TRIGGERS, topics.INBOX, topics.EVENTS})


class AlreadyClosedError(CallerError):
    """The letter was replayed or purged before."""


def closed(entry: Entry) -> str:
    """What became of a letter, in words."""
    match entry.last:
        case Replayed(topic=topic, partition=partition, offset=offset):
            return f"dead letter {entry.id} was replayed to {topic}/{partition}/{offset} already"
        case Purged(reason=reason):
            return f"dead letter {entry.id} was purged already: {reason}"
        case None:
            return f"dead letter {entry.id} is open"


def replay_headers(entry: Entry, letter: DeadLetter) -> Sequence[tuple[str, bytes | None]]:
    """The original's headers, and the marks of the replay."""
    original = [(n, value) for n, value in letter.headers if n not in (REPLAYED, ATTEMPT)]
    attempt = letter.attempts + entry.replays + 1
    return [*original, (REPLAYED, str(entry.id).encode()), (ATTEMPT, b"%d" % attempt)]

"""Letters on their topic: large ones in parts, and what became of them told by the log alone."""

from typing import Any

import pytest
from msgspec.structs import replace

from streams import codec, dead_letters, letters, topics
from streams.errors import CallerError, NotFoundError, UnreadableRecordError
from streams.letters import (
    AlreadyClosedError,
    LetterBook,
    LetterId,
    LetterState,
    Part,
    Purged,
    Replayed,
)
from streams.messages import DeadLetter
from streams.outbox import REQUEST_BYTES, Parcel

LETTER = DeadLetter(
    topic=topics.INBOX,
    partition=1,
    offset=2,
    at=3,
    error="E",
    reason="why",
    worker="h",
    key=b"\xff",
    value=b"original",
    headers=(("ce_id", b"1"),),
)
LARGE = replace(LETTER, value=b"x" * (9 * 1024 * 1024), headers=(("h", b"y" * 1_000_000),))


class Record:
    """As aiokafka gives it."""

    topic = topics.TRIGGERS
    partition = 0
    offset = 7
    key: bytes | None = b"k"
    value: bytes | None = b"value"
    headers: tuple[tuple[str, bytes], ...] = ()


def put(record: Record) -> list[bytes]:
    parcel = Parcel()
    dead_letters.put(parcel, 4, record, CallerError("no event"))
    [(_, sent)] = parcel.partitions()
    return [value or b"" for _, value, _ in sent]


def book(*values: bytes) -> LetterBook:
    book = LetterBook()
    for offset, value in enumerate(values):
        book.apply(2, offset, 10, value)
    return book


def replayed(letter: str = "2-0") -> bytes:
    return codec.encode(Replayed(letter=letter, at=5, topic=topics.INBOX, partition=1, offset=9))


def purged(letter: str = "2-0") -> bytes:
    return codec.encode(Purged(letter=letter, at=5, reason="a test", by="me"))


def test_each_kind_of_record_is_read_back() -> None:
    part = Part(of="x/1/2", number=0, content=b"\x00")
    for value, record in (
        (codec.encode(LETTER), LETTER),
        (codec.encode(part), part),
        (replayed(), codec.Reader[Any](Replayed, "").decode(replayed())),
        (purged(), codec.Reader[Any](Purged, "").decode(purged())),
    ):
        assert letters.read(value) == record
    assert replayed().startswith(b'{"v":1,"type":"replayed","letter":"2-0"')


def test_a_letter_of_an_older_release_has_no_type() -> None:
    old = codec.encode(LETTER).replace(b'"type":"letter",', b"")
    assert b"type" not in old
    assert letters.read(old) == LETTER


@pytest.mark.parametrize(
    "value", [None, b"x", b"[]", b'{"type":"party"}', b'{"v":2,"type":"purged"}', b'{"v":1}']
)
def test_what_is_none_is_unreadable_and_shown_as_a_letter(value: bytes | None) -> None:
    with pytest.raises(UnreadableRecordError):
        letters.read(value)
    shown = LetterBook()
    shown.apply(2, 0, 10, value)
    [entry] = shown.newest()
    assert "cannot be read" in entry.letter.reason
    with pytest.raises(CallerError, match="nothing is replayed"):
        letters.check_replay(entry, again=True)


def test_the_original_is_kept_whole_however_large_it_is() -> None:
    record = Record()
    record.value = b"x" * REQUEST_BYTES
    record.headers = (("large", b"y" * 1_000_000),)
    values = put(record)
    assert len(values) > 1
    assert max(map(len, values)) < REQUEST_BYTES
    [entry] = book(*values).newest()
    assert (entry.id, entry.begin, entry.whole) == (LetterId(2, len(values) - 1), 0, False)
    whole = letters.join(values[:-1], codec.dead_letters.decode(values[-1]))
    assert (whole.key, whole.value, whole.headers) == (record.key, record.value, record.headers)


def test_parts_that_come_again_are_taken_once() -> None:
    first, *rest = letters.write(LARGE)
    other = codec.encode(replace(LETTER, offset=99))
    log = [first, other, first, *rest]
    entry = book(*log).get(f"2-{len(log) - 1}")
    assert entry.begin == 2
    head = codec.dead_letters.decode(log[-1])
    assert letters.join(log[:-1], head) == LARGE
    assert letters.join(log[entry.begin : -1], head) == LARGE


def test_parts_that_are_gone_are_said() -> None:
    _, *rest = letters.write(LARGE)
    [entry] = book(*rest).newest()
    assert entry.begin is None
    with pytest.raises(CallerError, match="gone from the log"):
        letters.check_replay(entry, again=False)
    with pytest.raises(NotFoundError, match="gone from the log"):
        letters.join(rest[:-1], codec.dead_letters.decode(rest[-1]))


@pytest.mark.parametrize(
    ("log", "state", "replays", "open_"),
    [
        ([], LetterState.OPEN, 0, 1),
        ([replayed()], LetterState.REPLAYED, 1, 0),
        ([purged()], LetterState.PURGED, 0, 0),
        ([replayed(), replayed()], LetterState.REPLAYED, 2, 0),
        ([purged(), replayed()], LetterState.REPLAYED, 1, 0),
        ([replayed("2-5"), purged("nonsense")], LetterState.OPEN, 0, 1),
    ],
)
def test_the_log_tells_what_became_of_a_letter(
    log: list[bytes], state: LetterState, replays: int, open_: int
) -> None:
    known = book(codec.encode(LETTER), *log)
    entry = known.get("2-0")
    assert (entry.state, entry.replays) == (state, replays)
    assert known.open_by_topic == {topics.INBOX: open_}
    if state is LetterState.OPEN:
        letters.check_replay(entry, again=False)
        letters.check_purge(entry)
    else:
        for check in (
            lambda: letters.check_replay(entry, again=False),
            lambda: letters.check_purge(entry),
        ):
            with pytest.raises(AlreadyClosedError, match="already"):
                check()
        letters.check_replay(entry, again=True)


def test_a_letter_that_is_written_again_counts_once() -> None:
    known = book(codec.encode(LETTER), purged(), codec.encode(LETTER))
    [entry] = known.newest()
    assert (str(entry.id), entry.state) == ("2-0", LetterState.PURGED)
    assert known.open_by_topic == {topics.INBOX: 0}


def test_a_value_that_an_older_release_cut_is_not_replayed() -> None:
    cut = replace(LETTER, reason="too large (value of 7,000,000 bytes, cut to 6,291,456)")
    [entry] = book(codec.encode(cut)).newest()
    with pytest.raises(CallerError, match="only the beginning"):
        letters.check_replay(entry, again=True)


@pytest.mark.parametrize("topic", ["orders", topics.STATE, topics.DEAD_LETTERS, topics.WORKFLOWS])
def test_only_our_own_inputs_are_replayed_to(topic: str) -> None:
    [entry] = book(codec.encode(replace(LETTER, topic=topic))).newest()
    with pytest.raises(CallerError, match=topic):
        letters.check_replay(entry, again=False)


def test_attempts_are_counted_from_replay_to_replay() -> None:
    known = book(codec.encode(LETTER))
    entry = known.get("2-0")
    marked = letters.replay_headers(entry, LETTER)
    assert marked == [
        ("ce_id", b"1"),
        ("commandcenter-replayed", b"2-0"),
        ("commandcenter-attempt", b"2"),
    ]
    known.apply(2, 1, 0, replayed())
    assert letters.replay_headers(known.get("2-0"), LETTER)[-1][1] == b"3"

    record = Record()
    record.headers = tuple(marked)
    [value] = put(record)
    failed_again = codec.dead_letters.decode(value)
    assert failed_again.attempts == 2
    once_more = letters.replay_headers(entry, failed_again)
    assert [name for name, _ in once_more].count("commandcenter-attempt") == 1
    assert once_more[-1][1] == b"3"


@pytest.mark.parametrize("value", [b"many", b"-1", b"", b"\xff"])
def test_an_attempt_header_that_is_none_counts_as_the_first(value: bytes) -> None:
    assert letters.attempts_of((("commandcenter-attempt", value),)) == 1


def test_letters_are_found_by_topic_error_state_and_time() -> None:
    values = [
        codec.encode(replace(LETTER, offset=n, at=n, error=error, topic=topic))
        for n, (error, topic) in enumerate(
            [("A", topics.INBOX), ("B", topics.INBOX), ("A", topics.TRIGGERS)]
        )
    ]
    known = book(*values, purged("2-1"))

    def found(**wanted: Any) -> list[str]:
        return [str(entry.id) for entry in known.newest(**wanted)]

    assert found() == ["2-2", "2-1", "2-0"]
    assert found(topic=topics.INBOX) == ["2-1", "2-0"]
    assert found(error="A") == ["2-2", "2-0"]
    assert found(state=LetterState.PURGED) == ["2-1"]
    assert found(since=1) == ["2-2", "2-1"]
    for nonsense in ("2-7", "x", "1-2-3", "", "٣-1"):
        with pytest.raises(NotFoundError):
            known.get(nonsense)

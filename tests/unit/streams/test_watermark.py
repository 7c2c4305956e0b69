"""The watermark: what may be committed is everything before the first offset that is not done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.watermark import NOTE_BYTES, Intervals, Watermark, decode, encode


def test_nothing_may_be_committed_until_something_is_done() -> None:
    watermark = Watermark()
    assert (watermark.next_offset, watermark.in_progress) == (None, 0)
    assert watermark.begin(5)
    assert (watermark.next_offset, watermark.in_progress) == (None, 1)
    watermark.done(5)
    assert (watermark.next_offset, watermark.in_progress) == (6, 0)


def test_an_offset_in_progress_holds_back_all_after_it() -> None:
    watermark = Watermark()
    for offset in (5, 6, 7, 9):  # 8 is a hole in the log
        assert watermark.begin(offset)
    seen = []
    for offset in (6, 9, 5, 7):
        watermark.done(offset)
        seen.append((offset, watermark.next_offset, watermark.in_progress))
    # 7 is the first not done, whether or not 8 exists.
    assert seen == [(6, 5, 3), (9, 5, 2), (5, 7, 1), (7, 10, 0)]


def test_an_offset_begins_once() -> None:
    watermark = Watermark()
    assert watermark.begin(5)
    assert not watermark.begin(5)
    watermark.done(5)
    assert not watermark.begin(5)
    assert not watermark.begin(4)
    assert watermark.begin(6)
    assert (watermark.next_offset, watermark.in_progress) == (6, 1)


@given(st.data())
def test_it_never_passes_what_is_not_done_and_gets_to_the_end(data: st.DataObject) -> None:
    offsets = data.draw(st.lists(st.integers(0, 60), unique=True, min_size=1).map(sorted))
    watermark, waiting, begun, done = Watermark(), list(offsets), [], set[int]()
    last = -1
    while waiting or len(done) < len(offsets):
        in_hand = [o for o in begun if o not in done]
        if waiting and (not in_hand or data.draw(st.booleans())):
            begun.append(waiting.pop(0))
            assert watermark.begin(begun[-1])
        else:
            finished = data.draw(st.sampled_from(in_hand))
            done.add(finished)
            watermark.done(finished)
        committed = -1 if watermark.next_offset is None else watermark.next_offset
        assert committed >= last
        assert all(o in done for o in offsets if o < committed)
        last = committed
    assert watermark.next_offset == offsets[-1] + 1


@st.composite
def intervals(draw: st.DrawFn) -> Intervals:
    found, at = [], draw(st.integers(0, 2**40))
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 10_000)))):
        found.append((at + gap, at + gap + length))
        at += gap + length
    return tuple(found)


@given(intervals(), st.integers(0, 1000))
def test_a_note_says_what_was_written_down(finished: Intervals, before: int) -> None:
    committed = max(0, finished[0][0] - before) if finished else before
    assert decode(committed, encode(committed, finished)) == finished


def test_a_note_is_bounded_and_keeps_what_comes_first() -> None:
    finished = tuple((n, n + 1) for n in range(1, 20_000, 2))
    note = encode(0, finished)
    assert NOTE_BYTES - 10 < len(note) <= NOTE_BYTES
    kept = decode(0, note)
    assert kept == finished[: len(kept)]


@given(st.text())
def test_a_note_of_somebody_else_says_nothing(text: str) -> None:
    assert decode(7, text) == ()


@pytest.mark.parametrize("note", ["done:", "done:1", "done:1+0", "done:-1+3", "done:1+2,x+1"])
def test_a_damaged_note_says_nothing(note: str) -> None:
    assert decode(7, note) == ()


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
def test_the_next_owner_begins_what_was_not_done_and_nothing_else(
    is_done: list[bool], data: st.DataObject
) -> None:
    """Through any number of owners, each of which takes over where the commit and its note say."""
    committed, note, finished = 0, "", set[int]()
    for _ in range(data.draw(st.integers(1, 3))):
        watermark = Watermark(decode(committed, note))
        begun = [n for n in range(committed, len(is_done)) if watermark.begin(n)]
        assert set(begun) == set(range(committed, len(is_done))) - finished
        for offset in begun:
            if data.draw(st.booleans()):
                watermark.done(offset)
                finished.add(offset)
        if watermark.next_offset is not None:
            committed, note = watermark.next_offset, watermark.note()
        assert set(range(committed)) <= finished

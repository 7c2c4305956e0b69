"""The watermark: what may be committed is everything before the first offset that is not done."""

from hypothesis import given
from hypothesis import strategies as st

from streams.watermark import Watermark


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

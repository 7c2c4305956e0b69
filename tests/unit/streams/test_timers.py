"""The timer wheel: never early, at most one slot late, and cancelling takes exactly one back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.timers import SLOT_MS, Timers


@pytest.mark.parametrize(
    ("due", "fires_at"),
    [(0, 0), (1, 20), (19, 20), (20, 20), (21, 40), (1_000, 1_000), (1_001, 1_020)],
)
def test_a_key_fires_with_its_slot(due: int, fires_at: int) -> None:
    timers: Timers[str] = Timers()
    timers.set("k", due)
    assert (len(timers), timers.next_due) == (1, fires_at)
    assert timers.pop_due(fires_at - 1) == []
    assert timers.pop_due(fires_at) == ["k"]
    assert (len(timers), timers.next_due, timers.pop_due(10**9)) == (0, None, [])


def test_keys_fire_earliest_first_and_once() -> None:
    timers: Timers[str] = Timers()
    for key, due in [("c", 300), ("a", 100), ("b", 200), ("a", 100), ("d", 400)]:
        timers.set(key, due)
    assert len(timers) == 4
    assert timers.pop_due(300) == ["a", "b", "c"]
    assert timers.next_due == 400


def test_a_key_may_be_due_at_many_times() -> None:
    timers: Timers[str] = Timers()
    timers.set("k", 100)
    timers.set("k", 200)
    timers.cancel("k", 100)
    assert (len(timers), timers.next_due) == (1, 200)
    assert timers.pop_due(500) == ["k"]


def test_cancelling_what_is_not_set_is_no_error() -> None:
    timers: Timers[str] = Timers()
    timers.cancel("k", 100)
    timers.set("k", 100)
    timers.cancel("other", 100)
    timers.cancel("k", 100 + SLOT_MS)
    assert len(timers) == 1
    timers.cancel("k", 100)
    timers.cancel("k", 100)
    assert (len(timers), timers.next_due, timers.pop_due(1_000)) == (0, None, [])


def test_a_slot_that_was_emptied_can_be_used_again() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 100)
    timers.cancel("a", 100)
    assert timers.next_due is None
    timers.set("b", 100)
    timers.set("c", 60)
    assert timers.next_due == 60
    assert timers.pop_due(100) == ["c", "b"]


keys = st.sampled_from("abc")
dues = st.integers(0, 200)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, dues),
        st.tuples(st.just("cancel"), keys, dues),
        st.tuples(st.just("pop"), dues),
        st.tuples(st.just("next")),
    ),
    max_size=40,
)


@given(steps)
def test_the_wheel_agrees_with_a_plain_set(steps: list[tuple[object, ...]]) -> None:
    timers: Timers[str] = Timers()
    model: set[tuple[int, str]] = set()  # (slot, key)

    def slot(due: int) -> int:
        return (due + SLOT_MS - 1) // SLOT_MS

    for step in steps:
        match step:
            case ("set", str(key), int(due)):
                timers.set(key, due)
                model.add((slot(due), key))
            case ("cancel", str(key), int(due)):
                timers.cancel(key, due)
                model.discard((slot(due), key))
            case ("pop", int(now)):
                fired = sorted(m for m in model if m[0] * SLOT_MS <= now)
                model.difference_update(fired)
                popped = timers.pop_due(now)
                assert sorted(popped) == sorted(key for _, key in fired)
            case _:
                expected = min((s for s, _ in model), default=None)
                assert timers.next_due == (None if expected is None else expected * SLOT_MS)
        assert len(timers) == len(model)

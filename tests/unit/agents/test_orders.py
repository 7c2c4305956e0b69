"""Orders that are remembered: for an hour, and not more than so many."""

import pytest

from agents.orders import Orders
from streams.messages import TaskCancellation


def order(task: str, reason: str = "") -> TaskCancellation:
    return TaskCancellation(task=task, agent="a", reason=reason)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_order_is_remembered_until_its_time_is_over(clock: Clock) -> None:
    orders = Orders(clock, seconds=10)
    orders.put(order("t1"))
    clock.now = 9
    orders.put(order("t2"))
    assert orders.get("t1") == order("t1")
    assert orders.get("t3") is None
    clock.now = 10
    assert orders.get("t1") is None
    assert orders.get("t2") == order("t2")


def test_the_newest_are_kept(clock: Clock) -> None:
    orders = Orders(clock, count=2)
    for name in ("t1", "t2", "t1", "t3"):
        orders.put(order(name))
    assert [name for name in ("t1", "t2", "t3") if orders.get(name)] == ["t1", "t3"]


def test_a_later_order_for_the_same_task_takes_its_place(clock: Clock) -> None:
    orders = Orders(clock)
    orders.put(order("t1", "first"))
    orders.put(order("t1", "second"))
    assert orders.get("t1") == order("t1", "second")

"""What counts as a stall: tables of looks over time, and the verdict after each."""

import pytest

from streams.watchdog import Seen, Stall, Watchdog

INBOX = ("commandcenter.inbox", 0)
TASKS = ("commandcenter.tasks.bench", 1)

CASES = {
    "nothing to do": [(0, Seen(5, 5), False), (100, Seen(5, 5), False)],
    "stands still": [
        (0, Seen(9, 5), False),
        (29, Seen(12, 5), False),
        (30, Seen(12, 5), True),
        (90, Seen(12, 5), True),
    ],
    "mended": [(0, Seen(9, 5), False), (40, Seen(9, 5), True), (41, Seen(9, 6), False)],
    "slow but moving": [(n * 20, Seen(99, n), False) for n in range(6)],
    "work comes after a long rest": [
        (0, Seen(5, 5), False),
        (500, Seen(6, 5), False),
        (530, Seen(6, 5), True),
    ],
    "owned by nobody": [(0, Seen(9, 5, owed=False), False), (99, Seen(9, 5, owed=False), False)],
    "owned only lately": [
        (0, Seen(9, 5, owed=False), False),
        (99, Seen(9, 5), False),
        (129, Seen(9, 5), True),
    ],
    "finished out of order": [
        (0, Seen(9, 5, "a"), False),
        (29, Seen(9, 5, "b"), False),
        (58, Seen(9, 5, "b"), False),
        (59, Seen(9, 5, "b"), True),
    ],
}


@pytest.mark.parametrize("looks", CASES.values(), ids=CASES)
def test_verdicts(looks: list[tuple[float, Seen, bool]]) -> None:
    watchdog = Watchdog(patience_s=30)
    for now, seen, stalled in looks:
        assert bool(watchdog.look(now, {INBOX: seen})) is stalled, f"at {now} s"


def test_tasks_may_take_longer() -> None:
    watchdog = Watchdog(patience_s=30, task_patience_s=600)
    seen = {INBOX: Seen(9, 9), TASKS: Seen(4, 1)}
    assert watchdog.look(0, seen) == []
    assert watchdog.look(599, seen) == []
    (stall,) = watchdog.look(600, seen)
    assert stall == Stall(*TASKS, end=4, done=1, seconds=600)
    assert str(stall) == "commandcenter.tasks.bench/1 has stood at 1 of 4 for 600 s"

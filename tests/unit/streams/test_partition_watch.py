"""What a worker shows of its own partitions: metrics of each, a count and a log line of a stall."""

from collections.abc import Mapping

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from streams.partition_watch import Offsets, PartitionWatch
from streams.watchdog import Place

INBOX, TRIGGERS = ("commandcenter.inbox", 0), ("commandcenter.triggers", 3)


def shown(place: Place) -> dict[str, float | None]:
    topic, partition = place
    return {
        kind: REGISTRY.get_sample_value(
            "commandcenter_worker_partition_offset",
            {"topic": topic, "partition": str(partition), "kind": kind},
        )
        for kind in ("end", "committed", "processed")
    }


def stalls(place: Place) -> float:
    labels = {"topic": place[0]}
    return REGISTRY.get_sample_value("commandcenter_worker_stalls_total", labels) or 0.0


class Worker:
    """What a worker would tell of its partitions, and the time."""

    def __init__(self) -> None:
        self.partitions: dict[Place, Offsets] = {}
        self.now = 0.0
        self.watch = PartitionWatch(self._ask, 30, lambda: self.now)

    async def _ask(self) -> Mapping[Place, Offsets]:
        return self.partitions

    async def look(self, after: float = 0.0) -> list[tuple[str, object]]:
        """Look once; gives what was logged: the event and its topic."""
        self.now += after
        with capture_logs() as logs:
            await self.watch.look()
        return [(line["event"], line["topic"]) for line in logs]


@pytest.fixture
def worker() -> Worker:
    return Worker()


async def test_what_is_owned_is_shown_and_what_is_not_any_more_is_not(worker: Worker) -> None:
    worker.partitions = {INBOX: Offsets(9, 5, 7), TRIGGERS: Offsets(1, 1, 1)}
    await worker.look()
    assert shown(INBOX) == {"end": 9, "committed": 5, "processed": 7}
    assert shown(TRIGGERS) == {"end": 1, "committed": 1, "processed": 1}
    worker.partitions = {TRIGGERS: Offsets(4, 1, 2)}
    await worker.look()
    assert shown(INBOX) == {"end": None, "committed": None, "processed": None}
    assert shown(TRIGGERS) == {"end": 4, "committed": 1, "processed": 2}


async def test_one_partition_that_does_not_move_among_others_is_said_once(worker: Worker) -> None:
    before = stalls(INBOX), stalls(TRIGGERS)
    worker.partitions = {INBOX: Offsets(9, 7, 7), TRIGGERS: Offsets(50, 1, 1)}
    assert await worker.look() == []
    worker.partitions[TRIGGERS] = Offsets(50, 1, 20)
    said = [("a partition of this worker stands still", INBOX[0])]
    assert await worker.look(after=30) == said
    worker.partitions[TRIGGERS] = Offsets(50, 20, 40)
    assert await worker.look(after=20) == []
    worker.partitions[INBOX] = Offsets(9, 7, 8)
    moves = [("a partition of this worker moves again", INBOX[0])]
    assert await worker.look(after=1) == moves
    assert (stalls(INBOX), stalls(TRIGGERS)) == (before[0] + 1, before[1])


async def test_what_is_finished_out_of_order_is_progress(worker: Worker) -> None:
    worker.partitions = {INBOX: Offsets(9, 5, 5, "6-7")}
    await worker.look()
    worker.partitions = {INBOX: Offsets(9, 5, 5, "6-8")}
    assert await worker.look(after=30) == []

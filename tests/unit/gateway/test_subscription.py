"""A reader of the stream gets every decision it wants exactly once, whatever the timing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.cursor import decode, encode
from gateway.live import LiveTail
from gateway.subscription import Filter, Subscription, parse_filter
from streams import codec
from streams.errors import CallerError
from streams.events import Decision, NodeSkipped
from streams.records import RunStatus


class Record(NamedTuple):
    offset: int
    value: bytes | None


def decision(run: str, seq: int, at: int = 0, **more: object) -> bytes:
    values = {
        "run": run,
        "project": "default",
        "workflow": "w",
        "version": 1,
        "seq": seq,
        "at": at,
        "status": RunStatus.RUNNING,
        "previous": RunStatus.RUNNING,
        "events": (NodeSkipped(node="n", reason="r"),),
    }
    return codec.encode(Decision(**(values | more)))  # type: ignore[arg-type]  # a mixed bag


class World:
    """A log of two partitions, a tail with a tiny ring, and a store that lags behind."""

    def __init__(self, ring: int = 3_000) -> None:
        self.log: dict[int, list[bytes]] = {0: [], 1: []}
        self.ring = ring
        self.tail = LiveTail(limit=ring)
        self.fed = {0: 0, 1: 0}
        self.recorded = {0: 0, 1: 0}
        self.expected: dict[int, list[tuple[str, int]]] = {0: [], 1: []}
        self.delivered: list[tuple[str, int]] = []
        self.subscription = self.connect({})

    async def watermark(self) -> Mapping[int, int]:
        return dict(self.recorded)

    async def decisions(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        assert end <= self.recorded[partition]
        log = self.log[partition]
        return [(o, log[o]) for o in range(start, end) if log[o] != b"?"][:limit]

    def connect(self, position: dict[int, int], wanted: Filter | None = None) -> Subscription:
        return Subscription(self.tail, self, wanted or Filter(), position)

    def feed(self, partition: int, count: int) -> None:
        start = self.fed[partition]
        values = self.log[partition][start : start + count]
        self.fed[partition] += len(values)
        self.tail.on_records(partition, [Record(start + i, v) for i, v in enumerate(values)])

    def record(self, partition: int, count: int) -> None:
        self.recorded[partition] = min(self.recorded[partition] + count, len(self.log[partition]))

    async def read(self) -> bool:
        batch = await self.subscription.next()
        self.delivered += [(d.heading.run, d.heading.seq) for d in batch.decisions]
        return batch.moved

    async def act(self, action: str, partition: int, count: int) -> None:
        match action:
            case "read":
                await self.read()
            case "reconnect":
                position = decode(encode(self.subscription.position, "log"), "log")
                assert position is not None
                self.subscription = self.connect(position)
            case "restart":  # the gateway starts anew: its tail begins where the recorder stands
                self.tail = LiveTail(limit=self.ring)
                self.fed = dict(self.recorded)
                self.subscription = self.connect(self.subscription.position)
            case _:
                getattr(self, action)(partition, count)

    def append(self, partition: int, count: int) -> None:
        for _ in range(count):
            expected = self.expected[partition]
            run, seq = f"run-{partition}-{len(expected) % 3}", len(expected)
            expected.append((run, seq))
            self.log[partition].append(decision(run, seq))

    def garbage(self, partition: int, _count: int) -> None:
        self.log[partition].append(b"?")

    def again(self, partition: int, count: int) -> None:
        """The recorder lost its place for a moment."""
        self.fed[partition] = max(0, self.fed[partition] - count)
        self.feed(partition, count)

    def skip(self, partition: int, count: int) -> None:
        """The tail is not told some records."""
        behind = len(self.log[partition]) - self.fed[partition]
        self.fed[partition] += max(0, min(count, behind))

    async def drain(self) -> None:
        for partition in self.log:
            self.garbage(partition, 1)  # what was skipped is noticed at the next record
            self.feed(partition, 10**9)
            self.record(partition, 10**9)
        while await self.read():
            pass


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "feed", "record", "read", "reconnect", "restart", "garbage", "again", "skip"]
        ),
        st.integers(0, 1),
        st.integers(1, 8),
    ),
    max_size=60,
)


@example([("append", 0, 8), ("feed", 0, 2), ("skip", 0, 2)], 100_000)
@settings(deadline=None, max_examples=300)
@given(steps, st.sampled_from([1_500, 3_000, 100_000]))
async def test_nothing_is_lost_or_doubled_whatever_the_timing(
    actions: list[tuple[str, int, int]], ring: int
) -> None:
    world = World(ring)
    for action, partition, count in actions:
        await world.act(action, partition, count)
    await world.drain()
    for partition in (0, 1):
        got = [d for d in world.delivered if d[0].startswith(f"run-{partition}")]
        assert got == world.expected[partition]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=40),
    st.lists(st.sampled_from(["feed", "record", "read"]), max_size=30),
)
async def test_a_decision_that_was_published_twice_is_delivered_once(
    published: list[tuple[str, int]], actions: list[str]
) -> None:
    """Sequence numbers of a run only go back where a decision is published again."""
    world = World()
    newest: dict[str, int] = {}
    expected = []
    for run, seq in published:
        world.log[0].append(decision(run, seq))
        if seq > newest.get(run, -1):
            newest[run] = seq
            expected.append((run, seq))
    for action in actions:
        if action == "read":
            await world.read()
        else:
            getattr(world, action)(0, 3)
    await world.drain()
    assert world.delivered == expected


async def test_what_the_snapshot_shows_is_not_told_again() -> None:
    world = World()
    world.log[0] = [decision("a", seq) for seq in range(5)]
    world.feed(0, 5)
    subscription = Subscription(world.tail, world, Filter(), {0: 1}, {"a": 3})
    batch = await subscription.next()
    assert [d.heading.seq for d in batch.decisions] == [3, 4]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ({}, [0, 1, 2, 3]),
        ({"status": "SUCCESS"}, [2]),
        ({"status": "PENDING"}, [0]),
        ({"workflow": "other"}, [3]),
        ({"run": "a"}, [0, 1, 2]),
        ({"project": "shop"}, [3]),
        ({"project": "shop", "run": "a"}, []),
    ],
)
async def test_filters(wanted: dict[str, str], got: list[int]) -> None:
    world = World()
    world.log[0] = [
        decision("a", 0, previous=RunStatus.PENDING),
        decision("a", 1),
        decision("a", 2, status=RunStatus.SUCCESS),
        decision("b", 3, workflow="other", project="shop"),
    ]
    world.feed(0, 4)
    batch = await world.connect({}, parse_filter(wanted)).next()
    assert [d.heading.seq for d in batch.decisions] == got


@pytest.mark.parametrize("wanted", [{"status": "GREEN"}, {"colour": "x"}, [], {"run": 3}])
def test_a_wrong_filter_is_the_callers_error(wanted: object) -> None:
    with pytest.raises(CallerError, match="filter"):
        parse_filter(wanted)


async def test_big_decisions_come_in_several_batches_without_loss() -> None:
    world = World(ring=10**8)
    reason = "x" * 400_000
    world.log[0] = [
        decision("a", seq, events=(NodeSkipped(node="n", reason=reason),)) for seq in range(7)
    ]
    world.feed(0, 7)
    sizes = []
    while (batch := await world.subscription.next()).moved:
        sizes.append(len(batch.decisions))
        world.delivered += [(d.heading.run, d.heading.seq) for d in batch.decisions]
    assert sizes == [3, 3, 1]
    assert world.delivered == [("a", seq) for seq in range(7)]


async def test_a_long_gap_is_read_from_the_store_page_by_page() -> None:
    world = World(ring=1_500)
    world.log[0] = [decision("a", seq) for seq in range(1_000)]
    await world.drain()
    assert world.delivered == [("a", seq) for seq in range(1_000)]


async def test_what_the_ring_gave_up_is_waited_for_until_it_is_recorded() -> None:
    world = World(ring=1_500)
    world.log[0] = [decision("a", seq) for seq in range(10)]
    world.feed(0, 10)
    batch = await world.subscription.next()
    assert batch.decisions == []
    assert batch.waiting
    world.record(0, 10)
    await world.drain()
    assert world.delivered == [("a", seq) for seq in range(10)]


async def test_a_reader_that_wants_little_gets_a_fresh_cursor_now_and_then() -> None:
    world = World(ring=10**8)
    world.log[0] = [decision("a", seq) for seq in range(6_000)]
    world.feed(0, 6_000)
    subscription = world.connect({}, Filter(run="b"))
    dues = 0
    while (batch := await subscription.next()).moved:
        assert batch.decisions == []
        dues += batch.due
    assert dues == 1


@pytest.mark.parametrize(
    "text", ["", "x", "!!!", "ö", 5, None, "W10", encode({0: 3}, "another"), encode({0: -1}, "log")]
)
def test_a_cursor_that_means_nothing(text: object) -> None:
    assert decode(text, "log") is None


@given(st.dictionaries(st.integers(0, 1000), st.integers(0, 2**60)), st.text())
def test_a_cursor_is_read_as_it_was_written(vector: dict[int, int], log: str) -> None:
    assert decode(encode(vector, log), log) == vector

"""The next batch is decided while the state of the last is written, and never writes before it."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from faust.types import TP
from msgspec import Raw
from structlog.testing import capture_logs

from streams import codec, topics
from streams.engine import Engine
from streams.faust_shell import Batch
from streams.messages import Message, Result, Start
from streams.orchestrator import Decided, Orchestrator
from streams.outbox import Parcel
from streams.plan import Plan, parse
from streams.records import Trigger
from streams.run_store import OFFSET_KEY

PLAN = parse({"name": "w", "nodes": [{"id": "a", "agent": "x", "action": "do"}]})


class Broker:
    """Takes outputs at once, and state when it is let."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.state: list[dict[bytes, bytes | None]] = []
        self.open = asyncio.Event()

    async def deliver(self, parcel: Parcel, *, whole: bool = False) -> list[None]:
        for (topic, _), records in parcel.partitions():
            if topic == topics.STATE:
                await self.open.wait()
                self.state.append({key or b"": value for key, value, _ in records})
            elif topic == topics.EVENTS:
                self.events += [value or b"" for _, value, _ in records]
        return [None] * len(parcel.partitions())


class Rig:
    def __init__(self) -> None:
        self.broker: Any = Broker()
        blobs: Any = None
        self.orchestrator = Orchestrator(
            self.broker, self.broker, 2, self._plan_of, self._prepare, blobs
        )
        self.orchestrator.own(0, {})
        self.read = 0
        self.published = asyncio.Event()
        self.published.set()

    async def _plan_of(self, *_: object) -> Plan:
        await self.published.wait()
        return PLAN

    async def _prepare(self, _agent: str) -> None:
        pass

    async def decide(self, *messages: Message) -> Decided:
        batch = inbox(0, self.read, *messages)
        self.read += len(messages)
        return await self.orchestrator.decide([batch])

    def decided(self) -> Sequence[int]:
        return [codec.decisions.decode(value).seq for value in self.broker.events]


def inbox(partition: int, offset: int, *messages: Message, generation: int = 1) -> Batch:
    records = [
        SimpleNamespace(
            topic=topics.INBOX, partition=partition, offset=offset + n, timestamp=1, key=b"k",
            value=codec.encode(message), headers=(),
        )
        for n, message in enumerate(messages)
    ]  # fmt: skip
    return Batch(TP(topics.INBOX, partition), generation, records)


class Replaced:
    """Says of the changelog that it is somebody else's by now."""

    async def may_write(self) -> bool:
        return False

    def to_mend(self, _partition: int, _reads: int) -> set[bytes]:
        return set()

    def written(self, *_: object) -> None:
        raise AssertionError("nothing is to be written")


START = Start(
    run="r", project="p", workflow="w", version=1, trigger=Trigger(id="e", source="s", type="t")
)
DONE = Result(run="r", node="a", attempt=1, started_at=1, finished_at=2, output=Raw(b"1"))


async def test_a_run_goes_on_before_its_state_is_written_and_is_known_after_its_end() -> None:
    rig = Rig()
    first = asyncio.create_task(rig.orchestrator.write(await rig.decide(START)))
    second = await rig.decide(DONE)  # decided from the state in memory
    assert rig.decided() == [0, 2]
    third = await rig.decide(START, DONE)  # the run has ended, though no table says so yet
    assert rig.decided() == [0, 2]
    assert (rig.broker.state, first.done()) == ([], False)
    rig.broker.open.set()
    await first
    for decided in (second, third):
        assert await rig.orchestrator.write(decided) == decided.batches
    assert [written[OFFSET_KEY] for written in rig.broker.state] == [b"1", b"2", b"4"]
    await rig.decide(DONE)
    assert rig.decided() == [0, 2]


async def test_partitions_are_let_go_only_when_what_is_decided_is_written() -> None:
    rig = Rig()
    writing = asyncio.create_task(rig.orchestrator.write(await rig.decide(START)))
    letting_go = asyncio.create_task(rig.orchestrator.release())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not letting_go.done()
    rig.broker.open.set()
    await letting_go
    assert writing.done()
    assert len((await rig.decide(DONE)).batches) == 0


class Group:
    """What the shell knows of the group: whether it still counts this worker in."""

    ours = False
    error: Exception | None = None

    async def may_write(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.ours

    def to_mend(self, _partition: int, _reads: int) -> set[bytes]:
        return set()

    def written(self, *_: object) -> None:
        pass


async def test_what_was_decided_behind_a_refused_write_is_never_written() -> None:
    """It lacks what that write had, although the group may have taken the worker back."""
    rig = Rig()
    rig.broker.open.set()
    rig.orchestrator.changelog = group = Group()
    first = await rig.decide(START)
    second = await rig.decide(DONE)
    with capture_logs():
        assert list(await rig.orchestrator.write(first)) == []
        group.ours = True
        rig.orchestrator.own(0, {})
        assert list(await rig.orchestrator.write(second)) == []
    assert rig.broker.state == []
    rig.read = 0
    decided = await rig.decide(START, DONE)
    assert await rig.orchestrator.write(decided) == decided.batches
    assert [written[OFFSET_KEY] for written in rig.broker.state] == [b"2"]


async def test_what_was_decided_behind_a_failed_write_is_never_written() -> None:
    rig = Rig()
    rig.broker.open.set()
    rig.orchestrator.changelog = group = Group()
    group.error = OSError("the log is gone")
    first = await rig.decide(START)
    second = await rig.decide(DONE)
    with pytest.raises(OSError, match="the log is gone"):
        await rig.orchestrator.write(first)
    group.error = None
    group.ours = True
    assert list(await rig.orchestrator.write(second)) == []
    await rig.orchestrator.release()
    assert rig.broker.state == []


async def test_nothing_is_begun_while_partitions_are_let_go() -> None:
    """Else a backlog would hold up the whole group's rebalance."""
    rig = Rig()
    writing = asyncio.create_task(rig.orchestrator.write(await rig.decide(START)))
    letting_go = asyncio.create_task(rig.orchestrator.release())
    await asyncio.sleep(0)
    late = await rig.decide(DONE)
    assert (len(late.batches), rig.decided()) == (0, [0])
    rig.broker.open.set()
    assert await rig.orchestrator.write(late) == []
    await letting_go
    assert writing.done()
    rig.orchestrator.own(0, {OFFSET_KEY: b"1"})
    assert len((await rig.decide(DONE)).batches) == 1


async def test_who_learns_while_deciding_that_it_is_replaced_ends_that_in_order() -> None:
    rig = Rig()
    rig.orchestrator.own(1, {})
    rig.broker.open.set()
    first = await rig.decide(START)
    rig.orchestrator.changelog = Replaced()
    rig.published.clear()
    other = msgspec.structs.replace(START, run="r2", version=2)
    second = asyncio.create_task(
        rig.orchestrator.decide([inbox(0, 1, other), inbox(1, 0, msgspec.structs.replace(START))])
    )
    await asyncio.sleep(0)
    with capture_logs():
        assert await rig.orchestrator.write(first) == ()
        rig.published.set()
        assert await rig.orchestrator.write(await second) == ()
    await rig.orchestrator.release()
    assert rig.broker.state == []


async def test_what_waited_through_a_rebalance_is_not_decided() -> None:
    """It may be ahead of the state by now, and what lies between would count as read."""
    rig = Rig()
    rig.broker.open.set()
    engine = Engine(
        "127.0.0.1:1", 2, cast("Any", None), rig.orchestrator, lambda _app: {}, group="unit"
    )
    engine.app.consumer_generation_id = 7
    rig.orchestrator.own(0, {OFFSET_KEY: b"0"})
    ahead, next_one = inbox(0, 5, DONE, generation=6), inbox(0, 0, START, generation=7)
    # Only Faust calls it otherwise, and that wants a broker.
    await engine._orchestrate([ahead, next_one])
    await rig.orchestrator.release()
    assert [written[OFFSET_KEY] for written in rig.broker.state] == [b"1"]
    await engine.actors.stop()

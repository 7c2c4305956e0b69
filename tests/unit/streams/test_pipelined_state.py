"""The next batch is decided while the state of the last is written, and never writes before it."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from faust.types import TP
from msgspec import Raw

from streams import codec, topics
from streams.faust_shell import Batch
from streams.orchestrator import Decided, Orchestrator
from streams.outbox import Parcel
from streams.plan import Plan, parse
from streams.records import Message, Result, Start, Trigger
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
            self.broker, self.broker, 1, self._plan_of, self._prepare, blobs
        )
        self.orchestrator.own(0, {})
        self.read = 0

    async def _plan_of(self, *_: object) -> Plan:
        return PLAN

    async def _prepare(self, _agent: str) -> None:
        pass

    async def decide(self, *messages: Message) -> Decided:
        records = [
            SimpleNamespace(
                topic=topics.INBOX, partition=0, offset=self.read + n, timestamp=1, key=b"k",
                value=codec.encode(message), headers=(),
            )
            for n, message in enumerate(messages)
        ]  # fmt: skip
        self.read += len(records)
        return await self.orchestrator.decide([Batch(TP(topics.INBOX, 0), 1, records)])

    def decided(self) -> Sequence[int]:
        return [codec.decisions.decode(value).seq for value in self.broker.events]


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


async def test_a_write_that_is_given_up_holds_nobody() -> None:
    rig = Rig()
    rig.orchestrator.give_up(await rig.decide(START))
    await rig.orchestrator.release()

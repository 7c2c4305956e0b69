"""A worker's signs of life: what it says, how often, and that it leaves."""

import asyncio
from typing import Any

from agents import Agent, AgentRegistry
from agents.presence import Presence
from streams import codec, topics
from streams.outbox import Parcel
from streams.registry import Serving, WorkerRecord


class Sent:
    """Takes parcels; may be away."""

    def __init__(self) -> None:
        self.records: list[tuple[tuple[str, int], bytes | None, Any]] = []
        self.more = asyncio.Event()
        self.away = False

    async def deliver(self, parcel: Parcel) -> None:
        if self.away:
            await asyncio.Event().wait()
        for place, records in parcel.partitions():
            self.records += [(place, key, value) for key, value, _ in records]
        self.more.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.records) < count:
                self.more.clear()
                await self.more.wait()


def presence(sent: Sent) -> Presence:
    agents = [
        Agent("a", description="", version="2.0.0", concurrency=3),
        Agent("b", description=""),
    ]
    return Presence(
        sent,  # type: ignore[arg-type]  # all that is needed of an outbox
        AgentRegistry(agents),
        "host/7",
        started_at=1,
        interval=0.01,
        in_hand={"a": 2, "b": 0}.__getitem__,
        trouble=lambda: "orders cannot be read",
    )


async def test_it_says_what_it_serves_again_and_again_until_it_leaves() -> None:
    sent = Sent()
    signs = presence(sent)
    task = asyncio.create_task(signs.run())
    await sent.until(3)
    task.cancel()
    await asyncio.wait([task])
    await signs.leave()
    place, key, value = sent.records[0]
    assert (place, key) == ((topics.AGENTS, 0), b"worker/host/7")
    assert codec.workers.decode(value) == WorkerRecord(
        worker="host/7",
        started_at=1,
        interval_ms=10,
        agents=(
            Serving(name="a", version="2.0.0", capacity=3, in_hand=2),
            Serving(name="b", version="1.0.0", capacity=64),
        ),
        trouble="orders cannot be read",
    )
    assert sent.records[-1] == (place, key, None)


async def test_who_never_served_need_not_leave() -> None:
    sent = Sent()
    await presence(sent).leave()
    assert sent.records == []


async def test_leaving_does_not_wait_for_a_broker_that_is_away(monkeypatch: Any) -> None:
    monkeypatch.setattr("agents.presence._FAREWELL_S", 0.01)
    sent = Sent()
    signs = presence(sent)
    task = asyncio.create_task(signs.run())
    await sent.until(1)
    task.cancel()
    await asyncio.wait([task])
    sent.away = True
    await signs.leave()

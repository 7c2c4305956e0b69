"""Waiting for what happens, over the product's own interfaces."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import letters, topics
from streams.lifecycle import TERMINAL
from streams.messages import DeadLetter


async def end_of(session: aiohttp.ClientSession, run: str) -> dict[str, Any]:
    """The run's detail once it is terminal, as REST shows it; awaited over the websocket."""
    async for frame in frames(session, run):
        told = [frame["run"]] if frame.get("run") else frame.get("decisions", ())
        if told and told[-1]["status"] in TERMINAL:
            return await recorded(session, run, frame)
    raise AssertionError("the stream has an end")


async def detail_where(
    session: aiohttp.ClientSession, run: str, there: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The run's detail once it is as wanted; looked at whenever the stream tells of the run."""
    async for frame in frames(session, run):
        if frame.get("run") or frame.get("decisions"):
            detail = await recorded(session, run, frame)
            if there(detail):
                return detail
    raise AssertionError("the stream has an end")


async def frames(session: aiohttp.ClientSession, run: str) -> AsyncIterator[dict[str, Any]]:
    """What the websocket tells of the run; it fails where it tells nothing for a minute."""
    async with session.ws_connect("/api/stream") as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "filter": {"run": run}})
        while True:
            frame = await socket.receive_json(timeout=60)
            assert frame["type"] != "error", frame
            yield frame


async def recorded(
    session: aiohttp.ClientSession, run: str, frame: dict[str, Any]
) -> dict[str, Any]:
    """The run's detail, with all that the frame tells: the store is behind it for a moment."""
    await get(session, "/api/runs", limit="1", atLeast=frame["cursor"])
    return await get(session, f"/api/runs/{run}")


async def get(session: aiohttp.ClientSession, path: str, **query: str) -> dict[str, Any]:
    async with session.get(path, params=query) as response:
        body = await response.json()
        assert response.status == 200, body
    return dict(body)


async def dead_letters(bootstrap: str, partitions: int, count: int) -> list[DeadLetter]:
    """The first `count` dead letters of all, once they are there."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        places = [TopicPartition(topics.DEAD_LETTERS, p) for p in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        found: list[DeadLetter] = []
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                all_records = [letters.read(record.value) for record in records]
                found += [letter for letter in all_records if isinstance(letter, DeadLetter)]
        return found
    finally:
        await consumer.stop()

"""Waiting for what happens, over the product's own interfaces."""

from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import letters, topics
from streams.lifecycle import TERMINAL
from streams.messages import DeadLetter


async def end_of(session: aiohttp.ClientSession, run: str) -> dict[str, Any]:
    """The run's detail once it is terminal, as REST shows it; awaited over the websocket."""
    async with session.ws_connect("/api/stream") as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "filter": {"run": run}})
        status = ""
        while status not in TERMINAL:
            frame = await socket.receive_json(timeout=60)
            if frame["type"] == "error":
                raise AssertionError(frame)
            if frame["type"] == "snapshot" and frame.get("run"):
                status = frame["run"]["status"]
            for decision in frame.get("decisions", ()):
                status = decision["status"]
    detail = await get(session, f"/api/runs/{run}")
    while detail["status"] not in TERMINAL:  # the store is behind the log for a moment
        detail = await get(session, f"/api/runs/{run}")
    return detail


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

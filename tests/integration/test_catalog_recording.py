"""The topics of workflows and agents into the tables, from a real Kafka."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from msgspec import Raw
from prometheus_client import REGISTRY

from infra.topic_admin import ensure_topics
from sinks import schema
from sinks.catalog_recording import CatalogRecording
from sinks.clickhouse import open_store
from sinks.recording import LogRecord
from sinks.store import Columns, Store
from streams import codec, topics
from streams.catalog import Definition, Retirement
from streams.errors import OperatorError
from streams.registry import AgentRecord

NAME = "recorded-catalog"
CATALOG = (topics.WORKFLOWS, topics.AGENTS, topics.BUDGETS, topics.CONTROL)


class Counted:
    """What the metric says of a topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def now(self) -> float:
        found = REGISTRY.get_sample_value(
            "commandcenter_catalog_unreadable_total", {"topic": self._topic}
        )
        return found or 0.0


class AwayOnce:
    """A store whose first insert finds nobody."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.refused = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def insert(self, table: str, columns: Columns, *, token: str = "") -> None:
        if not self.refused.is_set():
            self.refused.set()
            raise OperatorError("the store is away")
        await self._store.insert(table, columns, token=token)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"chdb://{tmp_path}")
    try:
        await schema.apply(store)
        yield store
    finally:
        await store.close()


def version(number: int, digest: str) -> tuple[bytes, bytes]:
    record = Definition(
        project="default",
        name=NAME,
        version=number,
        digest=digest,
        published_at=1_000 * number,
        definition=Raw(b'{"nodes":[{"id":"a"},{"id":"b"}],"trigger":{"event":"x"}}'),
    )
    return f"default/{NAME}@{number}#{digest}".encode(), codec.encode(record)


def agent(number: str) -> tuple[bytes, bytes]:
    descriptor = Raw(b'{"type":"LLM","description":"Thinks.","actions":[{"name":"think"}]}')
    record = AgentRecord(
        name=NAME, version=number, worker="w", registered_at=1_000, descriptor=descriptor
    )
    return NAME.encode(), codec.encode(record)


async def test_the_tables_say_what_the_topics_say_however_often_they_are_read(
    kafka: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.catalog_recording._RETRY_S", 0.01)
    catalog = [topic for topic in topics.TOPICS if topic.name in CATALOG]
    await ensure_topics(kafka, catalog, partitions=1, replication=1)
    away = AwayOnce(store)
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka) as producer,
        CatalogRecording(kafka, away) as recording,  # type: ignore[arg-type]  # a stand-in
    ):
        for key, value in (version(1, "first"), version(1, "second"), version(2, "third")):
            await producer.send_and_wait(topics.WORKFLOWS, value, key=key)
        await producer.send_and_wait(topics.WORKFLOWS, b"nonsense", key=b"poison")
        retired = Retirement(project="default", name=NAME, version=1, retired_at=5_000)
        await producer.send_and_wait(topics.WORKFLOWS, codec.encode(retired), key=b"retired")
        for key, value in (agent("1.0.0"), agent("1.1.0")):
            await producer.send_and_wait(topics.AGENTS, value, key=key)
        await recording.caught_up()
    assert away.refused.is_set()

    async def tables() -> tuple[Any, Any]:
        workflows = await store.query(
            "SELECT version, digest, latest, retired, nodes, trigger FROM workflows"
            f" WHERE name = '{NAME}' ORDER BY version"
        )
        agents = await store.query(
            f"SELECT version, type, description, actions FROM agents WHERE name = '{NAME}'"
        )
        return workflows.rows, agents.rows

    once = await tables()
    assert once == (
        [
            (1, "first", False, True, 2, '{"event":"x"}'),
            (2, "third", True, False, 2, '{"event":"x"}'),
        ],
        [("1.1.0", "LLM", "Thinks.", ["think"])],
    )
    async with CatalogRecording(kafka, store) as recording:  # as after a restart
        await recording.caught_up()
    assert await tables() == once

    async with (
        AIOKafkaProducer(bootstrap_servers=kafka) as producer,
        CatalogRecording(kafka, store) as recording,
    ):
        await producer.send_and_wait(topics.AGENTS, None, key=NAME.encode())
        await recording.caught_up()
    assert (await tables())[1] == []


@pytest.mark.parametrize("topic", CATALOG)
@pytest.mark.parametrize("value", [b"nonsense", b"\xff\xfe", b'{"name":1}'])
async def test_what_cannot_be_read_is_a_dead_letter_and_no_stop(
    kafka: str, store: Store, topic: str, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.catalog_recording._RETRY_S", 0.01)
    catalog = [each for each in topics.TOPICS if each.name in CATALOG]
    await ensure_topics(kafka, catalog, partitions=1, replication=1)
    kept: list[tuple[str, int, str]] = []
    refusals = [OperatorError("Kafka is away")]

    async def keep(record: LogRecord, error: Exception) -> None:
        if refusals:
            raise refusals.pop()
        kept.append((record.topic, record.offset, type(error).__name__))

    counted = Counted(topic)
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka) as producer,
        CatalogRecording(kafka, store, keep) as recording,
    ):
        await recording.caught_up()
        before = counted.now()
        sent = await producer.send_and_wait(topic, value, key=b"poison")
        key, registered = agent("7.0.0")
        await producer.send_and_wait(topics.AGENTS, registered, key=key)
        await recording.caught_up()
    assert (topic, sent.offset, "UnreadableRecordError") in kept
    assert counted.now() == before + 1
    rows = await store.query(f"SELECT version FROM agents WHERE name = '{NAME}'")
    assert rows.rows == [("7.0.0",)]

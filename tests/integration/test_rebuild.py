"""The rebuild: a log on a real Kafka, recorded beside the old tables, then exchanged for them."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from small_log import SmallLog

from infra.topic_admin import ensure_topics
from sinks import rebuild, retention, schema
from sinks.clickhouse import open_store
from sinks.history import History
from sinks.recording import LogRecord, Recording
from sinks.rollups import Rollups
from sinks.store import Store
from streams.topics import Topic

TABLES = ("events", "runs", "agent_runs", "costs", "runs_per_minute", "steps_per_day", "positions")


async def contents(store: Store) -> dict[str, Any]:
    return {
        table: (await store.query(f"SELECT * FROM {table} ORDER BY ALL")).rows for table in TABLES
    }


async def never(_record: LogRecord, error: Exception) -> None:
    raise AssertionError(error)


@pytest.fixture
async def topic(kafka: str) -> str:
    """An events topic with some runs, and a record that is none."""
    made = Topic(f"events-{uuid.uuid4()}", "run id", "a test", "delete", -1)
    await ensure_topics(kafka, [made], partitions=2, replication=1)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for entry in SmallLog().some_runs().events:
            await producer.send_and_wait(made.name, entry.value, key=entry.key, partition=1)
        await producer.send_and_wait(made.name, b"nonsense", partition=0)
    return made.name


@pytest.fixture
async def url(tmp_path: Path) -> str:
    return f"chdb://{tmp_path / 'store'}"


@pytest.fixture
async def store(url: str, topic: str) -> AsyncIterator[Store]:
    """Recorded from the same log, by other batches."""
    store = await open_store(url)
    try:
        await schema.apply(store)
        recording = Recording(store, topic, never)
        await recording.resume([1])
        for entry in SmallLog().some_runs().events:
            await recording.record([entry._replace(topic=topic, partition=1)])
        await Rollups(store, topic).refresh({0: 0, 1: recording.watermark[1]})
        yield store
    finally:
        await store.close()


async def test_afterwards_the_tables_are_the_same(
    kafka: str, store: Store, url: str, topic: str
) -> None:
    before = await contents(store)
    said: list[tuple[int, int]] = []
    done = await rebuild.rebuild(
        store, url, kafka, topic=topic, catalog=False, say=lambda *now: said.append(now)
    )
    after = await contents(store)
    # Nothing but unreadable records is on partition 0, so no position of it follows from events.
    before["positions"] = [row for row in before["positions"] if row[1] == 1]
    assert after == before
    assert after["events"]
    assert (done.events, done.unreadable) == (len(after["events"]), 1)
    assert said[-1] == (done.records, done.records)
    beside = await store.query(
        "SELECT count() FROM system.databases WHERE endsWith(name, '_rebuild')"
    )
    assert beside.rows == [(0,)]


async def test_what_was_lost_and_what_does_not_belong_there_is_mended(
    kafka: str, store: Store, url: str, topic: str
) -> None:
    before = await contents(store)
    await store.command("ALTER TABLE events DELETE WHERE seq = 1 SETTINGS mutations_sync = 1")
    await store.command("TRUNCATE TABLE costs_log")
    await store.insert("runs_log", {"started_at": [1], "run_id": ["nobody's"]})
    await rebuild.rebuild(store, url, kafka, topic=topic, catalog=False)
    after = await contents(store)
    assert {name: after[name] for name in TABLES[:-1]} == {
        name: before[name] for name in TABLES[:-1]
    }


_REBUILD = """
import asyncio, sys
from sinks import rebuild, schema
from sinks.clickhouse import open_store

async def main():
    url, kafka, topic, until = sys.argv[1:]
    store = await open_store(url)
    await schema.apply(store)
    if until == "recorded":
        async def hang(*_):
            print("there", flush=True)
            await asyncio.Event().wait()
        rebuild._note_exchange = hang
    else:
        command, seen = store.command, []
        async def exchange(sql, parameters=None):
            await command(sql, parameters)
            if sql.startswith("EXCHANGE"):
                seen.append(sql)
                if len(seen) == 2:
                    print("there", flush=True)
                    await asyncio.Event().wait()
        store.command = exchange
    await rebuild.rebuild(store, url, kafka, topic=topic, catalog=False)

asyncio.run(main())
"""


@pytest.mark.parametrize("until", ["recorded", "half exchanged"])
async def test_killed_it_goes_on_where_it_was(
    kafka: str, tmp_path: Path, topic: str, until: str
) -> None:
    url = f"chdb://{tmp_path / 'killed'}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _REBUILD, url, kafka, topic, until),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()

    store = await open_store(url)
    try:
        await schema.apply(store)
        if until == "recorded":
            assert (await store.query("SELECT count() FROM events")).rows == [(0,)]
            done = await rebuild.rebuild(store, url, kafka, topic=topic, catalog=False)
            assert done.resumed_at > 0
        else:
            await rebuild.finish(store)
        await retention.apply(store, 0)
        events = SmallLog().some_runs().events
        assert await History(store, topic).positions() == {1: events[-1].offset}
        [(runs, counted)] = (
            await store.query(
                "SELECT (SELECT count() FROM runs), (SELECT sum(runs) FROM runs_per_day)"
            )
        ).rows
        assert (runs, counted) == (4, 4)
        # It is a store like any other: recording goes on.
        recording = Recording(store, topic, never)
        await recording.resume([1])
        assert recording.watermark == {1: events[-1].offset}
    finally:
        await store.close()

"""The recorder on a real Kafka and a real store: batches, partitions, restarts, a group of two."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition
from prometheus_client import REGISTRY

from infra.topic_admin import ensure_topics
from sinks import schema
from sinks.clickhouse import open_store
from sinks.history import History
from sinks.recorder import Recorder
from sinks.recording import LogRecord
from sinks.store import Columns, Store
from streams import codec
from streams.errors import OperatorError
from streams.events import Decision, RunStarted, RunSucceeded
from streams.records import RunStatus, Trigger
from streams.topics import Topic

pytestmark = pytest.mark.kafka

PARTITIONS = 3
NOW = 1_700_000_000_000
STARTED = RunStarted(trigger=Trigger(id="e", source="/t", type="t"), nodes=1, deadline=NOW)


def decisions(run: str, at: int = NOW) -> list[bytes]:
    """A run in two decisions."""
    parts = {"run": run, "project": "default", "workflow": "w", "version": 1}
    pending, running, done = RunStatus.PENDING, RunStatus.RUNNING, RunStatus.SUCCESS
    return [
        codec.encode(
            Decision(seq=0, at=at, status=running, previous=pending, events=(STARTED,), **parts)  # type: ignore[arg-type]  # one type a field
        ),
        codec.encode(
            Decision(
                seq=1, at=at + 5, status=done, previous=running, events=(RunSucceeded(),), **parts
            )  # type: ignore[arg-type]  # as above
        ),
    ]


class AwayStore:
    """A store that can be away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False
        self.refused = asyncio.Event()
        self.inserted = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def insert(self, table: str, columns: Columns, *, token: str = "") -> None:
        if self.away:
            self.refused.set()
            raise OperatorError("the store is away")
        await self._store.insert(table, columns, token=token)
        self.inserted.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    store = await open_store(f"chdb://{tmp_path_factory.mktemp('store')}")
    try:
        await schema.apply(store)
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(engine: Store) -> AwayStore:
    for table in ("events", "runs_log", "agent_runs_log", "costs_log"):
        await engine.command(f"TRUNCATE TABLE {table}")
    return AwayStore(engine)


@pytest.fixture(autouse=True)
def _retry_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.recording.RETRY_FIRST_S", 0.01)


class Log:
    """An events topic of its own, and a producer for it."""

    def __init__(self, bootstrap: str, topic: str, producer: AIOKafkaProducer) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self._producer = producer
        self.ends = dict.fromkeys(range(PARTITIONS), -1)

    async def append(self, partition: int, *values: bytes) -> None:
        sent = [
            await self._producer.send(self.topic, value, partition=partition) for value in values
        ]
        for future in sent:
            self.ends[partition] = (await future).offset

    async def append_runs(self, names: Sequence[str]) -> None:
        for number, name in enumerate(names):
            await self.append(number % PARTITIONS, *decisions(name))


@pytest.fixture
async def log(kafka: str) -> AsyncIterator[Log]:
    topic = Topic(f"events-{uuid.uuid4()}", "run id", "a test", "delete", -1)
    await ensure_topics(kafka, [topic], partitions=PARTITIONS, replication=1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        yield Log(kafka, topic.name, producer)
    finally:
        await producer.stop()


async def nothing_is_unreadable(record: LogRecord, error: Exception) -> None:
    raise AssertionError(f"{record.offset}: {error}")


@asynccontextmanager
async def recording(
    log: Log,
    store: AwayStore,
    *,
    group: str | None = None,
    on_records: Callable[[int, Sequence[LogRecord]], None] | None = None,
    dead_letter: Any = nothing_is_unreadable,
) -> AsyncIterator[Recorder]:
    recorder = Recorder(
        log.bootstrap,
        store,
        dead_letter,
        group=group,
        topic=log.topic,
        on_records=on_records,
    )
    task = asyncio.create_task(recorder.run())
    ready = asyncio.create_task(recorder.ready.wait())
    try:
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield recorder
    finally:
        ready.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def counted(store: AwayStore) -> tuple[int, int, int]:
    """Runs, those that succeeded, and events."""
    rows = await store.query(
        "SELECT count(), countIf(status = 'SUCCESS'), (SELECT count() FROM events) FROM runs"
    )
    runs, done, events = rows.rows[0]
    return runs, done, events


async def test_what_is_on_the_log_gets_into_the_store(log: Log, store: AwayStore) -> None:
    await log.append_runs([f"before-{n}" for n in range(30)])
    async with recording(log, store) as recorder:
        await recorder.reached(log.ends)
        assert await counted(store) == (30, 30, 60)
        await log.append_runs([f"after-{n}" for n in range(30)])
        await recorder.reached(log.ends)
        assert await counted(store) == (60, 60, 120)
        assert dict(recorder.watermark) == log.ends
        health = recorder.health()
        assert (health.ready, health.lag, health.last_error) == (True, 0, None)


async def test_a_new_recorder_goes_on_where_the_store_is(log: Log, store: AwayStore) -> None:
    await log.append_runs(["a", "b", "c"])
    async with recording(log, store) as recorder:
        await recorder.reached(log.ends)
    await log.append_runs(["d"])
    tapped: list[tuple[int, int]] = []

    def tap(partition: int, records: Sequence[LogRecord]) -> None:
        tapped.extend((partition, record.offset) for record in records)

    async with recording(log, store, on_records=tap) as recorder:
        await recorder.reached(log.ends)
    assert await counted(store) == (4, 4, 8)
    assert tapped == [(0, 2), (0, 3)]


async def test_the_tap_has_records_before_the_store(log: Log, store: AwayStore) -> None:
    seen: asyncio.Queue[tuple[int, int, bytes | None]] = asyncio.Queue()

    def tap(partition: int, records: Sequence[LogRecord]) -> None:
        for record in records:
            seen.put_nowait((partition, record.offset, record.value))

    store.away = True
    async with recording(log, store, on_records=tap) as recorder:
        first, second = decisions("a")
        await log.append(2, first, second)
        assert await seen.get() == (2, 0, first)
        assert await seen.get() == (2, 1, second)
        assert recorder.watermark[2] == -1


async def test_it_keeps_its_place_while_the_store_is_away(log: Log, store: AwayStore) -> None:
    store.away = True
    async with recording(log, store) as recorder:
        await log.append_runs(["a", "b", "c"])
        await store.refused.wait()
        health = recorder.health()
        assert health.last_error == "the store is away"
        assert health.lag > 0
        assert REGISTRY.get_sample_value("commandcenter_recorder_stuck") == 1
        assert REGISTRY.get_sample_value("commandcenter_recorder_lag_records") > 0
        store.away = False
        await recorder.reached(log.ends)
        assert await counted(store) == (3, 3, 6)
        assert recorder.health().last_error is None
        assert REGISTRY.get_sample_value("commandcenter_recorder_stuck") == 0


async def test_it_can_be_stopped_while_the_store_is_away(log: Log, store: AwayStore) -> None:
    store.away = True
    async with recording(log, store):
        await log.append_runs(["a"])
        await store.refused.wait()
    store.away = False
    async with recording(log, store) as recorder:
        await recorder.reached(log.ends)
    assert await counted(store) == (1, 1, 2)


async def test_an_unreadable_record_is_put_aside(log: Log, store: AwayStore) -> None:
    letters: list[tuple[str, int, bytes | None, str]] = []

    async def keep(record: LogRecord, error: Exception) -> None:
        letters.append((record.topic, record.offset, record.value, str(error)))

    start, end = decisions("a")
    await log.append(0, start, b"not a decision", end)
    async with recording(log, store, dead_letter=keep) as recorder:
        await recorder.reached(log.ends)
    assert await counted(store) == (1, 1, 2)
    [(topic, offset, value, reason)] = letters
    assert (topic, offset, value) == (log.topic, 1, b"not a decision")
    assert "not a JSON object" in reason


async def test_a_missing_topic_is_the_operators_to_mend(kafka: str, store: AwayStore) -> None:
    recorder = Recorder(kafka, store, nothing_is_unreadable, topic=f"none-{uuid.uuid4()}")
    with pytest.raises(OperatorError, match="has no topic none-"):
        await recorder.run()


async def test_a_store_of_another_log_is_refused(log: Log, store: AwayStore) -> None:
    await store.insert(
        "events", {"topic": [log.topic], "run_id": ["a"], "partition": [1], "offset": [7]}
    )
    with pytest.raises(OperatorError, match="up to offset 7, but the log ends at -1"):
        async with recording(log, store):
            pass


@pytest.mark.parametrize("group", [None, "group"])
async def test_what_the_log_lost_before_it_was_recorded_is_a_gap(
    log: Log, store: AwayStore, group: str | None
) -> None:
    await log.append_runs(["a"])
    async with recording(log, store) as recorder:
        await recorder.reached(log.ends)
    await log.append(0, *decisions("b"), *decisions("c"))
    admin = AIOKafkaAdminClient(bootstrap_servers=log.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(log.topic, 0): RecordsToDelete(before_offset=4)})
    finally:
        await admin.close()
    group = group and f"{group}-{uuid.uuid4()}"
    async with recording(log, store, group=group) as recorder:
        await recorder.reached(log.ends)
        assert recorder.counts.gaps == 1
    assert await counted(store) == (2, 2, 4)


async def test_recorders_of_a_group_share_the_partitions_and_double_nothing(
    log: Log, store: AwayStore
) -> None:
    group = f"recorders-{uuid.uuid4()}"
    names = [f"run-{n}" for n in range(300)]
    async with recording(log, store, group=group) as first:
        await log.append_runs(names[:100])
        await first.reached(log.ends)
        async with recording(log, store, group=group) as second:
            appending = asyncio.create_task(log.append_runs(names[100:200]))
            await second.ready.wait()
            await appending
            await until_recorded(store, log)
            assert second.watermark
            assert not set(first.watermark) & set(second.watermark)
        # The second one is gone: the first takes everything back.
        await log.append_runs(names[200:])
        await first.reached(log.ends)
    assert await counted(store) == (300, 300, 600)
    rows = await store.query("SELECT uniqExact(partition, offset) FROM events")
    assert rows.rows[0] == (600,)


async def until_recorded(store: AwayStore, log: Log) -> None:
    """Which recorder has which partition does not matter: the store is asked after each insert."""
    history = History(store, log.topic)
    while True:
        store.inserted.clear()
        if await history.positions() == log.ends:
            return
        await store.inserted.wait()


async def test_large_batches_are_recorded_whole(log: Log, store: AwayStore) -> None:
    names = [f"run-{n}" for n in range(6_000)]
    await log.append_runs(names)
    async with recording(log, store) as recorder:
        await recorder.reached(log.ends)
        assert recorder.counts.batches < 60
    assert await counted(store) == (6_000, 6_000, 12_000)

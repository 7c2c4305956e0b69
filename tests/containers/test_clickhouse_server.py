"""The recording against the official ClickHouse image. The store itself: `test_store_contract`."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from testcontainers.community.clickhouse import ClickHouseContainer

from sinks import schema
from sinks.clickhouse import open_store
from sinks.history import History
from sinks.recording import LogRecord, Recording
from streams import codec
from streams.events import Decision, RunStarted, RunSucceeded
from streams.records import RunStatus, Trigger

pytestmark = pytest.mark.containers

TOPIC = "test.events"
STARTED = RunStarted(trigger=Trigger(id="e", source="/t", type="t"), nodes=1, deadline=1)


@dataclass(slots=True)
class Record:
    offset: int
    value: bytes | None
    partition: int = 0
    topic: str = TOPIC
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ClickHouseContainer(username="test", password="test", dbname="test") as container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(8123)
        yield f"clickhouse://test:test@{host}:{port}/commandcenter"


def log(runs: int) -> list[Record]:
    values = []
    for number in range(runs):
        run, at = f"run-{number}", 1_700_000_000_000 + number
        for seq, event, before, after in (
            (0, STARTED, RunStatus.PENDING, RunStatus.RUNNING),
            (1, RunSucceeded(), RunStatus.RUNNING, RunStatus.SUCCESS),
        ):
            decision = Decision(
                run=run,
                project="default",
                workflow="w",
                version=1,
                seq=seq,
                at=at + seq,
                status=after,
                previous=before,
                events=(event,),
            )
            values.append(codec.encode(decision))
    return [Record(offset, value) for offset, value in enumerate(values)]


async def unreadable(record: LogRecord, error: Exception) -> None:
    raise AssertionError(f"{record.offset}: {error}")


async def test_a_second_recorder_goes_on_where_the_first_one_stopped(url: str) -> None:
    records = log(1_000)
    for upto in (700, 2_000):
        store = await open_store(url)  # a database that does not exist yet is made
        try:
            await schema.apply(store)
            recording = Recording(store, TOPIC, unreadable)
            await recording.resume([0])
            rest = records[recording.watermark[0] + 1 : upto]
            for start in range(0, len(rest), 300):
                await recording.record(rest[start : start + 300])
            history = History(store, TOPIC)
            assert await history.positions() == {0: upto - 1}
        finally:
            await store.close()

    store = await open_store(url)
    try:
        counted = await store.query_readonly(
            "SELECT count(), countIf(status = 'SUCCESS'), (SELECT count() FROM events) FROM runs"
        )
        assert counted.rows[0] == (1_000, 1_000, 2_000)
        replayed = await History(store, TOPIC).decisions(0, after=-1, limit=5_000)
        assert [decision.value for decision in replayed] == [record.value for record in records]
    finally:
        await store.close()

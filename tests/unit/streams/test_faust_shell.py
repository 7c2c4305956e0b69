"""The insides of Faust that `streams/faust_shell.py` builds on are the ones it was written for."""

import inspect
from hashlib import sha256
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.app.base import App
from faust.stores.memory import Store
from faust.streams import Stream
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.tables.table import Table
from faust.transport.conductor import ConductorCompiler
from faust.transport.consumer import Consumer, Fetcher
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
    ThreadDelegateConsumer,
)
from faust.types import TP

from streams.faust_shell import Batch, PartitionedStore

INSIDES = {
    Consumer._drain_messages: "44a2500309e8",
    Consumer._wait_next_records: "6218e1969a63",
    Consumer._filter_tps_with_pending_acks: "f6f923977423",
    Consumer._filter_committable_offsets: "dc5e9baf5d99",
    Consumer._commit_tps: "a20e230b05ae",
    Consumer._commit_offsets: "1a6979904118",
    Consumer._should_commit: "5ce941793947",
    AIOKafkaConsumerThread._commit: "932852ce7a23",
    GroupCoordinator.fetch_committed_offsets: "6c049c737916",
    Consumer._new_offset: "1d2c7ea89a7a",
    Consumer.on_partitions_revoked: "d04b7ae72c6f",
    Consumer.perform_seek: "0e8c130ff4b0",
    Consumer.resume_partitions: "afe6b7c02a41",
    Consumer._get_active_partitions: "b24897f3c7af",
    Fetcher._fetcher: "68f894f0b577",
    AIOKafkaConsumerThread.getmany: "26fc5fc9f3b6",
    AIOKafkaConsumerThread._fetch_records: "39a2c6c79fc1",
    AIOKafkaConsumerThread._seek_wait: "9d221e816d94",
    AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f",
    AIOKafkaConsumerThread.on_partitions_assigned: "e59e8dda4372",
    ThreadDelegateConsumer.seek_to_committed: "f1d483b861b0",
    AIOKafkaConsumerThread.on_start: "38b4e8bd1e10",
    GroupCoordinator._do_heartbeat: "dc1d6632aaa6",
    GroupCoordinator._heartbeat_routine: "61d010289522",
    GroupCoordinator._do_commit_offsets: "c3a3ea5613f3",
    GroupCoordinator.commit_offsets: "5cbe31af28d6",
    GroupCoordinator.ensure_active_group: "33c84c1a9301",
    GroupCoordinator.reset_generation: "537aa37c531b",
    ConductorCompiler.build: "837cf521368c",
    Recovery._slurp_changelogs: "7825c7e50f76",
    Recovery._add: "1584a197b11b",
    Recovery.on_rebalance: "aa4d997a1795",
    Recovery._restart_recovery: "6bd8a8558a2d",
    Recovery._build_offsets: "27eec86be06c",
    Recovery._seek_offsets: "19598ca63d94",
    Recovery.on_recovery_completed: "6ef567acf072",
    Recovery._resume_streams: "d986a6710c1a",
    Stream._py_aiter: "3a48ee257a65",
    TableManager.on_start: "365dd25fbc0e",
    Collection.on_changelog_event: "5a4fa48fd7c3",
    Collection.apply_changelog_batch: "b980a78d3ae9",
    Table._new_store: "914a2bda605d",
    Store.apply_changelog_batch: "71863e3cd727",
    App._new_transport: "42db531312dd",
    App.on_rebalance_end: "b7ff69e1e377",
    App._on_partitions_revoked: "d5c895bbe57d",
}


def fingerprint(function: Any) -> str:
    return sha256(inspect.getsource(plain(function)).encode()).hexdigest()[:12]


def plain(function: Any) -> Any:
    """The function itself: `@Service.task` wraps some of them."""
    return getattr(function, "fun", function)


@pytest.mark.parametrize(
    ("function", "expected"),
    INSIDES.items(),
    ids=[getattr(f, "fun", f).__qualname__ for f in INSIDES],
)
def test_faust_is_what_the_shell_was_written_for(function: Any, expected: str) -> None:
    """Fails with a new Faust: read what changed, adapt the shell, run the chaos tests, re-pin."""
    assert fingerprint(function) == expected


class Record:
    def __init__(self, offset: int, key: bytes = b"k", value: bytes | None = b"v") -> None:
        self.offset = offset
        self.key = key
        self.value = value
        self.headers: tuple[tuple[str, bytes], ...] = ()
        self.timestamp = 0
        self.timestamp_type = 0


def batch_event(partition: int, *changes: tuple[bytes, bytes | None], first: int = 0) -> Any:
    records = [Record(first + n, key, value) for n, (key, value) in enumerate(changes)]

    class Event:
        value = Batch(TP("state", partition), 1, records)

    return Event()


def new_store() -> PartitionedStore:
    store = PartitionedStore.__new__(PartitionedStore)  # Faust's side of it wants an app
    PartitionedStore.__post_init__(store)
    return store


def tables(store: PartitionedStore) -> dict[int, dict[bytes, bytes]]:
    return {partition: log.data for partition, log in store.partitions.items()}


async def test_the_store_keeps_partitions_apart_and_forgets_those_of_others() -> None:
    store = new_store()
    store.apply_changelog_batch(
        [
            batch_event(0, (b"a", b"1"), (b"b", b"2"), (b"a", None)),
            batch_event(1, (b"a", b"3")),
            batch_event(0, (b"b", b"4"), first=3),
        ],
        None,
        None,
    )
    assert tables(store) == {0: {b"b": b"4"}, 1: {b"a": b"3"}}
    await store.on_recovery_completed({TP("state", 1)}, set())
    assert tables(store) == {1: {b"a": b"3"}}
    assert store.persisted_offset(TP("state", 0)) == -1
    assert store.persisted_offset(TP("state", 1)) == 0

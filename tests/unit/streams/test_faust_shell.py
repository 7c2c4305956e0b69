"""The insides of Faust that `streams/faust_shell.py` builds on are the ones it was written for."""

import inspect
from hashlib import sha256
from typing import Any

import pytest
from faust.app.base import App
from faust.stores.memory import Store
from faust.streams import Stream
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
    Consumer._new_offset: "1d2c7ea89a7a",
    Consumer.on_partitions_revoked: "d04b7ae72c6f",
    Consumer.perform_seek: "0e8c130ff4b0",
    Fetcher._fetcher: "68f894f0b577",
    AIOKafkaConsumerThread.getmany: "26fc5fc9f3b6",
    AIOKafkaConsumerThread._fetch_records: "39a2c6c79fc1",
    AIOKafkaConsumerThread.on_partitions_assigned: "e59e8dda4372",
    ThreadDelegateConsumer.seek_to_committed: "f1d483b861b0",
    ConductorCompiler.build: "837cf521368c",
    Recovery._slurp_changelogs: "7825c7e50f76",
    Recovery._resume_streams: "d986a6710c1a",
    Stream._py_aiter: "3a48ee257a65",
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


def batch_event(partition: int, *changes: tuple[bytes, bytes | None]) -> Any:
    records = [Record(n, key, value) for n, (key, value) in enumerate(changes)]

    class Event:
        value = Batch(TP("state", partition), 1, records)

    return Event()


async def test_the_store_keeps_partitions_apart_and_forgets_those_of_others() -> None:
    store = PartitionedStore.__new__(PartitionedStore)
    PartitionedStore.__post_init__(store)
    store.apply_changelog_batch(
        [
            batch_event(0, (b"a", b"1"), (b"b", b"2"), (b"a", None)),
            batch_event(1, (b"a", b"3")),
            batch_event(0, (b"b", b"4")),
        ],
        None,
        None,
    )
    assert store.partitions == {0: {b"b": b"4"}, 1: {b"a": b"3"}}
    await store.on_recovery_completed({TP("state", 1)}, set())
    assert store.partitions == {1: {b"a": b"3"}}

"""The insides of Faust that `streams/faust_shell.py` builds on are the ones it was written for."""

import asyncio
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
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from streams.faust_shell import Batch, BatchConsumer, PartitionedStore, _rest_of

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
    AIOKafkaConsumerThread._seek_wait: "9d221e816d94",
    ConductorCompiler.build: "837cf521368c",
    Recovery._slurp_changelogs: "7825c7e50f76",
    Recovery._resume_streams: "d986a6710c1a",
    Stream._py_aiter: "3a48ee257a65",
    Table._new_store: "914a2bda605d",
    Store.apply_changelog_batch: "71863e3cd727",
    App._new_transport: "42db531312dd",
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


class Offsets(BatchConsumer):
    """The consumer without Faust around it: what it does with offsets is all that is tested."""

    def __init__(self) -> None:
        self.on_init()
        self.sought: list[dict[TP, int]] = []

    async def seek_wait(self, partitions: Any) -> None:
        self.sought.append(dict(partitions))


INBOX = TP("inbox", 0)


def offsets(records: list[Any]) -> list[int]:
    return [r.offset for r in records]


async def test_records_seen_are_dropped() -> None:
    consumer = Offsets()
    consumer._expected[INBOX] = 5
    got = await consumer._continuous(INBOX, [Record(n) for n in range(3, 8)])
    assert offsets(got) == [5, 6, 7]
    assert (consumer.skips, consumer.sought) == (0, [])


async def test_a_jump_ahead_is_read_again_once_and_then_accepted() -> None:
    consumer = Offsets()
    consumer._expected[INBOX] = 5
    ahead = [Record(8), Record(9)]
    assert await consumer._continuous(INBOX, ahead) == []
    assert consumer.sought == [{INBOX: 5}]
    # The log really has no 5 to 7 (a transaction marker, or retention): go on after one more look.
    assert offsets(await consumer._continuous(INBOX, ahead)) == [8, 9]
    assert (consumer.skips, consumer.sought) == (1, [{INBOX: 5}])


async def test_what_a_partition_never_expected_is_taken_as_it_comes() -> None:
    assert offsets(await Offsets()._continuous(INBOX, [Record(42)])) == [42]


def batch_event(partition: int, *changes: tuple[bytes, bytes | None]) -> Any:
    records = [Record(n, key, value) for n, (key, value) in enumerate(changes)]

    class Event:
        value = Batch(TP("state", partition), 1, records)

    return Event()


class Delivering(Offsets):
    """Hands over to a list."""

    def __init__(self) -> None:
        super().__init__()
        self._read_offset = {}
        self.delivered: list[int] = []

        class Group:
            consumer_generation_id = 1

        self.app = Group()

    def _wanted(self, tp: TP) -> bool:
        return True

    def _is_changelog_tp(self, tp: TP) -> bool:
        return False

    async def callback(self, message: Any) -> None:
        self.delivered += [r.offset for r in message.value.records]


async def test_nothing_is_handed_over_before_a_rebalance_has_ended() -> None:
    """The agents' queues are emptied at its end: what was in them would be gone unseen."""
    consumer = Delivering()
    await consumer._hand_over(INBOX, 1, [Record(0), Record(1)])
    await consumer._hand_over_early()
    assert consumer.delivered == []
    consumer._expected[INBOX] = 1  # the state says where to resume, after the first fetch
    consumer.open()
    await consumer._hand_over_early()
    await consumer._hand_over(INBOX, 1, [Record(1), Record(2)])  # fetched again after the seek
    assert consumer.delivered == [1, 2]


async def test_what_came_early_is_dropped_with_its_generation() -> None:
    consumer = Delivering()
    await consumer._hand_over(INBOX, 1, [Record(0)])
    consumer.app.consumer_generation_id = 2
    consumer.open()
    await consumer._hand_over_early()
    assert consumer.delivered == []


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


async def test_the_rest_of_a_coroutine_goes_on_where_its_first_step_ended() -> None:
    gate = asyncio.get_running_loop().create_future()
    steps: list[str] = []

    async def delivery() -> str:
        steps.append("begun")
        await gate
        steps.append("ended")
        return "delivered"

    coroutine = delivery()
    waiting_for = coroutine.send(None)
    rest = asyncio.create_task(_rest_of(coroutine, waiting_for))
    await asyncio.sleep(0)
    assert steps == ["begun"]
    gate.set_result(None)
    assert await rest == "delivered"
    assert steps == ["begun", "ended"]

"""Faust, made to hand over whole fetched batches and to lose nothing in a rebalance.

Everything that touches Faust's insides is in this file; `tests/unit/test_faust_shell.py` fails
when they change, and the two packages are pinned exactly. What is different from stock Faust:

- A fetched batch of a partition travels as *one* Faust message whose value is a `Batch`; agents
  iterate over batches. Stock hands over record by record with two asyncio tasks for each, which is
  where its time goes.
- A delivery that does not finish at once gives way to a rebalance, and is then not counted as
  delivered. Stock counts it, which loses records.
- Continuity is checked: the offset expected next is known for every partition; records seen are
  dropped, a jump ahead seeks back once, and a gap that is still there is accepted and logged.
- Nothing is handed to an agent before a rebalance has ended. Stock does, between its seek and the
  moment when it empties the agents' queues; what is in them then is gone, and seen by nobody until
  the partition's next record.
- Commits are ours: `mark_done` says how far a partition is finished. Stock commits past a hole.
- The table is kept by partition, and the inbox resumes from the offset that was written with the
  state (`resume_offset`), not from the group's commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

import faust
import structlog
from aiokafka.errors import IllegalStateError
from faust.stores.memory import Store
from faust.tables.table import Table
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.outbox import REQUEST_BYTES

_log = structlog.get_logger(__name__)

FETCH_RECORDS: Final = 1_000
QUEUED_BATCHES: Final = 32
READS: Final = "reads"
"""Header of the table's changelog: the inbox offset up to which the record is the state."""


class Batch(NamedTuple):
    """Records of one partition, in order, fetched in one generation of the consumer group.

    `records` are aiokafka's `ConsumerRecord`s: offset, timestamp (ms), key, value, headers.
    """

    tp: TP
    generation: int
    records: list[Any]


class BatchSchema(faust.Schema[Any, Any]):
    """Hands the batch through as it is: what a record holds is read by those it is for."""

    def compile(self, app: Any, **_: Any) -> Any:
        """Give the function that makes an event of a message."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001  # Faust's signature
            return create_event(None, message.value, None, message)

        return decode


class PartitionedStore(Store[bytes, bytes]):
    """A table's data as raw bytes, kept for each partition on its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.partitions: dict[int, dict[bytes, bytes]] = {}
        self.reads: dict[int, int] = {}

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:  # noqa: ARG002  # Faust's signature
        """Restore: apply changelog batches in order. Bytes stay unread here, so none can fail."""
        for event in batch:
            changes: Batch = event.value
            partition = changes.tp.partition
            for record in changes.records:
                reads = int(dict(record.headers).get(READS, b"0"))
                # Older than what is here: the write of an owner that did not know it was replaced.
                # The same messages make the same state, so what is here has it already.
                if reads >= self.reads.get(partition, 0):
                    self.reads[partition] = reads
                    self.apply(partition, [(record.key, record.value)])

    def apply(self, partition: int, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Set and delete (None) keys of one partition."""
        data = self.partitions.setdefault(partition, {})
        for key, value in changes:
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value

    def persisted_offset(self, tp: TP) -> int | None:  # noqa: ARG002  # Faust's signature
        """Nothing survives the process: a restore reads the whole changelog."""
        return None

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Forget the partitions that are somebody else's now."""
        ours = {tp.partition for tp in active_tps | standby_tps}
        for partition in [p for p in self.partitions if p not in ours]:
            del self.partitions[partition]
            self.reads.pop(partition, None)

    def reset_state(self) -> None:
        """Forget everything."""
        self.partitions.clear()
        self.reads.clear()

    def __len__(self) -> int:
        return sum(map(len, self.partitions.values()))


class RunTable(Table[bytes, bytes]):
    """The table of runs: read and written a partition at a time by the orchestrator."""

    def _new_store(self) -> PartitionedStore:
        return PartitionedStore(
            "memory://",
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            loop=self.loop,
        )

    def partition(self, number: int) -> dict[bytes, bytes]:
        """The records of one partition, live."""
        store = cast("PartitionedStore", self.data)
        return store.partitions.setdefault(number, {})


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's own thread, asked for records without Faust's method queue."""

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's signature
        consumer = self._ensure_consumer()
        fetch = self._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=FETCH_RECORDS
        )
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch, self.thread_loop))


class BatchConsumer(driver.Consumer):
    """The consumer that hands over batches; see the module's rules."""

    resume_offset: Callable[[TP], Awaitable[int | None]]
    """Set by the engine: where a partition resumes, None for the group's commit."""

    on_resumed: Callable[[], None]
    """Set by the engine: called when positions are sought and work goes on."""

    def on_init(self) -> None:
        """Begin with nothing known of any partition."""
        self._expected: dict[TP, int] = {}
        self._sought: dict[TP, int] = {}
        self._done: dict[TP, int] = {}
        self._held: set[TP] = set()
        self._early: list[tuple[TP, int, list[Any]]] = []
        self._open = False
        self.skips = 0

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- back-pressure of one topic, without stopping the others ---

    def hold(self, tp: TP) -> None:
        """Fetch no more of this partition for now; what is fetched already is still delivered."""
        self._held.add(tp)
        self._get_active_partitions().discard(tp)

    def release(self, tp: TP) -> None:
        """Fetch it again."""
        if tp in self._held:
            self._held.discard(tp)
            if tp in self.assignment() and tp not in self._paused_partitions:
                self._get_active_partitions().add(tp)

    # --- commits ---

    def mark_done(self, tp: TP, generation: int, next_offset: int) -> None:
        """Everything below `next_offset` is finished and may be committed."""
        if generation == self.app.consumer_generation_id:
            self._done[tp] = next_offset

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        tps = list(self._done)
        return (tp for tp in tps if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._done.get(tp)

    # --- positions ---

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let Faust and the app finish with them, then forget all positions."""
        await super().on_partitions_revoked(revoked)
        self._open = False
        self._early.clear()
        self._done.clear()
        self._expected.clear()
        self._sought.clear()
        self._held.clear()

    def open(self) -> None:
        """The rebalance has ended and the agents' queues are emptied: hand over from now on."""
        self._open = True

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to where work resumes, and expect exactly those offsets next."""
        positions = dict(await super().seek_to_committed())
        resumed = {}
        for tp in self.assignment():
            offset = await self.resume_offset(tp)
            if offset is not None:
                resumed[tp] = offset
        await self.seek_wait(resumed)
        positions.update(resumed)
        self._expected.clear()
        for tp, offset in positions.items():
            if offset is not None and offset >= 0:
                self._expected[TP(*tp)] = offset
        self.on_resumed()
        return positions

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Off: it judges by record-wise acknowledgement, which batches do not have."""

    # --- delivery ---

    async def _drain_messages(self, fetcher: Any) -> None:
        app = self.app
        stopped = self._stopped.is_set
        fetcher_stopped = fetcher._stopped.is_set  # noqa: SLF001  # Faust's own way to end a fetcher
        try:
            while not (stopped() or fetcher_stopped()):
                await self._hand_over_early()
                records, _ = await self._wait_next_records(1.0)
                generation = app.consumer_generation_id
                for tp, batch in (records or {}).items():
                    if not self.flow_active or app.consumer_generation_id != generation:
                        break  # a rebalance has begun: its seek delivers these again
                    await self._hand_over(TP(*tp), generation, batch)
        except self.consumer_stopped_errors:
            if not app.should_stop:
                raise

    async def _hand_over_early(self) -> None:
        """Hand over what came before the rebalance had ended, now that it has."""
        while self._open and self._early:
            tp, generation, records = self._early.pop(0)
            if self.app.consumer_generation_id == generation:
                await self._hand_over(tp, generation, records)

    async def _hand_over(self, tp: TP, generation: int, records: list[Any]) -> None:
        if not self._wanted(tp):
            return
        changelog = self._is_changelog_tp(tp)
        if not changelog:
            if not self._open:
                self._early.append((tp, generation, records))
                return
            records = await self._continuous(tp, records)
        if not records:
            return
        last = records[-1]
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type,
            None, None, cast("Any", Batch(tp, generation, records)), None, 0, 0, tp,
            generation_id=generation,
        )  # fmt: skip
        if not await self._delivered(self.callback(message)):
            return
        self._read_offset[tp] = last.offset
        if not changelog:
            self._expected[tp] = last.offset + 1

    def _wanted(self, tp: TP) -> bool:
        """Whether the partition is still to be read: a fetch may come in after a pause."""
        return (
            tp in self._get_active_partitions()
            or tp in self._held
            or tp in self._buffered_partitions
        )

    async def _continuous(self, tp: TP, records: list[Any]) -> list[Any]:
        """What of the records comes next; nothing if some before them are missing."""
        expected = self._expected.get(tp)
        if expected is None:
            return records
        first = records[0].offset
        if first < expected:
            return [r for r in records if r.offset >= expected]
        if first > expected and self._sought.get(tp) != expected:
            self.skips += 1
            self._sought[tp] = expected
            _log.warning(
                "records were skipped; reading again", tp=str(tp), expected=expected, got=first
            )
            with suppress(IllegalStateError):  # revoked meanwhile: the rebalance seeks
                await self.seek_wait({tp: expected})
            return []
        if first > expected:
            _log.warning(
                "offsets are missing from the log", tp=str(tp), expected=expected, got=first
            )
        return records

    async def _delivered(self, delivery: Any) -> bool:
        """Run a delivery to its end, unless a rebalance begins while it is blocked."""
        try:
            waiting_for = delivery.send(None)  # queue had room: done in one step
        except StopIteration:
            return True
        await self.wait_first(_rest_of(delivery, waiting_for), self.suspend_flow.wait())
        return not self.suspend_flow.is_set()


class _RestOf:
    """What is left of a coroutine that was driven one step and now waits for `waiting_for`."""

    def __init__(self, coroutine: Any, waiting_for: Any) -> None:
        self._coroutine = coroutine
        self._waiting_for = waiting_for

    def __await__(self) -> Any:
        waiting_for = self._waiting_for
        while True:
            try:
                value = yield waiting_for
            except BaseException as error:  # noqa: BLE001  # handed on to whom it is for
                step, argument = self._coroutine.throw, error
            else:
                step, argument = self._coroutine.send, value
            try:
                waiting_for = step(argument)
            except StopIteration as end:
                return end.value


async def _rest_of(coroutine: Any, waiting_for: Any) -> Any:
    return await _RestOf(coroutine, waiting_for)


class BatchTransport(driver.Transport):
    """Kafka through aiokafka, with our consumer."""

    Consumer = BatchConsumer


class EngineApp(faust.App):
    """A Faust app on batches."""

    def on_rebalance_end(self) -> None:
        """Called last: the state is restored, positions are sought, queues are emptied."""
        super().on_rebalance_end()
        self.batches.open()

    @property
    def batches(self) -> BatchConsumer:
        """Its consumer."""
        return cast("BatchConsumer", self.consumer)

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)


def new_app(app_id: str, bootstrap: str, partitions: int) -> EngineApp:
    """An app with the settings that the engine needs; its topics exist already."""
    return EngineApp(
        app_id,
        broker=[f"kafka://{server}" for server in bootstrap.split(",")],
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=FETCH_RECORDS,
        broker_commit_interval=0.5,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=10.0,
        consumer_max_fetch_size=REQUEST_BYTES,
        producer_max_request_size=REQUEST_BYTES,
        stream_buffer_maxsize=QUEUED_BATCHES,
        stream_wait_empty=False,
        table_standby_replicas=0,
        worker_redirect_stdouts=False,
        Table=RunTable,
    )


def batch_topic(app: EngineApp, name: str) -> Any:
    """A topic whose agents get `Batch`es."""
    return app.topic(name, schema=BatchSchema(), internal=True)

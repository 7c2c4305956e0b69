"""Faust, made to hand over whole fetched batches and to lose nothing in a rebalance.

Everything that touches Faust's insides is in this file; `tests/unit/test_faust_shell.py` fails
when they change, and the two packages are pinned exactly. What is different from stock Faust:

- A fetched batch of a partition travels as *one* Faust message whose value is a `Batch`; agents
  iterate over batches. Stock hands over record by record with two asyncio tasks for each, which is
  where its time goes.
- Faust's consumer, in its thread, keeps the group's membership, commits and the changelogs. What
  agents process is read in the agents' loop, by one reader for each topic
  (`streams.topic_reader`): no hop between threads, and a fetch names four partitions, not forty.
- A reader lives from the end of a rebalance, when positions are sought and the agents' queues are
  emptied, to the beginning of the next. So nothing is handed over in between, where stock Faust
  loses it, and a delivery that is blocked gives way: it is cancelled, and read again.
- Commits are ours: `mark_done` says how far a partition is finished. Stock commits past a hole.
  With the offset goes a note of what is finished beyond it, for the next owner.
- The table is kept by partition, and the inbox resumes from the offset that was written with the
  state (`resume_offset`), not from the group's commit.
- A partition that stays here in a rebalance, as owned or as standby, keeps its data and the
  changelog offset that it stands at: a restore reads what is missing, not the whole changelog.
- Nothing sleeps for a second while a partition waits to be restored.
- Membership needs the agents' loop: where that is blocked for `BLOCKED_S`, the consumer leaves the
  group, and others get the partitions. aiokafka counts the time since records were last asked for,
  and its consumer here is asked for none as long as there is no changelog to follow.
- Before state is written, `may_write` makes sure that the partitions are still ours: a worker that
  was stopped for a while asks the brokers first (docs/decisions/007).
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast

import faust
from aiokafka.errors import RebalanceInProgressError
from aiokafka.structs import OffsetAndMetadata
from faust.stores.memory import Store
from faust.tables.manager import TableManager
from faust.tables.table import Table
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.outbox import REQUEST_BYTES
from streams.partition_watch import Offsets
from streams.state_log import StateLog
from streams.topic_reader import FETCH_RECORDS, TopicReader
from streams.watchdog import Place
from streams.watermark import Intervals, decode

QUEUED_BATCHES: Final = 32
SESSION_S: Final = 1.5
"""A worker that is silent for this long has lost its partitions; a broker may ask for more."""
HEARTBEATS: Final = 6
"""In each session: by them a worker also learns that another one joined or left."""
BLOCKED_S: Final = 300.0
"""A worker whose loop does nothing for this long leaves the group: others get its partitions."""
_SIGN_OF_LIFE_S: Final = 0.5
_CHANGELOG_WAIT_MS: Final = 100
_CHANGELOG_BYTES: Final = 64 * 1024
_ASK_AGAIN_S: Final = 0.2


class Batch(NamedTuple):
    """Records of one partition, in order, fetched in one generation of the consumer group.

    `records` are aiokafka's `ConsumerRecord`s: offset, timestamp (ms), key, value, headers.
    """

    tp: TP
    generation: int
    records: list[Any]
    since: int = 0
    """Of a changelog: where this was read from; what lies before its first record was compacted."""


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
        self.partitions: defaultdict[int, StateLog] = defaultdict(StateLog)

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:  # noqa: ARG002  # Faust's signature
        """Restore: apply changelog batches in order."""
        for event in batch:
            changes: Batch = event.value
            self.restore(changes.tp.partition, changes.records, changes.since)

    def restore(self, partition: int, records: Iterable[Any], since: int = 0) -> None:
        """Take what follows in the changelog of one partition, in order."""
        self.partitions[partition].restore(records, since)

    def persisted_offset(self, tp: TP) -> int:
        """What a restore need not read; -1 for nothing."""
        log = self.partitions.get(tp.partition)
        return -1 if log is None else log.offset

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Forget the partitions that are somebody else's now."""
        ours = {tp.partition for tp in active_tps | standby_tps}
        for partition in self.partitions.keys() - ours:
            del self.partitions[partition]

    def reset_state(self) -> None:
        """Forget everything."""
        self.partitions.clear()

    def __len__(self) -> int:
        return sum(len(log.data) for log in self.partitions.values())


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

    @property
    def store(self) -> PartitionedStore:
        """Its data."""
        return cast("PartitionedStore", self.data)

    def partition(self, number: int) -> StateLog:
        """One partition of it."""
        return self.store.partitions[number]

    async def on_changelog_event(self, event: Any) -> None:
        """Apply what is restored as it comes, and let Faust go by what the store has."""
        if event.value.generation == self.app.consumer_generation_id:
            self.store.apply_changelog_batch([event], None, None)
        place = event.message.tp
        recovery = cast("_Tables", self.app.tables).recovery
        for offsets in (recovery.active_offsets, recovery.standby_offsets):
            if place in offsets:
                offsets[place] = self.store.persisted_offset(place)

    def apply_changelog_batch(self, batch: Any) -> None:
        """Nothing: Faust's buffer holds what `on_changelog_event` has applied."""


class _Tables(TableManager):
    """The manager of the one table, which is declared before the app starts."""

    async def on_start(self) -> None:
        """Begin at once: stock Faust waits a second for tables yet to come."""
        await self._update_channels()
        await self.recovery.start()


class _Live:
    """The partitions that are to be fetched at any moment; aiokafka takes an empty set for all."""

    def __init__(self, partitions: set[TP]) -> None:
        self._partitions = partitions

    def __bool__(self) -> bool:
        return True

    def __contains__(self, place: object) -> bool:
        return place in self._partitions


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's own thread: the group's membership, commits, and the changelogs."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # A request that waits for records holds up the questions of a restore behind it, and a
        # standby need not have each record at once.
        consumer._fetch_max_wait_ms = _CHANGELOG_WAIT_MS  # noqa: SLF001  # Faust has no setting
        consumer._fetch_min_bytes = _CHANGELOG_BYTES  # noqa: SLF001  # Faust has no setting
        return consumer

    async def on_start(self) -> None:
        """Join; note from then on when the group said that we are a member, and mind joins.

        A commit during a join waits behind it on the connection, is then one of a generation that
        is gone, and by aiokafka's rules costs the membership: another rebalance, of a session's
        length. What it would say, the next commit says.
        """
        self._confirmed = (-1, 0.0)
        self.sought: Counter[Any] = Counter()
        self._positions: dict[Any, int] = {}
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001  # aiokafka has no hook
        beat = coordinator._do_heartbeat  # noqa: SLF001  # aiokafka has no hook
        commit = coordinator._do_commit_offsets  # noqa: SLF001  # aiokafka has no hook

        async def heartbeat() -> bool:
            generation, sent = coordinator.generation, _clock()
            is_member: bool = await beat()
            if is_member:
                self._confirmed = (generation, sent)
            return is_member

        async def commit_unless_joining(assignment: Any, offsets: Any) -> None:
            if coordinator._performed_join_prepare:  # noqa: SLF001  # aiokafka has no hook
                raise RebalanceInProgressError
            note = cast("BatchConsumer", self.consumer).note_of
            noted = {
                tp: OffsetAndMetadata(given.offset, note(TP(*tp), given.offset))
                for tp, given in offsets.items()
            }
            await commit(assignment, noted)

        coordinator._do_heartbeat = heartbeat  # noqa: SLF001  # aiokafka has no hook
        coordinator._do_commit_offsets = commit_unless_joining  # noqa: SLF001  # aiokafka has no hook

    async def ends(self, places: Iterable[TP]) -> dict[TP, int]:
        """The offset that each of them ends at now."""
        asked = [driver.ensure_aiokafka_TP(place) for place in places]
        found = await self.call_thread(self._ensure_consumer().end_offsets, asked)
        return {TP(*tp): offset for tp, offset in found.items()}

    async def committed(self, places: Iterable[TP]) -> dict[TP, tuple[int, str]]:
        """What the group has committed for them: offset and note; nothing where it has not."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001  # aiokafka gives no notes
        asked = [driver.ensure_aiokafka_TP(place) for place in places]
        found = await self.call_thread(coordinator.fetch_committed_offsets, asked)
        return {TP(*tp): (commit.offset, commit.metadata) for tp, commit in found.items()}

    def is_member(self, generation: int, within_s: float) -> bool:
        """Whether the group has said so in the last `within_s` seconds."""
        confirmed, at = self._confirmed
        return confirmed == generation and _clock() - at <= within_s

    async def ask(self, generation: int) -> bool:
        """Ask the group until it says whether we are a member in this generation."""
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001  # aiokafka has no hook
        while coordinator.generation == generation:
            if await coordinator._do_heartbeat():  # noqa: SLF001  # aiokafka has no hook
                return True
            await asyncio.sleep(_ASK_AGAIN_S)
        return False

    def show_life(self) -> None:
        """The agents' loop goes on: as if it had just asked for records."""

        def ask() -> None:
            if self._consumer is not None:  # it has joined
                with self._consumer._subscription.fetch_context():  # noqa: SLF001  # aiokafka has no hook
                    pass

        self.thread_loop.call_soon_threadsafe(ask)

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's signature
        """Fetch; gives by partition how often it was sought, from where this was read, and it."""
        consumer = self._ensure_consumer()

        async def fetch() -> Any:
            fetched = await self._fetch_records(
                consumer,
                cast("set[TP]", _Live(active_partitions)),
                timeout=timeout,
                max_records=FETCH_RECORDS,
            )
            return {tp: self._placed(tp, records) for tp, records in fetched.items()}

        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(fetch(), self.thread_loop)
        )

    def _placed(self, tp: Any, records: list[Any]) -> tuple[int, int, list[Any]]:
        since = self._positions.get(tp, records[0].offset)
        self._positions[tp] = records[-1].offset + 1
        return self.sought[tp], since, records

    async def _seek_wait(self, consumer: Any, partitions: Any) -> None:
        self.sought.update(partitions.keys())
        self._positions.update(partitions)
        await super()._seek_wait(consumer, partitions)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Leave what is not a changelog to the readers before any of it is fetched here."""
        changelogs = self.app.tables.changelog_topics
        self._positions.clear()
        self._ensure_consumer().pause(
            *(driver.ensure_aiokafka_TP(tp) for tp in assigned if tp.topic not in changelogs)
        )
        await super().on_partitions_assigned(assigned, generation_id)


def _clock() -> float:
    """Seconds that go on while the process is stopped, and where it can be told, the machine."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class BatchConsumer(driver.Consumer):
    """The consumer that hands over batches; see the module's rules."""

    resume_offset: Callable[[TP], Awaitable[int | None]]
    """Set by the engine: where a partition resumes, None for the group's commit."""

    on_resumed: Callable[[], None]
    """Set by the engine: called when a rebalance has ended and work goes on, if any is ours."""

    on_failed: Callable[[str, BaseException], None]
    """Set by the engine: called with the name and the error of a reader that failed."""

    def on_init(self) -> None:
        """Begin with nothing known of any partition."""
        self._positions: dict[TP, int] = {}
        self._done: dict[TP, int] = {}
        self._ask_note: dict[TP, Callable[[], str]] = {}
        self._notes: dict[TP, tuple[int, str]] = {}
        self._committed_notes: dict[TP, tuple[int, str]] = {}
        self._finished: dict[TP, Intervals] = {}
        self._ends: dict[TP, int] = {}
        self._readers: dict[str, TopicReader] = {}
        self._reading: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _own_thread(self) -> _ConsumerThread:
        return cast("_ConsumerThread", self._thread)

    # --- back-pressure of one topic, without stopping the others ---

    def hold(self, tp: TP) -> None:
        """Fetch no more of this partition for now; what is fetched already is still delivered."""
        if tp.topic in self._readers:
            self._readers[tp.topic].hold(tp.partition)

    def release(self, tp: TP) -> None:
        """Fetch it again."""
        if tp.topic in self._readers:
            self._readers[tp.topic].release(tp.partition)

    # --- membership ---

    @faust.Service.task
    async def _show_life(self) -> None:
        while not self.should_stop:
            self._own_thread.show_life()
            await self.sleep(_SIGN_OF_LIFE_S)

    async def may_write(self) -> bool:
        """Whether the partitions of this generation are ours still; False once they are not."""
        thread = self._own_thread
        generation = self.app.consumer_generation_id
        # The brokers count a session from the last heartbeat; half of it is left for the write.
        if thread.is_member(generation, self.app.conf.broker_session_timeout / 2):
            return True
        asked = asyncio.run_coroutine_threadsafe(thread.ask(generation), thread.thread_loop)
        return await asyncio.wrap_future(asked)

    # --- commits ---

    def mark_done(
        self, tp: TP, generation: int, next_offset: int, note: Callable[[], str] | None = None
    ) -> None:
        """Everything below `next_offset` is finished and may be committed.

        `note` is asked before each commit for what is finished beyond it.
        """
        if generation == self.app.consumer_generation_id:
            self._done[tp] = next_offset
            if note is not None:
                self._ask_note[tp] = note

    def note_of(self, tp: TP, offset: int) -> str:
        """The note that goes with a commit."""
        at, note = self._notes.get(tp, (offset, ""))
        return note if at == offset else ""

    def finished_beyond(self, tp: TP) -> Intervals:
        """What the owner before has finished beyond the offset where work resumes."""
        return self._finished.get(tp, ())

    def end_at_takeover(self, tp: TP) -> int:
        """Up to where the partition went when work on it resumed here."""
        return self._ends.get(tp, 0)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        if tp in self._ask_note:
            self._notes[tp] = (offset, self._ask_note[tp]())
        noted = self._notes.get(tp) != self._committed_notes.get(tp)
        return noted or super()._should_commit(tp, offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        notes = {tp: self._notes[tp] for tp in offsets if tp in self._notes}
        committed: bool = await super()._commit(offsets)
        if committed:
            self._committed_notes.update(notes)
        return committed

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        tps = list(self._done)
        return (tp for tp in tps if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._done.get(tp)

    # --- positions ---

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Read no more, let Faust and the app finish with them, then forget all positions."""
        self.stop_reading()
        await super().on_partitions_revoked(revoked)
        self._done.clear()
        self._positions.clear()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Find where work resumes; reading begins there when the rebalance has ended."""
        # Work of the generation before may have ended meanwhile, and is not this one's to commit.
        self._done.clear()
        for notes in (self._ask_note, self._notes, self._committed_notes, self._finished):
            notes.clear()
        read = [tp for tp in self.assignment() if not self._is_changelog_tp(tp)]
        positions: dict[TP, int] = {}
        for tp, (offset, note) in (await self._own_thread.committed(read)).items():
            positions[tp] = offset
            self._finished[tp] = decode(offset, note)
        for tp in read:
            resumed = await self.resume_offset(tp)
            if resumed is not None:
                positions[tp] = resumed
        self._positions = {tp: offset for tp, offset in positions.items() if offset >= 0}
        self._ends = await self._own_thread.ends(read)
        return positions

    async def offsets(self) -> dict[Place, Offsets]:
        """How far the partitions are that are read now.

        Raises:
            KafkaError: the brokers do not answer.
        """
        found: dict[Place, Offsets] = {}
        readers = dict(self._readers)
        # All at once: each may have to wait until a fetch of its reader is answered.
        answers = await asyncio.gather(*(reader.bounds() for reader in readers.values()))
        for topic, bounds in zip(readers, answers, strict=True):
            for partition, (begin, end) in bounds.items():
                tp = TP(topic, partition)
                # What the log has dropped is not waiting any more.
                committed = max(begin, self._committed_offset.get(tp) or 0)
                processed = max(begin, self._done.get(tp, self._positions.get(tp, 0)))
                note = self._ask_note[tp]() if tp in self._ask_note else ""
                found[tp] = Offsets(end, committed, processed, note)
        return found

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Off: it judges by record-wise acknowledgement, which batches do not have."""

    # --- reading ---

    def start_reading(self) -> None:
        """Called when a rebalance has ended: read the topics from where work resumes."""
        self.stop_reading()
        generation = self.app.consumer_generation_id
        partitions: dict[str, dict[int, int | None]] = {}
        for tp in self.assignment():
            if not self._is_changelog_tp(tp):
                partitions.setdefault(tp.topic, {})[tp.partition] = self._positions.get(tp)
        for topic, positions in partitions.items():
            reader = TopicReader(
                ",".join(f"{url.host}:{url.port}" for url in self.transport.url),
                topic,
                positions,
                partial(self._hand_over, generation),
            )
            self._readers[topic] = reader
            self._reading.append(asyncio.create_task(self._read(reader), name=f"read {topic}"))
        self.on_resumed()

    def stop_reading(self) -> None:
        """Read no more. What is not handed over by now is read again by whoever owns it next."""
        for task in self._reading:
            task.cancel()
            self._closing.add(task)  # until its connection is closed
            task.add_done_callback(self._closing.discard)
        self._reading.clear()
        self._readers.clear()

    async def _read(self, reader: TopicReader) -> None:
        try:
            await reader.run()
        except Exception as error:  # noqa: BLE001  # whatever it is, the worker ends by it
            self.on_failed(f"read {reader.topic}", error)

    async def on_stop(self) -> None:
        """Close the readers with everything else."""
        self.stop_reading()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await super().on_stop()

    async def _hand_over(self, generation: int, partition: int, records: list[Any]) -> None:
        await self._deliver(TP(records[0].topic, partition), generation, records)

    async def _deliver(self, tp: TP, generation: int, records: list[Any], since: int = 0) -> None:
        last = records[-1]
        message = ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type,
            None, None, cast("Any", Batch(tp, generation, records, since)), None, 0, 0, tp,
            generation_id=generation,
        )  # fmt: skip
        await self.callback(message)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch them again, and look at once."""
        super().resume_partitions(tps)
        self._resumed.set()

    async def _drain_messages(self, fetcher: Any) -> None:
        """The changelogs, for as long as Faust restores tables from them or follows as standby."""
        app = self.app
        stopped = self._stopped.is_set
        fetcher_stopped = fetcher._stopped.is_set  # noqa: SLF001  # Faust's own way to end a fetcher
        try:
            while not (stopped() or fetcher_stopped()):
                self._resumed.clear()
                if not any(map(self._is_changelog_tp, self._get_active_partitions())):
                    await self.wait(self._resumed.wait())
                    continue
                # What was read before its partition was sought, or is paused by now, is read again.
                fetched, _ = await self._wait_next_records(1.0)
                for tp, (sought, since, records) in (fetched or {}).items():
                    place = TP(*tp)
                    if (
                        self.flow_active
                        and self._is_changelog_tp(place)
                        and place not in self._paused_partitions
                        and sought == self._own_thread.sought[tp]
                    ):
                        # Blocked by a full queue, it gives way to a rebalance.
                        await self.wait_first(
                            self._deliver(place, app.consumer_generation_id, records, since),
                            self.suspend_flow.wait(),
                        )
        except self.consumer_stopped_errors:
            if not app.should_stop:
                raise


class BatchTransport(driver.Transport):
    """Kafka through aiokafka, with our consumer."""

    Consumer = BatchConsumer


class EngineApp(faust.App):
    """A Faust app on batches."""

    def on_rebalance_end(self) -> None:
        """Called last: the state is restored, positions are sought, queues are emptied."""
        super().on_rebalance_end()
        self.batches.start_reading()

    @property
    def batches(self) -> BatchConsumer:
        """Its consumer."""
        return cast("BatchConsumer", self.consumer)

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)


def new_app(
    app_id: str, bootstrap: str, partitions: int, session_s: float = SESSION_S
) -> EngineApp:
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
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / HEARTBEATS,
        broker_rebalance_timeout=10.0,
        broker_max_poll_interval=BLOCKED_S,
        consumer_max_fetch_size=REQUEST_BYTES,
        producer_max_request_size=REQUEST_BYTES,
        stream_buffer_maxsize=QUEUED_BATCHES,
        stream_wait_empty=False,
        table_standby_replicas=1,
        worker_redirect_stdouts=False,
        Table=RunTable,
        TableManager=_Tables,
    )


def batch_topic(app: EngineApp, name: str) -> Any:
    """A topic whose agents get `Batch`es."""
    return app.topic(name, schema=BatchSchema(), internal=True)

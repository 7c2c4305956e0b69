"""The recorder: reads the events topic and records it; where it stands is in the store alone.

Batches form naturally: while one is inserted the next gathers, and an idle recorder inserts at
once. Only a limited number of records is held in memory: a store that is slow or away stops the
reading, and the place in the log is kept.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from sinks.recording import Counts, DeadLetterBox, LogRecord, Recording
from sinks.store import Store
from streams.errors import OperatorError
from streams.topics import EVENTS

_log = structlog.get_logger(__name__)
_behind = Gauge("commandcenter_recorder_lag_records", "On the log, and not yet in the store.")

BATCH_RECORDS: Final = 10_000
BATCH_BYTES: Final = 32 * 1024 * 1024
HELD_RECORDS: Final = 2 * BATCH_RECORDS
HELD_BYTES: Final = 2 * BATCH_BYTES

WORTHWHILE_RECORDS: Final = BATCH_RECORDS // 2
PAUSE_SHORTEST_S: Final = 0.2
PAUSE_LONGEST_S: Final = 0.8
PAUSE_RATIO: Final = 2.0
"""From the beginning of an insert to the next: this many times as long as it took. An insert costs
the same work for one row as for hundreds, so under load few large ones leave the machine to others.
The longest is what a watcher of SQL may notice: half of it is how late a decision is on average.
"""

_LOOK_AGAIN_MS: Final = 60_000  # records end the wait at once

_DRAIN_S: Final = 30.0
"""How long a rebalance, or the end, waits for the insert under way."""

Tap = Callable[[int, Sequence[LogRecord]], None]
"""Gets the raw records of one partition as soon as they are fetched, before they are recorded."""


@dataclass(frozen=True, slots=True)
class RecorderHealth:
    """How the recorder does. `lag` counts records on the log that are not in the store yet."""

    ready: bool
    lag: int
    last_error: str | None
    watermark: Mapping[int, int]


class Recorder:
    """Records one events topic; runs once.

    Args:
        bootstrap: Kafka, `host:port[,host:port]`.
        store: With the schema applied.
        dead_letter: Keeps a record that cannot be read.
        group: The consumer group that several recorders share the partitions in; None: this one
            takes all of them, at once, without a group.
        topic: The events topic.
        on_records: The tap, for a live tail that shares this consumer.
    """

    def __init__(
        self,
        bootstrap: str,
        store: Store,
        dead_letter: DeadLetterBox,
        *,
        group: str | None = None,
        topic: str = EVENTS,
        on_records: Tap | None = None,
    ) -> None:
        self._recording = Recording(store, topic, dead_letter)
        self._group = group
        self._topic = topic
        self._tap = on_records
        self._bootstrap = bootstrap
        self._consumer: Any = None
        self._held: deque[LogRecord] = deque()
        self._held_bytes = 0
        self._expected: dict[TopicPartition, int] = {}
        self._read_again: dict[TopicPartition, int] = {}
        self._changed = asyncio.Condition()
        self._busy = asyncio.Lock()
        self._refused: asyncio.Future[None] | None = None
        self.ready = asyncio.Event()

    @property
    def watermark(self) -> Mapping[int, int]:
        """The last recorded offset of each of its partitions; -1 where there is none."""
        return self._recording.watermark

    @property
    def counts(self) -> Counts:
        """What happened since the start."""
        return self._recording.counts

    def health(self) -> RecorderHealth:
        """How it does now."""
        return RecorderHealth(
            ready=self.ready.is_set(),
            lag=self._lag(),
            last_error=self._recording.last_error,
            watermark=dict(self.watermark),
        )

    async def reached(self, vector: Mapping[int, int]) -> None:
        """Wait until each partition of `vector` is recorded up to its offset; for ever if never."""

        def there() -> bool:
            return all(self.watermark.get(p, -1) >= offset for p, offset in vector.items())

        async with self._changed:
            await self._changed.wait_for(there)

    async def ends(self) -> dict[int, int]:
        """The last offset that each of its partitions has on the log now; -1 where it is empty."""
        partitions = [TopicPartition(self._topic, number) for number in self.watermark]
        try:
            ends = await self._consumer.end_offsets(partitions)
        except KafkaError as error:
            raise self._unreadable(error) from error
        return {partition.partition: end - 1 for partition, end in ends.items()}

    async def run(self) -> None:
        """Record until cancelled; then the insert under way is finished first.

        Raises:
            OperatorError: Kafka cannot be reached, the topic is missing, or the store was recorded
                from another log.
        """
        self._refused = asyncio.get_running_loop().create_future()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id="commandcenter-recorder",
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        tasks: list[asyncio.Future[None]] = [self._refused]
        try:
            await self._start()
            tasks += [asyncio.create_task(self._fetch()), asyncio.create_task(self._record())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._stop(tasks)
        for task in tasks:
            if task.done() and not task.cancelled():
                try:
                    task.result()
                except KafkaError as error:
                    raise self._unreadable(error) from error

    def _unreadable(self, error: KafkaError) -> OperatorError:
        return OperatorError(
            f"The recorder cannot read {self._topic} from Kafka at {self._bootstrap}: {error}."
        )

    async def _start(self) -> None:
        try:
            partitions = await self._partitions()
            await self._consumer.start()
        except KafkaError as error:
            raise self._unreadable(error) from error
        if self._group is None:
            self._consumer.assign(partitions)
            await self._take_over(partitions)
        else:
            self._consumer.subscribe([self._topic], listener=_Rebalance(self))

    async def _partitions(self) -> list[TopicPartition]:
        """Every partition of the topic. The consumer itself waits 40 s for a topic to appear."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            await admin.start()
            topics = {topic["topic"]: topic for topic in await admin.describe_topics()}
        finally:
            await admin.close()
        if self._topic not in topics:
            raise OperatorError(
                f"Kafka at {self._bootstrap} has no topic {self._topic}. Start a worker or "
                "`commandcenter up` first: they create it."
            )
        numbers = sorted(part["partition"] for part in topics[self._topic]["partitions"])
        return [TopicPartition(self._topic, number) for number in numbers]

    async def _stop(self, tasks: list[asyncio.Future[None]]) -> None:
        for fetching in tasks[1:2]:
            fetching.cancel()
        self._recording.give_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S), self._busy:
                pass  # the insert under way has ended
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.ready.clear()
        await self._consumer.stop()

    # --- partitions come and go ---

    async def take_over(self, partitions: Sequence[TopicPartition]) -> None:
        """Called when the group assigned partitions; a refusal ends `run`."""
        try:
            await self._take_over(partitions)
        except OperatorError as error:
            # The consumer would log it and go on.
            if self._refused is not None and not self._refused.done():
                self._refused.set_exception(error)

    async def _take_over(self, partitions: Sequence[TopicPartition]) -> None:
        await self._recording.resume(partition.partition for partition in partitions)
        if partitions:
            try:
                beginnings = await self._consumer.beginning_offsets(partitions)
                ends = await self._consumer.end_offsets(partitions)
            except KafkaError as error:
                raise self._unreadable(error) from error
            for partition in partitions:
                self._seek(partition, beginnings[partition], ends[partition])
        self.ready.set()
        await self._notify()

    def _seek(self, partition: TopicPartition, beginning: int, end: int) -> None:
        expected = self.watermark[partition.partition] + 1
        if expected > end:
            raise OperatorError(
                f"The store has {self._topic}-{partition.partition} up to offset {expected - 1}, "
                f"but the log ends at {end - 1}: the store was recorded from another log, or the "
                "log was lost. Use the data directory or database that belongs to this Kafka."
            )
        if expected < beginning:
            if expected > 0:
                self._recording.skipped(partition.partition, beginning)
            expected = beginning
        self._consumer.seek(partition, expected)
        self._expected[partition] = expected

    async def let_go(self) -> None:
        """Called when the group takes the partitions away: what is under way ends first."""
        self.ready.clear()
        self._forget()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._busy.acquire()
        except TimeoutError:
            error = OperatorError(
                "The store did not finish an insert before the partitions had to be given up."
            )
            if self._refused is not None and not self._refused.done():
                self._refused.set_exception(error)
            return
        self._recording.release()
        self._busy.release()
        await self._notify()

    def _forget(self) -> None:
        self._expected.clear()
        self._read_again.clear()
        self._held.clear()
        self._held_bytes = 0

    # --- reading and recording ---

    async def _fetch(self) -> None:
        while True:
            fetched = await self._consumer.getmany(
                timeout_ms=_LOOK_AGAIN_MS, max_records=BATCH_RECORDS
            )
            for partition, fetched_records in fetched.items():
                records = self._in_order(partition, fetched_records)
                if not records:
                    continue
                if self._tap is not None:
                    self._tap(partition.partition, records)
                self._held.extend(records)
                self._held_bytes += sum(_size(record) for record in records)
            _behind.set(self._lag())
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait_for(self._has_room)

    def _in_order(
        self, partition: TopicPartition, records: Sequence[LogRecord]
    ) -> Sequence[LogRecord]:
        """What continues the partition; after a hole it is read once more from where it opened.

        A rebalance can leave records of an older position in the consumer.
        """
        expected = self._expected.get(partition)
        if expected is None:
            return []
        if records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if records and records[0].offset > expected:
            if self._read_again.get(partition) != expected:
                self._read_again[partition] = expected
                self._consumer.seek(partition, expected)
                return []
            self._recording.gap(
                f"{self._topic}-{partition.partition}: the log has no offsets {expected} to "
                f"{records[0].offset - 1}"
            )
        if records:
            self._expected[partition] = records[-1].offset + 1
        return records

    async def _record(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._held))
            began = clock()
            async with self._busy:
                batch = self._take()
                await self._recording.record(batch)
            _behind.set(self._lag())
            await self._notify()
            took = clock() - began
            pause = min(max(PAUSE_RATIO * took, PAUSE_SHORTEST_S), PAUSE_LONGEST_S)
            if took < pause:
                await self._let_gather(pause - took)

    async def _let_gather(self, seconds: float) -> None:
        """Wait, unless a batch worth inserting is there before."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: len(self._held) >= WORTHWHILE_RECORDS)

    def _take(self) -> list[LogRecord]:
        batch: list[LogRecord] = []
        size = 0
        while self._held and len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
            record = self._held.popleft()
            size += _size(record)
            batch.append(record)
        self._held_bytes -= size
        return batch

    def _has_room(self) -> bool:
        return len(self._held) < HELD_RECORDS and self._held_bytes < HELD_BYTES

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _lag(self) -> int:
        lag = 0
        for number, offset in self.watermark.items():
            end = self._consumer.highwater(TopicPartition(self._topic, number))
            lag += max(0, (end or 0) - offset - 1)
        return lag


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """What the group decides, handed on."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        if revoked:
            await self._recorder.let_go()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        await self._recorder.take_over(assigned)


def _size(record: LogRecord) -> int:
    return len(record.value) if record.value is not None else 0

"""Follows the dead-letters topic: every letter with its state, and the originals on demand."""

import asyncio
import contextlib
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from streams import codec
from streams.errors import NotFoundError, OperatorError
from streams.letters import Entry, LetterBook, join
from streams.messages import DeadLetter
from streams.outbox import REQUEST_BYTES
from streams.topics import DEAD_LETTERS

_log = structlog.get_logger(__name__)
_open = Gauge("commandcenter_dead_letters_open", "Dead letters not replayed or purged.", ["topic"])

_RETRY_S: Final = 0.5
_POLL_MS: Final = 1_000
_WITHIN_S: Final = 10.0


class LetterReader:
    """Reads all partitions without a group; an async context manager.

    It keeps of each letter what a list shows, some 1 kB and small originals.
    """

    def __init__(self, bootstrap: str) -> None:
        self.book = LetterBook()
        self._bootstrap = bootstrap
        self._consumer: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._step = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name="follow the dead letters")
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def caught_up(self) -> None:
        """Wait until all is read that is on the topic now; `OperatorError` where Kafka is away."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                while self._consumer is None:
                    await self._step.wait()
                ends = await self._consumer.end_offsets(list(self._positions))
                while any(self._positions[part] < end for part, end in ends.items()):
                    await self._step.wait()
        except (KafkaError, TimeoutError) as error:
            raise OperatorError(
                "Kafka does not give the dead letters; try again shortly"
            ) from error

    async def whole(self, entry: Entry) -> DeadLetter:
        """The letter with all of the original, read from the log where it is not kept here."""
        if entry.whole:
            return entry.letter
        if entry.begin is None:
            raise NotFoundError(f"parts of dead letter {entry.id} are gone from the log")
        try:
            async with asyncio.timeout(_WITHIN_S):
                values = await self._records(entry.id.partition, entry.begin, entry.id.offset)
        except (KafkaError, TimeoutError) as error:
            raise OperatorError("Kafka does not give the dead letter; try again shortly") from error
        head = codec.dead_letters.decode(values[-1])
        return join(values[:-1], head) if head.parts else head

    async def _records(self, partition: int, first: int, last: int) -> list[bytes | None]:
        consumer = self._new_consumer()
        part = TopicPartition(DEAD_LETTERS, partition)
        values: list[bytes | None] = []
        try:
            await consumer.start()
            consumer.assign([part])
            consumer.seek(part, first)
            while await consumer.position(part) <= last:
                fetched = await consumer.getmany(part, timeout_ms=_POLL_MS)
                values += [r.value for r in fetched.get(part, ()) if first <= r.offset <= last]
        finally:
            await consumer.stop()
        return values

    async def _follow(self) -> None:
        while True:
            try:
                await self._read_on()
            except (KafkaError, OSError) as error:
                _log.warning("following the dead letters failed; trying again", why=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _read_on(self) -> None:
        consumer = self._new_consumer(DEAD_LETTERS)
        try:
            await consumer.start()
            parts = consumer.assignment()
            begins = await consumer.beginning_offsets(parts)
            for part in parts:
                self._positions.setdefault(part, begins[part])
                consumer.seek(part, self._positions[part])
            self._consumer = consumer
            self._stepped()
            while True:
                for part, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                    for record in records:
                        self.book.apply(
                            record.partition, record.offset, record.timestamp, record.value
                        )
                    self._positions[part] = await consumer.position(part)
                    for topic, number in self.book.open_by_topic.items():
                        _open.labels(topic).set(number)
                self._stepped()
        finally:
            self._consumer = None
            await consumer.stop()

    def _stepped(self) -> None:
        self._step.set()
        self._step = asyncio.Event()

    def _new_consumer(self, *topics: str) -> Any:
        return AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._bootstrap,
            client_id="commandcenter-dead-letters",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=REQUEST_BYTES,
        )

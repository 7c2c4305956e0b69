"""Follows a topic of one partition: all of it, or what is not too old, then its tail, for ever.

No consumer group: every process reads the whole topic for itself. The connection is kept by the
reader itself; a broker that is away is waited for. What is read is handed to `apply`, which must
take any record (an unreadable one too).
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from streams.errors import OperatorError

_log = structlog.get_logger(__name__)

_troubled = Gauge("commandcenter_reader_troubled", "1 while the topic cannot be read.", ["topic"])

_RETRY_S: Final = 0.5
_POLL_MS: Final = 1_000


class CompactedReader:
    """Reads one topic; an async context manager that owns its task and connection."""

    def __init__(
        self, bootstrap: str, topic: str, apply: Callable[[Any], None], since_ms: int | None = None
    ) -> None:
        """Prepare to read.

        Args:
            bootstrap: The brokers, `host:port[,host:port]`.
            topic: A topic whose records are all in partition 0.
            apply: Called with each `aiokafka.ConsumerRecord`, in order.
            since_ms: Nothing older is read, milliseconds since the epoch; None: everything is.
        """
        self._bootstrap = bootstrap
        self._partition = TopicPartition(topic, 0)
        self._apply = apply
        self._since_ms = since_ms
        self._position: int | None = 0 if since_ms is None else None
        self._step = asyncio.Event()
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._trouble = "not started"
        self._troubled = _troubled.labels(topic)
        self._ready = False

    async def __aenter__(self) -> Self:
        self._trouble = f"no answer from Kafka at {self._bootstrap} yet"
        self._task = asyncio.create_task(self._follow(), name=f"read {self._partition.topic}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def trouble(self) -> str:
        """Why the view may be out of date; empty while all is well."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            return f"reading {self._partition.topic} ended: {self._task.exception()}"
        return self._trouble or ("" if self._ready else f"{self._partition.topic} is being read")

    async def failure(self) -> None:
        """Wait until reading ends, and raise by what; to give up waiting does not end it."""
        task = self._task
        if task is not None:
            await asyncio.wait([task])
            if not task.cancelled():
                await task

    async def ready(self) -> None:
        """Wait until the topic has been read to the end it had at the start."""
        await self._until(lambda: self._ready)

    async def caught_up(self) -> None:
        """Wait until the topic has been read to the end that it has now."""
        await self._until(lambda: self._consumer is not None)
        consumer = self._consumer
        if consumer is None:
            raise OperatorError(f"{self._partition.topic} is not being read")
        try:
            end = (await consumer.end_offsets([self._partition]))[self._partition]
        except KafkaError as error:
            raise OperatorError(f"{self._partition.topic}: {error!r}") from error
        await self._until(lambda: self._position is not None and self._position >= end)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition, looked at after each step of the reading task."""
        while not condition():
            task = self._task
            if task is None:
                raise OperatorError(f"{self._partition.topic} is not being read")
            if task.done():
                raise OperatorError(self.trouble)
            step = asyncio.ensure_future(self._step.wait())
            try:
                await asyncio.wait({task, step}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                step.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                await self._read_on()
            except (KafkaError, OSError) as error:
                self._trouble = f"{self._partition.topic}: {error!r}"
                self._troubled.set(1)
                _log.warning(
                    "reading failed; trying again", topic=self._partition.topic, error=repr(error)
                )
            await asyncio.sleep(_RETRY_S)

    async def _read_on(self) -> None:
        """Connect and read from where reading stands, until the connection breaks."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            await consumer.start()
            consumer.assign([self._partition])
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            if self._position is None:
                found = await consumer.offsets_for_times({self._partition: self._since_ms})
                first = found[self._partition]
                self._position = end if first is None else first.offset
            consumer.seek(self._partition, self._position)
            self._consumer = consumer
            while True:
                self._moved(await consumer.position(self._partition), end)
                batches = await consumer.getmany(self._partition, timeout_ms=_POLL_MS)
                for record in batches.get(self._partition, ()):
                    self._apply(record)
        finally:
            self._consumer = None
            await consumer.stop()

    def _moved(self, position: int, first_end: int) -> None:
        self._position = position
        self._trouble = ""
        self._troubled.set(0)
        self._ready = self._ready or position >= first_end
        self._step.set()
        self._step = asyncio.Event()

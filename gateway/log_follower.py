"""Feeds the live tail from the log itself, in a gateway whose process records nothing."""

import asyncio
import contextlib
from typing import Final, Self

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from gateway.live import LiveTail
from gateway.recorded_log import RecordedLog
from streams.errors import OperatorError
from streams.topics import EVENTS

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 0.5
_POLL_MS: Final = 1_000


class LogFollower:
    """Reads all partitions of the events topic without a group; an async context manager.

    It begins where the store ends, so that ring and store overlap.
    """

    def __init__(self, bootstrap: str, tail: LiveTail, recorded: RecordedLog) -> None:
        self._bootstrap = bootstrap
        self._tail = tail
        self._recorded = recorded
        self._task: asyncio.Task[None] | None = None
        self.trouble = "the log is not followed yet"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name="follow the log")
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def check(self) -> None:
        """Return while the log is followed; `OperatorError` says why it is not."""
        if self.trouble:
            raise OperatorError(self.trouble)

    async def _follow(self) -> None:
        while True:
            try:
                await self._read_on()
            except (KafkaError, OSError, OperatorError) as error:
                self.trouble = f"the log cannot be followed: {error}"
                _log.warning("following the log failed; trying again", why=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _read_on(self) -> None:
        consumer = AIOKafkaConsumer(
            EVENTS,
            bootstrap_servers=self._bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            await consumer.start()
            recorded = await self._recorded.watermark()
            ends = self._tail.ends()
            for part in consumer.assignment():
                start = ends.get(part.partition, recorded.get(part.partition, 0))
                consumer.seek(part, start)
                self._tail.start_at(part.partition, start)
            self.trouble = ""
            while True:
                batches = await consumer.getmany(timeout_ms=_POLL_MS)
                for part, records in batches.items():
                    self._tail.on_records(part.partition, records)
        finally:
            await consumer.stop()

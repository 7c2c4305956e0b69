"""Reads the partitions that a worker owns of one topic, from given offsets, in the worker's loop.

Rules:
- What is handed over is in order and without a hole: records seen are dropped, and at a jump ahead
  the partition is read once more from where it should have gone on. A hole that is still there is
  one of the log (a transaction's marker, retention): it is said, and reading goes on.
- A partition on hold is not fetched; the others are.
- A reader knows nothing of groups: it is made for what is owned, and cancelled when that ends.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import Counter

from streams.outbox import REQUEST_BYTES

_log = structlog.get_logger(__name__)
_skips = Counter("commandcenter_reader_skips_total", "Jumps ahead that were read again.", ["topic"])

FETCH_RECORDS: Final = 1_000
_LOOK_AGAIN_MS: Final = 60_000  # records end the wait at once

HandOver = Callable[[int, list[Any]], Awaitable[None]]
"""Takes records (aiokafka's `ConsumerRecord`s) of one partition; may block."""


class TopicReader:
    """Reads one topic until its task is cancelled."""

    def __init__(
        self, bootstrap: str, topic: str, positions: Mapping[int, int | None], hand_over: HandOver
    ) -> None:
        """`positions` are the first offsets to hand over; None: the first that there is."""
        self._partitions = [TopicPartition(topic, number) for number in positions]
        self._expected = {number: n for number, n in positions.items() if n is not None}
        self._hand_over = hand_over
        self._read_again: dict[int, int] = {}
        self._held: set[TopicPartition] = set()
        self.topic = topic
        self._started = False
        self._begins: dict[TopicPartition, int] = {}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            client_id=f"commandcenter-reader-{topic}",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=1_500,
            max_partition_fetch_bytes=REQUEST_BYTES,
        )

    def hold(self, partition: int) -> None:
        """Fetch no more of this partition for now."""
        place = TopicPartition(self.topic, partition)
        self._held.add(place)
        if self._started:
            self._consumer.pause(place)

    def release(self, partition: int) -> None:
        """Fetch it again."""
        place = TopicPartition(self.topic, partition)
        if place in self._held:
            self._held.discard(place)
            if self._started:
                self._consumer.resume(place)

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """Where each partition began when first asked, and its end as of the last fetch.

        Partitions that nothing was heard of yet are missing.

        Raises:
            KafkaError: the brokers do not answer.
        """
        if not self._started:
            return {}
        if not self._begins:
            self._begins = await self._consumer.beginning_offsets(self._partitions)
            if not self._started:  # it was stopped meanwhile
                return {}
        ends = {place: self._consumer.highwater(place) for place in self._partitions}
        return {
            place.partition: (self._begins[place], end)
            for place, end in ends.items()
            if end is not None
        }

    async def run(self) -> None:
        """Read until cancelled; `KafkaError` where that is impossible."""
        consumer = self._consumer
        try:
            await consumer.start()
            consumer.assign(self._partitions)
            for place in self._partitions:
                if place.partition in self._expected:
                    consumer.seek(place, self._expected[place.partition])
            consumer.pause(*self._held)
            self._started = True
            while True:
                fetched = await consumer.getmany(
                    timeout_ms=_LOOK_AGAIN_MS, max_records=FETCH_RECORDS
                )
                for place, records in fetched.items():
                    continuous = self._continuous(place, records)
                    if continuous:
                        await self._hand_over(place.partition, continuous)
                        self._expected[place.partition] = continuous[-1].offset + 1
        finally:
            self._started = False
            await consumer.stop()

    def _continuous(self, place: TopicPartition, records: list[Any]) -> list[Any]:
        """What of the records comes next; nothing if some before them are missing."""
        expected = self._expected.get(place.partition)
        if expected is None:
            return records
        first = records[0].offset
        if first < expected:
            return [r for r in records if r.offset >= expected]
        if first > expected and self._read_again.get(place.partition) != expected:
            self._read_again[place.partition] = expected
            _skips.labels(self.topic).inc()
            self._consumer.seek(place, expected)
            return []
        if first > expected:
            _log.warning(
                "offsets are missing from the log",
                topic=self.topic,
                partition=place.partition,
                expected=expected,
                got=first,
            )
        return records

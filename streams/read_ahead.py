"""Reads a table's changelog outside of a rebalance.

Before the worker joins its group, so that joining costs others little: in a rebalance the
partitions of a changelog that the newcomer gets stand still until it has read them. What it has
read before needs no second look: the store keeps the offset that it stands at.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.outbox import REQUEST_BYTES

_RECORDS: Final = 5_000
_WAIT_MS: Final = 500


async def read_ahead(
    bootstrap: str, topic: str, starts: Mapping[int, int], take: Callable[[int, list[Any]], None]
) -> None:
    """Read partitions from given offsets to the end that they have now.

    `take` gets records of one partition, in order.

    Raises:
        KafkaError: the brokers do not answer.
    """
    async with reader(bootstrap, topic) as consumer:
        places = {TopicPartition(topic, number): start for number, start in starts.items()}
        await read_between(consumer, places, await consumer.end_offsets(list(places)), take)


@asynccontextmanager
async def reader(bootstrap: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group that commits nothing; `KafkaError` if no broker answers."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id=f"commandcenter-read-ahead-{topic}",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=REQUEST_BYTES,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read_between(
    consumer: AIOKafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    take: Callable[[int, list[Any]], None],
) -> None:
    """Read these partitions from their start to their end; as `read_ahead` does."""
    consumer.assign(list(starts))
    for place, start in starts.items():
        consumer.seek(place, start)
    behind = {place for place, start in starts.items() if ends[place] > start}
    while behind:
        fetched = await consumer.getmany(*behind, timeout_ms=_WAIT_MS, max_records=_RECORDS)
        for place, records in fetched.items():
            take(place.partition, records)
        behind = {p for p in behind if await consumer.position(p) < ends[p]}

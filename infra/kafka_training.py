"""Teaches the JVM what an embedded Kafka does: makes the AOT cache of its jars.

    nice -n 19 python -m infra.kafka_training HOME SCRATCH

The cache holds the classes as they are after a start, and which methods were busy while the broker
worked: a later broker compiles these at once instead of finding them out for half a minute. So the
broker works here before it stops, as it will: many small batches, each sent on its own and read at
once. A process of its own, so that all of it, the clients too, takes only what others leave.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from infra.kafka_broker import LOOPBACK, KafkaBroker, aot_cache, free_port
from infra.topic_admin import ensure_topics
from streams.errors import OperatorError
from streams.topics import Topic

_TOPIC: Final = Topic("training", "-", "records to practise with", "delete")
_PARTITIONS: Final = 4
_RECORDS: Final = 12_000
"""A quarter of it leaves half of what the broker does at rest to be compiled later."""

_STOPS_WITHIN_S: Final = 120.0
"""The JVM writes the cache at its end, for some 8 s."""


async def train(home: Path, scratch: Path) -> None:
    """Make the AOT cache of the jars in `home`.

    Args:
        home: The folder of the jars.
        scratch: An empty folder on the same disk, for the broker's data.

    Raises:
        OperatorError: The broker did not start, or did not serve.
    """
    draft = scratch / "draft.aot"
    broker = KafkaBroker(home, scratch)
    port = free_port()
    try:
        await broker.start(port, jvm=(f"-XX:AOTCacheOutput={draft}",))
        await _practise(f"{LOOPBACK}:{port}")
        await broker.stop(_STOPS_WITHIN_S)
    finally:
        await broker.kill()
    if draft.exists():
        draft.rename(aot_cache(home))


async def _practise(bootstrap: str) -> None:
    await ensure_topics(bootstrap, [_TOPIC], partitions=_PARTITIONS, replication=1)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    try:
        await producer.start()
        async with asyncio.TaskGroup() as group:
            for number in range(_PARTITIONS):
                group.create_task(_send_and_read(bootstrap, producer, number))
    except* KafkaError as errors:
        raise OperatorError(f"Kafka did not serve in training: {errors.exceptions[0]}") from errors
    finally:
        await producer.stop()


async def _send_and_read(bootstrap: str, producer: AIOKafkaProducer, number: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(_TOPIC.name, number)])
        await consumer.seek_to_beginning()
        for _ in range(_RECORDS // _PARTITIONS):
            await producer.send(
                _TOPIC.name, bytes(300), partition=number, headers=[("ce_id", b"training")]
            )
            await consumer.getone()
    finally:
        await consumer.stop()


if __name__ == "__main__":
    try:
        asyncio.run(train(Path(sys.argv[1]), Path(sys.argv[2])))
    except (OperatorError, OSError) as error:
        sys.exit(str(error))

"""Sending many records at once: hand-built record batches, one or few for each partition.

A record batch is what Kafka writes atomically: all records of one `Parcel` part are there or none.
Building batches ourselves costs a tenth of a `send` for every record, and is what lets the state
and the inbox offset that it reflects be written together (law 3).
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.partitioner import murmur2

from streams.errors import OperatorError

BATCH_BYTES: Final = 1024 * 1024
REQUEST_BYTES: Final = 9 * 1024 * 1024
"""The largest record, and request, that we send; the broker's limit has to allow it."""

_log = structlog.get_logger(__name__)

Header = tuple[str, bytes]
_NO_HEADERS: Final[list[Header]] = []


_Out = tuple[bytes | None, bytes | None, list[Header]]
"""Key, value and headers of a record."""


@lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives a key."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions


class Parcel:
    """Records to be sent together, in order within each partition."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], list[_Out]] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    def add(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
    ) -> None:
        """Put a record in. A None value is a tombstone."""
        place = (topic, partition)
        records = self._records.get(place)
        if records is None:
            records = self._records[place] = []
        records.append((key, value, list(headers) if headers else _NO_HEADERS))

    def extend(
        self,
        topic: str,
        partition: int,
        records: Iterable[tuple[bytes, bytes | None]],
        headers: list[Header],
    ) -> None:
        """Put many records in, which share their headers."""
        kept = self._records.setdefault((topic, partition), [])
        kept += [(key, value, headers) for key, value in records]

    def partitions(self) -> Sequence[tuple[tuple[str, int], list[_Out]]]:
        """What is in it, by topic and partition."""
        return tuple(self._records.items())


def _parts(records: list[_Out]) -> Iterator[list[_Out]]:
    """The records in parts of some `BATCH_BYTES`, in order; mostly all of them."""
    begin = size = 0
    for index, (_, value, _) in enumerate(records):
        length = 0 if value is None else len(value)
        if size and size + length > BATCH_BYTES:
            yield records[begin:index]
            begin, size = index, 0
        size += length
    yield records[begin:] if begin else records


class Outbox:
    """The one idempotent producer of a process, for whole parcels."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            client_id=client_id,
            enable_idempotence=True,
            max_batch_size=REQUEST_BYTES - 64 * 1024,  # `flush` cuts sooner, where it may
            max_request_size=REQUEST_BYTES,
            linger_ms=0,
        )

    async def start(self) -> None:
        """Connect; `OperatorError` if no broker answers."""
        try:
            await self._producer.start()
        except KafkaConnectionError as error:
            await self._producer.stop()
            raise OperatorError(f"cannot reach Kafka: {error}") from error

    async def stop(self) -> None:
        """Send what is pending, then disconnect."""
        await self._producer.stop()

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return len(await self._producer.partitions_for(topic))

    async def flush(self, parcel: Parcel, *, whole: bool = False) -> Sequence[int | None]:
        """Send everything in the parcel and wait until the broker has it.

        Where `whole`, the records of a partition are one batch: all of them are there or none.

        Returns:
            The first offset of each batch, in the order of the parcel; None where it is not known.

        Raises:
            KafkaError: some part is not known to be written; the parcel can be sent again.
        """
        pending = []
        now = int(time.time() * 1000)
        for (topic, partition), records in parcel.partitions():
            for part in [records] if whole else _parts(records):
                batch = self._producer.create_batch()
                for key, value, headers in part:
                    if batch.append(timestamp=now, key=key, value=value, headers=headers) is None:
                        raise AssertionError(f"a write to {topic} is too large for one batch")
                pending.append(await self._producer.send_batch(batch, topic, partition=partition))
        sent = [await pending[0]] if len(pending) == 1 else await asyncio.gather(*pending)
        return [None if part.offset is None or part.offset < 0 else part.offset for part in sent]

    async def deliver(self, parcel: Parcel, *, whole: bool = False) -> Sequence[int | None]:
        """As `flush`, tried again until the broker has it; the broker being away is said once."""
        delay = 0.1
        while True:
            try:
                return await self.flush(parcel, whole=whole)
            except KafkaError as error:
                if not getattr(error, "retriable", False):
                    raise
                _log.warning("Kafka does not take records; trying again", error=str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

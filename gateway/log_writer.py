"""The gateway's one producer: idempotent, acknowledged by all replicas.

It connects in the background: the gateway serves what it can while Kafka is away, and refuses what
has to be written until it is back, with the reason.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.errors import CallerError, OperatorError

_log = structlog.get_logger(__name__)

REQUEST_BYTES: Final = 9 * 1024 * 1024
_RETRY_S: Final = 0.5
_ANSWER_WITHIN_S: Final = 20.0
_CONNECTED_WITHIN_S: Final = 2.0


class Place(NamedTuple):
    """Where a record stands on the log."""

    topic: str
    partition: int
    offset: int


class LogWriter:
    """Writes records and waits for the brokers; an async context manager."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._connect(), name="connect the producer")
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._producer is not None:
            await self._producer.stop()

    async def producer(self, patience: float = _CONNECTED_WITHIN_S) -> AIOKafkaProducer:
        """The connected producer, waited for so many seconds; `OperatorError` if there is none."""
        if self._producer is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._connected.wait()
        if self._producer is None:
            raise OperatorError(f"Kafka at {self._bootstrap} does not answer; try again shortly")
        return self._producer

    async def write(
        self, topic: str, key: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Place:
        """Write a record, in the partition of its key, and return when the brokers have it.

        Raises:
            OperatorError: They do not, or it is not known; the same can be sent again.
        """
        producer = await self.producer()
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                written = await producer.send_and_wait(
                    topic, value, key=key.encode(), headers=list(headers)
                )
        except (KafkaError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            raise OperatorError(
                f"Kafka has not confirmed the record ({why}): it may or may not have been taken."
                " Send the same again, with the same id"
            ) from error
        return Place(written.topic, written.partition, written.offset)

    async def put(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Place:
        """Write a record as it is, tombstones too, to a partition; errors as for `write`."""
        producer = await self.producer()
        batch = producer.create_batch()
        batch.append(timestamp=None, key=key, value=value, headers=list(headers))
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                if partition not in await producer.partitions_for(topic):
                    raise CallerError(f"{topic} has no partition {partition}")
                written = await (await producer.send_batch(batch, topic, partition=partition))
        except (KafkaError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            raise OperatorError(
                f"Kafka has not confirmed the record for {topic}/{partition} ({why}): it may or may"
                " not have been taken"
            ) from error
        return Place(written.topic, written.partition, written.offset)

    async def ping(self) -> None:
        """Return if a broker answers now; `OperatorError` if none does."""
        try:
            async with asyncio.timeout(2):
                producer = await self.producer(patience=0)
                await producer.client.fetch_all_metadata()
        except (KafkaError, TimeoutError) as error:
            raise OperatorError(f"Kafka at {self._bootstrap} does not answer") from error

    async def _connect(self) -> None:
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id="commandcenter-gateway",
                enable_idempotence=True,
                max_request_size=REQUEST_BYTES,
                linger_ms=0,
            )
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                await producer.stop()
                _log.warning(
                    "Kafka is away; trying again", bootstrap=self._bootstrap, why=str(error)
                )
                await asyncio.sleep(_RETRY_S)
            except BaseException:
                await producer.stop()
                raise
            else:
                self._producer = producer
                self._connected.set()
                return

"""Dead letters: the newest records that could not be processed, read from their topic."""

import asyncio
from typing import Any, Final

from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from gateway.requests import answer, page_size
from gateway.services import SERVICES
from gateway.views import DeadLetterList, DeadLetterView, moment
from streams import codec
from streams.errors import OperatorError, UnreadableRecordError
from streams.records import DeadLetter
from streams.topics import DEAD_LETTERS

_WITHIN_S: Final = 10.0


async def list_dead_letters(request: web.Request) -> web.Response:
    """The newest dead letters; `limit` says how many."""
    limit = page_size(request)
    try:
        async with asyncio.timeout(_WITHIN_S):
            letters = await _newest(request.app[SERVICES].bootstrap, limit)
    except (KafkaError, TimeoutError) as error:
        raise OperatorError("Kafka does not give the dead letters; try again shortly") from error
    return answer(DeadLetterList(dead_letters=[_view(letter) for letter in letters]))


async def _newest(bootstrap: str, limit: int) -> list[DeadLetter]:
    consumer = AIOKafkaConsumer(
        DEAD_LETTERS, bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False
    )
    letters: list[DeadLetter] = []
    try:
        await consumer.start()
        parts: list[TopicPartition] = list(consumer.assignment())
        begins = await consumer.beginning_offsets(parts)
        ends = await consumer.end_offsets(parts)
        left = {}
        for part in parts:
            start = max(begins[part], ends[part] - limit)
            consumer.seek(part, start)
            if start < ends[part]:
                left[part] = ends[part]
        while left:
            batches = await consumer.getmany(*left, timeout_ms=1_000)
            for part, records in batches.items():
                letters += [_read(record) for record in records if record.offset < ends[part]]
            for part in list(left):
                if await consumer.position(part) >= left[part]:
                    del left[part]
    finally:
        await consumer.stop()
    letters.sort(key=lambda letter: letter.at, reverse=True)
    return letters[:limit]


def _read(record: Any) -> DeadLetter:
    try:
        return codec.dead_letters.decode(record.value)
    except UnreadableRecordError as error:
        return DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            at=record.timestamp,
            error=type(error).__name__,
            reason=f"this dead letter itself cannot be read: {error}",
            worker="",
            key=record.key,
            value=record.value,
        )


def _view(letter: DeadLetter) -> DeadLetterView:
    return DeadLetterView(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        at=moment(letter.at),
        error=letter.error,
        reason=letter.reason,
        worker=letter.worker,
        key=_text(letter.key),
        value=letter.value,
        value_text=_text(letter.value),
        headers={name: value.decode(errors="replace") for name, value in letter.headers},
    )


def _text(content: bytes | None) -> str | None:
    """The bytes as text, if they are."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None

"""The results that other workers published, found again on the log.

A worker that is killed has published results of tasks that it had not committed yet, and its
successor is given these tasks again. It looks on the inbox for their results, from when the first
of them was sent, and works on none that has one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.recent_results import RecentResults
from streams import codec, topics
from streams.errors import UnreadableRecordError
from streams.ids import task_id
from streams.messages import Result
from streams.read_ahead import read_between, reader

RECORDS: Final = 30_000
"""Of the inbox, all partitions together, that are looked at: what is older is not found."""
BYTES: Final = 32 * 1024 * 1024
"""Of results that are kept, the newest ones."""
MARGIN_MS: Final = 5_000
"""So much before the first task is looked too: one may be sent once more, by whoever decides again
what a dead worker had decided and not kept, and then is on its topic only after the takeover."""
_AGAIN_S: Final = 0.5

_log = structlog.get_logger(__name__)


Look = Callable[[int, RecentResults], Awaitable[None]]
"""Puts the results since this time (milliseconds since the epoch) on the log into the other one."""


class PublishedResults:
    """What one worker has found. It looks once in each generation of its group, and when it must.

    Args:
        look: finds them, as `on_log` does; raises `KafkaError` while that is impossible.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._looking = asyncio.Lock()
        self._generation = -1
        self._since = 0
        self._found = RecentResults(RECORDS, BYTES)

    async def look(self, generation: int, since: int) -> None:
        """Find the results of tasks that were sent from `since` (milliseconds) on.

        Where that was not done in this generation of the group; returns once Kafka has answered.
        """
        since -= MARGIN_MS
        async with self._looking:
            while generation != self._generation or since < self._since:
                found = RecentResults(RECORDS, BYTES)
                try:
                    await self._look(since, found)
                except KafkaError as error:
                    _log.warning("the log is asked again for results", error=str(error))
                    await asyncio.sleep(_AGAIN_S)
                else:
                    self._generation, self._since, self._found = generation, since, found

    def found(self, task: str) -> bytes | None:
        """The result of a task, if it was found."""
        return self._found.get(task)


def on_log(bootstrap: str, partitions: int) -> Look:
    """Look on the inbox of these brokers, which has so many partitions."""

    async def look(since: int, found: RecentResults) -> None:
        def take(_partition: int, records: list[Any]) -> None:
            for record in records:
                try:
                    said = codec.messages.decode(record.value)
                except UnreadableRecordError:
                    continue  # the orchestrator makes a dead letter of it
                if isinstance(said, Result):
                    name = task_id(said.run, said.node, said.item, said.attempt)
                    found.put(name, record.value)

        async with reader(bootstrap, topics.INBOX) as consumer:
            places = [TopicPartition(topics.INBOX, number) for number in range(partitions)]
            ends = await consumer.end_offsets(places)
            firsts = await consumer.offsets_for_times(dict.fromkeys(places, since))
            starts = {
                place: max(first.offset, ends[place] - RECORDS // partitions)
                for place, first in firsts.items()
                if first is not None
            }
            await read_between(consumer, starts, ends, take)

    return look

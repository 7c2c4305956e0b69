"""A log in memory, and an outbox that writes to it in as many steps as the real one.

Between any two steps the world may do something else: another worker writes, or this one crashes.
What the real outbox promises is kept: the records of one batch are there or none, batches of one
partition keep their order, and a parcel may be sent again, whole, when a part of it failed.
"""

import random
import types
from collections import defaultdict
from collections.abc import Callable, Generator
from typing import NamedTuple

from streams import topics
from streams.outbox import Header, Parcel


class Record(NamedTuple):
    """What the engine reads of aiokafka's `ConsumerRecord`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


Content = tuple[bytes | None, bytes | None, tuple[Header, ...]]


class Log:
    """All partitions of all topics. `clock` is the broker's, in milliseconds."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.clock = 0
        self._say = say
        self._partitions: dict[Place, list[Record]] = defaultdict(list)

    def append(self, topic: str, partition: int, batch: list[Content]) -> int:
        """Write a batch; gives its first offset."""
        records = self._partitions[Place(topic, partition)]
        first = len(records)
        for key, value, headers in batch:
            offset = len(records)
            if self._say is not None:
                self._say(f"    {topic}/{partition}@{offset} {key!r}: {value!r}")
            records.append(Record(topic, partition, offset, self.clock, key, value, headers))
        return first

    def read(
        self, topic: str, partition: int, start: int = 0, end: int | None = None
    ) -> list[Record]:
        return self._partitions[Place(topic, partition)][start:end]

    def end(self, topic: str, partition: int) -> int:
        return len(self._partitions[Place(topic, partition)])

    def everything(self, prefix: str) -> list[Record]:
        """All records of the topics whose name begins so, partition by partition."""
        return [record for place in self.places(prefix) for record in self._partitions[place]]

    def places(self, prefix: str) -> list[Place]:
        """The partitions with records, of the topics whose name begins so."""
        return sorted(p for p in self._partitions if p.topic.startswith(prefix))


@types.coroutine
def pause() -> Generator[None, None, None]:
    """A point between two effects, where the world may go on elsewhere, or this may end."""
    yield


class SimulatedOutbox:
    """Delivers parcels to the log.

    Args:
        log: where to.
        chance: decides the cuts, the order of partitions and what is sent again.
        resend: probability that a parcel is sent again after a part of it was sent.
        tear_state: whether a write of state may be cut into several batches. The engine must not
            let that happen; the simulator's own test shows what comes of it.
    """

    def __init__(
        self, log: Log, chance: random.Random, resend: float, *, tear_state: bool = False
    ) -> None:
        self._log = log
        self._chance = chance
        self._resend = resend
        self._tear_state = tear_state

    async def deliver(self, parcel: Parcel, *, whole: bool = False) -> list[int | None]:
        parts: dict[Place, list[list[Content]]] = {}
        for place, records in parcel.partitions():
            contents = [(key, value, tuple(headers)) for key, value, headers in records]
            parts[Place(*place)] = self._cut(place[0], contents, whole=whole)
        if self._chance.random() < self._resend:
            await self._send(parts, self._chance.randint(0, sum(map(len, parts.values()))))
        firsts = await self._send(parts, None)
        await pause()
        if self._chance.random() < self._resend:
            return [None] * len(parts)  # as where the broker has it from a send before
        return [firsts[place] for place in parts]

    async def _send(
        self, parts: dict[Place, list[list[Content]]], limit: int | None
    ) -> dict[Place, int]:
        firsts: dict[Place, int] = {}
        waiting = {place: list(batches) for place, batches in parts.items()}
        while waiting and limit != 0:
            await pause()
            place = self._chance.choice(list(waiting))
            firsts.setdefault(place, self._log.append(*place, waiting[place].pop(0)))
            if not waiting[place]:
                del waiting[place]
            limit = None if limit is None else limit - 1
        return firsts

    def _cut(self, topic: str, records: list[Content], *, whole: bool) -> list[list[Content]]:
        if topic == topics.INBOX:  # timers, in the order of a set: not the same in every process
            records = sorted(records)
            self._chance.shuffle(records)
        if (whole or topic == topics.STATE) and not self._tear_state:
            return [records]
        batches: list[list[Content]] = [[]]
        for record in records:
            if batches[-1] and self._chance.random() < 0.3:
                batches.append([])
            batches[-1].append(record)
        return batches

"""A worker's own look at its partitions: how far each is, and which stands still while it lives.

Once a second at most, by what the worker knows anyway. What it finds is metrics and a log line for
each stall that begins or ends; the watch from outside (`infra.worker_watch`) sees a worker that
does not even come to look.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, NoReturn

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from streams.watchdog import Place, Seen, Watchdog

_log = structlog.get_logger(__name__)
_offsets = Gauge(
    "commandcenter_worker_partition_offset",
    "Of the partitions that this worker owns: end of the log, committed, processed.",
    ["topic", "partition", "kind"],
)
_stalls = Counter(
    "commandcenter_worker_stalls_total", "Times that a partition stood still here.", ["topic"]
)

EVERY_S: Final = 1.0
_ANSWER_S: Final = 3.0


class Offsets(NamedTuple):
    """Where a partition stands: `end` and `committed` as they were last heard of."""

    end: int
    committed: int
    processed: int
    note: str = ""
    """What is finished beyond `processed`."""


class PartitionWatch:
    """Watches what one worker owns.

    Args:
        ask: Gives the partitions owned now.
        patience_s: Seconds without progress that make a stall; tasks have longer.
        clock: Seconds; any origin will do.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Mapping[Place, Offsets]]],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._watchdog = Watchdog(patience_s)
        self._clock = clock
        self._shown: set[Place] = set()

    async def run(self) -> NoReturn:
        """Look every second until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self.look()
            except (KafkaError, TimeoutError) as error:  # a reader that ends answers nothing more
                _log.warning("the ends of partitions are not known", error=repr(error))
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look once."""
        partitions = await self._ask()
        for topic, partition in self._shown - partitions.keys():
            for kind in ("end", "committed", "processed"):
                _offsets.remove(topic, partition, kind)
        self._shown = set(partitions)
        for (topic, partition), found in partitions.items():
            _offsets.labels(topic, partition, "end").set(found.end)
            _offsets.labels(topic, partition, "committed").set(found.committed)
            _offsets.labels(topic, partition, "processed").set(found.processed)
        seen = {place: Seen(at.end, at.processed, at.note) for place, at in partitions.items()}
        self._watchdog.look(self._clock(), seen)
        for stall in self._watchdog.begun:
            _stalls.labels(stall.topic).inc()
            _log.error("a partition of this worker stands still", **stall._asdict())
        for topic, partition in self._watchdog.ended:
            _log.info("a partition of this worker moves again", topic=topic, partition=partition)

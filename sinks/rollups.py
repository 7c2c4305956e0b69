"""Counts by minute and by day, kept up behind the recorder.

Rules:
- No running sums. What changed since the last time is found by its place on the log, the minutes
  that it is about are counted anew, and the place is kept after that. A crash in between, a
  duplicate, or an event that comes months late only makes some minutes be counted once more.
- Minutes whose rows retention may have removed are left as they were counted.
- Counting takes a small part of the machine: the more it costs the rarer it is done.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Counter, Gauge

from sinks.queries import query
from sinks.store import Store
from streams.errors import OperatorError
from streams.topics import EVENTS

_log = structlog.get_logger(__name__)
_minutes = Counter("commandcenter_rollup_minutes_total", "Minutes that were counted anew.")
_behind = Gauge("commandcenter_rollup_lag_records", "Recorded, and not yet in the rollups.")
_failures = Counter("commandcenter_rollup_failures_total", "Attempts that failed: store away.")

BY_RUN: Final = ("runs", "steps", "costs")
BY_EVENT: Final = ("events",)

_SPAN: Final = 200_000
"""Offsets of a partition that are looked at in one go."""

_AT_ONCE: Final = 30
"""Minutes, or days, that are counted in one statement."""

_DAY_S: Final = 86_400
_MARGIN_S: Final = 3_600
_SHORTEST_S: Final = 5.0
_LONGEST_S: Final = 300.0
_RATIO: Final = 40.0
"""From one counting to the next: this many times as long as it took."""


class _Changes(NamedTuple):
    """The minutes in which something changed, by when runs started and by when events happened."""

    runs: set[int]
    events: set[int]


class Rollups:
    """The rollups of what some recorder writes.

    Args:
        store: With the schema applied.
        topic: The events topic.
        retention_days: After how many days rows are removed; 0: never.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        topic: str = EVENTS,
        *,
        retention_days: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._topic = topic
        self._retention_s = retention_days * _DAY_S
        self._clock = clock
        self._done: dict[int, int] | None = None

    async def follow(self, watermark: Callable[[], Mapping[int, int]]) -> None:
        """Keep them up until cancelled. `watermark`: the last offset recorded by partition."""
        while True:
            began = self._clock()
            try:
                await self.refresh(watermark())
            except OperatorError as error:
                _failures.inc()
                _log.warning("the rollups are tried again later", error=str(error))
            took = max(0.0, self._clock() - began)
            await asyncio.sleep(min(max(_RATIO * took, _SHORTEST_S), _LONGEST_S))

    async def refresh(self, watermark: Mapping[int, int]) -> None:
        """Count what changed up to these offsets.

        Raises:
            OperatorError: The store is away; what was not counted is counted the next time.
        """
        if self._done is None:
            rows = await self._store.query(query("rolled_up"), {"topic": self._topic})
            self._done = {partition: int(offset) for partition, offset in rows.rows}
        recorded = {number: last for number, last in watermark.items() if last >= 0}
        while True:
            step = {
                number: min(last, self._done.get(number, -1) + _SPAN)
                for number, last in recorded.items()
                if last > self._done.get(number, -1)
            }
            _behind.set(sum(last - self._done.get(n, -1) for n, last in recorded.items()))
            if not step:
                return
            changes = await self._changes(step)
            await self._count(BY_RUN, changes.runs)
            await self._count(BY_EVENT, changes.events)
            await self._keep(step)
            self._done.update(step)

    async def _keep(self, step: Mapping[int, int]) -> None:
        await self._store.insert(
            "positions",
            {
                "topic": [self._topic] * len(step),
                "partition": list(step),
                "offset": list(step.values()),
            },
        )

    async def _changes(self, step: Mapping[int, int]) -> _Changes:
        changes = _Changes(set(), set())
        done = self._done or {}
        for partition, until in step.items():
            bounds: dict[str, Any] = {"partition": partition, "until": until}
            bounds |= {"topic": self._topic, "after": done.get(partition, -1)}
            [(runs, events)] = (await self._store.query(query("rollup_changes"), bounds)).rows
            changes.runs.update(runs)
            changes.events.update(events)
        return changes

    async def _count(self, tables: Sequence[str], minutes: set[int]) -> None:
        kept_from = 0.0
        if self._retention_s:
            kept_from = self._clock() - self._retention_s + _MARGIN_S
        counted = sorted(minute for minute in minutes if minute >= kept_from)
        days = sorted({minute // _DAY_S * _DAY_S for minute in counted})
        for table in tables:
            for span, times in (("minutes", counted), ("days", days)):
                for some in _some(times):
                    bounds = {"times": some, "first": some[0], "last": some[-1]}
                    await self._store.command(query(f"rollup_{table}_{span}"), bounds)
        _minutes.inc(len(counted))


def _some(times: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(times), _AT_ONCE):
        yield times[start : start + _AT_ONCE]

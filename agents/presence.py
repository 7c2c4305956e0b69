"""A worker's signs of life: what it serves, how much of it at once, and how much it has in hand.

The first is given when the worker serves, then one every interval; who is silent for three of them
is taken for gone. A worker that ends in order says so.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agents.registry import AgentRegistry
from streams import codec, topics
from streams.ids import worker_key
from streams.outbox import Outbox, Parcel
from streams.registry import Serving, WorkerRecord

_FAREWELL_S: Final = 1.0


class Presence:
    """Speaks for one worker.

    Args:
        outbox: takes the records.
        registry: the agents that the worker serves.
        worker: its name.
        started_at: when it started, milliseconds since the epoch.
        interval: seconds between signs of life.
        in_hand: how many tasks of an agent it has.
        trouble: what the worker cannot read now besides its tasks; empty while all is well.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: AgentRegistry,
        worker: str,
        *,
        started_at: int,
        interval: float,
        in_hand: Callable[[str], int],
        trouble: Callable[[], str] = str,
    ) -> None:
        self._outbox = outbox
        self._agents = tuple(registry.agents.values())
        self._worker = worker
        self._started_at = started_at
        self._interval = interval
        self._in_hand = in_hand
        self._trouble = trouble
        self._key = worker_key(worker).encode()
        self._told = False

    async def run(self) -> None:
        """Say it until cancelled."""
        while True:
            self._told = True
            await self._say(codec.encode(self._now()))
            await asyncio.sleep(self._interval)

    async def leave(self) -> None:
        """Say that the worker is gone, if it ever said that it is there; not for long."""
        if self._told:
            with suppress(TimeoutError):  # it is found out soon
                async with asyncio.timeout(_FAREWELL_S):
                    await self._say(None)

    def _now(self) -> WorkerRecord:
        return WorkerRecord(
            worker=self._worker,
            started_at=self._started_at,
            interval_ms=int(self._interval * 1000),
            agents=tuple(
                Serving(
                    name=agent.name,
                    version=agent.version,
                    capacity=agent.concurrency,
                    in_hand=self._in_hand(agent.name),
                )
                for agent in self._agents
            ),
            trouble=self._trouble(),
        )

    async def _say(self, value: bytes | None) -> None:
        parcel = Parcel()
        parcel.add(topics.AGENTS, 0, self._key, value)
        await self._outbox.deliver(parcel)

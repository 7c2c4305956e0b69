"""A system under load while faults are injected into it, and the account of it at the end.

The processes are the product's own, started as its command line starts them; the log is read by a
client that knows nothing of them.
"""

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from system import PARTITIONS, System, define

from gateway.client import GatewayClient
from infra import verification as ledger
from infra.verification import through_gateway
from streams import codec, topics
from streams.events import Decision
from streams.ids import run_id
from streams.lifecycle import TERMINAL
from streams.plan import parse
from streams.records import RunStatus

FULL: Final = os.environ.get("CHAOS") == "full"
"""Full size (`make chaos`), or the short form that every test run has."""

AGENT: Final = "chaos_agent:chaos"


def chain(second: str) -> Any:
    """Three steps after one another: a quick one, one with this action, a quick one."""

    def node(name: str, action: str, value: str, *needs: str) -> dict[str, Any]:
        return {
            "id": name,
            "agent": "chaos",
            "action": action,
            "dependsOn": list(needs),
            "inputs": {"value": value},
        }

    return parse(
        {
            "name": "chain",
            "trigger": {"event": "chaos.began"},
            "nodes": [
                node("first", "quick", "{{ context.value }}"),
                node("second", second, "{{ nodes.first.output.value }}", "first"),
                node("third", "quick", "{{ nodes.second.output.value }}", "second"),
            ],
        }
    )


class Log:
    """The events topic as an independent reader sees it."""

    def __init__(self, bootstrap: Callable[[], str]) -> None:
        self._bootstrap = bootstrap
        self._changed = asyncio.Condition()
        self.decisions: dict[tuple[str, int], bytes] = {}
        self.begun: set[str] = set()
        self.ended: dict[str, list[RunStatus]] = defaultdict(list)
        self.conflicts: list[tuple[bytes, bytes]] = []
        self._positions: dict[TopicPartition, int] = {}
        self._placed = asyncio.Event()

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Read beside what is done in the context: what comes from the first time on."""
        reading = asyncio.create_task(self._follow())
        placed = asyncio.create_task(self._placed.wait())
        try:
            await asyncio.wait([reading, placed], return_when=asyncio.FIRST_COMPLETED)
            placed.cancel()
            yield
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _follow(self) -> None:
        """Read from where reading stands until cancelled."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap(), auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(topics.EVENTS, p) for p in range(PARTITIONS)]
            consumer.assign(partitions)
            if not self._placed.is_set():
                self._positions = await consumer.end_offsets(partitions)
                self._placed.set()
            for partition in partitions:
                consumer.seek(partition, self._positions[partition])
            while True:
                fetched = await consumer.getmany(timeout_ms=1000)
                async with self._changed:
                    for partition, records in fetched.items():
                        for record in records:
                            self._take(record.value)
                            self._positions[partition] = record.offset + 1
                    self._changed.notify_all()
        finally:
            await consumer.stop()

    def _take(self, value: bytes) -> None:
        decision = codec.decisions.decode(value)
        key = (decision.run, decision.seq)
        if key in self.decisions:
            if self.decisions[key] != value:
                self.conflicts.append((self.decisions[key], value))
            return
        self.decisions[key] = value
        self.begun.add(decision.run)
        if decision.status in TERMINAL:
            self.ended[decision.run].append(decision.status)

    async def until_ended(self, runs: set[str], within: float = 120) -> None:
        """Wait until all of them have ended."""
        async with self._changed:
            try:
                async with asyncio.timeout(within):
                    await self._changed.wait_for(lambda: runs <= self.ended.keys())
            except TimeoutError:
                pytest.fail(f"{len(runs - self.ended.keys())} of {len(runs)} runs have not ended")

    @property
    def in_progress(self) -> int:
        """How many runs have begun and not ended."""
        return len(self.begun) - len(self.ended)

    async def until_in_progress(self, runs: int) -> None:
        """Wait until that many runs have begun and not ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_progress >= runs)

    async def until_some_ended(self, count: int) -> None:
        """Wait until that many have."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.ended) >= count)

    async def until_more_end(self, count: int) -> None:
        """Wait until that many more have."""
        await self.until_some_ended(len(self.ended) + count)

    def doubled(self) -> int:
        """How many decisions stand on the log twice with other bytes, or end a run again."""
        return len(self.conflicts) + sum(len(ends) - 1 for ends in self.ended.values())

    def check(self) -> None:
        """Every run that ended did so once, in success, and its history has no gap."""
        assert self.conflicts == []
        assert {run: ends for run, ends in self.ended.items() if len(ends) != 1} == {}
        assert {ends[0] for ends in self.ended.values()} <= {RunStatus.SUCCESS}
        sequences: dict[str, list[Decision]] = defaultdict(list)
        for value in self.decisions.values():
            decision = codec.decisions.decode(value)
            sequences[decision.run].append(decision)
        for run, decisions in sequences.items():
            expected = 0
            for decision in sorted(decisions, key=lambda d: d.seq):
                assert decision.seq == expected, f"run {run} has a gap at {expected}"
                expected += len(decision.events)


class Triggers:
    """Sends trigger events; knows which ones Kafka has accepted."""

    def __init__(self, bootstrap: str, source: str = "/chaos") -> None:
        self._source = source
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", max_request_size=16 * 1024 * 1024
        )
        self._number = 0
        self.accepted: set[str] = set()
        self.unanswered: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def send(self, count: int) -> None:
        """Send that many, and wait until Kafka has them or cannot be reached."""
        await asyncio.gather(*(self._send_one() for _ in range(count)))

    async def _send_one(self) -> None:
        number, self._number = self._number, self._number + 1
        run = run_id("default", "chain", self._source, str(number))
        try:
            await self.send_raw(json.dumps({"value": number}).encode(), number)
        except KafkaError:
            self.unanswered.add(run)
        else:
            self.accepted.add(run)

    async def poison(self, topic: str, value: bytes) -> None:
        """Send what nobody can make sense of, or what is too large."""
        await self._producer.send_and_wait(topic, value, partition=0)

    async def send_raw(self, value: bytes, number: int) -> None:
        """Send one event with this value."""
        await self._producer.send_and_wait(
            topics.TRIGGERS,
            value,
            partition=number % PARTITIONS,
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_id", str(number).encode()),
                ("ce_source", self._source.encode()),
                ("ce_type", b"chaos.began"),
                ("content-type", b"application/json"),
            ],
        )

    @asynccontextmanager
    async def steadily(self, rate: float) -> AsyncIterator[None]:
        """Send at this rate beside what is done in the context."""
        stopped = asyncio.Event()

        async def go_on() -> None:
            sending: set[asyncio.Task[None]] = set()
            while not stopped.is_set():
                task = asyncio.create_task(self.send(max(1, round(rate / 10))))
                sending.add(task)
                task.add_done_callback(sending.discard)
                await asyncio.wait([asyncio.ensure_future(stopped.wait())], timeout=0.1)
            await asyncio.gather(*sending)

        load = asyncio.create_task(go_on())
        try:
            yield
        finally:
            stopped.set()
            await load


class Chaos:
    """One case: what is injected, what was accepted, and what became of it."""

    def __init__(self, name: str, system: System, before: set[str] | None = None) -> None:
        """`before` are the runs of the system that ended well; those of this case join them."""
        self._name = name
        self._began = time.monotonic()
        self._ended = set() if before is None else before
        self.system = system
        self.log = Log(lambda: system.bootstrap)
        self.faults: Counter[str] = Counter()

    @asynccontextmanager
    async def under_load(self, rate: float, second: str = "slow") -> AsyncIterator[Triggers]:
        """Runs are started at this rate in the context; after it all of them must end."""
        async with self._observed(second) as triggers:
            async with triggers.steadily(rate):
                yield triggers
            await self.ends(triggers)

    @asynccontextmanager
    async def in_progress(self, runs: int, second: str = "slow") -> AsyncIterator[Triggers]:
        """So many runs are in progress when the context begins; after it all of them must end."""
        async with self._observed(second) as triggers:
            await triggers.send(runs)
            await self.log.until_in_progress(runs)
            yield triggers
            await self.ends(triggers)

    @asynccontextmanager
    async def _observed(self, second: str) -> AsyncIterator[Triggers]:
        await define(self.system.bootstrap, chain(second))
        source = f"/chaos/{self._name.replace(' ', '-')}"
        async with self.log.followed(), Triggers(self.system.bootstrap, source) as triggers:
            try:
                yield triggers
            finally:  # the next case on the system has to know of them, whatever became of this one
                self._ended.update(triggers.accepted, self.log.ended)

    async def ends(self, triggers: Triggers) -> None:
        """Wait for the ends of all runs, verify, and say how it went."""
        await self.log.until_ended(triggers.accepted)
        assert self.log.ended.keys() <= triggers.accepted | triggers.unanswered
        lost = len(triggers.accepted - self.log.ended.keys())
        faults = ", ".join(f"{number} {fault}" for fault, number in self.faults.items())
        print(  # noqa: T201  # the account of the case
            f"\n{self._name}: {faults}; triggers accepted {len(triggers.accepted)}, "
            f"runs finished {len(self.log.ended)}, lost {lost}, duplicated {self.log.doubled()} "
            f"({time.monotonic() - self._began:.0f} s)"
        )
        self.log.check()
        self._ended.update(self.log.ended)
        await verify(self.system, self._ended)


async def verify(system: System, runs: set[str]) -> None:
    """Everything that must hold of a system at rest whose runs are these, all ended well."""
    async with AsyncExitStack() as stack:
        ask = None
        if system.gateway is not None:
            ask = through_gateway(await stack.enter_async_context(GatewayClient(system.url)))
        verdict = await ledger.verify(system.bootstrap, ask, settled=True, within=60)
        assert verdict.agrees, verdict.differences
        assert verdict.counts["runs"] == len(runs), (verdict.counts, len(runs))
    if system.gateway is not None:
        async with aiohttp.ClientSession(system.url) as session:
            counted = await sql(session, "SELECT count(), countIf(status = 'SUCCESS') FROM runs")
            assert counted == [[len(runs), len(runs)]]


async def sql(session: aiohttp.ClientSession, query: str) -> list[list[Any]]:
    """The rows of a query over REST."""
    async with session.post("/api/sql", json={"query": query}) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    return [list(row.values()) for row in answer["rows"]]

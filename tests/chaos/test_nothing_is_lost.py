"""Workers and whole systems are killed in the middle of the work, and every run still ends once.

The processes are the product's own, started as its command line starts them; the log is read by a
client that knows nothing of them. What is asserted of the log, after everything:
every accepted trigger has a run that ended in exactly one terminal state; a run's sequence numbers
have no gap; where a decision stands on the log twice, its bytes are the same.
"""

import asyncio
import json
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from system import PARTITIONS, System, define, python_below

from streams import codec, topics
from streams.ids import run_id
from streams.lifecycle import TERMINAL
from streams.plan import parse
from streams.records import Decision, RunStatus

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
AGENT = "chaos_agent:chaos"


def chain(slow: bool) -> Any:
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
                node(
                    "second", "slow" if slow else "quick", "{{ nodes.first.output.value }}", "first"
                ),
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
        self.ended: dict[str, list[RunStatus]] = defaultdict(list)
        self.conflicts: list[tuple[bytes, bytes]] = []
        self._positions: dict[TopicPartition, int] = {}

    async def follow(self) -> None:
        """Read from where reading stands until cancelled."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap(), auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(topics.EVENTS, p) for p in range(PARTITIONS)]
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, self._positions.get(partition, 0))
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
        if decision.status in TERMINAL:
            self.ended[decision.run].append(decision.status)

    async def until_ended(self, runs: int, within: float = 150) -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(within):
                    await self._changed.wait_for(lambda: len(self.ended) >= runs)
            except TimeoutError:
                pytest.fail(f"{runs - len(self.ended)} of {runs} runs have not ended")

    def check(self, runs: set[str]) -> None:
        """All that must hold of the log."""
        assert self.conflicts == []
        assert set(self.ended) == runs
        assert {run: ends for run, ends in self.ended.items() if len(ends) != 1} == {}
        assert {ends[0] for ends in self.ended.values()} == {RunStatus.SUCCESS}
        sequences: dict[str, list[Decision]] = defaultdict(list)
        for value in self.decisions.values():
            decision = codec.decisions.decode(value)
            sequences[decision.run].append(decision)
        for run, decisions in sequences.items():
            expected = 0
            for decision in sorted(decisions, key=lambda d: d.seq):
                assert decision.seq == expected, f"run {run} has a gap at {expected}"
                expected += len(decision.events)


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    system = System(tmp_path, agents=HERE)
    await system.start_kafka()
    yield system
    await system.stop()


async def trigger(bootstrap: str, count: int) -> set[str]:
    """Publish that many events; gives the runs that they must start."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    sent = [
        await producer.send(
            topics.TRIGGERS,
            json.dumps({"value": number}).encode(),
            partition=number % PARTITIONS,
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_id", str(number).encode()),
                ("ce_source", b"/chaos"),
                ("ce_type", b"chaos.began"),
                ("content-type", b"application/json"),
            ],
        )
        for number in range(count)
    ]
    await asyncio.gather(*sent)
    await producer.stop()
    return {run_id("default", "chain", "/chaos", str(number)) for number in range(count)}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_workers_that_join_and_leave_under_load(system: System, how: int) -> None:
    runs_in_progress = 8_000
    log = Log(lambda: system.bootstrap)
    await define(system.bootstrap, chain(slow=True))
    await system.worker(AGENT)
    following = asyncio.create_task(log.follow())
    runs = await trigger(system.bootstrap, runs_in_progress)
    for _ in range(3):
        second = await system.worker(AGENT)  # it says so when it has partitions and their state
        assert len(log.ended) < runs_in_progress
        python_below(second).send_signal(how)
        await second.wait()
    await log.until_ended(runs_in_progress)
    following.cancel()
    log.check(runs)


async def test_a_worker_then_everything_is_killed_with_500_runs_in_progress(
    system: System,
) -> None:
    count = 500
    log = Log(lambda: system.bootstrap)
    await define(system.bootstrap, chain(slow=True))
    worker = await system.worker(AGENT)
    await system.start("gateway")
    following = asyncio.create_task(log.follow())
    runs = await trigger(system.bootstrap, count)
    await log.until_ended(20)
    assert len(log.ended) < count
    worker.kill()
    await worker.wait()

    await system.worker(AGENT)
    following.cancel()
    await system.kill_everything()

    await system.start_kafka()
    following = asyncio.create_task(log.follow())
    await system.worker(AGENT)
    await system.start("gateway")
    await log.until_ended(count)
    following.cancel()
    log.check(runs)
    await all_views_agree(system.url, runs, len(log.decisions))


async def all_views_agree(url: str, runs: set[str], decisions: int) -> None:
    """REST, SQL and the websocket show the same runs in the same state, each once."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(url))
        live = await ended_on_websocket(session, runs)
        assert live == dict.fromkeys(runs, "SUCCESS")
        assert await listed(session) == live
        rows = await sql(session, "SELECT run_id, status FROM runs")
        assert sorted(rows) == sorted([run, "SUCCESS"] for run in runs)
        counted = await sql(session, "SELECT count(), uniqExact(run_id, seq) FROM events")
        assert counted[0][0] == counted[0][1]
        terminal = await sql(
            session, "SELECT count() FROM events WHERE type LIKE 'run.%' AND type != 'run.started'"
        )
        assert terminal == [[len(runs)]]
        assert decisions >= len(runs)


async def ended_on_websocket(session: aiohttp.ClientSession, runs: set[str]) -> dict[str, str]:
    """Each run's last status as a websocket client learns it, one subscription a run."""
    statuses: dict[str, str] = {}
    async with session.ws_connect("/api/stream") as socket:
        for number, run in enumerate(sorted(runs)):
            await socket.send_json({"type": "subscribe", "id": number, "filter": {"run": run}})
            status = ""
            while status not in TERMINAL:
                frame = await socket.receive_json(timeout=30)
                if frame.get("id") != number:
                    continue
                if frame["type"] == "snapshot" and frame.get("run"):
                    status = frame["run"]["status"]
                for decision in frame.get("decisions", ()):
                    status = decision["status"]
            statuses[run] = status
            await socket.send_json({"type": "unsubscribe", "id": number})
    return statuses


async def listed(session: aiohttp.ClientSession) -> dict[str, str]:
    """Every run of the list, page by page."""
    found: dict[str, str] = {}
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        async with session.get("/api/runs", params=query) as response:
            assert response.status == 200, await response.text()
            page = await response.json()
        for run in page["runs"]:
            assert run["id"] not in found, "a run is listed twice"
            found[run["id"]] = run["status"]
        cursor = page["next"]
    return found


async def sql(session: aiohttp.ClientSession, query: str) -> list[list[Any]]:
    async with session.post("/api/sql", json={"query": query}) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    return [list(row.values()) for row in answer["rows"]]

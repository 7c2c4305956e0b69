"""Whatever fails in a worker ends it with its name in the log; another one finishes the work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from chaos import Log, Triggers, verify
from system import System, define

from infra.kafka_broker import free_port
from infra.owned_process import OwnedProcess
from streams import codec, topics
from streams.messages import TaskCancellation
from streams.plan import parse

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

AGENT = "faulty_agent:chaos"
RUNS = 20

CASES = {
    "router": "commandcenter.triggers",
    "orchestrator": "commandcenter.inbox",
    "timers": "timers",
    "agent": "commandcenter.tasks.chaos",
    "result": "tasks of chaos",
    "publishing": "tasks of chaos",
    "reader": "read commandcenter.inbox",
    "catalog": "read commandcenter.workflows",
    "order": "read commandcenter.control",
    "commit": "faust",
    "watch": "partition watch",
}
"""What is broken, and the actor that it is a failure of."""


class Scene:
    """A system with one worker, whose faults are armed by files."""

    def __init__(self, folder: Path) -> None:
        self.faults = folder / "faults"
        self.faults.mkdir()
        self.port = free_port()
        self.system = System(
            folder,
            agents=Path(__file__).parent,
            env={
                "FAULTS": str(self.faults),
                "COMMANDCENTER_WORKER_METRICS_PORT": str(self.port),
            },
        )
        self.log = Log(lambda: self.system.bootstrap)
        self.worker: OwnedProcess | None = None
        self.triggers: Triggers

    async def ready(self) -> OwnedProcess:
        """The worker; another one if the last has ended."""
        if self.worker is None or self.worker.returncode is not None:
            self.worker = await self.system.worker(AGENT)
        return self.worker

    async def give_work(self) -> None:
        """Something for each actor to do."""
        await define(
            self.system.bootstrap,
            parse({"name": f"other{len(self.triggers.accepted)}", "nodes": [NODE]}),
        )
        order = TaskCancellation(task="none", agent="chaos", reason="", grace_ms=0)
        producer = AIOKafkaProducer(bootstrap_servers=self.system.bootstrap)
        await producer.start()
        await producer.send_and_wait(topics.CONTROL, codec.encode(order), partition=0)
        await producer.stop()
        await self.triggers.send(RUNS)

    def failed(self) -> list[str]:
        """The actors whose failure was the end of a worker, by the log."""
        lines = (self.system.data / "log").read_bytes().splitlines()
        said = [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]
        return [line["actor"] for line in said if line["event"].startswith("an actor failed")]

    async def metrics(self) -> dict[str, float]:
        """The worker's metrics, as a scraper sees them."""
        address = f"http://127.0.0.1:{self.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            text = await response.text()
        samples = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in samples}

    async def until_metric(self, reached: Callable[[dict[str, float]], bool]) -> None:
        """Ask the worker for its metrics until they are so."""
        async with asyncio.timeout(40):
            while not reached(await self.metrics()):  # noqa: ASYNC110 -- scrapers have to ask, too
                await asyncio.sleep(0.2)


NODE = {"id": "only", "agent": "chaos", "action": "quick"}
WORKFLOW = {
    "name": "chain",
    "trigger": {"event": "chaos.began"},
    "nodes": [
        NODE | {"id": "first"},
        {"id": "rest", "delay": "50ms", "dependsOn": ["first"]},
        NODE | {"id": "last", "dependsOn": ["rest"]},
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("actors"))
    await scene.system.start_kafka()
    try:
        await define(scene.system.bootstrap, parse(WORKFLOW))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(scene.log.followed())
            scene.triggers = await stack.enter_async_context(Triggers(scene.system.bootstrap))
            yield scene
    finally:
        await scene.system.stop()


@pytest.mark.parametrize("fault", CASES)
async def test_an_actor_that_fails_ends_the_worker_and_loses_nothing(
    scene: Scene, fault: str
) -> None:
    worker = await scene.ready()
    before = len(scene.failed())
    (scene.faults / fault).touch()
    await scene.give_work()
    async with asyncio.timeout(60):
        assert await worker.wait() == 1
    assert scene.failed()[before:] == [CASES[fault]]
    await scene.ready()
    await scene.log.until_ended(scene.triggers.accepted)
    scene.log.check()
    await verify(scene.system, set(scene.triggers.accepted))


async def test_a_worker_says_itself_that_one_of_its_partitions_stands_still(scene: Scene) -> None:
    worker = await scene.ready()
    (scene.faults / "hang").touch()
    await scene.give_work()
    stalls = 'commandcenter_worker_stalls_total{topic="commandcenter.triggers"}'
    await scene.until_metric(lambda metrics: metrics.get(stalls, 0) > 0)
    assert b"a partition of this worker stands still" in (scene.system.data / "log").read_bytes()
    await scene.system.kill(worker)
    await scene.ready()
    await scene.log.until_ended(scene.triggers.accepted)


async def test_a_worker_serves_its_metrics_where_a_port_is_set(scene: Scene) -> None:
    await scene.ready()
    await scene.give_work()
    await scene.log.until_ended(scene.triggers.accepted)
    await scene.until_metric(caught_up)
    metrics = await scene.metrics()
    assert metrics['commandcenter_tasks_total{agent="chaos",outcome="success"}'] >= 2 * RUNS
    assert metrics['commandcenter_inbox_messages_total{type="start"}'] >= RUNS
    assert metrics["commandcenter_decision_batch_seconds_count"] > 0


def caught_up(metrics: dict[str, float]) -> bool:
    """Whether each partition's offsets have come together, and some records were processed."""
    offsets: dict[str, list[float]] = {kind: [] for kind in ("end", "committed", "processed")}
    for name, value in sorted(metrics.items()):
        if name.startswith("commandcenter_worker_partition_offset"):
            offsets[name.partition('kind="')[2].partition('"')[0]].append(value)
    return offsets["end"] == offsets["committed"] == offsets["processed"] and any(offsets["end"])

"""Workers in several languages do what docs/conformance asks, on a real Kafka and engine.

One more can be tried: CONFORMANCE_WORKER is a command that serves the agent named by
CONFORMANCE_AGENT.
"""

import asyncio
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import node
import psutil
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from conformance import CASES, Log, Play, check_schema
from prometheus_client import REGISTRY
from system import PARTITIONS, System

from infra.owned_process import OwnedProcess
from infra.worker_watch import WorkerWatch
from streams import topics

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "typescript-worker"
FOREIGN = os.environ.get("CONFORMANCE_WORKER", "")
WORKERS = ("python", "typescript", *(["foreign"] if FOREIGN else []))
LIMIT = 8 * 1024 * 1024


class Worker:
    """A worker under test: the agent that it serves, its process, and what is on the log of it."""

    def __init__(self, language: str, log: Log, process: OwnedProcess) -> None:
        self.language = language
        self.log = log
        self.process = process
        self.pid = psutil.Process(process.pid).children()[0].pid


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    env = {"COMMANDCENTER_PAYLOAD_LIMIT": str(LIMIT)}
    system = System(tmp_path_factory.mktemp("conformance"), agents=HERE, env=env)
    await system.start_kafka()
    try:
        await system.worker()
        await system.start_gateway()
        yield system
    finally:
        await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer(system: System) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=system.bootstrap, acks="all") as producer:
        yield producer


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WORKERS)
async def worker(system: System, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    language = request.param
    agent = f"conformance-{language}"
    if language == "python":
        process = await system.worker("conformance_agent:conformance")
    else:
        command = shlex.split(FOREIGN)
        if language == "typescript":
            await asyncio.to_thread(node.install, EXAMPLE)
            command = [node.NODE, str(HERE / "conformance_agent.ts")]
        with (system.data / "log").open("ab") as output:
            process = await OwnedProcess.start(
                command,
                env={
                    **os.environ,
                    "COMMANDCENTER_KAFKA": system.bootstrap,
                    "COMMANDCENTER_BLOBS": str(system.data / "blobs"),
                    "CONFORMANCE_AGENT": agent,
                },
                stdout=output,
                stderr=output,
            )
    async with Log(agent).followed(system.bootstrap) as log:
        try:
            await log.until(lambda: registrations(log), f"a registration of {agent}")
            yield Worker(language, log, process)
        finally:
            await process.stop(20)


def registrations(log: Log) -> list[dict[str, Any]]:
    return [value for _, value in log.of(topics.AGENTS) if value.get("name") == log.agent]


def signs_of_life(log: Log) -> list[dict[str, Any]]:
    """Of the workers that serve the agent."""
    return [
        value
        for record, value in log.of(topics.AGENTS)
        if record.key.startswith(b"worker/")
        and any(serving["name"] == log.agent for serving in value.get("agents", ()))
    ]


@pytest.mark.parametrize("name", sorted(CASES))
async def test_case(name: str, worker: Worker, system: System, producer: AIOKafkaProducer) -> None:
    await Play(name, worker.log, producer, system.bootstrap).play(system.data / "blobs")
    assert psutil.pid_exists(worker.pid)


async def test_it_registers_what_it_serves_and_is_seen_alive(
    worker: Worker, system: System
) -> None:
    for record in registrations(worker.log):
        check_schema("AgentRecord", record)
    await worker.log.until(lambda: len(signs_of_life(worker.log)) > 1, "two signs of life")
    for sign in signs_of_life(worker.log):
        check_schema("WorkerRecord", sign)
        assert sign["worker"] == registrations(worker.log)[-1]["worker"]
    async with aiohttp.ClientSession(system.url) as session:
        await caught_up(session)
        async with session.get(f"/api/agents/{worker.log.agent}") as answer:
            assert answer.status == 200
            shown = await answer.json()
    assert shown["alive"]
    actions = {action["name"]: action for action in shown["descriptor"]["actions"]}
    asked = {case["node"]["action"] for case in CASES.values() if "node" in case}
    assert set(actions) >= asked - {"toString"}
    assert actions["risky"]["risk"] == "APPROVAL_REQUIRED"
    assert shown["capacity"] > 0


async def caught_up(session: aiohttp.ClientSession) -> None:
    """Wait until the gateway has read what agents have said up to now.

    A definition is refused for an agent that is not there only after that.
    """
    node = {"id": "a", "agent": "nobody", "action": "nothing"}
    asked = {"name": "w", "nodes": [node]}
    async with session.post("/api/workflows", json=asked, params={"check": "true"}) as answer:
        assert answer.status == 422


async def test_the_workers_of_any_language_are_watched(worker: Worker, system: System) -> None:
    """What they have done is not taken for waiting."""
    topic = topics.tasks(worker.log.agent)

    def waiting() -> list[float | None]:
        labels = [{"topic": topic, "partition": str(number)} for number in range(PARTITIONS)]
        return [REGISTRY.get_sample_value("commandcenter_partition_lag", each) for each in labels]

    async with WorkerWatch(system.bootstrap) as watch, asyncio.timeout(30):
        while waiting() != [0.0] * PARTITIONS:  # what is done is committed a little later
            await watch.looked()


async def test_it_says_when_it_leaves(worker: Worker) -> None:
    key = f"worker/{registrations(worker.log)[-1]['worker']}".encode()
    await worker.process.stop(20)
    await worker.log.until(
        lambda: any(
            record.key == key and record.value is None
            for record in worker.log.records[topics.AGENTS]
        ),
        "the end of the worker",
    )

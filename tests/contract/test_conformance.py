"""Workers in several languages do what docs/conformance asks, on a real Kafka and engine.

One more can be tried: CONFORMANCE_WORKER is a command that serves the agent named by
CONFORMANCE_AGENT.
"""

import asyncio
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import node
import psutil
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from conformance import CASES, Log, Play, check_schema
from system import System

from infra.owned_process import OwnedProcess
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


def registrations(log: Log) -> list[dict[str, object]]:
    return [value for _, value in log.of(topics.AGENTS) if value["name"] == log.agent]


@pytest.mark.parametrize("name", sorted(CASES))
async def test_case(name: str, worker: Worker, system: System, producer: AIOKafkaProducer) -> None:
    await Play(name, worker.log, producer, system.bootstrap).play(system.data / "blobs")
    assert psutil.pid_exists(worker.pid)


async def test_it_registers_what_it_serves(worker: Worker, system: System) -> None:
    for record in registrations(worker.log):
        check_schema("AgentRecord", record)
    async with (
        aiohttp.ClientSession(system.url) as session,
        session.get(f"/api/agents/{worker.log.agent}") as answer,
    ):
        shown = await answer.json()
    actions = {action["name"]: action for action in shown["descriptor"]["actions"]}
    assert set(actions) >= {case["node"]["action"] for case in CASES.values() if "node" in case} - {
        "toString"
    }
    assert actions["risky"]["risk"] == "APPROVAL_REQUIRED"

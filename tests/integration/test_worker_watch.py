"""`/readyz` says how the workers are: none, one that is stopped, one that works."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from chaos import Log, Triggers
from prometheus_client import REGISTRY
from system import System, define, python_below

from infra.worker_watch import WorkerWatch
from streams import topics
from streams.plan import parse

pytestmark = [pytest.mark.kafka]

STALLED = "commandcenter_partitions_stalled"
WORKFLOW = {
    "name": "chain",
    "trigger": {"event": "chaos.began"},
    "nodes": [{"id": "only", "delay": "10ms"}],
}


async def until_worker_is(session: aiohttp.ClientSession, wanted: str) -> str:
    """Ask until the worker's part of the answer has this text."""
    async with asyncio.timeout(40):
        while True:
            async with session.get("/readyz") as response:
                answer = await response.json()
                part: str = answer["parts"]["worker"]
                if wanted in part:
                    assert (response.status == 200) is answer["ready"]
                    assert response.status == 503 or part == "ok"
                    return part
            await asyncio.sleep(0.2)  # nobody tells when it changes: it is asked, as a probe does


async def until_stalled(watch: WorkerWatch, partitions: int) -> None:
    """Wait for the look that finds so many."""
    async with asyncio.timeout(40):
        while REGISTRY.get_sample_value(STALLED) != partitions:
            await watch.looked()


async def test_readyz_knows_about_workers(tmp_path: Path) -> None:
    system = System(tmp_path)
    await system.start_kafka()
    try:
        await system.start_gateway()
        async with aiohttp.ClientSession(system.url) as session:
            await until_worker_is(session, "no worker is running")
            worker = python_below(await system.worker())
            await until_worker_is(session, "ok")
            worker.send_signal(signal.SIGSTOP)
            producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap)
            await producer.start()
            await producer.send_and_wait(topics.TRIGGERS, b"{}")
            await producer.stop()
            await until_worker_is(session, "no worker is running")
            await until_worker_is(session, "records that wait: 1")
            async with WorkerWatch(system.bootstrap, patience_s=0.1) as watch:
                await until_stalled(watch, 1)  # though nobody owns the partition
            worker.send_signal(signal.SIGCONT)
            await until_worker_is(session, "ok")
            admin = AIOKafkaAdminClient(bootstrap_servers=system.bootstrap)
            await admin.start()
            await admin.delete_topics([topics.CONTROL])
            await admin.close()
            await until_worker_is(session, f"there is no topic {topics.CONTROL}")
    finally:
        await system.stop()


async def test_a_worker_for_which_no_partition_is_left_is_ready_and_takes_over(
    tmp_path: Path,
) -> None:
    system = System(tmp_path)
    await system.start_kafka()
    try:
        await define(system.bootstrap, parse(WORKFLOW))
        # Two partitions each for the first two of them: nothing is left for the last.
        workers = [await system.worker() for _ in range(3)]
        log = Log(lambda: system.bootstrap)
        async with log.followed(), Triggers(system.bootstrap) as triggers:
            for worker in workers[:2]:
                await system.kill(worker)
            await triggers.send(8)
            await log.until_ended(triggers.accepted)
        log.check()
    finally:
        await system.stop()

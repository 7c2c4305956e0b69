"""A long task holds back neither the work behind it nor the memory of that work."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from chaos import Log, Triggers
from system import System, define

from streams.ids import run_id
from streams.plan import parse
from streams.topics import TASKS_PREFIX
from streams.watermark import decode

pytestmark = [pytest.mark.kafka]

HERE = Path(__file__).parent
AGENT = "patient_agent:patient"


def workflow() -> Any:
    return parse(
        {
            "name": "chain",
            "trigger": {"event": "chaos.began"},
            "nodes": [
                {
                    "id": "only",
                    "agent": "patient",
                    "action": "step",
                    "inputs": {"value": "{{ context.value }}"},
                }
            ],
        }
    )


async def finished_beyond_the_commits(bootstrap: str) -> int:
    """How many tasks the group's commits name as finished before their turn."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        commits = await admin.list_consumer_group_offsets("commandcenter")
    finally:
        await admin.close()
    return sum(
        stop - start
        for place, commit in commits.items()
        if place.topic == TASKS_PREFIX + "patient"
        for start, stop in decode(commit.offset, commit.metadata)
    )


async def until_finished_beyond_the_commits(bootstrap: str, wanted: int) -> int:
    """How many there are once it is so many: looked at whenever some group commits."""
    consumer = AIOKafkaConsumer("__consumer_offsets", bootstrap_servers=bootstrap)
    async with asyncio.timeout(30), consumer:
        await consumer.seek_to_end()
        while (found := await finished_beyond_the_commits(bootstrap)) < wanted:
            await consumer.getone()
        return found


class Running(NamedTuple):
    """A system with one worker, under load."""

    system: System
    worker: Any
    log: Log
    triggers: Triggers


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    """Afterwards every run that was begun has ended as it should."""
    (folder / "executed").touch()
    system = System(folder, agents=HERE)
    await system.start_kafka()
    try:
        log = Log(lambda: system.bootstrap)
        await define(system.bootstrap, workflow())
        worker = await system.worker(AGENT)
        async with log.followed(), Triggers(system.bootstrap) as triggers:
            yield Running(system, worker, log, triggers)
            await log.until_ended(triggers.accepted)
        log.check()
    finally:
        await system.stop()


def executions(folder: Path) -> Counter[str]:
    """How often the step of each run was begun."""
    numbers = (folder / "executed").read_text().split()
    return Counter(run_id("default", "chain", "/chaos", number) for number in numbers)


async def test_what_finished_behind_a_long_task_is_not_done_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with running(tmp_path) as (system, worker, log, triggers):
        await triggers.send(60)
        await log.until_some_ended(40)
        noted = await until_finished_beyond_the_commits(system.bootstrap, 20)
        await system.kill(worker)
        await system.worker(AGENT)
        gate.unlink()
    # Each was begun once, but for those that the killed worker had begun or not yet noted.
    assert executions(tmp_path).total() <= 60 + 20 + (40 - noted)


async def test_what_a_killed_worker_has_answered_is_not_done_again(tmp_path: Path) -> None:
    """Not even where it died before it could commit."""
    done: dict[str, int] = {}
    async with running(tmp_path) as (system, worker, log, triggers):
        for _ in range(2):
            await triggers.send(40)
            await log.until_more_end(30)
            answered = set(log.ended)
            await system.kill(worker)
            counted = executions(tmp_path)
            done = {run: counted[run] for run in answered} | done  # as it was at the first kill
            worker = await system.worker(AGENT)
    times = executions(tmp_path)
    assert {run: times[run] for run in done} == done

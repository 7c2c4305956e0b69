"""A worker keeps its partitions while its loop goes on, and others get them when it does not."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from chaos import Log, Triggers
from system import System, define

from streams.plan import parse

pytestmark = [pytest.mark.kafka]

HERE = Path(__file__).parent
AGENT = "blocking_agent:blocking"
BLOCKED_S = 1.0  # as the agent's module sets it


def workflow() -> Any:
    inputs = {"value": "{{ context.value }}"}
    node = {"id": "only", "agent": "blocking", "action": "step", "inputs": inputs}
    return parse({"name": "chain", "trigger": {"event": "chaos.began"}, "nodes": [node]})


@asynccontextmanager
async def running(folder: Path, workers: int) -> AsyncIterator[tuple[Log, Triggers]]:
    system = System(folder, agents=HERE)
    await system.start_kafka()
    try:
        log = Log(lambda: system.bootstrap)
        await define(system.bootstrap, workflow())
        for _ in range(workers):
            await system.worker(AGENT)
        async with log.followed(), Triggers(system.bootstrap) as triggers:
            yield log, triggers
        log.check()
    finally:
        await system.stop()


async def test_a_worker_that_is_alone_stays_in_its_group(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as (log, triggers):
        until = time.monotonic() + 4 * BLOCKED_S
        while time.monotonic() < until:
            await triggers.send(4)
            await log.until_ended(triggers.accepted, within=30)


async def test_a_worker_whose_loop_is_blocked_loses_its_partitions(tmp_path: Path) -> None:
    (tmp_path / "gate-0").touch()
    async with running(tmp_path, workers=2) as (log, triggers):
        await triggers.send(12)
        await log.until_ended(triggers.accepted, within=60)
        (tmp_path / "passed").unlink()  # it was in the way of the first one's worker all the time
        await triggers.send(12)
        await log.until_ended(triggers.accepted, within=60)

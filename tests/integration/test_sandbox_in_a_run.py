"""A step that is executed in the sandbox of the product's own worker, seen on the log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from system import PARTITIONS, System, define

from streams import codec, topics
from streams.events import Event, NodeProgressed, NodeSucceeded, RunFailed, RunStarted
from streams.plan import parse

pytestmark = pytest.mark.kafka

SUPPORT = Path(__file__).parents[1] / "support"


def workflow(action: str) -> dict[str, Any]:
    step = {"id": "work", "agent": "sandboxed", "action": action, "inputs": {"text": "so"}}
    return {"name": action, "trigger": {"event": f"test.{action}"}, "nodes": [step]}


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    system = System(tmp_path, agents=SUPPORT, env={"COMMANDCENTER_SECRET_TOKEN": "very-hidden"})
    await system.start_kafka()
    for action in ("everything", "stubborn"):
        await define(system.bootstrap, parse(workflow(action)))
    yield system
    await system.stop()


async def first_of(system: System, action: str, kinds: tuple[type[Event], ...]) -> Event:
    """Start a run of the workflow; its first event of these kinds, or its failure."""
    consumer = AIOKafkaConsumer(bootstrap_servers=system.bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap, acks="all")
    await consumer.start()
    await producer.start()
    try:
        consumer.assign([TopicPartition(topics.EVENTS, p) for p in range(PARTITIONS)])
        attributes = {"specversion": "1.0", "id": action, "source": "/t", "type": f"test.{action}"}
        headers = [(f"ce_{key}", text.encode()) for key, text in attributes.items()]
        await producer.send_and_wait(topics.TRIGGERS, b"{}", headers=headers)
        mine: set[str] = set()
        async with asyncio.timeout(60):
            async for record in consumer:
                decision = codec.decisions.decode(record.value)
                for event in decision.events:
                    if isinstance(event, RunStarted) and event.trigger.id == action:
                        mine.add(decision.run)
                    if decision.run in mine and isinstance(event, (RunFailed, *kinds)):
                        return event
        raise AssertionError("the topic ended")
    finally:
        await producer.stop()
        await consumer.stop()


async def test_a_step_in_the_sandbox_and_a_worker_that_is_killed(system: System) -> None:
    worker = await system.worker("sandboxed:agent")
    done = await first_of(system, "everything", (NodeSucceeded,))
    assert isinstance(done, NodeSucceeded), done
    assert isinstance(done.output, msgspec.Raw)
    assert msgspec.json.decode(done.output)["blob"]["size"] == 2
    assert {cost.kind for cost in done.costs} == {"compute", "api"}

    assert isinstance(await first_of(system, "stubborn", (NodeProgressed,)), NodeProgressed)
    family = psutil.Process(worker.pid).children(recursive=True)
    assert len(family) >= 4  # forking process, keeper, action, and what that has started
    await system.kill(worker)
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 15)
    assert alive == []

"""Under load, whatever is done to the system: every accepted trigger's run ends, and ends once.

Each case prints a line of what was injected and what became of it. `make chaos` runs them at full
size; the short form is part of every test run.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from chaos import AGENT, FULL, Chaos
from system import PARTITIONS, System, python_below

from streams import topics
from streams.faust_shell import READS, SESSION_S

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400 if FULL else 120)]

HERE = Path(__file__).parent
RATE = 200 if FULL else 60


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    system = System(tmp_path, agents=HERE)
    await system.start_kafka()
    yield system
    await system.stop()


async def test_workers_that_are_stopped_for_longer_than_their_session(system: System) -> None:
    case = Chaos("stopped workers", system)
    await system.start_gateway()
    workers = [await system.worker(AGENT), await system.worker(AGENT)]
    pauses = [5, 5, 60, 5, 5, 5] if FULL else [SESSION_S + 1.5, SESSION_S + 1.5]
    async with case.under_load(RATE):
        for number, pause in enumerate(pauses):
            victim = python_below(workers[number % 2])
            victim.send_signal(signal.SIGSTOP)
            case.faults["SIGSTOP"] += 1
            await asyncio.sleep(pause)  # it is the fault
            victim.send_signal(signal.SIGCONT)
            await case.log.until_more_end(RATE)
        case.faults["late state record"] += await late_state_records(system.bootstrap)
    assert case.faults["late state record"] == 0


async def late_state_records(bootstrap: str) -> int:
    """How many records of state are older than one before them: written by a replaced owner."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    late = 0
    try:
        for number in range(PARTITIONS):
            place = TopicPartition(topics.STATE, number)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            end = (await consumer.end_offsets([place]))[place]
            newest = 0
            while await consumer.position(place) < end:
                for record in (await consumer.getmany(timeout_ms=1000)).get(place, ()):
                    reads = int(dict(record.headers)[READS])
                    late += reads < newest
                    newest = max(newest, reads)
    finally:
        await consumer.stop()
    return late

"""Under load, whatever is done to the system: every accepted trigger's run ends, and ends once.

Each case prints a line of what was injected and what became of it. `make chaos` runs them at full
size; the short form is part of every test run.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from chaos import AGENT, FULL, Chaos
from system import PARTITIONS, System, python_below
from watching import dead_letters

from infra.local_kafka import LocalKafka
from streams import topics
from streams.faust_shell import READS, SESSION_S
from streams.run import PAYLOAD_LIMIT

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
    async with case.under_load(RATE):
        for number, pause in enumerate([5, 5, 60, 5, 5] if FULL else [SESSION_S + 1.5]):
            victim = python_below(workers[number % 2])
            victim.send_signal(signal.SIGSTOP)
            case.faults["SIGSTOP"] += 1
            await asyncio.sleep(pause)  # it is the fault
            victim.send_signal(signal.SIGCONT)
            await case.log.until_more_end(RATE)
        case.faults["late state record"] += await late_state_records(system.bootstrap)


async def test_processes_that_are_killed(system: System) -> None:
    case = Chaos("kills", system)
    chance = random.Random(4)  # the same story each time
    workers = [await system.worker(AGENT), await system.worker(AGENT)]
    gateway = await system.start_gateway()
    assert system.kafka is not None
    async with case.under_load(RATE), kept_running(system.kafka):
        for victim in (
            chance.choices(["worker", "gateway with recorder", "broker"], k=15)
            if FULL
            else ["worker", "broker", "gateway with recorder"]
        ):
            await case.log.until_more_end(chance.randint(1, RATE))
            case.faults[f"SIGKILL of {victim}"] += 1
            if victim == "worker":
                await system.kill(workers.pop(0))
                workers.append(await system.worker(AGENT))
            elif victim == "broker":
                await system.kafka.kill()
            else:
                await system.kill(gateway)
                gateway = await system.start_gateway()


async def test_a_worker_that_joins_and_leaves_again_and_again(system: System) -> None:
    case = Chaos("rebalance storm", system)
    await system.worker(AGENT)
    async with case.under_load(RATE):
        for number in range(16 if FULL else 2):
            second = await system.worker(AGENT)  # it says so when it has partitions and their state
            how = signal.SIGKILL if number % 2 else signal.SIGTERM
            case.faults[f"join and {how.name}"] += 1
            python_below(second).send_signal(how)
            await second.wait()


async def test_steps_that_end_out_of_order_while_workers_are_killed(system: System) -> None:
    case = Chaos("out of order", system)
    workers = [await system.worker(AGENT), await system.worker(AGENT)]
    async with case.under_load(RATE, "uneven"):
        for _ in range(8 if FULL else 1):
            await case.log.until_more_end(RATE)
            case.faults["SIGKILL of worker"] += 1
            await system.kill(workers.pop(0))
            workers.append(await system.worker(AGENT))


async def test_poison_and_oversized_records_among_good_ones(system: System) -> None:
    case = Chaos("poison", system)
    await system.worker(AGENT)
    sent = 0
    async with case.under_load(RATE, "quick") as triggers:
        for _ in range(10 if FULL else 2):
            for topic in (topics.TRIGGERS, topics.INBOX, topics.tasks("chaos")):
                await triggers.poison(topic, b"{")
                await triggers.poison(topic, b"\xff" * 100)
                case.faults["poison record"] += 2
                sent += 2
            await triggers.poison(topics.TRIGGERS, b"x" * (PAYLOAD_LIMIT + 1))
            case.faults["oversized record"] += 1
            sent += 1
            await case.log.until_more_end(RATE)
    letters = await dead_letters(system.bootstrap, PARTITIONS, sent)
    assert len({(letter.topic, letter.partition, letter.offset) for letter in letters}) == sent


async def test_a_wall_clock_that_is_stepped(tmp_path: Path) -> None:
    wrong_by = tmp_path / "wrong-by"
    path = f"{HERE}{os.pathsep}{HERE / 'clock'}"
    system = System(tmp_path, env={"PYTHONPATH": path, "CHAOS_CLOCK": str(wrong_by)})
    await system.start_kafka()
    try:
        case = Chaos("clock", system)
        await system.worker(AGENT)
        async with case.under_load(RATE):
            for step in (3_600, -3_600, 86_400, 0) if FULL else (3_600, -3_600):
                wrong_by.write_text(str(step))
                case.faults["step of the clock"] += 1
                await case.log.until_more_end(2 * RATE)
    finally:
        await system.stop()


async def test_a_data_directory_that_is_full(tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    async with small_disk(data):
        system = System(data, agents=HERE)
        await system.start_kafka()
        try:
            case = Chaos("disk full", system)
            await system.worker(AGENT)
            assert system.kafka is not None
            async with case.under_load(RATE):
                for _ in range(3 if FULL else 1):
                    await case.log.until_more_end(RATE)
                    fill(data / "filler")
                    case.faults["full disk"] += 1
                    await asyncio.sleep(3)  # it is the fault: Kafka ends, and cannot start
                    (data / "filler").unlink()
                    async with kept_running(system.kafka):
                        await case.log.until_more_end(RATE)
        finally:
            await system.stop()


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[None]:
    """A file system of its own in this folder; skips where that may not be made."""
    mounted = subprocess.run(  # noqa: ASYNC221  # at once done
        ["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: ASYNC221


def fill(path: Path) -> None:
    """Take what is left of the disk."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 65_536)


@asynccontextmanager
async def kept_running(kafka: LocalKafka) -> AsyncIterator[None]:
    """Kafka is started again whenever it ends."""
    keeping = asyncio.create_task(kafka.keep_running())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


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

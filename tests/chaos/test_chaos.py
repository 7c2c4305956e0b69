"""Under load, whatever is done to the system: every accepted trigger's run ends, and ends once.

Each case prints a line of what was injected and what became of it. `make chaos` runs them at full
size; the short form is part of every test run.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from chaos import AGENT, FULL, Chaos
from small_disk import fill, small_disk
from system import PARTITIONS, System, python_below
from watching import dead_letters

from infra.local_kafka import LocalKafka
from infra.owned_process import OwnedProcess
from streams import topics
from streams.faust_shell import SESSION_S
from streams.run import PAYLOAD_LIMIT
from streams.state_log import READS

PAUSES = [float(pause) for pause in os.environ.get("CHAOS_PAUSES", "").split()] or (
    [5, 5, 60, 5, 5] if FULL else [SESSION_S + 1.5]
)
"""Seconds that a worker is stopped, one after the other."""

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(600 if FULL else 120 + sum(PAUSES)),
    pytest.mark.asyncio(loop_scope="module"),
]

HERE = Path(__file__).parent
RATE = 200 if FULL else 60


class Stage:
    """One system for several cases; its log grows from case to case, and is verified as a whole."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        self.system = System(folder, agents=HERE, env={"CHAOS_GATE": str(self.gate)})
        self.workers: list[OwnedProcess] = []
        self._ended: set[str] = set()

    async def case(self, name: str, workers: int) -> Chaos:
        """A case that begins with so many workers, and with a gateway that records."""
        if self.system.gateway is None:
            await self.system.start_gateway()
        while len(self.workers) > workers:
            await self.workers.pop().stop(20)
        while len(self.workers) < workers:
            self.workers.append(await self.system.worker(AGENT))
        return Chaos(name, self.system, self._ended)

    async def replace_worker(self) -> None:
        """Kill the oldest worker, and start another one."""
        await self.system.kill(self.workers.pop(0))
        self.workers.append(await self.system.worker(AGENT))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("stage"))
    await stage.system.start_kafka()
    yield stage
    await stage.system.stop()


@pytest.mark.parametrize(
    "hows",
    [[signal.SIGTERM] * 3, [signal.SIGKILL] * 3]
    if FULL
    else [[signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]],
)
async def test_a_worker_that_joins_and_leaves_with_thousands_of_runs_in_progress(
    stage: Stage, hows: list[signal.Signals]
) -> None:
    runs = 8_000 if FULL else 1_000
    case = await stage.case(f"{runs} runs in progress and {hows[0].name}", workers=1)
    stage.gate.unlink(missing_ok=True)
    async with case.in_progress(runs, "held"):
        for number, how in enumerate(hows):
            second = await stage.system.worker(AGENT)  # it says so when it has partitions
            assert len(case.log.ended) == 0
            case.faults[f"join and {how.name}"] += 1
            if number == len(hows) - 1:
                stage.gate.touch()  # all of them move while the last one goes
            python_below(second).send_signal(how)
            await second.wait()


async def test_a_worker_that_joins_and_leaves_again_and_again(stage: Stage) -> None:
    case = await stage.case("rebalance storm", workers=1)
    async with case.under_load(RATE):
        for number in range(16 if FULL else 2):
            second = await stage.system.worker(AGENT)
            how = signal.SIGKILL if number % 2 else signal.SIGTERM
            case.faults[f"join and {how.name}"] += 1
            python_below(second).send_signal(how)
            await second.wait()


async def test_workers_that_are_stopped_for_longer_than_their_session(stage: Stage) -> None:
    case = await stage.case("stopped workers", workers=2)
    async with case.under_load(RATE):
        for number, pause in enumerate(PAUSES):
            victim = python_below(stage.workers[number % 2])
            victim.send_signal(signal.SIGSTOP)
            case.faults["SIGSTOP"] += 1
            await asyncio.sleep(pause)  # it is the fault
            victim.send_signal(signal.SIGCONT)
            await case.log.until_more_end(RATE)
        case.faults["late state record"] += await late_state_records(stage.system.bootstrap)


async def test_processes_that_are_killed(stage: Stage) -> None:
    case = await stage.case("kills", workers=2)
    chance = random.Random(4)  # the same story each time
    system = stage.system
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
                await stage.replace_worker()
            elif victim == "broker":
                await system.kafka.kill()
            else:
                assert system.gateway is not None
                await system.kill(system.gateway)
                await system.start_gateway()


async def test_steps_that_end_out_of_order_while_workers_are_killed(stage: Stage) -> None:
    case = await stage.case("out of order", workers=2)
    async with case.under_load(RATE, "uneven"):
        for _ in range(8 if FULL else 1):
            await case.log.until_more_end(RATE)
            case.faults["SIGKILL of worker"] += 1
            await stage.replace_worker()


async def test_poison_and_oversized_records_among_good_ones(stage: Stage) -> None:
    case = await stage.case("poison", workers=2)
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
    letters = await dead_letters(stage.system.bootstrap, PARTITIONS, sent)
    assert len({(letter.topic, letter.partition, letter.offset) for letter in letters}) == sent


async def test_a_wall_clock_that_is_stepped(tmp_path: Path) -> None:
    wrong_by = tmp_path / "wrong-by"
    path = f"{HERE}{os.pathsep}{HERE / 'clock'}"
    system = System(tmp_path, env={"PYTHONPATH": path, "CHAOS_CLOCK": str(wrong_by)})
    await system.start_kafka()
    try:
        case = Chaos("clock", system)
        await system.start_gateway()
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
    with small_disk(data):
        system = System(data, agents=HERE)
        await system.start_kafka()
        try:
            case = Chaos("disk full", system)
            await system.start_gateway()
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

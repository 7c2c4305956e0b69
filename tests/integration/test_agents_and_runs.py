"""What runs and agents tell each other: signs of life, orders to end, approvals, big payloads.

The workers are the product's own processes; everything is seen on the log.
"""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from system import PARTITIONS, System, define, python_below

from streams import codec, topics
from streams.events import (
    Event,
    NodeApprovalRequested,
    NodeCancelled,
    NodeProgressed,
    NodeRetrying,
    NodeStarted,
    NodeStopping,
    NodeSucceeded,
    RunCancelled,
    RunFailed,
    RunSucceeded,
)
from streams.ids import run_id, spread, task_id
from streams.messages import Approval, Cancel, RunMessage
from streams.outbox import partition_of
from streams.plan import parse

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

AGENT = "trouble_agent:trouble"
E = TypeVar("E", bound=Event)


def node(name: str, action: str, inputs: Any, *needs: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "agent": "trouble",
        "action": action,
        "inputs": inputs,
        "dependsOn": list(needs),
        **more,
    }


FLAG = {"path": "{{ context.flag }}"}
VALUE = {"value": "{{ context.value }}"}
RETRY = {"attempts": 100, "initialDelay": "10ms", "maxDelay": "50ms"}
WORKFLOWS: dict[str, dict[str, Any]] = {
    "long": {"nodes": [node("hold", "await_flag", FLAG, heartbeatTimeout="800ms", retry=RETRY)]},
    "listens": {"cancelGrace": "60s", "nodes": [node("work", "listen", FLAG)]},
    "ignores": {"cancelGrace": "300ms", "nodes": [node("work", "block", {})]},
    "risky": {"nodes": [node("erase", "erase", VALUE)]},
    "plain": {"nodes": [node("echo", "echo", VALUE)]},
    "big": {
        "nodes": [
            node("a", "load", VALUE),
            node("b", "weigh", {"load": "{{ nodes.a.output }}"}, "a"),
            node("c", "echo", {"value": "{{ nodes.a.output.numbers.3 }}"}, "a"),
        ],
        "output": {"weight": "{{ nodes.b.output.value }}", "third": "{{ nodes.c.output.value }}"},
    },
}


class Events:
    """The events of all runs, as a reader of the log sees them."""

    def __init__(self) -> None:
        self.of: dict[str, list[Event]] = defaultdict(list)
        self._seen: dict[str, int] = defaultdict(int)
        self._more = asyncio.Condition()

    async def follow(self, bootstrap: str) -> None:
        """Read until cancelled."""
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topics.EVENTS, p) for p in range(PARTITIONS)])
            while True:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    for record in records:
                        decision = codec.decisions.decode(record.value)
                        if decision.seq == self._seen[decision.run]:  # else: the same again
                            self.of[decision.run] += decision.events
                            self._seen[decision.run] += len(decision.events)
                async with self._more:
                    self._more.notify_all()
        finally:
            await consumer.stop()

    async def until(self, reached: Callable[[], object]) -> None:
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(reached)

    def all(self, run: str, kind: type[E]) -> list[E]:
        return [event for event in self.of[run] if isinstance(event, kind)]

    async def first(self, run: str, kind: type[E]) -> E:
        await self.until(lambda: self.all(run, kind))
        return self.all(run, kind)[0]

    async def end(self, run: str) -> Event:
        kinds = (RunSucceeded, RunFailed, RunCancelled)

        def ends() -> list[Event]:  # what a late attempt is charged may follow
            return [event for event in self.of[run] if isinstance(event, kinds)]

        try:
            await self.until(ends)
        except TimeoutError as error:
            raise AssertionError(f"run {run} does not end: {self.of[run]}") from error
        (end,) = ends()
        return end


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("agents-and-runs"), agents=Path(__file__).parent)
    await system.start_kafka()
    for name, definition in WORKFLOWS.items():
        trigger = {"event": f"test.{name}"}
        await define(system.bootstrap, parse({"name": name, "trigger": trigger, **definition}))
    await system.worker(AGENT)
    yield system
    await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def events(system: System) -> AsyncIterator[Events]:
    events = Events()
    following = asyncio.create_task(events.follow(system.bootstrap))
    yield events
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer(system: System) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap, acks="all")
    await producer.start()
    yield producer
    await producer.stop()


async def begin(producer: AIOKafkaProducer, name: str, number: str = "1", **context: Any) -> str:
    """Publish the event that starts a run of the workflow; gives the run."""
    attributes = {"specversion": "1.0", "id": number, "source": "/test", "type": f"test.{name}"}
    await producer.send_and_wait(
        topics.TRIGGERS,
        msgspec.json.encode(context),
        headers=[(f"ce_{key}", text.encode()) for key, text in attributes.items()],
    )
    return run_id("default", name, "/test", number)


async def tell(producer: AIOKafkaProducer, message: RunMessage) -> None:
    """Put a message into a run's inbox."""
    await producer.send_and_wait(
        topics.INBOX,
        codec.encode(message),
        key=message.run.encode(),
        partition=partition_of(message.run, PARTITIONS),
    )


def value_of(succeeded: NodeSucceeded | RunSucceeded) -> Any:
    assert isinstance(succeeded.output, msgspec.Raw)
    return msgspec.json.decode(succeeded.output)


async def test_an_order_reaches_an_agent_at_work_which_ends_within_its_grace(
    events: Events, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    run = await begin(producer, "listens", flag=str(tmp_path / "told"))
    await events.until(lambda: events.of[run])
    await tell(producer, Cancel(run=run, reason="no longer wanted"))
    assert isinstance(await events.end(run), RunCancelled)
    assert (tmp_path / "told").exists()
    # It was not the end of its grace that ended it: there is a minute of that.
    assert [type(e) for e in events.of[run] if isinstance(e, NodeStopping | NodeCancelled)] == [
        NodeStopping,
        NodeCancelled,
    ]


async def test_an_agent_that_ignores_the_order_is_given_up_and_the_worker_goes_on(
    events: Events, producer: AIOKafkaProducer
) -> None:
    run = await begin(producer, "ignores")
    await events.until(lambda: events.of[run])
    await tell(producer, Cancel(run=run, reason="no longer wanted"))
    assert isinstance(await events.end(run), RunCancelled)
    assert events.all(run, NodeStopping)
    assert isinstance(await events.end(await begin(producer, "plain", value=1)), RunSucceeded)


async def test_a_risky_action_waits_for_approval_and_then_runs(
    events: Events, producer: AIOKafkaProducer
) -> None:
    run = await begin(producer, "risky", value=40)
    asked = await events.first(run, NodeApprovalRequested)
    assert (asked.node, asked.cause, asked.attempt) == ("erase", "agent", 1)
    assert msgspec.json.decode(asked.inputs) == {"value": 40}
    await tell(producer, Approval(run=run, node="erase", approved=True, by="ada"))
    assert isinstance(await events.end(run), RunSucceeded)
    (succeeded,) = events.all(run, NodeSucceeded)
    assert (succeeded.attempt, value_of(succeeded)) == (2, {"value": 42})


async def test_a_megabyte_goes_from_step_to_step_whole_and_can_be_reached_into(
    events: Events, producer: AIOKafkaProducer
) -> None:
    run = await begin(producer, "big", value=1_000_000)
    end = await events.end(run)
    assert isinstance(end, RunSucceeded), end
    assert value_of(end) == {"weight": 1_000_000, "third": 3}
    outputs = {succeeded.node: value_of(succeeded) for succeeded in events.all(run, NodeSucceeded)}
    assert set(outputs["a"]) == {"$blob", "size"}
    assert outputs["a"]["size"] > 1_000_000


async def test_a_long_step_whose_worker_is_killed_is_a_lost_attempt_and_done_elsewhere(
    system: System, events: Events, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    victim = await system.worker(AGENT)
    killed = python_below(victim).pid
    flag = tmp_path / "go-on"
    # Runs and their tasks in every combination of partitions: whichever of them the victim owns,
    # it works for a run of another worker, which then misses its heartbeats: sooner than the group
    # misses the victim, and hands its tasks to others.
    wanted: dict[tuple[int, int], str] = {}
    for number in map(str, count()):
        run = run_id("default", "long", "/test", number)
        task = task_id(run, "hold", None, 1)
        wanted.setdefault((partition_of(run, PARTITIONS), spread(task, PARTITIONS)), number)
        if len(wanted) == PARTITIONS**2:
            break
    runs = [await begin(producer, "long", number, flag=str(flag)) for number in wanted.values()]

    def held_by(run: str) -> str:
        return events.all(run, NodeStarted)[-1].worker

    # Three beats: about as long as the run waits for one.
    await events.until(lambda: all(len(events.all(run, NodeProgressed)) >= 3 for run in runs))
    lost = [run for run in runs if held_by(run).endswith(f"/{killed}")]
    assert 0 < len(lost) < len(runs)
    # On a busy machine a beat may be late, and an attempt lost that was not: it is made again.
    retried = {run: len(events.all(run, NodeRetrying)) for run in lost}
    os.kill(killed, signal.SIGKILL)
    await events.until(
        lambda: any(len(events.all(run, NodeRetrying)) > retried[run] for run in lost)
    )
    flag.touch()
    for run in runs:
        assert isinstance(await events.end(run), RunSucceeded)
        (succeeded,) = events.all(run, NodeSucceeded)
        assert not succeeded.worker.endswith(f"/{killed}")
    missed = [each for run in lost for each in events.all(run, NodeRetrying)]
    assert {each.failure.kind for each in missed} == {"heartbeat"}

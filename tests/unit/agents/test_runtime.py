"""The runtime: what goes to the inbox for each task, and which offsets may be committed."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from msgspec import Raw
from pydantic import BaseModel

from agents import Agent, AgentRegistry, Context
from agents.execution import Execution
from agents.payloads import Payloads
from agents.published_results import MARGIN_MS, PublishedResults
from agents.recent_results import RecentResults
from agents.runtime import AgentRuntime
from agents.threads import Threads
from streams import codec, topics
from streams.blob_store import BlobStore
from streams.faust_shell import Batch
from streams.messages import Progress, Result, Task, TaskCancellation
from streams.outbox import Parcel
from streams.watermark import Intervals

TOPIC = topics.tasks("worker")
CONCURRENCY = 2


class Word(BaseModel):
    text: str = ""


agent = Agent("worker", description="Does what it is told.", concurrency=CONCURRENCY)


class Stage:
    """What the actions of the test under way share with it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()
        self.go_in_thread = threading.Event()
        self.ended: list[str] = []


stage: Stage


@agent.action
async def echo(inputs: Word) -> Word:
    stage.begun.append(inputs.text)
    return inputs


@agent.action
async def wait(inputs: Word) -> Word:
    stage.begun.append(inputs.text)
    try:
        await stage.go.wait()
    except asyncio.CancelledError:
        stage.ended.append(inputs.text)
        raise
    return inputs


@agent.action
def wait_in_thread(inputs: Word, context: Context) -> Word:
    stage.begun.append(inputs.text)
    context.report_progress(10, "in a thread")
    stage.go_in_thread.wait(10)
    return Word(text=f"cancelled: {context.is_cancelled}")


@agent.action
async def tell(inputs: Word, context: Context) -> Word:
    for percent in (-5, 20, 30, 40):
        await context.progress(percent, f"{percent} of 100")
    await stage.go.wait()
    await context.progress(100, "told too late")
    return inputs


@agent.action
def tell_late(inputs: Word, context: Context) -> Word:
    stage.begun.append(inputs.text)
    stage.go_in_thread.wait(10)
    context.report_progress(99, "nearly there")
    return inputs


@agent.action
async def listen(inputs: Word, context: Context) -> Word:
    stage.begun.append(inputs.text)
    await context.cancelled.wait()
    stage.ended.append(inputs.text)
    if inputs.text == "answer":
        return Word(text="finished all the same")
    raise RuntimeError("stopped half-way")


@agent.action
async def ignore(inputs: Word) -> Word:
    stage.begun.append(inputs.text)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stage.ended.append(inputs.text)


@agent.action
async def cancel_itself(inputs: Word) -> Word:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.Event().wait()
    return inputs


class Log:
    """The part of Kafka that the runtime sees: takes parcels, and what may be committed."""

    def __init__(self) -> None:
        self.messages: list[Result | Progress] = []
        self.committed = 0
        self.app = SimpleNamespace(consumer_generation_id=1, batches=self)
        self._arrived = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self.held: set[TP] = set()
        self.taken_over_at = 0
        self.finished: Intervals = ()

    async def deliver(self, parcel: Parcel) -> None:
        await self.taking.wait()
        for (topic, partition), records in parcel.partitions():
            assert (topic, partition) == (topics.INBOX, 3)
            for key, value, _ in records:
                assert key == b"run-1"
                self.messages.append(codec.messages.decode(value))
        self._arrived.set()

    def mark_done(self, _tp: TP, generation: int, offset: int, _note: object) -> None:
        if generation == self.app.consumer_generation_id:
            self.committed = offset
        self._arrived.set()

    def finished_beyond(self, _tp: TP) -> Intervals:
        return self.finished

    def end_at_takeover(self, _tp: TP) -> int:
        return self.taken_over_at

    def hold(self, tp: TP) -> None:
        self.held.add(tp)

    def release(self, tp: TP) -> None:
        self.held.discard(tp)
        self._arrived.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not reached():
                self._arrived.clear()
                await self._arrived.wait()

    @property
    def results(self) -> list[Result]:
        return [m for m in self.messages if isinstance(m, Result)]

    @property
    def progress(self) -> list[Progress]:
        return [m for m in self.messages if isinstance(m, Progress)]


class Worker:
    """A runtime, its log, and the tasks it is given."""

    def __init__(self) -> None:
        self.log = Log()
        payloads = Payloads(BlobStore("memory://", limit=1_000))
        execution = Execution(
            AgentRegistry([agent]),
            payloads,
            now_ms=lambda: 7,
            worker="w1",
            threads=Threads(4),
            grace=0.02,
        )
        app: Any = self.log.app
        outbox: Any = self.log
        self.execution = execution
        self.published: dict[str, bytes] = {}
        self.looked: list[int] = []
        self.may_look = asyncio.Event()
        self.may_look.set()
        found = PublishedResults(self._look)
        self.runtime = AgentRuntime(app, outbox, execution, found, "worker", 4, CONCURRENCY)
        self._offsets = count()
        self.publishing = asyncio.create_task(self.runtime.run_results())

    async def _look(self, since: int, found: RecentResults) -> None:
        self.looked.append(since)
        await self.may_look.wait()
        for name, result in self.published.items():
            found.put(name, result)

    async def give(self, *tasks: Task, generation: int = 1, first: int | None = None) -> None:
        offsets = self._offsets if first is None else count(first)
        records = [
            SimpleNamespace(offset=next(offsets), value=codec.encode(t), timestamp=5) for t in tasks
        ]
        await self.runtime.accept(Batch(TP(TOPIC, 0), generation, records))

    async def close(self) -> None:
        stage.go.set()
        stage.go_in_thread.set()
        await self.runtime.drain(1)
        self.publishing.cancel()
        self.execution.close()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    global stage
    stage = Stage()
    made = Worker()
    yield made
    await made.close()


def task(name: str, action: str, text: str = "", **more: Any) -> Task:
    return Task(
        id=name,
        run="run-1",
        project="default",
        workflow="w",
        node=name,
        attempt=1,
        agent="worker",
        action=action,
        inputs=Raw(codec.encode(Word(text=text).model_dump()).replace(b'"v":1,', b"")),
        timeout_ms=60_000,
        reply_partition=3,
        **more,
    )


def order(name: str, grace_ms: int = 0, reason: str = "not wanted") -> TaskCancellation:
    return TaskCancellation(task=name, agent="worker", reason=reason, grace_ms=grace_ms)


def said(log: Log) -> list[tuple[float | None, str]]:
    return [(p.percent, p.message) for p in log.progress]


def nodes(messages: list[Any]) -> list[str]:
    return [message.node for message in messages]


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not reached():  # noqa: ASYNC110 -- the change comes from a thread, with no event
            await asyncio.sleep(0.001)


# --- progress and heartbeats ----------------------------------------------------------------------


async def test_a_task_that_asks_for_no_reports_makes_a_result_alone(worker: Worker) -> None:
    await worker.give(task("a", "echo", "hi"), task("b", "echo", "ho"))
    await worker.log.until(lambda: worker.log.committed == 2)
    assert [(m.node, m.failure) for m in worker.log.results] == [("a", None), ("b", None)]
    assert worker.log.progress == []


async def test_where_the_task_asks_for_it_the_run_hears_that_the_work_begins(
    worker: Worker,
) -> None:
    for action in ("wait", "wait_in_thread"):
        await worker.give(task(action, action, report=True, item=5))
        await worker.log.until(lambda action=action: nodes(worker.log.progress)[-1:] == [action])
    first = worker.log.progress[0]
    assert first == Progress(run="run-1", node="wait", attempt=1, item=5, worker="w1")
    assert worker.log.results == []


async def test_a_task_that_waits_for_its_turn_is_not_said_to_have_begun(worker: Worker) -> None:
    names = [f"t{n}" for n in range(CONCURRENCY + 1)]
    await worker.give(*(task(name, "wait", name, report=True) for name in names))
    await worker.log.until(lambda: len(worker.log.progress) == CONCURRENCY)
    await until(lambda: stage.begun == names[:CONCURRENCY])
    stage.go.set()
    await worker.log.until(lambda: len(worker.log.results) == len(names))
    assert nodes(worker.log.progress) == names


async def test_the_beginning_of_the_quickest_task_is_heard_before_its_result(
    worker: Worker,
) -> None:
    await worker.give(task("a", "echo", report=True, heartbeat_ms=30))
    await worker.log.until(lambda: worker.log.results != [])
    assert [type(message) for message in worker.log.messages] == [Progress, Result]


@pytest.mark.parametrize("action", ["wait", "wait_in_thread"])
async def test_heartbeats_come_while_the_work_goes_on_and_never_after_the_result(
    worker: Worker, action: str
) -> None:
    await worker.give(task("a", action, report=True, heartbeat_ms=30))
    await worker.log.until(lambda: len(worker.log.progress) >= 4)
    stage.go.set()
    stage.go_in_thread.set()
    await worker.log.until(lambda: worker.log.results != [])
    # Another task's heartbeats show that time passes.
    seen = len(worker.log.messages)
    stage.go.clear()
    await worker.give(task("b", "wait", report=True, heartbeat_ms=30))
    await worker.log.until(lambda: len(worker.log.messages) >= seen + 4)
    assert set(nodes(worker.log.messages[seen:])) == {"b"}
    assert worker.log.messages[seen - 1] == worker.log.results[0]


async def test_what_an_action_tells_is_sent_the_newest_once_a_second(worker: Worker) -> None:
    await worker.give(task("a", "tell"))
    await worker.log.until(lambda: len(worker.log.progress) == 2)
    assert said(worker.log) == [(0, "-5 of 100"), (40, "40 of 100")]
    stage.go.set()
    await worker.log.until(lambda: worker.log.results != [])
    assert len(said(worker.log)) == 2


async def test_a_heartbeat_repeats_what_was_told_last(worker: Worker) -> None:
    await worker.give(task("a", "tell", report=True, heartbeat_ms=30))
    await worker.log.until(lambda: said(worker.log)[-2:] == [(40, "40 of 100")] * 2)


async def test_a_thread_tells_progress(worker: Worker) -> None:
    await worker.give(task("a", "wait_in_thread"))
    await worker.log.until(lambda: worker.log.progress != [])
    assert said(worker.log) == [(10, "in a thread")]


async def test_a_thread_that_was_given_up_is_not_heard(worker: Worker) -> None:
    await worker.give(task("a", "tell_late"))
    await until(lambda: stage.begun)
    worker.runtime.cancel(order("a"))
    await worker.log.until(lambda: worker.log.committed == 1)
    stage.go_in_thread.set()
    await until(lambda: worker.execution.threads.abandoned == 0)
    await worker.give(task("b", "echo"))
    await worker.log.until(lambda: worker.log.committed == 2)
    assert [type(message) for message in worker.log.messages] == [Result, Result]


async def test_while_the_log_is_away_the_newest_progress_of_each_task_is_kept(
    worker: Worker,
) -> None:
    await worker.give(task("a", "tell", report=True, heartbeat_ms=30))
    await worker.give(task("b", "wait_in_thread", report=True, heartbeat_ms=30))
    await worker.log.until(lambda: set(nodes(worker.log.progress)) == {"a", "b"})
    worker.log.taking.clear()
    seen = len(worker.log.progress)
    await asyncio.sleep(0.1)  # several heartbeats are due meanwhile; fewer only weaken the test
    worker.log.taking.set()
    await worker.log.until(lambda: set(nodes(worker.log.progress[seen:])) == {"a", "b"})
    assert len(worker.log.progress[seen:]) <= 4
    assert (40, "40 of 100") in said(worker.log)


async def test_an_async_action_is_called_when_its_beginning_is_on_the_log(worker: Worker) -> None:
    worker.log.taking.clear()
    await worker.give(task("a", "wait", "a", report=True), task("b", "wait", "b"))
    await until(lambda: stage.begun == ["b"])
    worker.log.taking.set()
    await until(lambda: stage.begun == ["b", "a"])
    assert nodes(worker.log.progress) == ["a"]


async def test_what_is_revoked_before_its_beginning_is_heard_is_left_to_its_next_owner(
    worker: Worker,
) -> None:
    worker.log.taking.clear()
    await worker.give(task("a", "wait", "a", report=True), task("b", "wait", "b"))
    await until(lambda: stage.begun == ["b"])
    worker.log.app.consumer_generation_id = 2
    worker.log.taking.set()
    await until(lambda: worker.runtime.in_hand == 1)
    assert stage.begun == ["b"]
    assert worker.log.results == []


async def test_what_waits_for_its_beginning_to_be_heard_can_be_called_off(worker: Worker) -> None:
    worker.log.taking.clear()
    await worker.give(task("a", "wait", "a", report=True), task("b", "wait", "b"))
    await until(lambda: stage.begun == ["b"])
    worker.runtime.cancel(order("a"))
    worker.log.taking.set()
    await worker.log.until(lambda: worker.log.results != [])
    assert cancelled(worker.log.results[0])[:1] == ("cancelled",)
    assert stage.begun == ["b"]


# --- orders ---------------------------------------------------------------------------------------


def cancelled(result: Result) -> tuple[str, str, bool]:
    assert result.failure is not None
    return result.failure.kind, result.failure.message, result.failure.retryable


async def test_an_action_is_told_at_once_and_may_end_within_its_grace(worker: Worker) -> None:
    await worker.give(task("a", "listen", "a"))
    await until(lambda: stage.begun)
    worker.runtime.cancel(order("a", 60_000))
    await worker.log.until(lambda: worker.log.committed == 1)
    assert stage.ended == ["a"]
    assert cancelled(worker.log.results[0]) == ("cancelled", "not wanted", False)


async def test_an_output_counts_although_it_was_not_wanted_any_more(worker: Worker) -> None:
    await worker.give(task("a", "listen", "answer"))
    await until(lambda: stage.begun)
    worker.runtime.cancel(order("a", 60_000))
    await worker.log.until(lambda: worker.log.results != [])
    assert worker.log.results[0].output == Raw(b'{"text":"finished all the same"}')


@pytest.mark.parametrize("action", ["wait", "ignore"])
async def test_an_action_that_does_not_listen_is_cancelled_after_the_grace(
    worker: Worker, action: str
) -> None:
    await worker.give(task("a", action, "a", report=True, heartbeat_ms=30))
    await until(lambda: stage.begun)
    worker.runtime.cancel(order("a", 1))
    await worker.log.until(lambda: worker.log.committed == 1)
    assert stage.ended[:1] == ["a"]
    assert cancelled(worker.log.results[0]) == ("cancelled", "not wanted", False)


async def test_a_thread_that_does_not_listen_is_given_up(worker: Worker) -> None:
    await worker.give(task("a", "wait_in_thread", "a"))
    await until(lambda: stage.begun)
    worker.runtime.cancel(order("a"))
    await worker.log.until(lambda: worker.log.committed == 1)
    assert cancelled(worker.log.results[0]) == ("cancelled", "not wanted", False)
    assert worker.execution.threads.abandoned == 1


async def test_a_thread_sees_that_it_is_cancelled(worker: Worker) -> None:
    await worker.give(task("a", "wait_in_thread", "a"))
    await until(lambda: stage.begun)
    worker.runtime.cancel(order("a", 60_000))
    stage.go_in_thread.set()
    await worker.log.until(lambda: worker.log.results != [])
    assert worker.log.results[0].output == Raw(b'{"text":"cancelled: True"}')


async def test_of_several_orders_the_strictest_counts_and_the_first_reason(worker: Worker) -> None:
    await worker.give(task("a", "wait", "a"))
    await until(lambda: stage.begun)
    for grace, reason in ((60_000, "first"), (0, "second"), (60_000, "third")):
        worker.runtime.cancel(order("a", grace, reason))
    await worker.log.until(lambda: worker.log.results != [])
    assert cancelled(worker.log.results[0]) == ("cancelled", "first", False)


async def test_a_task_that_waits_for_its_turn_is_dropped(worker: Worker) -> None:
    busy = [task(f"busy{n}", "wait", f"busy{n}") for n in range(CONCURRENCY)]
    await worker.give(*busy, task("late", "echo", "late"), task("last", "echo", "last"))
    worker.runtime.cancel(order("late", 60_000))
    await worker.log.until(lambda: worker.log.results != [])
    assert [(r.node, *cancelled(r)) for r in worker.log.results] == [
        ("late", "cancelled", "not wanted", False)
    ]
    assert worker.log.committed == 0  # those before it are not done
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == 4)
    assert stage.begun == ["busy0", "busy1", "last"]
    assert nodes(worker.log.results) == ["late", "busy0", "busy1", "last"]


async def test_an_order_that_comes_before_its_task_is_remembered(worker: Worker) -> None:
    worker.runtime.cancel(order("a", 60_000))
    await worker.give(task("a", "echo", "a"), task("b", "echo", "b"))
    await worker.log.until(lambda: worker.log.committed == 2)
    assert stage.begun == ["b"]
    assert cancelled(worker.log.results[0]) == ("cancelled", "not wanted", False)


async def test_an_order_to_end_what_is_finished_changes_nothing(worker: Worker) -> None:
    await worker.give(task("a", "echo", "a"))
    await worker.log.until(lambda: worker.log.committed == 1)
    worker.runtime.cancel(order("a"))
    await worker.give(task("b", "echo", "b"))
    await worker.log.until(lambda: worker.log.committed == 2)
    assert [(r.node, r.failure) for r in worker.log.results] == [("a", None), ("b", None)]


# --- bounds and ends ------------------------------------------------------------------------------


async def test_offsets_advance_in_order_whatever_finishes_first(worker: Worker) -> None:
    await worker.give(task("slow", "wait"), task("quick", "echo"))
    await worker.log.until(lambda: len(worker.log.results) == 1)
    assert worker.log.committed == 0
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == 2)


async def test_a_task_delivered_again_while_under_way_is_not_begun_again(worker: Worker) -> None:
    await worker.give(task("a", "wait", "a"))
    await until(lambda: stage.begun)
    worker.log.app.consumer_generation_id = 2
    await worker.give(task("a", "wait", "a"), generation=2, first=0)
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == 1)
    assert (stage.begun, len(worker.log.results)) == (["a"], 1)


async def test_a_task_that_was_sent_twice_is_done_once_and_acknowledged_twice(
    worker: Worker,
) -> None:
    await worker.give(task("a", "wait", "a"), task("a", "wait", "a"), task("b", "echo"))
    await worker.log.until(lambda: len(worker.log.results) == 1)
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == 3)
    assert stage.begun.count("a") == 1
    assert [result.node for result in worker.log.results] == ["b", "a"]


def published(name: str) -> Result:
    """What another worker has answered."""
    return Result(
        run="run-1",
        node=name,
        attempt=1,
        started_at=1,
        finished_at=2,
        worker="w0",
        output=Raw(b"{}"),
    )


async def test_what_another_worker_has_published_is_published_again_and_not_done_again(
    worker: Worker,
) -> None:
    worker.log.taken_over_at = 2
    worker.published = {"a": codec.encode(published("a"))}
    await worker.give(task("a", "echo"), task("b", "echo"), task("c", "echo"))
    await worker.log.until(lambda: worker.log.committed == 3)
    assert {r.node: r.worker for r in worker.log.results} == {"a": "w0", "b": "w1", "c": "w1"}
    assert len(worker.looked) == 1  # in each generation


async def test_a_task_that_is_called_off_while_the_log_is_looked_at_is_not_begun(
    worker: Worker,
) -> None:
    busy = [task(f"busy{n}", "wait") for n in range(CONCURRENCY)]
    await worker.give(*busy, task("late", "echo", "late"))
    await until(lambda: len(stage.begun) == CONCURRENCY)
    worker.log.app.consumer_generation_id, worker.log.taken_over_at = 2, CONCURRENCY + 1
    worker.may_look.clear()
    late = task("late", "echo", "late")
    giving = asyncio.create_task(worker.give(late, generation=2, first=CONCURRENCY))
    await until(lambda: worker.looked)
    worker.runtime.cancel(order("late"))
    worker.may_look.set()
    await giving
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == CONCURRENCY + 1)
    assert "late" not in stage.begun
    assert {r.failure and r.failure.kind for r in worker.log.results if r.node == "late"} == {
        "cancelled"
    }


async def test_a_task_that_is_sent_once_more_after_the_takeover_is_not_done_again(
    worker: Worker,
) -> None:
    worker.log.taken_over_at = 1
    worker.published = {"a": codec.encode(published("a"))}
    await worker.give(task("b", "echo"), task("a", "echo"))
    await worker.log.until(lambda: worker.log.committed == 2)
    assert {r.node: r.worker for r in worker.log.results} == {"a": "w0", "b": "w1"}


async def test_what_an_owner_before_has_finished_is_committed_though_nothing_else_comes(
    worker: Worker,
) -> None:
    worker.log.finished = ((1, 3),)
    await worker.give(task("a", "echo"))
    await worker.log.until(lambda: worker.log.committed == 1)
    await worker.give(task("b", "echo"), task("c", "echo"))
    await worker.log.until(lambda: worker.log.committed == 3)
    assert [result.node for result in worker.log.results] == ["a"]


async def test_new_tasks_are_not_looked_for_on_the_log(worker: Worker) -> None:
    worker.published = {"a": codec.encode(published("a"))}
    await worker.give(task("a", "echo"))
    await worker.log.until(lambda: worker.log.committed == 1)
    assert worker.looked == []


async def test_a_task_that_waits_here_and_was_answered_elsewhere_is_not_begun(
    worker: Worker,
) -> None:
    busy = [task(f"busy{n}", "wait") for n in range(CONCURRENCY)]
    await worker.give(*busy, task("late", "echo", "late"))
    await until(lambda: len(stage.begun) == CONCURRENCY)
    worker.published = {"late": codec.encode(published("late"))}
    worker.log.app.consumer_generation_id, worker.log.taken_over_at = 2, CONCURRENCY + 1
    await worker.give(*busy, task("late", "echo", "late"), generation=2, first=0)
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == CONCURRENCY + 1)
    assert "late" not in stage.begun
    assert [r.worker for r in worker.log.results if r.node == "late"] == ["w0"]


async def test_the_log_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.published_results._AGAIN_S", 0)
    answers = iter([KafkaConnectionError("away"), KafkaConnectionError("away")])

    async def look(_: int, found: RecentResults) -> None:
        for error in answers:
            raise error
        found.put("a", b"1")

    results = PublishedResults(look)
    await results.look(1, 5)
    assert results.found("a") == b"1"


async def test_what_was_sent_before_is_looked_for_once_more() -> None:
    looked: list[int] = []

    async def look(since: int, _: RecentResults) -> None:
        looked.append(since)

    results = PublishedResults(look)
    for generation, since in ((1, 5), (1, 7), (1, 3), (1, 4), (2, 9)):
        await results.look(generation, since)
    assert looked == [since - MARGIN_MS for since in (5, 3, 9)]


async def test_a_task_revoked_while_it_waits_is_left_to_its_next_owner(worker: Worker) -> None:
    busy = [task(f"busy{n}", "wait") for n in range(CONCURRENCY)]
    await worker.give(*busy, task("late", "echo", "late"))
    await until(lambda: len(stage.begun) == CONCURRENCY)
    worker.log.app.consumer_generation_id = 2
    stage.go.set()
    await worker.log.until(lambda: len(worker.log.results) == CONCURRENCY)
    assert "late" not in stage.begun
    await worker.give(task("late", "echo", "late"), generation=2, first=2)
    await worker.log.until(lambda: worker.log.committed == 3)
    assert stage.begun[-1] == "late"


async def test_tasks_that_are_left_to_others_make_room_too(worker: Worker) -> None:
    """The last of them has no result to publish: fetching goes on all the same."""
    tasks = [task(f"t{n}", "wait") for n in range(20 * CONCURRENCY)]
    await worker.give(*tasks)
    assert worker.log.held == {TP(TOPIC, 0)}
    await until(lambda: len(stage.begun) == CONCURRENCY)
    worker.log.app.consumer_generation_id = 2
    stage.go.set()
    await worker.log.until(lambda: not worker.log.held)
    assert len(worker.log.results) == CONCURRENCY


async def test_at_the_stop_even_an_action_that_ignores_its_cancellation_is_given_up(
    worker: Worker,
) -> None:
    await worker.give(task("a", "ignore", "a"), task("b", "wait", "b"), task("c", "echo", "c"))
    await until(lambda: len(stage.begun) == CONCURRENCY)
    async with asyncio.timeout(20):
        await worker.runtime.drain(0.01)
    assert sorted(stage.ended[:2]) == ["a", "b"]
    # No result: whoever owns the partition next does them again.
    assert (worker.log.messages, worker.log.committed) == ([], 0)


async def test_an_action_that_cancels_its_own_task_has_failed(worker: Worker) -> None:
    await worker.give(task("a", "cancel_itself"), task("b", "echo"))
    await worker.log.until(lambda: worker.log.committed == 2)
    failures = {
        result.node: result.failure and result.failure.kind for result in worker.log.results
    }
    assert failures == {"a": "agent_error", "b": None}


async def test_a_fault_that_is_not_the_agents_is_raised_and_its_task_not_acknowledged(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = RecentResults.put

    def fail_once(results: RecentResults, name: str, result: bytes) -> None:
        if name == "b":
            raise OSError("no room for it")
        keep(results, name, result)

    monkeypatch.setattr(RecentResults, "put", fail_once)
    await worker.give(*(task(name, "echo") for name in "abc"))
    async with asyncio.timeout(20):
        with pytest.raises(OSError, match="no room for it"):
            await worker.publishing
    await worker.runtime.drain(1)
    assert (nodes(worker.log.results), worker.log.committed) == (["a", "c"], 1)


async def test_no_task_or_timer_is_left_behind(worker: Worker) -> None:
    before = asyncio.all_tasks()
    await worker.give(task("a", "tell", report=True, heartbeat_ms=30), task("b", "wait", "b"))
    await worker.log.until(lambda: worker.log.progress != [])
    worker.runtime.cancel(order("b", 60_000))
    stage.go.set()
    await worker.log.until(lambda: worker.log.committed == 2)
    gc.collect()
    assert asyncio.all_tasks() == before
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])
    assert [timer for timer in scheduled if not timer.cancelled()] == []

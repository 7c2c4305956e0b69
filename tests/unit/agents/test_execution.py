"""Executing tasks: every way in which an agent can behave ends in a result."""

import asyncio
import gc
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace
from pydantic import BaseModel, field_validator

from agents import Agent, AgentRegistry, Context, PermanentError
from agents.execution import Execution
from agents.payloads import Payloads
from agents.threads import Threads
from streams import codec
from streams.blob_store import BlobStore
from streams.cost import Cost
from streams.messages import Result, Task
from streams.records import Failure


class Question(BaseModel):
    text: str = ""
    size: int = 0

    @field_validator("text")
    @classmethod
    def broken_for_some(cls, text: str) -> str:
        if text == "break the validator":
            raise KeyError(text)
        return text


class Answer(BaseModel):
    text: str


agent = Agent("oracle", version="2.1.0", description="Behaves in every way.")
released = threading.Event()
cleaned: list[str] = []


@agent.action
async def echo(inputs: Question) -> Answer:
    return Answer(text=inputs.text)


@agent.action
async def echo_later(inputs: Question) -> Answer:
    for _ in range(3):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    return Answer(text=inputs.text)


@agent.action
def echo_in_thread(inputs: Question) -> Answer:
    return Answer(text=f"{inputs.text} in {threading.current_thread().name}")


@agent.action
async def about(inputs: Question, context: Context) -> Answer:
    return Answer(text=str(replace(context, colleagues=None)))


@agent.action
async def fail(inputs: Question) -> Answer:
    raise ValueError(inputs.text)


@agent.action(risk="APPROVAL_REQUIRED")
async def erase(inputs: Question) -> Answer:
    cleaned.append(inputs.text)
    return Answer(text=inputs.text)


@agent.action
async def fail_with_half_a_character(inputs: Question) -> Answer:
    raise ValueError("\ud800")


@agent.action
async def fail_later(inputs: Question) -> Answer:
    await asyncio.sleep(0)
    raise ValueError(inputs.text)


@agent.action
def fail_in_thread(inputs: Question) -> Answer:
    raise ValueError(inputs.text)


@agent.action
def stop_in_thread(inputs: Question) -> Answer:
    raise StopIteration(inputs.text)


@agent.action
async def fail_for_good(inputs: Question) -> Answer:
    raise PermanentError(inputs.text)


@agent.action
async def leave(inputs: Question) -> Answer:
    sys.exit(inputs.size)


@agent.action
def leave_in_thread(inputs: Question) -> Answer:
    sys.exit(inputs.size)


@agent.action
async def time_out_inside(inputs: Question) -> Answer:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
    return Answer(text=inputs.text)


@agent.action
async def await_something_cancelled(inputs: Question) -> Answer:
    waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    waiting.cancel(inputs.text)
    return await waiting


@agent.action(timeout=0.02)
async def hang(inputs: Question) -> Answer:
    try:
        await asyncio.Event().wait()
    finally:
        cleaned.append(inputs.text)
    raise AssertionError


@agent.action(timeout=0.02)
async def hang_and_complain(inputs: Question) -> Answer:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError(inputs.text)


@agent.action(timeout=0.02)
async def hang_whatever_happens(inputs: Question) -> Answer:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cleaned.append(inputs.text)


@agent.action(timeout=0.02)
async def answer_when_cancelled(inputs: Question) -> Answer:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return Answer(text=inputs.text)
    raise AssertionError


@agent.action(timeout=0.02)
def hang_in_thread(inputs: Question) -> Answer:
    released.wait()
    return Answer(text=inputs.text)


@agent.action
async def answer_wrongly(inputs: Question) -> Answer:
    return {"answer": inputs.text}


@agent.action
async def answer_a_broken_model(inputs: Question) -> Answer:
    return Answer.model_construct(text=inputs.size)


@agent.action
async def answer_nothing(inputs: Question) -> Answer:
    return None


@agent.action
async def answer_what_is_no_text(inputs: Question) -> Answer:
    return Answer.model_construct(text="\ud800")


@agent.action
async def answer_at_length(inputs: Question) -> Answer:
    return Answer(text="x" * inputs.size)


def task(
    action: str, inputs: Any = None, *, agent: str = "oracle", timeout_ms: int = 9_000
) -> Task:
    return Task(
        id="task-1",
        run="run-1",
        project="default",
        workflow="review",
        node="ask",
        item=4,
        attempt=2,
        agent=agent,
        action=action,
        inputs=Raw(json.dumps({} if inputs is None else inputs).encode()),
        timeout_ms=timeout_ms,
        reply_partition=0,
        traceparent="00-1-2-01",
    )


@pytest.fixture
async def execution(tmp_path: Path) -> AsyncIterator[Execution]:
    ticks = count(1_000)
    made = Execution(
        AgentRegistry([agent]),
        Payloads(BlobStore(str(tmp_path), limit=1_000)),
        now_ms=lambda: next(ticks),
        worker="w1",
        threads=Threads(limit=2),
        grace=0.02,
        clock_ns=count(0, 600_000_000).__next__,
    )
    released.clear()
    cleaned.clear()
    yield made
    released.set()
    made.close()


def bare(blobs: Path) -> Execution:
    payloads = Payloads(BlobStore(str(blobs), limit=1_000))
    return Execution(AgentRegistry([agent]), payloads, now_ms=lambda: 0)


def failed(result: Result) -> Failure:
    assert result.output is UNSET
    assert result.failure is not None
    return result.failure


def answered(result: Result) -> str:
    assert result.failure is None
    assert isinstance(result.output, Raw)
    text: str = json.loads(bytes(result.output))["text"]
    return text


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 -- the change comes from a thread, with no event
            await asyncio.sleep(0.001)


TICK = Cost(
    kind="compute",
    source="oracle",
    quantity=Decimal("0.010000000"),
    unit="minute",
    unit_price=Decimal("0.01"),
    amount=Decimal("0.0001"),
    price_version="default",
)
"""What the clock of these tests makes an action cost."""


async def test_a_result_carries_the_tasks_coordinates_and_times(execution: Execution) -> None:
    result = await execution.execute(task("echo", {"text": "hi"}))
    assert result == Result(
        run="run-1",
        node="ask",
        item=4,
        attempt=2,
        started_at=1_000,
        finished_at=1_001,
        worker="w1",
        agent_version="2.1.0",
        output=result.output,
        costs=(TICK,),
    )
    assert answered(result) == "hi"
    failure = await execution.execute(task("fail", {"text": "no"}))
    assert (failure.run, failure.node, failure.item, failure.attempt) == ("run-1", "ask", 4, 2)
    assert (failure.started_at, failure.finished_at, failure.worker) == (1_002, 1_003, "w1")
    assert failure.agent_version == "2.1.0"


async def test_an_action_that_waits_gives_the_same_result(execution: Execution) -> None:
    assert answered(await execution.execute(task("echo_later", {"text": "hi"}))) == "hi"


async def test_a_sync_action_runs_in_a_thread_named_after_the_task(execution: Execution) -> None:
    for _ in range(2):
        result = await execution.execute(task("echo_in_thread", {"text": "hi"}))
        assert answered(result) == "hi in oracle echo_in_thread task-1"
    assert (execution.threads.running, execution.threads.abandoned) == (0, 0)


async def test_an_action_can_know_its_task(execution: Execution) -> None:
    assert answered(await execution.execute(task("about"))) == str(
        Context(
            task_id="task-1",
            run_id="run-1",
            project="default",
            workflow="review",
            node="ask",
            attempt=2,
            item=4,
            agent="oracle",
            action="about",
            started_at=1_000,
            traceparent="00-1-2-01",
        )
    )


@pytest.mark.parametrize(
    ("action", "inputs", "kind", "message", "retryable"),
    [
        (
            "echo",
            {"text": 1},
            "invalid_input",
            "takes: text: Input should be a valid string",
            False,
        ),
        ("echo", [], "invalid_input", "Input should be an object", False),
        ("echo", {"text": "break the validator"}, "agent_error", "KeyError: ", True),
        ("nothing", {}, "unknown_action", "agent 'oracle' has no action 'nothing'", False),
        ("fail", {"text": "why"}, "agent_error", "ValueError: why", True),
        ("fail", {}, "agent_error", "ValueError", True),
        ("fail_later", {"text": "why"}, "agent_error", "ValueError: why", True),
        ("fail_in_thread", {"text": "why"}, "agent_error", "ValueError: why", True),
        ("stop_in_thread", {}, "agent_error", "StopIteration", True),
        ("fail_for_good", {"text": "why"}, "agent_error", "PermanentError: why", False),
        ("leave", {"size": 3}, "agent_error", "SystemExit: 3", True),
        ("leave_in_thread", {"size": 3}, "agent_error", "SystemExit: 3", True),
        ("time_out_inside", {}, "agent_error", "TimeoutError", True),
        ("await_something_cancelled", {"text": "x"}, "agent_error", "CancelledError", True),
        ("hang", {}, "timeout", "it did not finish within 20ms", True),
        ("hang_and_complain", {}, "timeout", "it did not finish within 20ms", True),
        ("hang_whatever_happens", {}, "timeout", "it did not finish within 20ms", True),
        ("hang_in_thread", {}, "timeout", "it did not finish within 20ms", True),
        ("answer_wrongly", {}, "invalid_output", "declares: text: Field required", False),
        ("answer_a_broken_model", {}, "invalid_output", "str", False),
        ("answer_nothing", {}, "invalid_output", "Answer", False),
        ("answer_what_is_no_text", {}, "invalid_output", "surrogates", False),
        (
            "answer_at_length",
            {"size": 1_000},
            "output_too_large",
            "1,000 may be (COMMANDCENTER_PAYLOAD",
            False,
        ),
    ],
)
async def test_whatever_an_agent_does_wrong_is_a_failure_of_the_task(
    execution: Execution, action: str, inputs: object, kind: str, message: str, retryable: bool
) -> None:
    failure = failed(await execution.execute(task(action, inputs)))
    assert (failure.kind, failure.retryable) == (kind, retryable)
    assert message in failure.message
    # The worker lives on.
    assert answered(await execution.execute(task("echo", {"text": "next"}))) == "next"


async def test_a_risky_action_is_executed_only_when_approved(execution: Execution) -> None:
    failure = failed(await execution.execute(task("erase", {"text": "all"})))
    assert (failure.kind, failure.retryable) == ("approval_required", False)
    assert "oracle erase" in failure.message
    assert cleaned == []
    approved = replace(task("erase", {"text": "all"}), approved=True)
    assert answered(await execution.execute(approved)) == "all"
    assert cleaned == ["all"]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("fail", "ValueError"),
        ("fail_in_thread", "ValueError"),
        ("fail_for_good", "PermanentError"),
        ("time_out_inside", "TimeoutError"),
        ("hang", ""),
        ("answer_wrongly", ""),
    ],
)
async def test_a_failure_names_the_class_of_the_exception(
    execution: Execution, action: str, error: str
) -> None:
    assert failed(await execution.execute(task(action))).error == error


async def test_a_message_that_is_no_text_can_be_sent_all_the_same(execution: Execution) -> None:
    result = await execution.execute(task("fail_with_half_a_character"))
    assert failed(result).message == "ValueError: ?"
    assert codec.messages.decode(codec.encode(result)) == result


async def test_an_unknown_agent_is_a_failure(execution: Execution) -> None:
    failure = failed(await execution.execute(task("echo", agent="nobody")))
    assert failure.kind == "unknown_action"
    assert "no agent is called 'nobody'" in failure.message


async def test_the_values_of_wrong_inputs_are_not_told(execution: Execution) -> None:
    failure = failed(await execution.execute(task("echo", {"size": "hunter2"})))
    assert "size" in failure.message
    assert "hunter2" not in failure.message


async def test_many_faults_and_long_texts_are_cut(execution: Execution) -> None:
    failure = failed(await execution.execute(task("fail", {"text": "x" * 10_000})))
    assert len(failure.message) == 2_000


async def test_a_task_can_shorten_the_time_limit(execution: Execution) -> None:
    failure = failed(await execution.execute(task("hang", timeout_ms=5)))
    assert failure.message == "it did not finish within 5ms"


async def test_an_action_out_of_time_cleans_up(execution: Execution) -> None:
    failed(await execution.execute(task("hang", {"text": "clean"})))
    assert cleaned == ["clean"]


async def test_an_action_that_answers_when_cancelled_is_heard(execution: Execution) -> None:
    result = await execution.execute(task("answer_when_cancelled", {"text": "just in time"}))
    assert answered(result) == "just in time"


async def test_cancellation_of_the_caller_passes_through(execution: Execution) -> None:
    for action in ("hang", "hang_in_thread"):
        working = asyncio.ensure_future(
            execution.execute(task(action, {"text": "gone"}, timeout_ms=9_000))
        )
        await asyncio.sleep(0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert cleaned == ["gone"]


async def test_a_hung_thread_gives_up_its_place_and_is_counted(execution: Execution) -> None:
    threads = execution.threads
    failed(await execution.execute(task("hang_in_thread")))
    assert (threads.running, threads.abandoned) == (0, 1)
    assert "hi" in answered(await execution.execute(task("echo_in_thread", {"text": "hi"})))
    failed(await execution.execute(task("hang_in_thread")))
    assert threads.abandoned == 2
    refused = failed(await execution.execute(task("echo_in_thread")))
    assert (refused.kind, refused.retryable) == ("agent_error", True)
    assert "2 threads of sync actions hang" in refused.message
    released.set()
    await until(lambda: threads.abandoned == 0)
    assert "hi" in answered(await execution.execute(task("echo_in_thread", {"text": "hi"})))


async def test_more_sync_calls_than_threads_wait_their_turn(execution: Execution) -> None:
    tasks = [task("echo_in_thread", {"text": str(n)}) for n in range(20)]
    results = await asyncio.gather(*map(execution.execute, tasks))
    assert [answered(result).split()[0] for result in results] == [str(n) for n in range(20)]


async def test_a_thread_is_used_again(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    made = bare(tmp_path)
    for _ in range(3):
        await made.execute(task("echo_in_thread"))
    assert len(set(threading.enumerate()) - before) == 1
    made.close()


async def test_closing_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    made = bare(tmp_path)
    await asyncio.gather(*(made.execute(task("echo_in_thread")) for _ in range(5)))
    mine = set(threading.enumerate()) - before
    assert mine
    made.close()
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


async def test_no_task_or_timer_is_left_behind(execution: Execution) -> None:
    for action in ("echo", "echo_later", "hang", "hang_whatever_happens", "fail_later"):
        await execution.execute(task(action))
    gc.collect()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert asyncio.current_task().cancelling() == 0

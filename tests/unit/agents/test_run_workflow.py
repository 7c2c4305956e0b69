"""`run_workflow`: whole workflows in a test, with real actions and a clock that jumps."""

import asyncio
import threading
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agents import Agent, AgentError, Context, PermanentError
from agents.testing import Answer, Asked, WorkflowResult, run_workflow
from streams.errors import CallerError, DefinitionError
from streams.records import Failure


class Value(BaseModel):
    value: Any = None


worker = Agent("worker", description="Does what tests need.", rate="0.60")
calls: list[Any] = []
released = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    calls.clear()
    released.clear()
    yield
    released.set()


@worker.action
async def echo(inputs: Value) -> Value:
    return inputs


@worker.action
def echo_in_thread(inputs: Value) -> Value:
    return inputs


@worker.action
async def fail_at_first(inputs: Value, context: Context) -> Value:
    context.cost.record(source="api", unit_price="0.10")
    calls.append(context.started_at)
    if context.attempt < inputs.value:
        raise ValueError(f"not yet {context.attempt}")
    return Value(value=context.attempt)


@worker.action
async def fail(inputs: Value) -> Value:
    raise PermanentError(f"no {inputs.value}")


@worker.action(timeout=3600)
async def hang(inputs: Value, context: Context) -> Value:
    try:
        await asyncio.Event().wait()
    finally:
        calls.append(context.is_cancelled)
    return inputs


@worker.action(timeout=3600)
def hang_in_thread(inputs: Value) -> Value:
    released.wait()
    return inputs


@worker.action(risk="APPROVAL_REQUIRED")
async def dare(inputs: Value) -> Value:
    return inputs


@worker.action
async def use_secret(inputs: Value, context: Context) -> Value:
    return Value(value=len(context.secrets["TOKEN"]))


@worker.action
async def load(inputs: Value) -> Value:
    return Value(value="x" * 100_000)


@worker.action
async def weigh(inputs: Value) -> Value:
    return Value(value=len(inputs.value["value"]))


@worker.action
async def cancel_itself(inputs: Value) -> Value:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return inputs


def node(name: str, action: str = "echo", value: Any = None, **more: Any) -> dict[str, Any]:
    inputs = {"value": value}
    return {"id": name, "agent": "worker", "action": action, "inputs": inputs, **more}


def workflow(*nodes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": list(nodes), **more}


async def run(*nodes: Mapping[str, Any], **more: Any) -> WorkflowResult:
    of_run = {k: more.pop(k) for k in ("output", "timeout", "onFailure") if k in more}
    trigger = more.pop("trigger", None)
    return await run_workflow(workflow(*nodes, **of_run), [worker], trigger, **more)


def failure_of(result: WorkflowResult, name: str = "a") -> Failure:
    error = result.nodes[name].error
    assert error is not None
    return error


async def test_outputs_go_from_node_to_node() -> None:
    result = await run(
        node("a", value="{{ context.n }}"),
        node("b", "echo_in_thread", value="{{ nodes.a.output.value }}", dependsOn=["a"]),
        output={"n": "{{ nodes.b.output.value }}"},
        trigger={"n": [1, 2]},
    )
    assert (result.status, result.output, result.error) == ("SUCCESS", {"n": [1, 2]}, None)
    assert result.outputs == {"a": {"value": [1, 2]}, "b": {"value": [1, 2]}}
    assert result.nodes["b"].inputs == {"value": [1, 2]}
    kinds = [event["type"] for event in result.events]
    assert (kinds[0], kinds[-1]) == ("run.started", "run.succeeded")
    assert [event["seq"] for event in result.events] == list(range(len(kinds)))


async def test_retries_delays_and_their_costs_take_no_time() -> None:
    result = await run(
        node("a", "fail_at_first", 3, retry={"attempts": 3, "initialDelay": "1h"}),
        {"id": "nap", "delay": "2d", "dependsOn": ["a"]},
        timeout="7d",
    )
    assert (result.status, result.nodes["a"].attempts) == ("SUCCESS", 3)
    assert result.nodes["nap"].status == "SUCCESS"
    assert calls[0] + 1_000 < calls[1] < calls[2]
    assert result.duration_ms >= 2 * 86_400_000
    assert result.cost() == Decimal("0.30")
    assert [c.amount for c in result.nodes["a"].costs if c.kind == "api"] == [Decimal("0.1")] * 3
    assert result.cost("EUR") == 0


async def test_a_failure_is_the_runs() -> None:
    result = await run(node("a", "fail", "way"), node("b", dependsOn=["a"]))
    assert result.status == "FAILED"
    assert failure_of(result).message == "PermanentError: no way"
    assert result.error is not None
    assert result.error.node == "a"
    assert (result.nodes["a"].status, result.nodes["b"].status) == ("FAILED", "SKIPPED")
    assert result.outputs == {}


@pytest.mark.parametrize("action", ["hang", "hang_in_thread"])
async def test_what_hangs_meets_its_time_out(action: str) -> None:
    result = await run(
        node("a", action, timeout="30m", retry={"attempts": 2, "initialDelay": "1s"}),
        patience=0.02,
    )
    assert (result.status, result.nodes["a"].attempts) == ("FAILED", 2)
    assert failure_of(result).kind == "timeout"
    assert result.duration_ms >= 3_600_000


async def test_what_hangs_gives_its_heartbeats_until_the_runs_time_is_over() -> None:
    result = await run(
        node("a", "hang", timeout="2h", heartbeatTimeout="5m"), timeout="1h", patience=0.02
    )
    assert result.status == "TIMED_OUT"
    assert result.nodes["a"].attempts == 1
    assert [event["type"] for event in result.events].count("node.progressed") >= 11
    assert calls == [True]


async def test_people_agree_or_do_not() -> None:
    asked: list[Asked] = []

    def approve(question: Asked) -> Answer:
        asked.append(question)
        return Answer(approved=True, inputs={"value": "edited"})

    steps = (node("a", value=1, approvalRequired={"count": 2, "roles": ["lead"]}),)
    result = await run(*steps, approve=approve)
    assert (result.status, result.outputs["a"]) == ("SUCCESS", {"value": "edited"})
    assert asked == [
        Asked(node="a", inputs={"value": 1}, needed=2, roles=("lead",), cause="workflow")
    ]
    no = Answer(approved=False, notes="too risky")
    for said in ([no], no):
        refused = await run(*steps, approve=said)
        assert (failure_of(refused).kind, refused.status) == ("rejected", "FAILED")
        assert "too risky" in failure_of(refused).message
    silent = await run(node("a", approvalRequired={"deadline": "1h"}))
    assert failure_of(silent).kind == "approval_expired"
    with pytest.raises(AgentError, match="no answer is left"):
        await run(*steps, approve=[])


async def test_an_action_that_wants_approval_gets_it() -> None:
    result = await run(node("a", "dare", 1), approve=True)
    assert (result.status, result.nodes["a"].attempts) == ("SUCCESS", 2)
    assert (await run(node("a", "dare", 1), approve=False)).status == "FAILED"


async def test_items_are_done_one_by_one() -> None:
    result = await run(
        node("a", value="{{ item }}", forEach="{{ context }}", maxParallel=2),
        trigger=["x", "y", "z"],
    )
    assert result.outputs["a"] == [{"value": "x"}, {"value": "y"}, {"value": "z"}]
    assert result.nodes["a"].items[1].inputs == {"value": "y"}
    assert (await run(node("a", forEach="{{ context }}"), trigger=[])).outputs == {"a": []}


async def test_a_node_waits_for_an_event_that_the_test_gives() -> None:
    wait = {"id": "paid", "waitForEvent": {"event": "payment.*", "timeout": "1h"}}
    result = await run(wait, events=[("other", 1), ("payment.received", {"sum": 3})])
    assert result.outputs["paid"]["data"] == {"sum": 3}
    assert (await run(wait)).nodes["paid"].status == "FAILED"


async def test_a_step_may_be_a_run_of_another_workflow() -> None:
    steps = (
        {"id": "a", "workflow": "child", "inputs": {"n": 1}},
        {"id": "b", "workflow": "nowhere", "dependsOn": ["a"]},
    )
    child = {**workflow(node("x", value="{{ context.n }}")), "name": "child"}
    child["output"] = "{{ nodes.x.output }}"
    result = await run(*steps, workflows=[child])
    assert result.nodes["a"].status == "SUCCESS"
    assert result.nodes["b"].error is not None
    assert "no workflow 'nowhere' in this test (there are: child, w)" in str(
        result.nodes["b"].error.message
    )


async def test_what_was_done_is_undone() -> None:
    undo = {"agent": "worker", "action": "echo", "inputs": {"value": "undone"}}
    result = await run(node("a", compensate=undo), node("b", "fail", dependsOn=["a"]))
    assert result.nodes["a.compensate"].output == {"value": "undone"}


async def test_big_payloads_and_secrets_are_as_on_a_worker() -> None:
    result = await run(
        node("a", "load"),
        node("b", "weigh", "{{ nodes.a.output }}", dependsOn=["a"]),
        node("c", "use_secret"),
        secrets={"TOKEN": "12345678"},
    )
    assert (result.outputs["b"], result.outputs["c"]) == ({"value": 100_000}, {"value": 8})
    assert len(result.outputs["a"]["value"]) == 100_000


async def test_an_action_that_breaks_off_its_own_task_fails() -> None:
    result = await run(node("a", "cancel_itself", retry={"attempts": 1}))
    assert failure_of(result).message == "the action cancelled its own asyncio task"


TEXT = """
name: w
nodes:
  - id: a
    agent: worker
    action: echo
    inputs: {value: "{{ context }}"}
"""


async def test_a_workflow_comes_as_text_or_file_too(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(TEXT)
    for given in (TEXT, file, str(file)):
        assert (await run_workflow(given, [worker], 5)).outputs == {"a": {"value": 5}}


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("nowhere.yaml", CallerError, "nowhere.yaml"),
        (TEXT + "---" + TEXT, CallerError, "one workflow was expected, there are 2: w, w"),
        ("name: [\n", DefinitionError, "workflow:2:1: not valid YAML"),
        (workflow(node("a", "nothing")), DefinitionError, "has no action 'nothing'"),
        (workflow({"id": "a", "agent": "x", "action": "y"}), DefinitionError, "called 'x'"),
        ({"name": "w"}, DefinitionError, "nodes"),
    ],
)
async def test_what_is_no_workflow_is_said(given: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text.replace("[", r"\[")):
        await run_workflow(given, [worker])

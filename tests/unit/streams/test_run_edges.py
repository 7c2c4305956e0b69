"""Where the features of a run meet: pauses, endings, fan-outs, approvals, and big payloads."""

import json
from typing import Any

from judged_run import SMALL, JudgedRun, start
from msgspec import Raw

from streams.plan import parse
from streams.records import (
    Cancel,
    Edit,
    Failure,
    Occurrence,
    Result,
    Reused,
    RunStatus,
    Trigger,
)
from streams.run import DEFAULT_LIMITS, Limits


def task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "agent": "x", "action": "do", "dependsOn": list(depends_on), **fields}


def life(*nodes: dict[str, Any], limits: Limits = DEFAULT_LIMITS, **fields: Any) -> JudgedRun:
    return JudgedRun(parse({"name": "w", "nodes": list(nodes), **fields}), limits)


def started(*nodes: dict[str, Any], limits: Limits = DEFAULT_LIMITS, **fields: Any) -> JudgedRun:
    run = life(*nodes, limits=limits, **fields)
    run.hear(start())
    return run


def done(node: str, output: Any = None, item: int | None = None, attempt: int = 1) -> Result:
    return Result(
        run="r1", node=node, item=item, attempt=attempt, started_at=1, finished_at=2,
        output=Raw(json.dumps(output).encode()),
    )  # fmt: skip


def failed(node: str, item: int | None = None, attempt: int = 1, **fields: Any) -> Result:
    failure = Failure(**{"kind": "agent_error", "message": "boom", "retryable": False} | fields)
    return Result(
        run="r1", node=node, item=item, attempt=attempt, started_at=1, finished_at=2,
        failure=failure,
    )  # fmt: skip


def said(run: JudgedRun) -> list[str]:
    """The last decision's events: what happened to what."""
    return [
        " ".join(part for part in (type(event).__name__, getattr(event, "node", "")) if part)
        for event in run.decisions[-1].events
    ]


def sent(run: JudgedRun) -> list[str]:
    return [t.id for o in run.outcomes for t in o.tasks]


# --- big payloads ---------------------------------------------------------------------------------


def test_a_decision_can_look_into_what_it_has_made_itself() -> None:
    """Two nodes wait for the event; that the first took it is seen in its output, a reference."""
    wait = {"waitForEvent": {"event": "go"}}
    run = started({"id": "a", **wait}, {"id": "b", **wait}, limits=SMALL)
    event = Trigger(id="o", source="s", type="go", data=Raw(b'{"k":"%s"}' % (b"x" * 60)))
    run.hear(Occurrence(project="default", trigger=event))
    assert said(run) == ["NodeSucceeded a"]
    assert len(run.outcomes[-1].blobs) == 1


# --- starting again -------------------------------------------------------------------------------


def test_a_run_that_only_undoes_has_no_use_for_edited_inputs() -> None:
    undo = {"agent": "x", "action": "undo"}
    run = life(task("a", compensate=undo), task("b", "a"))
    reused = (Reused(node="a", output=Raw(b"1")),)
    edits = (Edit(node="b", inputs=Raw(b"{}")),)
    run.hear(start(reuse=reused, edits=edits, compensate=True))
    assert said(run)[1:] == [
        "NodeReused a",
        "NodeSkipped b",
        "RunEnding",
        "NodeDispatched a.compensate",
    ]
    run.hear(done("a.compensate"))
    assert run.status is RunStatus.SUCCESS


# --- the end --------------------------------------------------------------------------------------


def test_who_works_on_an_item_is_told_when_the_run_is_ended_by_force() -> None:
    fan = task("h", forEach=[1, 2, 3], maxParallel=2)
    run = started(task("a"), onFailure=[fan])
    run.hear(failed("a"))
    assert sent(run)[1:] == ["r1/h.0/1", "r1/h.1/1"]
    run.hear(Cancel(run="r1", reason="enough", force=True))
    assert [order.task for order in run.outcomes[-1].cancellations] == ["r1/h.0/1", "r1/h.1/1"]
    assert run.status is RunStatus.FAILED


def test_force_calls_off_nothing_but_what_is_under_way() -> None:
    retry = {"initialDelay": "1h"}
    run = started(
        task("a"),
        onFailure=[
            task("again", retry=retry),
            task("asks", approvalRequired=True),
            {"id": "child", "workflow": "w2", "approvalRequired": True},
            {"id": "sleeps", "delay": "1h"},
        ],
    )
    run.hear(failed("a"))
    run.hear(failed("again", retryable=True))
    forced = run.hear(Cancel(run="r1", reason="enough", force=True))
    assert (forced.cancellations, forced.messages) == ((), ())
    assert run.status is RunStatus.FAILED


def test_a_handler_knows_the_failure_at_every_one_of_its_steps() -> None:
    why = {"inputs": {"why": "{{ failure.message }}"}}
    run = started(task("a"), onFailure=[task("h1", **why), task("h2", "h1", **why)])
    run.hear(failed("a"))
    run.hear(done("h1"))
    assert said(run) == ["NodeSucceeded h1", "NodeDispatched h2"]
    assert [bytes(t.inputs) for t in run.outcomes[-1].tasks] == [
        b'{"why":"node \'a\' failed: boom"}'
    ]


def test_what_undoes_a_node_knows_the_failure_at_every_attempt() -> None:
    undo = {"agent": "x", "action": "undo", "inputs": {"why": "{{ failure.kind }}"}}
    run = started(task("a", compensate=undo), task("b", "a"))
    run.hear(done("a"))
    run.hear(failed("b"))
    run.hear(failed("a.compensate", retryable=True))
    run.wake()
    assert said(run) == ["NodeDispatched a.compensate"]


def test_what_undoes_a_node_can_say_why_where_nothing_has_failed() -> None:
    """A run that is cancelled, or only undoes, has a reason all the same."""
    undo = {"agent": "x", "action": "undo", "inputs": {"why": "{{ failure.message }}"}}
    run = started(task("a", compensate=undo), task("b", "a"))
    run.hear(done("a"))
    run.hear(Cancel(run="r1", reason="not today"))
    run.hear(done("b"))
    assert [bytes(t.inputs) for t in run.outcomes[-1].tasks] == [b'{"why":"not today"}']
    run = life(task("a", compensate=undo))
    run.hear(start(reuse=(Reused(node="a", output=Raw(b"1")),), compensate=True))
    assert said(run)[-1] == "NodeDispatched a.compensate"


def test_a_fan_out_that_failed_in_part_is_undone_in_its_turn() -> None:
    """It ended after what it depends on, so it is undone before that."""
    undo = {"compensate": {"agent": "x", "action": "undo"}}
    run = started(task("a", **undo), task("fan", "a", forEach=[1, 2], **undo))
    run.hear(done("a"))
    run.hear(done("fan", item=0))
    run.hear(failed("fan", item=1))
    assert sent(run)[-1] == "r1/fan.compensate/1"
    run.hear(done("fan.compensate"))
    assert sent(run)[-1] == "r1/a.compensate/1"

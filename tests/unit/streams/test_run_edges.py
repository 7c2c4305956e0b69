"""Where the features of a run meet: pauses, endings, fan-outs, approvals, and big payloads."""

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from judged_run import PARENT, SMALL, T0, JudgedRun, start
from msgspec import Raw

from streams.cost import Cost
from streams.events import (
    NodeApprovalRequested,
    NodeFailed,
    NodeReused,
    NodeSucceeded,
    RunStarted,
)
from streams.messages import (
    Approval,
    Cancel,
    Occurrence,
    Pause,
    Progress,
    Result,
    Resume,
    Start,
    Timer,
)
from streams.payload import reference_to
from streams.plan import parse
from streams.records import Edit, Failure, Origin, Reused, RunStatus, Trigger
from streams.run import DEFAULT_LIMITS, Limits, Outcome, decide

PRICE = Cost(
    kind="compute", source="x", quantity=Decimal(1), unit="minute",
    unit_price=Decimal("0.01"), amount=Decimal("0.01"),
)  # fmt: skip


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


# --- the start ------------------------------------------------------------------------------------


def test_a_run_says_as_it_starts_what_it_is_told_apart_by() -> None:
    origin = Origin(run="r0", kind="rerun")
    run = life(task("a"), tags=["team:payments", "nightly"], timeout="1h")
    run.hear(start(parent=PARENT, depth=2, origin=origin))
    assert run.events[0] == RunStarted(
        trigger=start().trigger,
        nodes=1,
        deadline=T0 + 3_600_000,
        depth=2,
        parent=PARENT,
        origin=origin,
        tags=("team:payments", "nightly"),
    )
    assert run.state is not None
    head = run.state.head
    assert (head.deadline, head.depth, head.parent) == (T0 + 3_600_000, 2, PARENT)


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


# --- many items -----------------------------------------------------------------------------------


def calls(work: Callable[[], Any]) -> int:
    """How many functions the work calls: what it costs, without a clock."""
    counted = 0

    def count(*_: Any) -> None:
        nonlocal counted
        counted += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


def test_a_step_of_a_large_fan_out_costs_what_one_of_a_small_one_costs() -> None:
    """In operations, and in bytes of state that are written."""
    (few, small), (many, large) = (cost_of_an_answer(items) for items in (100, 10_000))
    assert many < few * 1.2
    assert large < small * 1.2


def cost_of_an_answer(items: int) -> tuple[int, int]:
    """Calls, and bytes of state, of the fiftieth result of a fan-out that had to be approved."""
    fan = task("fan", forEach=list(range(items)), inputs={"n": "{{ item }}"}, approvalRequired=True)
    run = life(fan)
    messages = [
        start(),
        Approval(run="r1", node="fan", approved=True, by="ann"),
        *(done("fan", {"n": n}, item=n) for n in range(50)),
    ]
    spent, written = [], 0
    for message in messages:
        outcomes: list[Outcome] = []
        before = run.state

        def step(message: Any = message, outcomes: list[Outcome] = outcomes) -> None:
            outcomes.append(decide(run.state, message, 1, run.plan, 0))

        spent.append(calls(step))
        run.state = outcomes[0].state
        written = sum(len(value or b"") for _, value in run.store.changes(before, outcomes[0]))
    return spent[-1], written


def test_items_that_cannot_be_begun_cost_no_more_when_they_are_many() -> None:
    costs = []
    for size in (200, 2_000):
        fan = task("fan", forEach=list(range(size)), inputs={"x": "{{ item.nothing }}"})
        run = life(fan)
        costs.append(calls(lambda run=run: run.decided(None, start(), 1)) / size)
    assert costs[1] < costs[0] * 1.2


def test_what_was_approved_for_all_items_stays_so_when_one_is_tried_again() -> None:
    run = started(task("fan", forEach=[1], approvalRequired=True, retry={"initialDelay": "1s"}))
    run.hear(Approval(run="r1", node="fan", approved=True, by="ann"))
    run.hear(failed("fan", item=0, retryable=True))
    run.wake()
    assert [(t.id, t.approved) for t in run.outcomes[-1].tasks] == [("r1/fan.0/2", True)]
    run.hear(failed("fan", item=0, attempt=2, kind="approval_required"))
    assert "NodeApprovalRequested fan" not in said(run)


# --- pauses ---------------------------------------------------------------------------------------


def test_a_paused_run_begins_no_handler_and_undoes_nothing_before_it_is_resumed() -> None:
    undo = {"compensate": {"agent": "x", "action": "undo"}}
    run = started(task("a", **undo), task("b", "a"), onFailure=[task("h")])
    run.hear(done("a"))
    run.hear(Pause(run="r1"))
    run.hear(failed("b"))
    assert said(run) == ["NodeFailed b"]
    assert (run.status, run.paused) == (RunStatus.RUNNING, True)
    run.hear(Resume(run="r1"))
    assert said(run) == ["RunResumed", "RunEnding", "NodeDispatched a.compensate"]
    run.hear(done("a.compensate"))
    run.hear(done("h"))
    assert run.status is RunStatus.FAILED


def test_a_paused_run_with_nothing_left_to_begin_ends() -> None:
    run = started(task("a"))
    run.hear(Pause(run="r1"))
    run.hear(done("a"))
    assert run.status is RunStatus.SUCCESS


def test_a_paused_run_that_is_cancelled_undoes_what_it_did() -> None:
    run = started(task("a", compensate={"agent": "x", "action": "undo"}), task("b", "a"))
    run.hear(done("a"))
    run.hear(Pause(run="r1"))
    run.hear(failed("b"))
    run.hear(Cancel(run="r1", reason="enough"))
    assert said(run) == ["RunEnding", "NodeDispatched a.compensate"]
    run.hear(done("a.compensate"))
    assert run.status is RunStatus.CANCELLED


def test_a_timer_that_a_pause_let_pass_comes_again_whatever_the_clocks_say() -> None:
    """The clock that stamps messages may be behind the one that woke the run."""
    run = started(task("a", retry={"initialDelay": "2s", "jitter": 0}))
    run.hear(failed("a", retryable=True))
    run.hear(Pause(run="r1"))
    run.wake()
    assert run.ignored == ["paused"]
    run.now -= 1_000
    run.hear(Resume(run="r1"))
    run.wake()
    assert said(run) == ["NodeDispatched a"]


@pytest.mark.parametrize(("early", "begins"), [(0, ["NodeDispatched a"]), (1, [])])
def test_a_run_that_is_resumed_begins_what_is_due_at_that_moment(
    early: int, begins: list[str]
) -> None:
    run = started(task("a", retry={"initialDelay": "2s", "jitter": 0}))
    run.hear(failed("a", retryable=True))
    run.hear(Pause(run="r1"))
    run.hear(Resume(run="r1"), run.now + 2_000 - early)
    assert said(run) == ["RunResumed", *begins]


def test_a_run_that_came_due_in_a_pause_of_no_length_times_out_all_the_same() -> None:
    run = started({"id": "a", "delay": "10d"}, timeout="1h")
    run.hear(Pause(run="r1"), run.now + 3_600_000)
    run.wake()
    assert run.ignored == ["paused"]
    run.hear(Resume(run="r1"))
    run.wake()
    assert run.status is RunStatus.TIMED_OUT


# --- signs of life --------------------------------------------------------------------------------


def test_progress_that_nobody_asked_for_gives_an_attempt_no_more_time() -> None:
    """Its time-out is from dispatch to result, unless the agent has to say that it begins."""
    for fields in ({}, {"totalTimeout": "1h"}):
        run = started(task("a", timeout="1m", retry={"attempts": 1}, **fields))
        begun = run.now
        run.now += 50_000
        run.hear(Progress(run="r1", node="a", attempt=1, percent=10.0))
        run.wake()
        assert run.now - begun == 60_000
        assert run.status is RunStatus.FAILED


def test_the_time_of_an_attempt_begins_with_the_agent_where_it_has_to_say_so() -> None:
    run = started(task("a", timeout="1m", startTimeout="1h", retry={"attempts": 1}))
    begun = run.now
    run.now += 50_000
    run.hear(Progress(run="r1", node="a", attempt=1))
    run.wake()
    assert run.now - begun == 110_000


def test_results_of_items_are_not_taken_over_for_what_has_none() -> None:
    run = life(task("a"), {"id": "b", "delay": "1s", "dependsOn": ["a"]})
    reuse = (Reused(node="a", item=0, output=Raw(b"1")), Reused(node="b", item=3, output=Raw(b"1")))
    run.hear(start(reuse=reuse))
    assert said(run) == ["RunStarted", "NodeDispatched a"]


# --- runs as steps --------------------------------------------------------------------------------


def test_a_cancel_of_the_parent_that_comes_twice_is_no_second_one() -> None:
    """The log delivers at least once: what the run did is undone all the same."""
    run = life(task("a", compensate={"agent": "x", "action": "undo"}), task("b", "a"))
    run.hear(start(parent=PARENT))
    run.hear(done("a"))
    cancel = Cancel(run="r1", reason="enough", by_parent=True)
    run.hear(cancel)
    run.hear(cancel)
    run.hear(done("b"))
    run.hear(cancel)
    run.hear(done("a.compensate"))
    assert run.ignored == ["run_ending"] * 2
    assert (run.status, run.events[-1].uncompensated) == (RunStatus.CANCELLED, ())


def test_a_run_ended_by_force_ends_its_steps_by_force() -> None:
    run = started({"id": "a", "workflow": "w2"})
    run.hear(Cancel(run="r1", reason="enough"))
    run.hear(Cancel(run="r1", reason="enough", force=True))
    forces = [m.force for o in run.outcomes for m in o.messages if isinstance(m, Cancel)]
    assert forces == [False, True]


def test_a_reference_inside_a_value_can_be_looked_into_as_well() -> None:
    """What is big stays a reference in whatever it is put into: a list, a run's inputs."""
    big = {"n": 7, "x": "y" * 60}
    run = started(
        task("a"),
        task("b", "a", forEach=["{{ nodes.a.output }}"], inputs={"n": "{{ item.n }}"}),
        {
            "id": "c",
            "workflow": "w2",
            "dependsOn": ["a"],
            "inputs": {"all": "{{ nodes.a.output }}"},
        },
        limits=SMALL._replace(inline=60, decision=1_000),
    )
    content = json.dumps(big).encode()
    run.blobs[reference_to(content).digest] = content
    run.hear(
        Result(
            run="r1", node="a", attempt=1, started_at=1, finished_at=2,
            output=Raw(reference_to(content).encode()),
        )
    )  # fmt: skip
    assert [bytes(t.inputs) for t in run.outcomes[-1].tasks] == [b'{"n":7}']
    inputs = run.blobs | {reference_to(c).digest: c for c in run.outcomes[-1].blobs}
    (request,) = run.outcomes[-1].requests
    child = life(
        task("a", inputs={"n": "{{ context.all.n }}", "all": "{{ context.all }}"}),
        task("b", when="context.all.n == 7"),
        task("c", when="context.all.n == 8"),
    )
    child.blobs = inputs
    child.hear(
        Start(
            run="r1", project="default", workflow="w2", version=1,
            trigger=Trigger(id="e", source="s", type="t", data=request.inputs),
        )
    )  # fmt: skip
    assert said(child) == ["RunStarted", "NodeDispatched a", "NodeDispatched b", "NodeSkipped c"]
    assert json.loads(bytes(child.outcomes[-1].tasks[0].inputs)) == {
        "n": 7,
        "all": json.loads(reference_to(content).encode()),
    }


def test_a_big_payload_stays_a_reference_where_a_part_of_it_was_looked_at_before() -> None:
    content = json.dumps({"n": 7, "x": "y" * 60}).encode()
    inputs = {"n": "{{ nodes.a.output.n }}", "all": "{{ nodes.a.output }}"}
    run = started(task("a"), task("b", "a", inputs=inputs), limits=SMALL._replace(inline=150))
    run.blobs[reference_to(content).digest] = content
    run.hear(
        Result(
            run="r1", node="a", attempt=1, started_at=1, finished_at=2,
            output=Raw(reference_to(content).encode()),
        )
    )  # fmt: skip
    assert json.loads(bytes(run.outcomes[-1].tasks[0].inputs)) == {
        "n": 7,
        "all": json.loads(reference_to(content).encode()),
    }


def test_items_of_workflows_fail_by_themselves_where_their_run_cannot_be_asked_for() -> None:
    child = {"id": "c", "workflow": "w2", "forEach": [{"n": 1}, {}], "itemFailure": "ignore"}
    run = started({**child, "inputs": {"n": "{{ item.n }}"}})
    failures = [(e.item, e.failure.kind) for e in run.events if isinstance(e, NodeFailed)]
    assert failures == [(1, "template")]
    assert [r.parent.item for r in run.outcomes[-1].requests] == [0]
    run = life({**child, "itemFailure": "finish"})
    run.hear(start(depth=DEFAULT_LIMITS.depth))
    failures = [(e.item, e.failure.kind) for e in run.events if isinstance(e, NodeFailed)]
    assert failures == [(0, "depth"), (1, "depth"), (None, "items")]
    run = life({**child, "inputs": {"x": "y" * 200}}, limits=DEFAULT_LIMITS._replace(payload=100))
    run.hear(start())
    failures = [(e.item, e.failure.kind) for e in run.events if isinstance(e, NodeFailed)]
    assert failures == [(0, "inputs_too_large"), (1, "inputs_too_large")]


def test_all_attempts_of_a_workflow_together_have_their_time() -> None:
    """Of each item too, from when it was first asked for."""
    fields = {"timeout": "1h", "totalTimeout": "90m", "retry": {"initialDelay": "1m", "jitter": 0}}
    run = started(
        {"id": "c", "workflow": "w2", **fields},
        {"id": "d", "workflow": "w2", "forEach": [1], **fields},
    )
    begun = run.now
    while not run.ended:
        run.wake()
    assert run.now - begun == 90 * 60_000
    texts = [e.failure.message for e in run.events if isinstance(e, NodeFailed) and e.attempt == 2]
    assert texts == ["no result within 90m, over all attempts"] * 2


def test_a_run_that_is_a_step_carries_on_the_trace() -> None:
    run = life({"id": "c", "workflow": "w2"})
    run.hear(start(traceparent="00-t"))
    assert [r.traceparent for r in run.outcomes[-1].requests] == ["00-t"]


@pytest.mark.parametrize("size", [10, 70_000, 200_000], ids=["inline", "by reference", "too large"])
def test_what_an_attempt_cost_is_told_whatever_becomes_of_its_output(size: int) -> None:
    content = Raw(json.dumps("x" * size).encode())
    outputs = [content, Raw(reference_to(bytes(content)).encode())]
    for output in outputs:
        run = started(task("a"), limits=DEFAULT_LIMITS._replace(payload=100_000))
        run.blobs[reference_to(bytes(content)).digest] = bytes(content)
        run.hear(msgspec.structs.replace(done("a"), output=output, costs=(PRICE,)))
        (end,) = [e for e in run.events if isinstance(e, NodeSucceeded | NodeFailed)]
        assert end.costs == (PRICE,)


def test_what_is_charged_after_the_end_carries_on_the_trace() -> None:
    run = life(task("a"))
    run.hear(start(traceparent="00-t"))
    run.hear(Cancel(run="r1", reason="enough", force=True))
    run.hear(msgspec.structs.replace(done("a"), costs=(PRICE,)))
    assert said(run) == ["NodeCharged a"]
    assert [d.traceparent for d in run.decisions] == ["00-t"] * 3
    assert run.state is not None
    assert run.state.head.traceparent == "00-t"


# --- approvals ------------------------------------------------------------------------------------


def test_nobody_answers_what_the_agent_of_an_item_asks() -> None:
    run = started(task("fan", forEach=[1, 2], maxParallel=1), timeout="2d")
    run.hear(failed("fan", item=0, kind="approval_required"))
    asked = run.events[-1]
    assert isinstance(asked, NodeApprovalRequested)
    assert (asked.item, asked.cause, asked.attempt, asked.on_deadline) == (0, "agent", 1, "reject")
    run.wake()
    assert said(run) == ["NodeFailed fan", "NodeDispatched fan"]
    failure = run.decisions[-1].events[0].failure
    assert (failure.kind, failure.message) == (
        "approval_expired",
        "nobody approved it within 1d",
    )
    assert run.decisions[-1].events[0].item == 0


def test_an_agent_that_asks_of_a_run_that_ends_is_not_answered() -> None:
    run = started(task("a"))
    run.hear(Cancel(run="r1", reason="enough"))
    run.hear(failed("a", kind="approval_required"))
    assert said(run) == ["NodeCancelled a", "RunCancelled"]


def test_nobody_is_asked_whether_to_undo() -> None:
    run = started(task("a", compensate={"agent": "x", "action": "undo"}), task("b", "a"))
    run.hear(done("a"))
    run.hear(failed("b"))
    run.hear(failed("a.compensate", kind="approval_required"))
    assert said(run) == ["NodeFailed a.compensate", "RunFailed"]


def test_an_item_goes_on_when_a_person_has_agreed_to_it() -> None:
    run = started(task("fan", forEach=[1, 2], maxParallel=1, inputs={"n": "{{ item }}"}))
    run.hear(failed("fan", item=0, kind="approval_required"))
    run.hear(Approval(run="r1", node="fan", item=0, approved=True, by="ann"))
    (again,) = run.outcomes[-1].tasks
    assert (again.id, again.approved, bytes(again.inputs)) == ("r1/fan.0/2", True, b'{"n":1}')
    run.hear(done("fan", item=0, attempt=2))
    assert sent(run)[-1] == "r1/fan.1/1"


def test_a_person_who_rejects_an_item_lets_the_others_go_on() -> None:
    run = started(task("fan", forEach=[1, 2], maxParallel=1, itemFailure="ignore"))
    run.hear(failed("fan", item=0, kind="approval_required"))
    run.hear(Approval(run="r1", node="fan", item=0, approved=False, by="ann", notes="no"))
    assert said(run) == ["NodeRejected fan", "NodeFailed fan", "NodeDispatched fan"]
    run.hear(done("fan", 2, item=1))
    assert run.status is RunStatus.SUCCESS


def test_who_has_agreed_to_an_item_is_not_asked_about_it_again() -> None:
    """An agent that asks all the same has failed; of another item nobody has said anything."""
    run = started(task("fan", forEach=[1, 2], maxParallel=1, itemFailure="ignore"))
    run.hear(failed("fan", item=0, kind="approval_required"))
    run.hear(Approval(run="r1", node="fan", item=0, approved=True, by="ann"))
    run.hear(failed("fan", item=0, attempt=2, kind="approval_required"))
    assert said(run) == ["NodeFailed fan", "NodeDispatched fan"]
    run.hear(failed("fan", item=1, kind="approval_required"))
    assert said(run) == ["NodeApprovalRequested fan"]


def test_silence_that_agrees_to_a_fan_out_is_no_answer_to_the_agent_of_an_item() -> None:
    silence = {"deadline": "1h", "onDeadline": "approve"}
    run = started(task("fan", forEach=[1, 2], approvalRequired=silence))
    run.wake()
    assert said(run) == ["NodeApproved fan", "NodeFannedOut fan", *["NodeDispatched fan"] * 2]
    assert [t.approved for t in run.outcomes[-1].tasks] == [False, False]
    run.hear(failed("fan", item=0, kind="approval_required"))
    assert said(run) == ["NodeApprovalRequested fan"]
    assert run.events[-1].on_deadline == "reject"
    run.hear(Approval(run="r1", node="fan", item=0, approved=True, by="ann"))
    assert [t.approved for t in run.outcomes[-1].tasks] == [True]


def test_an_item_that_cannot_be_given_what_was_approved_lets_the_others_go_on() -> None:
    fan = task("fan", forEach=[1, 2], maxParallel=1, itemFailure="ignore")
    run = started(fan, limits=DEFAULT_LIMITS._replace(payload=100))
    run.hear(failed("fan", item=0, kind="approval_required"))
    inputs = Raw(b'{"x":"%s"}' % (b"y" * 100))
    run.hear(Approval(run="r1", node="fan", item=0, approved=True, by="ann", inputs=inputs))
    assert said(run) == ["NodeApproved fan", "NodeFailed fan", "NodeDispatched fan"]
    assert run.decisions[-1].events[1].failure.kind == "inputs_too_large"
    assert sent(run)[-1] == "r1/fan.1/1"


# --- undoing takes time ---------------------------------------------------------------------------


def test_an_attempt_to_undo_has_a_time_of_its_own() -> None:
    undo = {"agent": "z", "action": "undo", "timeout": "7s", "retry": {"attempts": 1}}
    run = started(task("a", compensate=undo, timeout="1h", startTimeout="1h"), task("b", "a"))
    run.hear(Progress(run="r1", node="a", attempt=1))
    run.hear(done("a"))
    run.hear(failed("b"))
    begun = run.now
    run.wake()
    assert run.now - begun == 7_000
    failure = run.decisions[-1].events[0].failure
    assert (failure.kind, failure.message) == ("timeout", "no result of attempt 1 within 7s")
    orders = [(o.task, o.agent) for o in run.outcomes[-1].cancellations]
    assert orders == [("r1/a.compensate/1", "z")]
    assert run.events[-1].uncompensated == ("a",)


def test_force_calls_off_what_is_being_undone_and_names_what_is_not() -> None:
    undo = {"compensate": {"agent": "x", "action": "undo"}}
    run = started(task("a", **undo), task("b", "a", **undo), task("c", "b"))
    for node in ("a", "b"):
        run.hear(done(node))
    run.hear(failed("c"))
    forced = run.hear(Cancel(run="r1", reason="enough", force=True))
    assert [(o.task, o.grace_ms) for o in forced.cancellations] == [("r1/b.compensate/1", 0)]
    assert said(run) == ["NodeCancelled b.compensate", "NodeCancelled a.compensate", "RunFailed"]
    assert run.events[-3].attempt == 1
    assert run.events[-1].uncompensated == ("b", "a")


def test_the_signs_of_life_of_an_item_are_its_own() -> None:
    run = started(task("fan", forEach=[1, 2], heartbeatTimeout="10s"))
    for _ in range(2):
        run.hear(Progress(run="r1", node="fan", item=1, attempt=1))
        assert [e.item for e in run.decisions[-1].events] == [1]
    run.now += 9_000
    run.hear(Progress(run="r1", node="fan", item=1, attempt=1))
    run.wake()
    assert run.now == T0 + 19_000
    assert said(run) == ["NodeRetrying fan"]
    retrying = run.decisions[-1].events[0]
    assert (retrying.item, retrying.failure.message) == (1, "no heartbeat for 10s in attempt 1")


@pytest.mark.parametrize(
    ("message", "ignored"),
    [
        (done("nope"), "unknown_node"),
        (done("a", attempt=2), "late_result"),
        (done("later"), "late_result"),
        (done("sleeps"), "late_result"),
        (done("fan"), "late_result"),
        (done("fan", item=7), "late_result"),
        (Progress(run="r1", node="nope", attempt=1), "unknown_node"),
        (Progress(run="r1", node="later", attempt=1), "late_progress"),
        (Progress(run="r1", node="a", attempt=2), "late_progress"),
        (Progress(run="r1", node="child", attempt=1), "late_progress"),
        (Approval(run="r1", node="nope", approved=True, by="ann"), "unknown_node"),
        (Approval(run="r1", node="a", approved=True, by="ann"), "late_approval"),
        (Approval(run="r1", node="asks", approved=True, by="ann", roles=("x",)), "not_allowed"),
        (Approval(run="r1", node="asks", approved=False, by="a", roles=("ops",)), "no_reason"),
        (
            Approval(run="r1", node="asks", approved=False, by="a", roles=("ops",), notes=" "),
            "no_reason",
        ),
        (Resume(run="r1"), "not_paused"),
        (Timer(run="r1", due=T0), "stale_timer"),
        (Timer(run="r1", node="a", due=T0), "stale_timer"),
        (Timer(run="r1", node="nope", due=T0), "stale_timer"),
        (start(), "duplicate_start"),
        (
            Occurrence(project="default", trigger=Trigger(id="o", source="s", type="other")),
            "no_match",
        ),
        (
            Occurrence(
                project="default",
                trigger=Trigger(id="o", source="s", type="go", data=Raw(b'{"k":2}')),
            ),
            "no_match",
        ),
        (Occurrence(project="default", trigger=start().trigger), "no_match"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_does_not_fit_is_ignored_with_a_reason(message: Any, ignored: str) -> None:
    run = started(
        task("a"),
        task("later", "a"),
        {"id": "sleeps", "delay": "1h"},
        {"id": "waits", "waitForEvent": {"event": "go", "match": "event.data.k == context.a"}},
        task("fan", forEach=[1, 2]),
        {"id": "child", "workflow": "w2"},
        task("asks", approvalRequired={"roles": ["ops", "dev"]}),
    )
    assert run.hear(message).ignored == ignored


# --- stopping -------------------------------------------------------------------------------------


def test_a_fan_out_with_nothing_under_way_is_cancelled_too() -> None:
    """Its last item ended in a pause, so none of the others was begun."""
    run = started(task("fan", forEach=[1, 2], maxParallel=1))
    run.hear(Pause(run="r1"))
    run.hear(done("fan", item=0))
    run.hear(Cancel(run="r1", reason="enough"))
    assert said(run) == ["NodeCancelled fan", "RunCancelled"]


def test_the_grace_of_an_agent_is_all_the_time_that_it_has() -> None:
    """Whatever other limits its attempt had."""
    limits = {"heartbeatTimeout": "1s", "totalTimeout": "2s", "startTimeout": "1s"}
    run = started(task("a", **limits), cancelGrace="1m")
    run.hear(Progress(run="r1", node="a", attempt=1))
    run.hear(Cancel(run="r1", reason="enough"))
    begun = run.now
    run.wake()
    assert run.now - begun == 60_000
    assert said(run) == ["NodeCancelled a", "RunCancelled"]


# --- events from outside --------------------------------------------------------------------------


def occurs(number: int, data: bytes) -> Occurrence:
    event = Trigger(id=f"o{number}", source="s", type="go", data=Raw(data))
    return Occurrence(project="default", trigger=event)


def test_an_event_is_offered_to_every_node_that_waits() -> None:
    """Whatever kept those before from taking it."""

    def waits(name: str, match: str | None, *depends_on: str) -> dict[str, Any]:
        wait = {"event": "go"} if match is None else {"event": "go", "match": match}
        return {"id": name, "waitForEvent": wait, "dependsOn": list(depends_on)}

    run = started(
        task("first"),
        waits("later", None, "first"),
        {"id": "other", "waitForEvent": {"event": "stop"}},
        waits("wants", "event.data.k == 2"),
        waits("fails", "event.data.nothing.at == 1"),
        waits("takes", "event.data.k == context.a && event.type == 'go'"),
        waits("too", "event.data.k == 1"),
    )
    run.hear(occurs(1, b'{"k":1}'))
    assert said(run) == ["NodeSucceeded takes"]
    run.hear(occurs(2, b'{"k":1}'))
    assert said(run) == ["NodeSucceeded too"]
    run.hear(done("first"))
    assert run.hear(occurs(2, b'{"k":1}')).ignored == "no_match"
    run.hear(occurs(3, b'{"k":2}'))
    assert said(run) == ["NodeSucceeded later"]


def test_an_event_is_held_against_what_nodes_have_given() -> None:
    match = "event.data.order == nodes.a.output.order"
    run = started(
        task("a"), {"id": "b", "waitForEvent": {"event": "go", "match": match}, "dependsOn": ["a"]}
    )
    run.hear(done("a", {"order": 7}))
    assert run.hear(occurs(1, b'{"order":8}')).ignored == "no_match"
    run.hear(occurs(2, b'{"order":7}'))
    assert run.status is RunStatus.SUCCESS


def test_a_big_event_is_waited_for_by_its_reference() -> None:
    content = b'{"k":1,"x":"%s"}' % (b"y" * 90)
    wait = {"event": "go", "match": "event.data.k == 1"}
    run = started(
        {"id": "a", "waitForEvent": wait},
        task("b", "a", inputs={"k": "{{ nodes.a.output.data.k }}"}),
        limits=SMALL,
    )
    run.blobs[reference_to(content).digest] = content
    run.hear(occurs(1, reference_to(content).encode()))
    assert [bytes(t.inputs) for t in run.outcomes[-1].tasks] == [b'{"k":1}']


@pytest.mark.parametrize("match", [None, "event.data.k == 1"])
def test_an_event_whose_data_is_just_within_the_limit_ends_the_wait(match: str | None) -> None:
    """With all around it, it is over it: the data goes on as the reference as which it came."""
    content = b'{"k":1,"x":"%s"}' % (b"y" * (SMALL.payload - 15))
    assert len(content) == SMALL.payload - 1
    run = started(
        {"id": "a", "waitForEvent": {"event": "go", **({"match": match} if match else {})}},
        task("b", "a", inputs={"k": "{{ nodes.a.output.data.k }}"}),
        task("c", "a", inputs={"event": "{{ nodes.a.output }}"}),
        limits=SMALL._replace(inline=300, decision=1_000),
    )
    reference = reference_to(content)
    run.blobs[reference.digest] = content
    run.hear(occurs(1, reference.encode()))
    inputs = {t.node: json.loads(bytes(t.inputs)) for t in run.outcomes[-1].tasks}
    assert inputs["b"] == {"k": 1}
    assert inputs["c"]["event"]["data"] == json.loads(reference.encode())


def test_an_event_that_no_output_may_be_fails_the_node_that_waits_for_it() -> None:
    run = started({"id": "a", "waitForEvent": {"event": "go"}}, limits=SMALL)
    event = Trigger(id="o", source="s", type="go", subject="x" * SMALL.payload)
    run.hear(Occurrence(project="default", trigger=event))
    assert run.status is RunStatus.FAILED
    assert run.outcomes[-1].blobs == ()
    failure = next(e for e in run.events if isinstance(e, NodeFailed)).failure
    assert (failure.kind, failure.retryable) == ("output_too_large", False)
    assert "2,000 may be (COMMANDCENTER_PAYLOAD_LIMIT)" in failure.message


def test_an_event_is_held_against_itself_not_the_one_that_began_the_run() -> None:
    """Which is not even looked at: nobody has its payload, and nobody asks for it."""
    gone = Raw(reference_to(b"gone").encode())
    run = life({"id": "a", "waitForEvent": {"event": "go", "match": "event.data.k == 1"}})
    began = msgspec.structs.replace(start().trigger, data=gone)
    run.hear(msgspec.structs.replace(start(), trigger=began))
    assert run.hear(occurs(1, b'{"k":2}')).ignored == "no_match"
    run.hear(occurs(2, b'{"k":1}'))
    assert run.status is RunStatus.SUCCESS


def test_the_key_of_an_item_is_not_the_name_of_a_node() -> None:
    run = started(task("fan", forEach=[1, 2], maxParallel=1))
    failure = failed("fan.0")
    for message in (done("fan.0"), failure, Progress(run="r1", node="fan.0", attempt=1)):
        assert run.hear(message).ignored == "unknown_node"
    run.hear(failed("fan", item=0, kind="approval_required"))
    for approved in (True, False):
        answer = Approval(run="r1", node="fan.0", approved=approved, by="ann", notes="so")
        assert run.hear(answer).ignored == "unknown_node"


# --- limits, to the byte --------------------------------------------------------------------------


def by_reference(run: JudgedRun, node: str, value: Any) -> Result:
    """A result whose output is elsewhere."""
    content = json.dumps(value).encode()
    run.blobs[reference_to(content).digest] = content
    return Result(
        run="r1", node=node, attempt=1, started_at=1, finished_at=2,
        output=Raw(reference_to(content).encode()),
    )  # fmt: skip


def test_big_inputs_are_given_as_they_were_approved() -> None:
    """They are shown by reference, and given by the same one."""
    node = task("a", approvalRequired=True, inputs={"x": "y" * 90, "n": "{{ context.a }}"})
    run = started(node, limits=SMALL)
    asked = run.events[-1]
    assert isinstance(asked, NodeApprovalRequested)
    run.hear(Approval(run="r1", node="a", approved=True, by="ann"))
    (given,) = run.outcomes[-1].tasks
    content = b'{"x":"%s","n":1}' % (b"y" * 90)
    assert bytes(given.inputs) == bytes(asked.inputs) == reference_to(content).encode()


def test_a_big_list_is_fanned_out_over_by_its_reference() -> None:
    fan = task("fan", "a", forEach="{{ nodes.a.output }}", inputs={"n": "{{ item.n }}"})
    run = started(task("a"), fan, limits=SMALL)
    run.hear(by_reference(run, "a", [{"n": n, "x": "y" * 30} for n in range(3)]))
    inputs = [bytes(t.inputs) for t in run.outcomes[-1].tasks]
    assert inputs == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


@pytest.mark.parametrize(("items", "kind"), [(6, None), (7, "items")])
def test_a_fan_out_may_have_so_many_items(items: int, kind: str | None) -> None:
    run = started(task("fan", forEach=[1] * items), limits=SMALL)
    failures = [e.failure.kind for e in run.events if isinstance(e, NodeFailed)]
    assert failures == ([] if kind is None else [kind])


@pytest.mark.parametrize(("more", "kind"), [(0, None), (1, "inputs_too_large")])
def test_the_inputs_of_every_kind_of_node_may_have_so_many_bytes(
    more: int, kind: str | None
) -> None:
    limits = DEFAULT_LIMITS._replace(payload=100)
    inputs = {"x": "y" * (92 + more)}
    run = started(
        task("a", inputs=inputs),
        {"id": "b", "workflow": "w2", "inputs": inputs},
        task("c", forEach=["y" * (96 + more)], inputs={}),
        limits=limits,
    )
    failures = [e.failure.kind for e in run.events if isinstance(e, NodeFailed)]
    assert failures == ([] if kind is None else [kind] * 3)


@pytest.mark.parametrize(("more", "status"), [(0, RunStatus.SUCCESS), (1, RunStatus.FAILED)])
def test_the_output_of_a_run_may_have_so_many_bytes(more: int, status: RunStatus) -> None:
    limits = DEFAULT_LIMITS._replace(payload=100)
    run = started(task("a"), output="y" * (98 + more), limits=limits)
    run.hear(done("a"))
    assert run.status is status


def test_what_did_nothing_is_not_undone_and_what_is_lost_is_named() -> None:
    undo = {"compensate": {"agent": "x", "action": "undo", "retry": {"attempts": 1}}}
    run = life(
        task("a", **undo), task("b", **undo), task("fan", forEach=[1, 2], onFailure="continue",
        **undo), task("z", "fan"), task("plain"),
    )  # fmt: skip
    run.hear(start())
    for node in ("a", "b", "plain"):
        run.hear(done(node))
    run.hear(failed("fan", item=0))
    run.hear(failed("fan", item=1))
    run.hear(failed("z"))
    assert said(run)[-1] == "NodeDispatched b.compensate"
    run.hear(done("b.compensate"))
    assert said(run)[-1] == "NodeDispatched a.compensate"
    run.hear(done("a.compensate"))
    assert run.status is RunStatus.FAILED
    run = life(task("a", **undo), task("b", **undo))
    run.hear(start(reuse=(Reused(node="a", output=Raw(b"1")), Reused(node="b", output=Raw(b"1"))),
        compensate=True))  # fmt: skip
    run.hear(failed("b.compensate"))
    run.hear(failed("a.compensate"))
    assert run.events[-1].failure.message == "not undone: b, a"


def test_a_big_list_is_read_again_by_a_worker_that_takes_over() -> None:
    """`JudgedRun` decides everything a second time, from what is written."""
    fan = task("fan", "a", forEach="{{ nodes.a.output }}", inputs={"n": "{{ item.n }}"})
    run = started(task("a"), fan | {"maxParallel": 1}, limits=SMALL)
    run.hear(by_reference(run, "a", [{"n": n, "x": "y" * 30} for n in range(2)]))
    run.hear(done("fan", item=0))
    assert [bytes(t.inputs) for t in run.outcomes[-1].tasks] == [b'{"n":1}']


# --- items, one by one ----------------------------------------------------------------------------


def test_an_item_is_given_the_inputs_that_a_person_edited_for_it() -> None:
    run = started(task("fan", forEach=[1, 2], inputs={"n": "{{ item }}"}))
    run.hear(failed("fan", item=1, kind="approval_required"))
    answer = Approval(run="r1", node="fan", item=1, approved=True, by="ann", inputs=Raw(b'{"n":9}'))
    run.hear(answer)
    run.hear(failed("fan", item=1, attempt=2, retryable=True))
    run.wake()
    tasks = [t for o in run.outcomes for t in o.tasks]
    assert [(t.id, bytes(t.inputs), t.approved) for t in tasks[2:]] == [
        ("r1/fan.1/2", b'{"n":9}', True),
        ("r1/fan.1/3", b'{"n":9}', True),
    ]


def test_an_item_has_its_time_from_when_it_was_begun_itself() -> None:
    fan = task("fan", forEach=[1, 2], maxParallel=1, totalTimeout="1m", timeout="1h")
    run = started(fan)
    run.now += 50_000
    run.hear(done("fan", item=0))
    begun = run.now
    run.wake()
    assert run.now - begun == 60_000
    assert said(run)[0] == "NodeFailed fan"


def test_an_item_whose_inputs_are_too_large_fails_by_itself() -> None:
    twice = {"x": "{{ item }}", "y": "{{ item }}"}
    fan = task("fan", forEach=["y" * 40, "y"], inputs=twice, itemFailure="ignore")
    run = started(fan, limits=DEFAULT_LIMITS._replace(payload=90))
    failures = [(e.item, e.failure.kind) for e in run.events if isinstance(e, NodeFailed)]
    assert failures == [(0, "inputs_too_large")]
    assert sent(run) == ["r1/fan.1/1"]


# --- what others are told -------------------------------------------------------------------------


def test_the_run_above_is_told_why() -> None:
    run = life(task("a"))
    run.hear(start(parent=PARENT))
    run.hear(Cancel(run="r1", reason="not today", force=True))
    (told,) = run.outcomes[-1].messages
    assert isinstance(told, Result)
    assert told.failure is not None
    assert told.failure.message == "run r1 of workflow 'w' ended CANCELLED: not today"
    assert (told.failure.kind, told.failure.retryable) == ("child_failed", False)


def test_a_run_with_too_many_events_fails_for_that() -> None:
    run = started(task("a"), task("b", "a"), limits=DEFAULT_LIMITS._replace(events=3))
    run.hear(done("a"))
    failure = run.decisions[-1].events[2].failure
    assert (failure.kind, failure.message, failure.retryable) == (
        "events",
        "the run has more than 3 events (COMMANDCENTER_RUN_EVENTS_LIMIT)",
        False,
    )
    run.hear(done("b"))
    assert run.status is RunStatus.FAILED


def test_who_undoes_a_node_need_not_report_as_its_agent_must() -> None:
    undo = {"agent": "x", "action": "undo"}
    run = started(
        task("a", compensate=undo, startTimeout="1s", heartbeatTimeout="1s"), task("b", "a")
    )
    run.hear(done("a"))
    run.hear(failed("b"))
    tasks = [(t.node, t.report, t.heartbeat_ms) for o in run.outcomes for t in o.tasks]
    assert tasks == [("a", True, 1_000), ("b", False, 0), ("a.compensate", False, 0)]


def test_what_does_not_fit_of_an_earlier_run_is_left_out_and_the_rest_taken() -> None:
    one, two = Raw(b"1"), Raw(b"2")
    run = life(task("a"), task("b"), task("fan", forEach=[1, 2]), onFailure=[task("h")])
    reuse = (
        Reused(node="nope", output=one),
        Reused(node="h", output=one),
        Reused(node="a", item=0, output=one),
        Reused(node="a", output=one),
        Reused(node="a", output=two),
        Reused(node="fan", item=1, output=one),
        Reused(node="fan", item=1, output=two),
        Reused(node="b", output=two),
    )
    run.hear(start(reuse=reuse))
    taken = [(e.node, e.item, bytes(e.output)) for e in run.events if isinstance(e, NodeReused)]
    assert taken == [("a", None, b"1"), ("fan", 1, b"1"), ("b", None, b"2")]
    assert sent(run) == ["r1/fan.0/1"]


def test_an_item_that_was_approved_in_a_pause_goes_on_with_its_own_next_attempt() -> None:
    run = started(task("fan", forEach=[1, 2], maxParallel=1))
    run.hear(failed("fan", item=0, retryable=True))
    run.wake()
    run.hear(failed("fan", item=0, attempt=2, kind="approval_required"))
    run.hear(Pause(run="r1"))
    run.hear(Approval(run="r1", node="fan", item=0, approved=True, by="ann"))
    assert said(run) == ["NodeApproved fan"]
    run.hear(Resume(run="r1"))
    assert [t.id for t in run.outcomes[-1].tasks] == ["r1/fan.0/3"]

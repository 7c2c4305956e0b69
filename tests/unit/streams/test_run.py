"""The life of a run, message by message: whole values in, whole values out."""

import json
from typing import Any

import pytest
from immutables import Map
from msgspec import UNSET, Raw
from msgspec.structs import replace

from streams.events import (
    Decision,
    Event,
    NodeCancelled,
    NodeDispatched,
    NodeEdited,
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    NodeStopping,
    NodeSucceeded,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)
from streams.lifecycle import RunState, evolve
from streams.messages import Cancel, Message, Result, Start, Task, TaskCancellation, Timer
from streams.payload import reference_to
from streams.plan import Plan, parse
from streams.records import NULL, Failure, NodeStatus, RunStatus, Trigger
from streams.run import Limits, Outcome, decide
from streams.run_state import NodeState, RunHead

T0 = 1_000_000
HOUR = 3_600_000
WEEK = 7 * 24 * HOUR
GRACE = 10_000  # between telling an agent to end and giving it up
TIMEOUT = 600_000  # of an attempt, unless the node says otherwise
PARTITION = 3
TRIGGER = Trigger(
    id="e1",
    source="ci",
    type="repo.push",
    subject="main",
    data=Raw(b'{"repository":{"path":"/src","tags":["a","b"]},"dry":true}'),
)
IDENTITY: dict[str, Any] = {"run": "r1", "project": "default", "workflow": "w", "version": 7}


def node(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "agent": "x", "action": "y", "dependsOn": list(depends_on), **fields}


def plan(*nodes: dict[str, Any], **fields: Any) -> Plan:
    return parse({"name": "w", "nodes": list(nodes), **fields})


def start(trigger: Trigger = TRIGGER) -> Start:
    return Start(**IDENTITY, trigger=trigger, traceparent="00-t")


def done(name: str, output: Any = None, attempt: int = 1) -> Result:
    return Result(
        run="r1",
        node=name,
        attempt=attempt,
        started_at=5,
        finished_at=8,
        worker="h",
        output=Raw(json.dumps(output).encode()),
    )


def failed(name: str, attempt: int = 1, *, retryable: bool = True, why: str = "boom") -> Result:
    failure = Failure(kind="agent_error", message=why, retryable=retryable)
    return Result(
        run="r1",
        node=name,
        attempt=attempt,
        started_at=5,
        finished_at=8,
        worker="h",
        failure=failure,
    )


class Life:
    """A run and all it has heard; every decision is checked to replay to the same state."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: RunState | None = None
        self.decisions: list[Decision] = []
        self.tasks: list[Task] = []

    def hear(self, message: Message, at: int = T0) -> Outcome:
        outcome = decide(self.state, message, at, self.plan, PARTITION)
        if outcome.decision is None:
            assert outcome == Outcome(None, None, ignored=outcome.ignored)
            return outcome
        assert outcome.ignored == ""
        assert evolve(self.state, outcome.decision) == outcome.state
        self.state = outcome.state
        self.decisions.append(outcome.decision)
        self.tasks += outcome.tasks
        return outcome

    def events(self, message: Message, at: int = T0) -> list[Event]:
        """What the message made; also says why where that is nothing."""
        outcome = self.hear(message, at)
        assert outcome.decision is not None, outcome.ignored
        return list(outcome.decision.events)

    def ignored(self, message: Message, at: int = T0) -> str:
        before = self.state
        outcome = self.hear(message, at)
        assert self.state is before
        return outcome.ignored

    @property
    def head(self) -> RunHead:
        assert self.state is not None
        return self.state.head


def begun(*nodes: dict[str, Any], **fields: Any) -> Life:
    life = Life(plan(*nodes, **fields))
    life.hear(start())
    return life


def dispatched(name: str, inputs: bytes = b"{}", attempt: int = 1, at: int = T0) -> NodeDispatched:
    return NodeDispatched(
        node=name,
        attempt=attempt,
        task=f"r1/{name}/{attempt}",
        agent="x",
        action="y",
        inputs=Raw(inputs),
        deadline=at + TIMEOUT,
    )


def succeeded(name: str, output: bytes = b"null", attempt: int = 1) -> NodeSucceeded:
    return NodeSucceeded(
        node=name, attempt=attempt, output=Raw(output), started_at=5, finished_at=8, worker="h"
    )


def node_failed(name: str, why: str = "boom", attempt: int = 1, **failure: Any) -> NodeFailed:
    made = Failure(**{"kind": "agent_error", "message": why, "retryable": False, **failure})
    return NodeFailed(
        node=name, attempt=attempt, failure=made, started_at=5, finished_at=8, worker="h"
    )


def run_failed(name: str, why: str = "boom") -> RunFailed:
    message = f"node {name!r} failed: {why}"
    return RunFailed(
        failure=Failure(kind="node_failed", message=message, retryable=False, node=name)
    )


def skipped(name: str, because_of: str, how: str = "failed") -> NodeSkipped:
    return NodeSkipped(node=name, reason=f"{because_of!r}, which it needs, {how}")


# --- the way of success ---------------------------------------------------------------------------


def test_a_start_makes_the_whole_run() -> None:
    life = Life(plan(node("a", inputs={"n": 1}), node("b", "a")))
    outcome = life.hear(start())
    task = Task(
        id="r1/a/1",
        run="r1",
        project="default",
        workflow="w",
        node="a",
        attempt=1,
        agent="x",
        action="y",
        inputs=Raw(b'{"n":1}'),
        timeout_ms=TIMEOUT,
        reply_partition=PARTITION,
        traceparent="00-t",
    )
    running = NodeState(node="a", status=NodeStatus.RUNNING, attempt=1, wake_at=T0 + TIMEOUT)
    assert outcome == Outcome(
        Decision(
            **IDENTITY,
            seq=0,
            at=T0,
            status=RunStatus.RUNNING,
            previous=RunStatus.PENDING,
            events=(
                RunStarted(trigger=TRIGGER, nodes=2, deadline=T0 + WEEK),
                dispatched("a", b'{"n":1}'),
            ),
            traceparent="00-t",
        ),
        RunState(
            RunHead(
                **IDENTITY,
                status=RunStatus.RUNNING,
                seq=2,
                started_at=T0,
                deadline=T0 + WEEK,
                open=2,
                running=1,
                traceparent="00-t",
            ),
            TRIGGER,
            Map({"a": running}),
        ),
        (task,),
        frozenset({"a"}),
    )


def test_a_chain_runs_to_its_end() -> None:
    life = begun(node("a"), node("b", "a"))
    assert life.events(done("a"), T0 + 10) == [succeeded("a"), dispatched("b", at=T0 + 10)]
    assert life.events(done("b"), T0 + 20) == [succeeded("b"), RunSucceeded()]
    assert life.state == RunState(
        RunHead(
            **IDENTITY,
            status=RunStatus.SUCCESS,
            seq=6,
            started_at=T0,
            deadline=T0 + WEEK,
            open=0,
            finished_at=T0 + 20,
            traceparent="00-t",
        ),
    )
    assert [(d.seq, d.at, d.previous, d.status) for d in life.decisions] == [
        (0, T0, RunStatus.PENDING, RunStatus.RUNNING),
        (2, T0 + 10, RunStatus.RUNNING, RunStatus.RUNNING),
        (4, T0 + 20, RunStatus.RUNNING, RunStatus.SUCCESS),
    ]


def test_branches_run_side_by_side_and_a_join_waits_for_all() -> None:
    life = Life(plan(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"), node("e")))
    assert [e.node for e in life.events(start())[1:]] == ["a", "e"]
    assert life.events(done("a")) == [succeeded("a"), dispatched("b"), dispatched("c")]
    assert life.events(done("c")) == [succeeded("c")]
    assert life.head.open == 3
    assert life.events(done("b")) == [succeeded("b"), dispatched("d")]
    assert life.events(done("d")) == [succeeded("d")]
    assert life.events(done("e")) == [succeeded("e"), RunSucceeded()]


def test_inputs_are_made_of_the_event_and_of_outputs_with_their_types() -> None:
    life = Life(
        plan(
            node("scan", inputs={"path": "{{ context.repository.path }}"}),
            node(
                "notify",
                "scan",
                inputs={
                    "findings": "{{ nodes.scan.output.findings }}",
                    "count": "{{ nodes.scan.output.count }}",
                    "second": "{{ context.repository.tags.1 }}",
                    "dry": "{{ event.data.dry }}",
                    "whole": "{{ nodes.scan.output }}",
                    "subject": "{{ event.subject }}",
                    "time": "{{ event.time }}",
                    "text": "{{ nodes.scan.output.count }} in {{ event.id }} of {{ event.source }}",
                },
            ),
        )
    )
    assert life.events(start())[1] == dispatched("scan", b'{"path":"/src"}')
    output = {"findings": [{"line": 3}], "count": 1}
    made = (
        b'{"findings":[{"line":3}],"count":1,"second":"b","dry":true,'
        b'"whole":{"findings":[{"line":3}],"count":1},"subject":"main","time":null,'
        b'"text":"1 in e1 of ci"}'
    )
    assert life.events(done("scan", output))[1] == dispatched("notify", made)
    assert life.tasks[-1].inputs == Raw(made)


@pytest.mark.parametrize("data", [b"null", b"[]", b'"text"', b"1"])
def test_an_event_may_carry_any_json(data: bytes) -> None:
    life = Life(plan(node("a", inputs={"all": "{{ context }}"})))
    trigger = Trigger(id="e1", source="ci", type="t", data=Raw(data))
    assert life.events(start(trigger))[1] == dispatched("a", b'{"all":' + data + b"}")


# --- failure --------------------------------------------------------------------------------------


def test_a_failure_skips_all_that_need_the_node_and_lets_other_branches_end() -> None:
    life = begun(
        node("a"), node("b", "a"), node("c", "b"), node("j", "c", "other"), node("other")
    )  # fmt: skip
    assert life.events(failed("a", retryable=False)) == [
        node_failed("a"),
        skipped("b", "a"),
        skipped("c", "b", "was skipped"),
        skipped("j", "c", "was skipped"),
    ]
    assert (life.head.status, life.head.open) == (RunStatus.RUNNING, 1)
    assert life.events(done("other")) == [succeeded("other"), run_failed("a")]
    assert life.head.status is RunStatus.FAILED
    assert life.head.failure == run_failed("a").failure


def test_the_first_failure_is_the_runs() -> None:
    life = begun(node("a"), node("b"), node("j", "a", "b"))
    assert life.events(failed("b", retryable=False, why="first")) == [
        node_failed("b", "first"),
        skipped("j", "b"),
    ]
    assert life.events(failed("a", retryable=False, why="second")) == [
        node_failed("a", "second"),
        run_failed("b", "first"),
    ]


def test_a_result_with_neither_output_nor_failure_fails_the_node() -> None:
    life = begun(node("a"))
    empty = Result(run="r1", node="a", attempt=1, started_at=5, finished_at=8, worker="h")
    why = "the agent's result has neither an output nor a failure"
    assert life.events(empty) == [
        node_failed("a", why, kind="invalid_output"),
        run_failed("a", why),
    ]


# --- attempts -------------------------------------------------------------------------------------

RETRY = {"attempts": 3, "initialDelay": "1s", "factor": 2, "jitter": 0}
BOOM = Failure(kind="agent_error", message="boom")


def retrying(name: str, attempt: int, at: int) -> NodeRetrying:
    return NodeRetrying(
        node=name,
        attempt=attempt,
        failure=BOOM,
        retry_at=at,
        started_at=5,
        finished_at=8,
        worker="h",
    )


def test_retries_back_off_until_success() -> None:
    life = begun(node("a", retry=RETRY))
    assert life.events(failed("a"), T0) == [retrying("a", 1, T0 + 1_000)]
    assert life.state is not None
    assert life.state.nodes["a"] == NodeState(
        node="a", status=NodeStatus.RETRYING, attempt=1, wake_at=T0 + 1_000
    )
    again = Timer(run="r1", node="a", due=T0 + 1_000)
    assert life.events(again, T0 + 1_007) == [dispatched("a", attempt=2, at=T0 + 1_007)]
    assert life.events(failed("a", 2), T0 + 1_010) == [retrying("a", 2, T0 + 3_010)]
    again = Timer(run="r1", node="a", due=T0 + 3_010)
    assert life.events(again, T0 + 3_010) == [dispatched("a", attempt=3, at=T0 + 3_010)]
    assert life.events(done("a", attempt=3)) == [succeeded("a", attempt=3), RunSucceeded()]
    assert [t.id for t in life.tasks] == ["r1/a/1", "r1/a/2", "r1/a/3"]


def test_retries_end_when_they_are_exhausted() -> None:
    life = begun(node("a", retry={**RETRY, "attempts": 2}), node("b", "a"))
    life.hear(failed("a"))
    life.hear(Timer(run="r1", node="a", due=T0 + 1_000))
    assert life.events(failed("a", 2, why="again")) == [
        node_failed("a", "again", attempt=2, retryable=True),
        skipped("b", "a"),
        run_failed("a", "again"),
    ]


@pytest.mark.parametrize(
    ("retry", "retryable"), [({"attempts": 1}, True), (RETRY, False)], ids=["last", "final"]
)
def test_what_another_attempt_cannot_cure_is_not_tried_again(
    retry: dict[str, Any], retryable: bool
) -> None:
    life = begun(node("a", retry=retry))
    assert life.events(failed("a", retryable=retryable)) == [
        node_failed("a", retryable=retryable),
        run_failed("a"),
    ]


def test_a_lost_attempt_is_given_up_by_its_timer_and_tried_again() -> None:
    life = begun(node("a", timeout="30s", retry={**RETRY, "attempts": 2}))
    lost = Failure(kind="timeout", message="no result of attempt 1 within 30s")
    timer = Timer(run="r1", node="a", due=T0 + 30_000)
    assert life.events(timer, T0 + 30_005) == [
        NodeRetrying(node="a", attempt=1, failure=lost, retry_at=T0 + 31_005)
    ]
    # The first attempt answers after all: too late.
    assert life.ignored(done("a"), T0 + 30_500) == "late_result"
    life.hear(Timer(run="r1", node="a", due=T0 + 31_005), T0 + 31_010)
    assert life.ignored(done("a"), T0 + 31_500) == "late_result"
    why = "no result of attempt 2 within 30s"
    timer = Timer(run="r1", node="a", due=T0 + 61_010)
    assert life.events(timer, T0 + 61_010) == [
        NodeFailed(node="a", attempt=2, failure=Failure(kind="timeout", message=why)),
        run_failed("a", why),
    ]


# --- the run's own end ----------------------------------------------------------------------------


def stopping(outcome: RunStatus, at: int = T0, **fields: Any) -> RunEnding:
    return RunEnding(stage="stopping", outcome=outcome, deadline=at + GRACE + WEEK, **fields)


def test_the_runs_time_out_stops_what_is_open() -> None:
    life = begun(
        node("a"), node("b"), node("c", "b"), node("d", retry=RETRY), timeout="90s"
    )  # fmt: skip
    life.hear(done("a"))
    life.hear(failed("d"))
    failure = Failure(
        kind="timeout", message="the run took longer than its timeout of 90s", retryable=False
    )
    at = T0 + 90_001
    outcome = life.hear(Timer(run="r1", due=T0 + 90_000), at)
    assert outcome.decision is not None
    assert outcome.decision.events == (
        RunEnding(
            stage="stopping",
            outcome=RunStatus.TIMED_OUT,
            deadline=at + GRACE + 90_000,
            failure=failure,
        ),
        NodeStopping(node="b", attempt=1, deadline=at + GRACE),
        NodeCancelled(node="d", attempt=1),
        NodeCancelled(node="c", attempt=0),
    )
    assert outcome.cancellations == (
        TaskCancellation(task="r1/b/1", agent="x", reason=failure.message, grace_ms=GRACE),
    )
    assert life.events(Timer(run="r1", node="b", due=at + GRACE), at + GRACE) == [
        NodeCancelled(node="b", attempt=1),
        RunTimedOut(failure=failure),
    ]
    head = life.head
    assert (head.status, head.open, head.failure) == (RunStatus.TIMED_OUT, 0, failure)
    assert (head.finished_at, head.seq) == (at + GRACE, 12)


def test_a_cancel_ends_a_run_at_which_nobody_works() -> None:
    life = begun(node("b", "c"), node("c", retry=RETRY))
    life.hear(failed("c"))
    assert life.events(Cancel(run="r1", reason="enough", requested_by="me")) == [
        NodeCancelled(node="c", attempt=1),
        NodeCancelled(node="b"),
        RunCancelled(reason="enough", requested_by="me"),
    ]
    assert (life.head.status, life.head.open) == (RunStatus.CANCELLED, 0)


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (done("a", 1), succeeded("a", b"1")),
        (failed("a", why="I was cancelled"), NodeCancelled(node="a", attempt=1)),
    ],
)
def test_a_cancel_waits_for_who_is_at_work(answer: Message, event: Event) -> None:
    life = begun(node("a"), node("b", "a"))
    outcome = life.hear(Cancel(run="r1", reason="enough"))
    assert outcome.cancellations == (
        TaskCancellation(task="r1/a/1", agent="x", reason="enough", grace_ms=GRACE),
    )
    assert outcome.decision is not None
    assert outcome.decision.events == (
        stopping(RunStatus.CANCELLED, reason="enough"),
        NodeStopping(node="a", attempt=1, deadline=T0 + GRACE),
        NodeCancelled(node="b"),
    )
    assert life.head.status is RunStatus.RUNNING
    assert life.events(answer) == [event, RunCancelled(reason="enough")]


@pytest.mark.parametrize("before", [True, False])
def test_a_forced_cancel_ends_the_run_now(before: bool) -> None:
    life = begun(node("a"))
    if before:
        life.hear(Cancel(run="r1", reason="enough"))
    events = life.events(Cancel(run="r1", reason="enough", force=True))
    assert events[-2:] == [NodeCancelled(node="a", attempt=1), RunCancelled(reason="enough")]


def test_a_second_cancel_without_force_takes_no_grace_away() -> None:
    life = begun(node("a"), node("b", "a"))
    life.hear(Cancel(run="r1", reason="enough"))
    assert life.ignored(Cancel(run="r1", reason="enough"), T0) == "run_ending"
    assert life.events(done("a", 1)) == [succeeded("a", b"1"), RunCancelled(reason="enough")]


def test_a_cancelled_run_keeps_the_failure_that_it_had() -> None:
    life = begun(node("a"), node("b"))
    life.hear(failed("a", retryable=False))
    life.hear(Cancel(run="r1", reason="enough"))
    life.hear(done("b"))
    assert life.head.status is RunStatus.CANCELLED
    assert life.head.failure == run_failed("a").failure


# --- what changes nothing -------------------------------------------------------------------------

UNDER_WAY: list[tuple[str, Message, int]] = [
    ("duplicate_start", start(), T0),
    ("duplicate_start", Start(**{**IDENTITY, "version": 8}, trigger=TRIGGER), T0),
    ("late_result", done("a"), T0),  # it has succeeded
    ("late_result", failed("a"), T0),
    ("late_result", done("b", attempt=2), T0),  # of an attempt never made
    ("late_result", done("b", attempt=0), T0),
    ("late_result", done("r"), T0),  # it waits for its next attempt
    ("late_result", failed("r"), T0),
    ("late_result", done("w"), T0),  # it has not begun
    ("late_result", done("s"), T0),  # it was skipped
    ("unknown_node", done("nope"), T0),
    ("unknown_node", failed(""), T0),
    ("stale_timer", Timer(run="r1", node="a", due=T0 + WEEK), T0 + WEEK),  # it has ended
    ("stale_timer", Timer(run="r1", node="b", due=T0 + TIMEOUT - 1), T0),  # not yet
    ("stale_timer", Timer(run="r1", node="r", due=T0 + 999), T0),
    ("stale_timer", Timer(run="r1", node="w", due=T0 + WEEK), T0 + WEEK),
    ("stale_timer", Timer(run="r1", node="nope", due=T0 + WEEK), T0 + WEEK),
    ("stale_timer", Timer(run="r1", due=T0 + WEEK - 1), T0 + WEEK - 1),
]


@pytest.mark.parametrize(("why", "message", "at"), UNDER_WAY)
def test_a_message_that_does_not_fit_changes_nothing(why: str, message: Message, at: int) -> None:
    life = begun(
        node("a"),
        node("b"),
        node("r", retry=RETRY),
        node("w", "b"),
        node("f"),
        node("s", "f"),
    )
    life.hear(done("a"))
    life.hear(failed("r"))
    life.hear(failed("f", retryable=False))
    assert life.ignored(message, at) == why


@pytest.mark.parametrize(
    "message",
    [
        done("a"),
        Cancel(run="r1", reason="x"),
        Timer(run="r1", due=1),
        Timer(run="r1", due=1, node="a"),
    ],
)
def test_before_the_start_nothing_is_known(message: Message) -> None:
    assert Life(plan(node("a"))).ignored(message) == "unknown_run"


ENDS: list[tuple[RunStatus, Message, int]] = [
    (RunStatus.SUCCESS, done("b"), T0),
    (RunStatus.FAILED, failed("b", retryable=False), T0),
    (RunStatus.CANCELLED, Cancel(run="r1", reason="x", force=True), T0),
]


@pytest.mark.parametrize(("status", "end", "at"), ENDS)
@pytest.mark.parametrize(
    ("message", "why"),
    [
        (start(), "duplicate_start"),
        (done("a"), "run_finished"),
        (done("b"), "run_finished"),
        (failed("b"), "run_finished"),
        (done("nope"), "run_finished"),
        (Cancel(run="r1", reason="again"), "run_finished"),
        (Timer(run="r1", due=T0 + WEEK), "run_finished"),
        (Timer(run="r1", due=T0 + TIMEOUT, node="b"), "run_finished"),
    ],
)
def test_after_the_end_nothing_changes(
    status: RunStatus, end: Message, at: int, message: Message, why: str
) -> None:
    life = begun(node("a"), node("b"))
    life.hear(done("a"))
    life.hear(end, at)
    assert life.head.status is status
    assert life.ignored(message, T0 + 2 * WEEK) == why


# --- timers and clocks ----------------------------------------------------------------------------


def test_a_timer_counts_as_due_though_the_log_s_clock_is_behind_its_own() -> None:
    """The clock of whoever sends timers may be ahead of the one that stamps the inbox."""
    life = begun(node("a", retry=RETRY), timeout="90s")
    life.hear(failed("a"))
    early = T0 + 10
    assert life.events(Timer(run="r1", node="a", due=T0 + 1_000), early) == [
        dispatched("a", attempt=2, at=early)
    ]
    assert [type(e) for e in life.events(Timer(run="r1", due=T0 + 90_000), early)] == [
        RunEnding,
        NodeStopping,
    ]


def test_a_result_that_comes_before_the_timer_counts_however_late_it_is() -> None:
    life = begun(node("a", timeout="1s"))
    assert life.events(done("a"), T0 + HOUR) == [succeeded("a"), RunSucceeded()]


# --- inputs that cannot be made -------------------------------------------------------------------


def undispatched(name: str, kind: str, why: str) -> NodeFailed:
    return NodeFailed(
        node=name, attempt=0, failure=Failure(kind=kind, message=why, retryable=False)
    )


def test_a_template_that_points_nowhere_fails_its_node_with_the_reason() -> None:
    life = begun(
        node("a"),
        node("b", "a", inputs={"x": "{{ nodes.a.output.findings.0.file }}"}),
        node("c", "b"),
        node("d", "a"),
    )
    why = (
        "'{{ nodes.a.output.findings.0.file }}' points nowhere:"
        " nodes.a.output.findings is a list of 0, not '0'"
    )
    assert life.events(done("a", {"findings": []})) == [
        succeeded("a", b'{"findings": []}'),
        undispatched("b", "template", why),
        dispatched("d"),
        skipped("c", "b"),
    ]
    assert [t.node for t in life.tasks] == ["a", "d"]
    assert life.events(done("d")) == [succeeded("d"), run_failed("b", why)]


def test_a_run_whose_first_inputs_cannot_be_made_starts_and_fails_at_once() -> None:
    life = Life(plan(node("a", inputs={"x": "{{ context.nope }}"}), node("b", "a")))
    outcome = life.hear(start())
    why = "'{{ context.nope }}' points nowhere: context has dry, repository, not 'nope'"
    assert outcome.decision is not None
    assert outcome.decision.events == (
        RunStarted(trigger=TRIGGER, nodes=2, deadline=T0 + WEEK),
        undispatched("a", "template", why),
        skipped("b", "a"),
        run_failed("a", why),
    )
    assert outcome.tasks == ()
    assert life.state == RunState(
        RunHead(
            **IDENTITY,
            status=RunStatus.FAILED,
            seq=4,
            started_at=T0,
            deadline=T0 + WEEK,
            open=0,
            failure=run_failed("a", why).failure,
            finished_at=T0,
            traceparent="00-t",
        ),
    )


def big(size: int) -> Trigger:
    """An event with `size` bytes at `context.x`, quotes included."""
    return Trigger(id="e1", source="ci", type="t", data=Raw(b'{"x":"' + b"x" * (size - 2) + b'"}'))


LIMITS = Limits(inline=100, payload=1_000, decision=250)
FRAME = len('{"x":}')


def hear_limited(the_plan: Plan, message: Message) -> Outcome:
    return decide(None, message, T0, the_plan, PARTITION, limits=LIMITS)


def test_inputs_may_be_as_large_as_the_limit_and_no_larger() -> None:
    takes_x = plan(node("a", inputs={"x": "{{ context.x }}"}), node("b"))
    assert hear_limited(takes_x, start(big(1_000 - FRAME))).tasks[0].node == "a"
    decision = hear_limited(takes_x, start(big(1_000 - FRAME + 1))).decision
    assert decision is not None
    assert decision.events[1:] == (
        undispatched(
            "a",
            "inputs_too_large",
            "inputs of 1,001 bytes: a node may have 1,000 (COMMANDCENTER_PAYLOAD_LIMIT)",
        ),
        dispatched("b"),
    )


def test_nobody_is_asked_about_inputs_over_the_limit() -> None:
    asks = plan(node("a", inputs={"x": "{{ context.x }}"}, approvalRequired=True))
    assert hear_limited(asks, start(big(1_000 - FRAME))).decision is not None
    outcome = hear_limited(asks, start(big(1_000 - FRAME + 1)))
    assert outcome.blobs == ()  # what is to be kept is within the limit: else it would be refused
    assert outcome.decision is not None
    assert outcome.decision.events[1] == undispatched(
        "a",
        "inputs_too_large",
        "inputs of 1,001 bytes: a node may have 1,000 (COMMANDCENTER_PAYLOAD_LIMIT)",
    )


def test_big_inputs_travel_by_reference() -> None:
    outcome = hear_limited(plan(node("a", inputs={"x": "{{ context.x }}"})), start(big(200)))
    content = b'{"x":"' + b"x" * 198 + b'"}'
    assert outcome.blobs == (content,)
    assert outcome.tasks[0].inputs == Raw(reference_to(content).encode())
    assert outcome.decision is not None
    assert outcome.decision.events[1] == dispatched("a", reference_to(content).encode())


@pytest.mark.parametrize("size", [100, 101, 1_000, 1_001])
def test_an_output_that_comes_whole_travels_on_by_reference_if_it_is_big(size: int) -> None:
    life = begun(node("a"))
    content = json.dumps("x" * (size - 2)).encode()
    outcome = decide(
        life.state, done("a", "x" * (size - 2)), T0, life.plan, PARTITION, limits=LIMITS
    )
    assert outcome.decision is not None
    event = outcome.decision.events[0]
    if size > LIMITS.payload:
        assert isinstance(event, NodeFailed)
        assert event.failure == Failure(
            kind="output_too_large",
            message="the output is 1,001 bytes; 1,000 may be (COMMANDCENTER_PAYLOAD_LIMIT)",
            retryable=False,
        )
        return
    assert isinstance(event, NodeSucceeded)
    by_reference = size > LIMITS.inline
    assert event.output == Raw(reference_to(content).encode() if by_reference else content)
    assert outcome.blobs == ((content,) if by_reference else ())


def test_what_one_record_of_the_log_cannot_hold_travels_by_reference_too() -> None:
    nodes = [node(f"n{n}", inputs={"x": "{{ context.x }}"}) for n in range(4)]
    outcome = hear_limited(plan(*nodes), start(big(90 - FRAME)))
    assert [len(bytes(task.inputs)) < 95 for task in outcome.tasks] == [True] * 4
    assert len(outcome.blobs) == 2


@pytest.mark.parametrize(
    "output",
    [b'{"x":1e999}', b'{"x":"\xff"}', b'{"x":123456789012345678901234567890}'],
    ids=["number beyond all bounds", "not UTF-8", "number of many digits"],
)
def test_an_output_that_cannot_be_decoded_fails_what_looks_into_it(output: bytes) -> None:
    """Outputs are stored undecoded: whoever finds the fault, a node fails, never the decision."""
    life = begun(node("a"), node("b", "a", inputs={"x": "{{ nodes.a.output.x }}"}))
    result = Result(
        run="r1", node="a", attempt=1, started_at=5, finished_at=8, worker="h", output=Raw(output)
    )
    events = life.events(result)
    kinds = [e.failure.kind for e in events if isinstance(e, NodeFailed)]
    assert kinds in ([], ["template"], ["invalid_output"])
    assert kinds or events == [succeeded("a", output), dispatched("b", output)]


# --- outputs in the state -------------------------------------------------------------------------


def test_the_state_keeps_outputs_for_whoever_refers_to_them_later() -> None:
    life = begun(
        node("a"), node("b", "a"), node("c", "b", inputs={"x": "{{ nodes.a.output.n }}"})
    )  # fmt: skip
    life.hear(done("a", {"n": 1}))
    assert life.state is not None
    assert dict(life.state.nodes) == {
        "a": NodeState(
            node="a", status=NodeStatus.SUCCESS, attempt=1, output=Raw(b'{"n": 1}'), order=2
        ),
        "b": NodeState(
            node="b", status=NodeStatus.RUNNING, attempt=1, wake_at=T0 + TIMEOUT, output=UNSET
        ),
    }
    assert life.events(done("b"))[1] == dispatched("c", b'{"x":1}')


def test_a_decision_changes_no_state_that_it_was_given() -> None:
    life = begun(node("a"), node("b", "a"))
    before = life.state
    assert before is not None
    nodes = dict(before.nodes)
    life.hear(done("a"))
    assert dict(before.nodes) == nodes


def test_replaying_an_illegal_move_is_a_defect_not_a_state() -> None:
    life = begun(node("a"), node("b"))
    first = life.decisions[0]
    assert life.state is not None
    with pytest.raises(AssertionError, match="node a cannot go from RUNNING to PENDING"):
        evolve(life.state, replace(first, events=(NodeEdited(node="a", inputs=NULL),)))
    life.hear(done("a"))
    with pytest.raises(AssertionError, match="node a cannot go from SUCCESS to SUCCESS"):
        evolve(life.state, life.decisions[1])
    ended = replace(first, events=(RunSucceeded(), RunSucceeded()))
    with pytest.raises(AssertionError, match="a run cannot hear of RunSucceeded after its end"):
        evolve(life.state, ended)
    with pytest.raises(AssertionError, match=r"has no run\.started event"):
        evolve(None, replace(first, events=(RunSucceeded(),)))

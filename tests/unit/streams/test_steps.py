"""How nodes begin and end: conditions, failure, time, approvals, items, other runs, events."""

import json
from typing import Any

import pytest
from msgspec import UNSET, Raw
from run_life import T0, Life, task

from streams.events import (
    NodeApprovalRequested,
    NodeApproved,
    NodeFailed,
    NodeFannedOut,
    NodeRetrying,
    NodeSkipped,
    NodeSucceeded,
    RunFailed,
    RunSucceeded,
)
from streams.messages import Cancel, Occurrence, Result, RunRequest, TaskCancellation
from streams.payload import as_reference, reference_to
from streams.records import Failure, NodeStatus, Origin, Parent, Reused, RunStatus, Trigger
from streams.run import Limits

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = {"initialDelay": "1s", "jitter": 0}

# --- conditions -----------------------------------------------------------------------------------


def test_a_node_whose_condition_is_false_is_skipped_and_skips_what_needs_it() -> None:
    life = Life(
        task("scan"),
        task("fix", "scan", when="nodes.scan.output.total > context.limit"),
        task("test", "fix"),
        task("tell", "scan", when="nodes.scan.status == 'SUCCESS' && event.type == 't'"),
    )
    life.start({"limit": 3})
    assert life.done("scan", {"total": 3}) == [
        "node.succeeded scan",
        "node.skipped fix",
        "node.dispatched tell",
        "node.skipped test",
    ]
    assert life.event_of(NodeSkipped).reason == "'fix', which it needs, was skipped"
    assert life.done("tell") == ["node.succeeded tell", "run.succeeded"]


def test_a_condition_that_cannot_be_told_fails_the_node() -> None:
    life = Life(task("a", when="context.nope == 1"))
    assert life.start({}) == ["run.started", "node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: when: there is no 'nope'"


@pytest.mark.parametrize(
    ("run_if", "a", "b", "then"),
    [
        ("allSuccess", "done", "done", "node.dispatched"),
        ("allSuccess", "failed", "done", "node.skipped"),
        ("allSuccess", "skipped", "done", "node.skipped"),
        ("noneFailed", "done", "done", "node.dispatched"),
        ("noneFailed", "skipped", "skipped", "node.dispatched"),
        ("noneFailed", "failed", "skipped", "node.skipped"),
        ("anyFailed", "done", "done", "node.skipped"),
        ("anyFailed", "failed", "done", "node.dispatched"),
        ("anyFailed", "skipped", "done", "node.skipped"),
        ("always", "failed", "skipped", "node.dispatched"),
        ("always", "done", "done", "node.dispatched"),
    ],
)
def test_run_if(run_if: str, a: str, b: str, then: str) -> None:
    life = Life(
        task("a", when="context.a != 'skipped'"),
        task("b", when="context.b != 'skipped'"),
        task("slow"),
        task("c", "a", "b", "slow", runIf=run_if),
    )
    told = life.start({"a": a, "b": b})
    for node, how in (("a", a), ("b", b)):
        if how == "done":
            told += life.done(node)
        elif how == "failed":
            told += life.failed(node)
    # Only what needs success knows its fate before all have ended.
    assert (f"{then} c" in told) is (run_if == "allSuccess" and then == "node.skipped")
    told += life.done("slow")
    assert f"{then} c" in told


# --- failure --------------------------------------------------------------------------------------


def test_a_tolerated_failure_is_no_failure_of_the_run() -> None:
    life = Life(
        task("a", onFailure="continue"),
        task(
            "b", "a", inputs={"was": "{{ nodes.a.status }}", "why": "{{ nodes.a.error.message }}"}
        ),
        output={"a": "{{ nodes.a.output }}"},
    )
    life.start()
    assert life.failed("a") == ["node.failed a", "node.dispatched b"]
    assert life.inputs("b/1") == {"was": "FAILED", "why": "boom"}
    assert life.done("b") == ["node.succeeded b", "run.succeeded"]
    assert life.event_of(RunSucceeded).output == Raw(b'{"a":null}')


@pytest.mark.parametrize("run_if", ["allSuccess", "noneFailed", "anyFailed", "always"])
def test_what_depends_on_a_tolerated_failure_runs_in_spite_or_because_of_it(run_if: str) -> None:
    life = Life(task("a", onFailure="continue"), task("b", "a", runIf=run_if))
    life.start()
    assert life.failed("a") == ["node.failed a", "node.dispatched b"]
    assert life.done("b")[-1] == "run.succeeded"


def test_a_failure_is_seen_by_the_nodes_that_name_it_alone() -> None:
    life = Life(task("a"), task("b", "a"), task("c", "b", runIf="anyFailed"))
    life.start()
    assert life.failed("a") == ["node.failed a", "node.skipped b", "node.skipped c", "run.failed"]


def test_failures_that_are_not_to_be_retried() -> None:
    life = Life(task("a", retry={**NOW, "notOn": ["ValueError", "timeout"]}), task("b", retry=NOW))
    life.start()
    assert life.failed("a", retryable=True, error="ValueError") == ["node.failed a"]
    assert life.failed("b", retryable=True, error="ValueError") == ["node.retrying b"]


def test_the_retry_budget_is_of_the_whole_run() -> None:
    life = Life(*(task(name, retry={**NOW, "attempts": 10}) for name in "abc"), retryBudget=2)
    life.start()
    assert life.failed("a", retryable=True) == ["node.retrying a"]
    assert life.failed("b", retryable=True) == ["node.retrying b"]
    assert life.failed("c", retryable=True) == ["node.failed c"]
    why = life.event_of(NodeFailed).failure.message
    assert why == "boom (the run's retry budget of 2 is used up)"


# --- time -----------------------------------------------------------------------------------------


def test_nobody_begins_the_task() -> None:
    life = Life(task("a", startTimeout="30s", timeout="1h"))
    life.start()
    assert life.tasks["r1/a/1"].report
    assert life.later(29_999) == []
    assert life.later(1) == ["node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: no agent began it within 30s"


def test_the_attempt_has_its_time_from_when_the_agent_began() -> None:
    life = Life(task("a", startTimeout="30s", timeout="1m", retry={"attempts": 1}))
    life.start()
    life.later(20_000)
    assert life.progress("a", worker="h") == ["node.started a"]
    assert life.later(59_999) == []
    assert life.later(1) == ["node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: no result of attempt 1 within 1m"


def test_a_missed_heartbeat_is_a_lost_attempt() -> None:
    life = Life(task("a", heartbeatTimeout="10s", timeout="1h", retry=NOW))
    life.start()
    assert life.tasks["r1/a/1"].heartbeat_ms == 10_000
    assert life.progress("a") == ["node.started a"]
    life.later(9_000)
    assert life.progress("a", percent=50.0, message="half") == ["node.progressed a"]
    assert life.later(9_999) == []
    assert life.later(1) == ["node.retrying a"]
    assert life.event_of(NodeRetrying).failure == Failure(
        kind="heartbeat", message="no heartbeat for 10s in attempt 1"
    )
    assert life.last.cancellations == (
        TaskCancellation(task="r1/a/1", agent="x", reason="no heartbeat for 10s in attempt 1"),
    )
    assert life.progress("a") == []
    assert life.ignored == "late_progress"
    assert life.later(1_000) == ["node.dispatched a"]


def test_the_first_sign_of_life_may_say_how_far_the_work_is() -> None:
    life = Life(task("a"))
    life.start()
    assert life.progress("a", percent=10.0) == ["node.started a", "node.progressed a"]


def test_all_attempts_together_have_a_limit() -> None:
    life = Life(
        task("a", totalTimeout="1m", timeout="40s", retry={**NOW, "factor": 1, "attempts": 9})
    )
    life.start()
    assert life.later(40_000) == ["node.retrying a"]
    assert life.later(19_999) == ["node.dispatched a"]
    assert life.later(1) == ["node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: no result within 1m, over all attempts"


@pytest.mark.parametrize("item", [None, 0])
def test_waiting_for_people_does_not_count_to_the_time_of_all_attempts(item: int | None) -> None:
    items = {} if item is None else {"forEach": [1]}
    life = Life(task("a", totalTimeout="1m", timeout="10m", retry=NOW, **items))
    life.start()
    life.later(50_000)
    life.failed("a", item=item, kind="approval_required")
    assert life.event_of(NodeApprovalRequested).time_left == 10_000
    assert life.later(23 * HOUR) == []
    life.approve("a", item=item)
    name = "a" if item is None else "a.0"
    assert life.failed("a", item=item, retryable=True) == [f"node.retrying {name}"]
    assert life.later(9_999) == [f"node.dispatched {name}"]
    assert life.later(1)[0] == f"node.failed {name}"
    assert "no result within 1m, over all attempts" in life.failure


def test_no_attempt_is_waited_for_that_would_come_too_late() -> None:
    life = Life(task("a", totalTimeout="1m", retry={"initialDelay": "1m", "jitter": 0}))
    life.start()
    assert life.failed("a", retryable=True)[0] == "node.failed a"
    assert "no time is left" in life.failure


@pytest.mark.parametrize("item", [None, 0])
def test_no_attempt_is_begun_after_a_pause_that_outlasted_the_time_for_all(
    item: int | None,
) -> None:
    items = {} if item is None else {"forEach": [1]}
    life = Life(task("a", totalTimeout="1m", retry=NOW, **items))
    life.start()
    life.failed("a", item=item, retryable=True)
    life.pause()
    life.later(60_000)
    assert life.resume()[1] == f"node.failed {'a' if item is None else 'a.0'}"
    assert "no result within 1m, over all attempts" in life.failure
    assert len(life.tasks) == 1


def test_a_list_cannot_be_edited_where_results_of_its_items_are_taken_over() -> None:
    life = Life(task("a", forEach="{{ context }}", approvalRequired=True))
    kept = Reused(node="a", item=1, output=Raw(b"2"))
    life.start([1, 2], reuse=(kept,), origin=Origin(run="r0", kind="retry"))
    assert life.approve("a", inputs=Raw(b"[3,4]")) == []
    assert life.ignored == "items_taken_over"
    assert life.approve("a") == ["node.approved a", "node.fannedOut a", "node.dispatched a.0"]


def test_a_sleep_is_nothing_but_a_timer() -> None:
    life = Life({"id": "a", "delay": "3d"}, task("b", "a"), timeout="10d")
    assert life.start() == ["run.started", "node.sleeping a"]
    assert life.later(3 * DAY - 1) == []
    assert life.later(1) == ["node.succeeded a", "node.dispatched b"]


@pytest.mark.parametrize(
    ("until", "wait"),
    [
        ("2023-11-14T22:14:20Z", 60_000),
        ("2023-11-14T23:14:20+01:00", 60_000),
        ("2000-01-01T00:00:00Z", 0),
    ],
)
def test_a_sleep_until_a_time(until: str, wait: int) -> None:
    life = Life({"id": "a", "delayUntil": "{{ context.at }}"})
    life.start({"at": until})
    assert life.later(wait - 1) == []
    assert life.later(1) == ["node.succeeded a", "run.succeeded"]


@pytest.mark.parametrize(
    ("until", "why"),
    [
        ("tomorrow", "'tomorrow' is not a time: write 2026-12-31T23:59:00Z"),
        (
            "2026-12-31T23:59:00",
            "'2026-12-31T23:59:00' has no time zone: write 2026-12-31T23:59:00Z",
        ),
        (5, "5 is not a time: write 2026-12-31T23:59:00Z"),
    ],
)
def test_a_sleep_until_what_is_no_time(until: Any, why: str) -> None:
    life = Life({"id": "a", "delayUntil": "{{ context.at }}"})
    assert life.start({"at": until}) == ["run.started", "node.failed a", "run.failed"]
    assert life.failure == f"node 'a' failed: delayUntil: {why}"


# --- approvals ------------------------------------------------------------------------------------


def asking(**approval: Any) -> Life:
    return Life(
        task("a", inputs={"n": "{{ context.n }}"}, approvalRequired=approval or True), timeout="9d"
    )


def test_inputs_that_are_sent_back_as_they_were_shown_are_no_edit() -> None:
    life = asking(count=2)
    life.start({"n": {"a": 1, "b": 1}})
    shown = Raw(b'{"n": {"b": 1, "a": 1}}')
    assert life.approve("a", inputs=shown) == ["node.approved a"]
    assert life.approve("a", inputs=shown) == []
    assert life.ignored == "approved_already"
    assert life.approve("a", "bob", inputs=shown) == ["node.approved a", "node.dispatched a"]
    assert life.event_of(NodeApproved).inputs is UNSET

    life = asking(count=2)
    life.start({"n": 1})
    life.approve("a", inputs=Raw(b'{"n":true}'))
    assert life.approve("a", "bob") == ["node.approved a", "node.dispatched a"]
    assert life.inputs("a/1") == {"n": True}


def test_an_approved_node_is_done_with_what_was_shown() -> None:
    life = asking()
    assert life.start({"n": 1}) == ["run.started", "node.approvalRequested a"]
    assert life.status is RunStatus.WAITING_APPROVAL
    asked = life.event_of(NodeApprovalRequested)
    assert (bytes(asked.inputs), asked.deadline, asked.needed) == (b'{"n":1}', T0 + DAY, 1)
    assert life.approve("a", notes="fine") == ["node.approved a", "node.dispatched a"]
    assert life.status is RunStatus.RUNNING
    assert life.tasks["r1/a/1"].approved
    assert life.inputs("a/1") == {"n": 1}
    assert life.done("a") == ["node.succeeded a", "run.succeeded"]


def test_whoever_approves_may_edit_the_inputs_which_all_attempts_get() -> None:
    life = asking()
    life.start({"n": 1})
    life.approve("a", inputs=Raw(b'{"n":2}'))
    assert life.event_of(NodeApproved).inputs == Raw(b'{"n":2}')
    life.failed("a", retryable=True)
    life.later(1_000)
    assert (life.inputs("a/1"), life.inputs("a/2")) == ({"n": 2}, {"n": 2})
    assert life.tasks["r1/a/2"].approved


def test_a_rejection_needs_a_reason_and_fails_the_node() -> None:
    life = asking()
    life.start({"n": 1})
    assert life.reject("a", notes=" ") == []
    assert life.ignored == "no_reason"
    assert life.reject("a", notes="too risky") == ["node.rejected a", "node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: rejected by ann: too risky"


def test_two_of_those_with_a_role_have_to_agree() -> None:
    life = asking(roles=["sre", "lead"], count=2)
    life.start({"n": 1})
    assert life.approve("a", "ann", roles=("dev",)) == []
    assert life.ignored == "not_allowed"
    assert life.approve("a", "ann", roles=("dev", "sre")) == ["node.approved a"]
    assert life.approve("a", "ann", roles=("sre",)) == []
    assert life.ignored == "approved_already"
    assert life.approve("a", "bob", roles=("lead",)) == ["node.approved a", "node.dispatched a"]
    assert life.approve("a", "eve", roles=("lead",)) == []
    assert life.ignored == "late_approval"


def test_edited_inputs_need_all_agreements_anew() -> None:
    life = asking(count=2)
    life.start({"n": 1})
    life.approve("a", "ann")
    assert life.approve("a", "bob", inputs=Raw(b'{"n":2}')) == ["node.approved a"]
    assert life.event_of(NodeApproved).missing == 1
    assert life.approve("a", "ann") == ["node.approved a", "node.dispatched a"]
    assert life.inputs("a/1") == {"n": 2}


@pytest.mark.parametrize(
    ("approval", "after", "then"),
    [
        ({}, DAY, ["node.failed a", "run.failed"]),
        ({"deadline": "1h"}, HOUR, ["node.failed a", "run.failed"]),
        (
            {"deadline": "1h", "onDeadline": "approve"},
            HOUR,
            ["node.approved a", "node.dispatched a"],
        ),
    ],
)
def test_nobody_answers(approval: dict[str, Any], after: int, then: list[str]) -> None:
    life = asking(**approval)
    life.start({"n": 1})
    assert life.later(after - 1) == []
    assert life.later(1) == then


def test_silence_lets_a_node_go_on_but_is_no_answer_to_its_agent() -> None:
    life = asking(count=2, deadline="1h", onDeadline="approve")
    life.start({"n": 1})
    life.approve("a", "ann")
    assert life.later(HOUR) == ["node.approved a", "node.dispatched a"]
    assert not life.tasks["r1/a/1"].approved
    assert life.failed("a", kind="approval_required") == ["node.approvalRequested a"]
    assert life.event_of(NodeApprovalRequested).on_deadline == "reject"
    assert life.later(HOUR) == ["node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: nobody approved it within 1h"


def test_what_nobody_answers_ends_by_its_own_deadline_not_by_the_time_out_of_the_run() -> None:
    life = Life(task("a", approvalRequired=True))
    life.start()
    assert life.later(DAY) == ["node.failed a", "run.failed"]
    assert life.failure == "node 'a' failed: nobody approved it within 1d"


def test_an_agent_may_ask_for_approval_by_itself() -> None:
    life = Life(task("a", retry={"attempts": 1}))
    life.start()
    assert not life.tasks["r1/a/1"].approved
    assert life.failed("a", kind="approval_required") == ["node.approvalRequested a"]
    assert life.event_of(NodeApprovalRequested).cause == "agent"
    assert life.status is RunStatus.WAITING_APPROVAL
    assert life.approve("a") == ["node.approved a", "node.dispatched a"]
    assert life.tasks["r1/a/2"].approved
    # Whoever is approved and still refuses has failed.
    assert life.failed("a", kind="approval_required") == ["node.failed a", "run.failed"]


@pytest.mark.parametrize("item", [None, 0])
def test_a_question_uses_up_no_attempt(item: int | None) -> None:
    retry = {**NOW, "factor": 10, "attempts": 3}
    life = Life(task("a", retry=retry, **({} if item is None else {"forEach": [1]})))
    life.start()
    life.failed("a", item=item, kind="approval_required")
    life.approve("a", item=item)
    name = "a" if item is None else "a.0"
    assert life.failed("a", item=item, retryable=True) == [f"node.retrying {name}"]
    assert life.later(999) == []
    assert life.later(1) == [f"node.dispatched {name}"]  # the first delay, not the second
    assert f"r1/{name}/3" in life.tasks
    assert life.failed("a", item=item, retryable=True) == [f"node.retrying {name}"]
    assert life.later(10_000) == [f"node.dispatched {name}"]
    assert life.failed("a", item=item, retryable=True)[0] == f"node.failed {name}"


def test_while_others_are_at_work_the_run_is_running() -> None:
    life = Life(task("a", approvalRequired=True), task("b"))
    life.start()
    assert life.status is RunStatus.RUNNING
    life.done("b")
    assert life.status is RunStatus.WAITING_APPROVAL


# --- items ----------------------------------------------------------------------------------------


def each(**fields: Any) -> dict[str, Any]:
    inputs = {"file": "{{ item.name }}", "n": "{{ index }}", "repo": "{{ context.repo }}"}
    return task("scan", forEach="{{ context.files }}", inputs=inputs, **fields)


def files(count: int) -> dict[str, Any]:
    return {"repo": "shop", "files": [{"name": f"f{n}"} for n in range(count)]}


def test_items_are_done_a_few_at_a_time_and_their_outputs_keep_their_order() -> None:
    life = Life(
        each(maxParallel=2),
        task(
            "sum",
            "scan",
            inputs={"all": "{{ nodes.scan.output }}", "second": "{{ nodes.scan.output.1.hits }}"},
        ),
    )
    assert life.start(files(3)) == [
        "run.started",
        "node.fannedOut scan",
        "node.dispatched scan.0",
        "node.dispatched scan.1",
    ]
    assert life.inputs("scan.1/1") == {"file": "f1", "n": 1, "repo": "shop"}
    assert life.done("scan", {"hits": 1}, item=1) == [
        "node.succeeded scan.1",
        "node.dispatched scan.2",
    ]
    life.done("scan", {"hits": 2}, item=2)
    assert life.done("scan", {"hits": 0}, item=0) == [
        "node.succeeded scan.0",
        "node.succeeded scan",
        "node.dispatched sum",
    ]
    assert life.inputs("sum/1") == {
        "all": [{"hits": 0}, {"hits": 1}, {"hits": 2}],
        "second": 1,
    }


def test_items_are_retried_one_by_one() -> None:
    life = Life(each(retry=NOW))
    life.start(files(2))
    assert life.failed("scan", item=0, retryable=True) == ["node.retrying scan.0"]
    assert life.done("scan", item=1) == ["node.succeeded scan.1"]
    assert life.later(1_000) == ["node.dispatched scan.0"]
    assert "r1/scan.0/2" in life.tasks
    assert life.done("scan", item=0)[-1] == "run.succeeded"


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("finish", ["node.failed scan.0", "node.dispatched scan.1"]),
        ("stop", ["node.failed scan.0", "node.failed scan", "run.failed"]),
        ("ignore", ["node.failed scan.0", "node.dispatched scan.1"]),
    ],
)
def test_what_a_failed_item_means(policy: str, told: list[str]) -> None:
    life = Life(each(maxParallel=1, itemFailure=policy), output={"all": "{{ nodes.scan.output }}"})
    life.start(files(2))
    assert life.failed("scan", item=0) == told
    if policy == "finish":
        assert life.done("scan", item=1) == [
            "node.succeeded scan.1",
            "node.failed scan",
            "run.failed",
        ]
        assert life.failure == "node 'scan' failed: 1 of 2 items failed; the first: boom"
    elif policy == "ignore":
        assert life.done("scan", 5, item=1)[-1] == "run.succeeded"
        assert life.event_of(RunSucceeded).output == Raw(b'{"all":[null,5]}')


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": 1}, "forEach: an object is not a list"),
        (None, "forEach: null is not a list"),
        (True, "forEach: true is not a list"),
        (False, "forEach: false is not a list"),
        (3, "forEach: a number is not a list"),
        (0.5, "forEach: a number is not a list"),
        ("a,b", "forEach: a text is not a list"),
        ([0] * 11, "forEach: 11 items, 10 may be (COMMANDCENTER_FAN_OUT_LIMIT)"),
    ],
)
def test_what_cannot_be_fanned_out(value: Any, why: str) -> None:
    life = Life(task("a", forEach="{{ context.x }}"), limits=Limits(items=10))
    assert life.start({"x": value}) == ["run.started", "node.failed a", "run.failed"]
    assert life.failure == f"node 'a' failed: {why}"


def test_no_items_are_done_at_once() -> None:
    life = Life(task("a", forEach=[]), output="{{ nodes.a.output }}")
    told = life.start()
    assert told == ["run.started", "node.fannedOut a", "node.succeeded a", "run.succeeded"]
    assert life.event_of(RunSucceeded).output == Raw(b"[]")


def test_items_whose_inputs_cannot_be_made_fail_and_let_the_others_be() -> None:
    life = Life(each(maxParallel=1))
    told = life.start({"repo": "x", "files": [{}, {"name": "b"}, {}]})
    assert told[1:] == ["node.fannedOut scan", "node.failed scan.0", "node.dispatched scan.1"]
    assert life.done("scan", item=1) == [
        "node.succeeded scan.1",
        "node.failed scan.2",
        "node.failed scan",
        "run.failed",
    ]


def test_a_big_list_travels_by_reference() -> None:
    life = Life(each(maxParallel=1), limits=Limits(inline=200))
    life.start(files(20))
    fanned = life.event_of(NodeFannedOut)
    assert as_reference(fanned.items) == reference_to(
        json.dumps(files(20)["files"], separators=(",", ":")).encode()
    )
    assert life.inputs("scan.0/1")["file"] == "f0"
    life.done("scan", item=0)
    assert life.inputs("scan.1/1")["file"] == "f1"


def test_a_step_of_ten_thousand_items_costs_what_one_of_three_does() -> None:
    def written(count: int) -> int:
        life = Life(each(), limits=Limits(inline=10**7))
        life.start(files(count))
        life.done("scan", item=1)
        return len(life.last.touched) + len(life.last.listed)

    assert written(10_000) == written(30)


# --- other workflows ------------------------------------------------------------------------------


def calling(**fields: Any) -> dict[str, Any]:
    return {"id": "sub", "workflow": "child", "inputs": {"n": "{{ context.n }}"}, **fields}


def test_another_workflow_is_a_step() -> None:
    life = Life(calling(), task("b", "sub", inputs={"x": "{{ nodes.sub.output.sum }}"}))
    assert life.start({"n": 1}, depth=2) == ["run.started", "node.runRequested sub"]
    (request,) = life.last.requests
    assert request == RunRequest(
        run=request.run,
        project="default",
        workflow="child",
        parent=Parent(run="r1", node="sub", attempt=1),
        depth=3,
        inputs=Raw(b'{"n":1}'),
    )
    assert life.done("sub", {"sum": 3}) == ["node.succeeded sub", "node.dispatched b"]
    assert life.inputs("b/1") == {"x": 3}


def test_the_end_of_a_step_s_run_is_the_step_s_result() -> None:
    parent = Parent(run="r0", node="sub", item=3, attempt=2)
    life = Life(task("a"), output={"sum": "{{ nodes.a.output }}"})
    life.start(parent=parent)
    life.done("a", 3)
    (told,) = life.last.messages
    assert isinstance(told, Result)
    assert (told.run, told.node, told.item, told.attempt) == ("r0", "sub", 3, 2)
    assert told.output == Raw(b'{"sum":3}')
    life = Life(task("a"))
    life.start(parent=parent)
    life.failed("a", retryable=True)
    life.later(60_000)
    while life.status is RunStatus.RUNNING:
        life.failed("a", retryable=True)
        life.later(60_000)
    (told,) = next(outcome.messages for outcome in life.outcomes if outcome.messages)
    assert isinstance(told, Result)
    assert told.failure == Failure(
        kind="child_failed",
        message="run r1 of workflow 'w' ended FAILED: node 'a' failed: boom",
    )


@pytest.mark.parametrize(
    ("kind", "retryable", "again"),
    [("agent_error", False, False), ("timeout", False, True), ("child_failed", False, False)],
)
def test_what_another_run_cannot_cure_is_not_tried_at_every_level(
    kind: str, retryable: bool, again: bool
) -> None:
    life = Life(task("a"))
    life.start(parent=Parent(run="r0", node="sub", attempt=1))
    life.failed("a", kind=kind, retryable=retryable)
    (told,) = life.last.messages
    assert isinstance(told, Result)
    assert told.failure is not None
    assert told.failure.retryable is again


def test_a_failure_deep_below_is_told_once_not_at_every_level() -> None:
    below = "run r9 of workflow 'deep' ended FAILED: node 'x' failed: boom"
    life = Life(calling())
    life.start({"n": 1}, parent=Parent(run="r0", node="sub", attempt=1))
    life.failed("sub", below, kind="child_failed")
    assert life.failure == f"node 'sub' failed: {below}"
    (told,) = life.last.messages
    assert isinstance(told, Result)
    assert told.failure is not None
    assert told.failure.message == below


def test_a_workflow_that_starts_itself_ends_with_one_run_at_each_depth() -> None:
    life = Life(calling(retry=NOW))
    life.start({"n": 1}, depth=8, parent=Parent(run="r0", node="sub", attempt=1))
    (told,) = life.last.messages
    assert isinstance(told, Result)
    assert told.failure is not None
    assert not told.failure.retryable


def test_a_retried_step_is_a_new_run() -> None:
    life = Life(calling(retry=NOW))
    life.start({"n": 1})
    first = life.last.requests[0].run
    assert life.failed("sub", kind="child_failed", retryable=True) == ["node.retrying sub"]
    life.later(1_000)
    assert life.last.requests[0].run != first


def test_a_cancel_reaches_the_runs_below() -> None:
    life = Life(calling())
    life.start({"n": 1})
    child = life.last.requests[0].run
    life.cancel(requested_by="me")
    assert life.last.messages == (
        Cancel(run=child, reason="enough", requested_by="run r1", by_parent=True),
    )


def test_runs_start_runs_only_so_deep() -> None:
    life = Life(calling())
    assert life.start({"n": 1}, depth=8) == ["run.started", "node.failed sub", "run.failed"]
    too_deep = "runs start runs more than 8 deep (COMMANDCENTER_RUN_DEPTH_LIMIT)"
    assert life.failure == f"node 'sub' failed: {too_deep}"


# --- events ---------------------------------------------------------------------------------------


def waiting(name: str, *depends_on: str, **wait: Any) -> dict[str, Any]:
    return {
        "id": name,
        "dependsOn": list(depends_on),
        "waitForEvent": {"event": "payment.*", **wait},
    }


def test_the_event_that_started_the_run_does_not_end_its_wait_when_it_comes_again() -> None:
    life = Life(waiting("pay"))
    life.start({"order": 7})
    assert life.state is not None
    began = life.state.trigger
    assert began is not None
    again = Trigger(id=began.id, source=began.source, type="payment.expected", data=began.data)
    assert life.hear(Occurrence(project="default", trigger=again)) == []
    assert life.event("payment.received") == ["node.succeeded pay", "run.succeeded"]


def test_the_event_that_is_meant_ends_the_wait() -> None:
    life = Life(
        waiting("pay", match="event.data.order == context.order"),
        task("ship", "pay", inputs={"by": "{{ nodes.pay.output.data.by }}"}),
    )
    assert life.start({"order": 7}) == ["run.started", "node.awaiting pay"]
    assert life.event("payment.received", {"order": 8}) == []
    assert life.event("payment.received", {}) == []
    assert life.event("order.received", {"order": 7}) == []
    assert life.event("payment.received", {"order": 7, "by": "card"}) == [
        "node.succeeded pay",
        "node.dispatched ship",
    ]
    assert life.inputs("ship/1") == {"by": "card"}


def test_an_event_that_comes_twice_ends_one_wait() -> None:
    life = Life(waiting("first"), waiting("second", "first"))
    life.start()
    assert life.event("payment.a")[0] == "node.succeeded first"
    assert life.event("payment.a") == []
    assert life.event("payment.a", id_="e3")[0] == "node.succeeded second"


def test_no_event_comes() -> None:
    life = Life(waiting("pay", timeout="1h"))
    life.start()
    assert life.later(HOUR) == ["node.failed pay", "run.failed"]
    assert life.failure == "node 'pay' failed: no payment.* came within 1h"


# --- what agents cannot say -----------------------------------------------------------------------


@pytest.mark.parametrize("node", [{"id": "a", "delay": "1h"}, waiting("a")])
def test_nobody_answers_for_a_sleep_or_a_wait(node: dict[str, Any]) -> None:
    life = Life(node)
    life.start()
    assert life.done("a") == []
    assert life.ignored == "late_result"


def test_nobody_answers_for_a_node_as_a_whole_whose_items_are_under_way() -> None:
    life = Life(each())
    life.start(files(2))
    assert life.done("scan") == []
    assert life.ignored == "late_result"


def test_a_node_keeps_its_first_end() -> None:
    life = Life(task("a"), task("b"))
    life.start()
    life.done("a", 1)
    assert life.failed("a") == []
    assert life.node("a") is not None
    assert life.event_of(NodeSucceeded).output == Raw(b"1")
    state = life.node("a")
    assert state is not None
    assert state.status is NodeStatus.SUCCESS
    life.failed("b")
    assert life.event_of(RunFailed).failure.node == "b"

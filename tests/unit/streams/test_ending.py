"""How a run ends: undoing, handling a failure, stopping; and how it is paused and repeated."""

import json
from typing import Any

import pytest
from msgspec import Raw
from run_life import T0, Life, task

from streams.events import (
    NodeReused,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunResumed,
    RunSucceeded,
    RunTimedOut,
)
from streams.messages import Result, TaskCancellation
from streams.records import Edit, Failure, Origin, Parent, Reused, RunStatus
from streams.run import Limits

SECOND = 1_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR


def booking(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A step with something that undoes it."""
    undo = {
        "agent": "x",
        "action": "undo",
        "inputs": {"id": f"{{{{ nodes.{name}.output.id }}}}", "why": "{{ failure.message }}"},
        "retry": {"attempts": 2, "initialDelay": "1s", "jitter": 0},
    }
    return task(name, *depends_on, compensate=undo, **fields)


# --- undoing --------------------------------------------------------------------------------------


def test_what_was_done_is_undone_the_last_first() -> None:
    life = Life(booking("hotel"), booking("flight"), task("pay", "hotel", "flight"), booking("z"))
    life.start()
    life.done("flight", {"id": 1})
    life.done("hotel", {"id": 2})
    life.failed("z")
    assert life.failed("pay", "no money") == [
        "node.failed pay",
        "run.ending",
        "node.dispatched hotel.compensate",
    ]
    assert life.status is RunStatus.RUNNING
    task_ = life.tasks["r1/hotel.compensate/1"]
    assert (task_.agent, task_.action) == ("x", "undo")
    assert life.inputs("hotel.compensate/1") == {"id": 2, "why": "node 'z' failed: boom"}
    assert life.done("hotel.compensate") == [
        "node.succeeded hotel.compensate",
        "node.dispatched flight.compensate",
    ]
    assert life.done("flight.compensate") == ["node.succeeded flight.compensate", "run.failed"]
    assert life.event_of(RunFailed) == RunFailed(
        failure=Failure(
            kind="node_failed", message="node 'z' failed: boom", retryable=False, node="z"
        )
    )


def test_what_cannot_be_undone_is_named_and_the_rest_is_undone() -> None:
    life = Life(booking("a"), booking("b", "a"), task("c", "b"))
    life.start()
    life.done("a", {"id": 1})
    life.done("b", {"id": 2})
    life.failed("c")
    assert life.failed("b.compensate", retryable=True) == ["node.retrying b.compensate"]
    assert life.later(SECOND) == ["node.dispatched b.compensate"]
    assert life.failed("b.compensate", retryable=True) == [
        "node.failed b.compensate",
        "node.dispatched a.compensate",
    ]
    assert life.done("a.compensate")[-1] == "run.failed"
    ended = life.event_of(RunFailed)
    assert (ended.uncompensated, ended.failure.node) == (("b",), "c")


def test_a_run_that_repeats_the_undoing_alone() -> None:
    life = Life(booking("a"), booking("b", "a"), task("c", "b"))
    reuse = (
        Reused(node="a", output=Raw(b'{"id":1}')),
        Reused(node="b", output=Raw(b'{"id":2}')),
    )
    origin = Origin(run="r0", kind="compensation")
    assert life.start(reuse=reuse, origin=origin, compensate=True) == [
        "run.started",
        "node.reused a",
        "node.reused b",
        "node.skipped c",
        "run.ending",
        "node.dispatched b.compensate",
    ]
    assert life.inputs("b.compensate/1") == {"id": 2, "why": "the work of another run is undone"}
    life.done("b.compensate")
    assert life.done("a.compensate")[-1] == "run.succeeded"
    told = life.last.announcement
    assert told is not None
    assert json.loads(bytes(told.data))["compensation"] is True


def test_what_is_undone_may_refer_to_what_was_undone_before_it() -> None:
    """As it could in the run whose undoing is repeated; and that is not undone twice."""
    undo = {"agent": "x", "action": "undo", "inputs": {"seat": "{{ nodes.b.output.seat }}"}}
    life = Life(task("a", compensate=undo), booking("b", "a"))
    told = life.start(
        reuse=(Reused(node="a", output=Raw(b"1")),),
        undone=(Reused(node="b", output=Raw(b'{"seat":7}')),),
        origin=Origin(run="r0", kind="compensation"),
        compensate=True,
    )
    assert told[-2:] == ["run.ending", "node.dispatched a.compensate"]
    assert life.inputs("a.compensate/1") == {"seat": 7}
    assert life.done("a.compensate") == ["node.succeeded a.compensate", "run.succeeded"]


def test_a_success_undoes_nothing() -> None:
    life = Life(booking("a"))
    life.start()
    assert life.done("a", {"id": 1}) == ["node.succeeded a", "run.succeeded"]


# --- handling a failure ---------------------------------------------------------------------------


def test_the_failure_handler_runs_after_the_undoing() -> None:
    life = Life(
        booking("a"),
        task("b", "a"),
        onFailure=[
            task("tell", inputs={"why": "{{ failure.message }}", "a": "{{ nodes.a.output.id }}"}),
            task("log", "tell"),
        ],
    )
    life.start()
    life.done("a", {"id": 1})
    assert life.failed("b")[-1] == "node.dispatched a.compensate"
    assert life.done("a.compensate") == [
        "node.succeeded a.compensate",
        "run.ending",
        "node.dispatched tell",
    ]
    assert life.inputs("tell/1") == {"why": "node 'b' failed: boom", "a": 1}
    assert life.done("tell") == ["node.succeeded tell", "node.dispatched log"]
    # What the handler fails in does not hide why it was needed.
    assert life.failed("log", "no disk") == ["node.failed log", "run.failed"]
    assert life.failure == "node 'b' failed: boom"


def test_the_failure_handler_is_not_for_successes_and_cancels() -> None:
    life = Life(task("a"), onFailure=[task("tell")])
    life.start()
    assert life.done("a") == ["node.succeeded a", "run.succeeded"]
    life = Life(task("a"), onFailure=[task("tell")])
    life.start()
    life.cancel()
    assert life.failed("a") == ["node.cancelled a", "run.cancelled"]


def test_the_failure_handler_is_for_time_outs() -> None:
    life = Life(task("a", timeout="1d"), onFailure=[task("tell")], timeout="1h", cancelGrace="5s")
    life.start()
    assert life.later(HOUR) == ["run.ending", "node.stopping a"]
    assert life.later(5 * SECOND) == ["node.cancelled a", "run.ending", "node.dispatched tell"]
    assert life.done("tell") == ["node.succeeded tell", "run.timedOut"]
    why = life.event_of(RunTimedOut).failure.message
    assert why == "the run took longer than its timeout of 1h"


def test_a_handler_that_hangs_is_given_up() -> None:
    life = Life(task("a"), onFailure=[task("tell", timeout="9d")], timeout="1h")
    life.start()
    life.failed("a")
    assert life.later(HOUR) == ["node.cancelled tell", "run.failed"]
    assert life.last.cancellations == (
        TaskCancellation(task="r1/tell/1", agent="x", reason="the run was ended by force"),
    )


# --- stopping -------------------------------------------------------------------------------------


def test_a_cancelled_run_undoes_what_was_done_even_while_it_was_stopping() -> None:
    life = Life(booking("a"), booking("b"), task("c", "a"))
    life.start()
    life.done("a", {"id": 1})
    assert life.cancel(requested_by="me") == [
        "run.ending",
        "node.stopping b",
        "node.stopping c",
    ]
    assert life.done("b", {"id": 2}) == ["node.succeeded b"]
    assert life.failed("c", retryable=True) == [
        "node.cancelled c",
        "run.ending",
        "node.dispatched b.compensate",
    ]
    assert life.inputs("b.compensate/1") == {"id": 2, "why": "enough"}
    life.done("b.compensate")
    assert life.done("a.compensate")[-1] == "run.cancelled"
    assert life.event_of(RunCancelled) == RunCancelled(reason="enough", requested_by="me")


def test_a_cancel_by_force_gives_up_what_is_left() -> None:
    life = Life(booking("a"), task("b", "a"))
    life.start()
    life.done("a", {"id": 1})
    life.failed("b")
    assert life.cancel(force=True) == ["node.cancelled a.compensate", "run.failed"]
    assert life.event_of(RunFailed).uncompensated == ("a",)


@pytest.mark.parametrize("orders", [[True], [False, True]], ids=["at once", "while it stops"])
def test_a_cancel_by_force_names_what_it_leaves_done(orders: list[bool]) -> None:
    life = Life(booking("a"), booking("b", "a"), task("c", "b"))
    life.start()
    life.done("a", {"id": 1})
    life.done("b", {"id": 2})
    said = [life.cancel(force=force)[-1] for force in orders]
    assert said[-1] == "run.cancelled"
    assert life.event_of(RunCancelled).uncompensated == ("b", "a")


def test_waits_and_sleeps_end_at_once() -> None:
    life = Life(
        {"id": "s", "delay": "1h"},
        {"id": "w", "waitForEvent": {"event": "x"}},
        task("p", approvalRequired=True),
    )
    life.start()
    cancelled = [f"node.cancelled {node}" for node in "swp"]
    assert life.cancel() == [*cancelled, "run.cancelled"]


def test_items_at_work_are_told_and_no_more_begin() -> None:
    life = Life(task("a", forEach=[1, 2, 3], maxParallel=2))
    life.start()
    assert life.cancel() == ["run.ending", "node.stopping a.0", "node.stopping a.1"]
    assert [order.task for order in life.last.cancellations] == ["r1/a.0/1", "r1/a.1/1"]
    assert life.done("a", item=1) == ["node.succeeded a.1"]
    assert life.later(10 * SECOND) == ["node.cancelled a.0", "node.cancelled a", "run.cancelled"]


def test_a_run_with_too_many_events_fails() -> None:
    life = Life(
        *(task(f"n{n}", *([f"n{n - 1}"] if n else [])) for n in range(9)),
        limits=Limits(events=6),
    )
    life.start()
    life.done("n0")
    assert life.done("n1")[:4] == [
        "node.succeeded n1",
        "node.dispatched n2",
        "run.ending",
        "node.stopping n2",
    ]
    life.later(10 * SECOND)
    assert life.status is RunStatus.FAILED
    assert life.failure == "the run has more than 6 events (COMMANDCENTER_RUN_EVENTS_LIMIT)"


# --- the end is known to others -------------------------------------------------------------------


def test_every_end_is_an_event() -> None:
    life = Life(task("a"), output={"x": "{{ nodes.a.output }}"})
    life.start(depth=1)
    life.later(SECOND)
    life.done("a", 5)
    told = life.last.announcement
    assert told is not None
    assert (told.id, told.source, told.type, told.subject) == (
        "r1",
        "commandcenter/workflows/w",
        "commandcenter.run.finished",
        "SUCCESS",
    )
    assert json.loads(bytes(told.data)) == {
        "run": "r1",
        "workflow": "w",
        "version": 1,
        "project": "default",
        "status": "SUCCESS",
        "output": {"x": 5},
        "failure": None,
        "startedAt": T0,
        "finishedAt": T0 + SECOND,
        "depth": 1,
    }


def test_an_output_that_cannot_be_made_fails_the_run() -> None:
    life = Life(task("a"), output="{{ nodes.a.output.x }}", onFailure=[task("tell")])
    life.start()
    assert life.done("a", {}) == ["node.succeeded a", "run.ending", "node.dispatched tell"]
    assert life.done("tell")[-1] == "run.failed"
    assert "output: '{{ nodes.a.output.x }}' points nowhere" in life.failure


@pytest.mark.parametrize("fails_before", [False, True])
def test_a_cancelled_step_s_run_is_not_tried_again(fails_before: bool) -> None:
    life = Life(task("a"), task("b", retry={"attempts": 1}))
    life.start(parent=Parent(run="r0", node="sub", attempt=1))
    if fails_before:
        life.failed("b", retryable=True)
    life.cancel(force=True)
    (told,) = life.last.messages
    assert isinstance(told, Result)
    assert told.failure is not None
    assert not told.failure.retryable


# --- pausing --------------------------------------------------------------------------------------


def test_a_paused_run_begins_nothing_and_makes_up_for_it() -> None:
    life = Life(
        task("a"),
        task("b", "a"),
        task("r", retry={"initialDelay": "1s", "jitter": 0}),
        task("p", approvalRequired=True),
        task("i", forEach=[1, 2], maxParallel=1),
        task("s", "a", when="false"),
        timeout="1h",
    )
    life.start()
    life.failed("r", retryable=True)
    assert life.pause() == ["run.paused"]
    assert life.pause() == []
    assert life.done("a") == ["node.succeeded a"]
    assert life.done("i", item=0) == ["node.succeeded i.0"]
    assert life.approve("p") == ["node.approved p"]
    assert life.later(2 * HOUR) == []
    assert sorted(life.resume()) == sorted(
        [
            "run.resumed",
            "node.dispatched r",
            "node.dispatched p",
            "node.dispatched i.1",
            "node.dispatched b",
            "node.skipped s",
        ]
    )
    # The pause does not count.
    assert life.event_of(RunResumed).deadline == T0 + 3 * HOUR
    assert life.resume() == []
    assert life.ignored == "not_paused"


def test_a_paused_run_can_be_cancelled() -> None:
    life = Life(task("a"), task("b", "a"))
    life.start()
    life.pause()
    life.cancel()
    assert life.done("a") == ["node.succeeded a", "run.cancelled"]


# --- repeating ------------------------------------------------------------------------------------


def test_results_of_an_earlier_run_are_taken_over() -> None:
    life = Life(
        task("a"),
        task("b", "a", inputs={"x": "{{ nodes.a.output }}"}),
        task("c", forEach=[10, 20, 30], inputs={"n": "{{ item }}"}),
        task("d", "c", inputs={"all": "{{ nodes.c.output }}"}),
    )
    reuse = (
        Reused(node="a", output=Raw(b"1")),
        Reused(node="c", item=1, output=Raw(b"2")),
        Reused(node="gone", output=Raw(b"3")),
    )
    told = life.start(reuse=reuse, origin=Origin(run="r0", kind="retry", requested_by="me"))
    assert told == [
        "run.started",
        "node.reused a",
        "node.reused c.1",
        "node.fannedOut c",
        "node.dispatched c.0",
        "node.dispatched c.2",
        "node.dispatched b",
    ]
    assert life.event_of(NodeReused).run == "r0"
    assert life.inputs("b/1") == {"x": 1}
    life.done("c", 0, item=0)
    assert life.done("c", 4, item=2)[-1] == "node.dispatched d"
    assert life.inputs("d/1") == {"all": [0, 2, 4]}


@pytest.mark.parametrize("how", ["cancel", "skip", "reject"])
def test_items_that_were_taken_over_are_undone_where_their_node_never_began(how: str) -> None:
    life = Life(
        task("a"),
        task(
            "c",
            "a",
            forEach=[10, 20, 30],
            approvalRequired=True,
            compensate={"agent": "x", "action": "undo", "inputs": {"ids": "{{ nodes.c.output }}"}},
        ),
    )
    reuse = (Reused(node="c", item=2, output=Raw(b"3")),)
    life.start(reuse=reuse, origin=Origin(run="r0", kind="retry"))
    if how == "reject":
        life.done("a")
        told = life.reject("c", "no")
    elif how == "skip":
        told = life.failed("a")
    else:
        life.cancel()
        told = life.done("a")
    assert told[-2:] == ["run.ending", "node.dispatched c.compensate"]
    assert life.inputs("c.compensate/1") == {"ids": [None, None, 3]}


def test_inputs_can_be_edited_for_a_run_from_the_middle() -> None:
    life = Life(task("a"), task("b", "a", inputs={"x": "{{ nodes.a.output }}"}), task("c", "b"))
    told = life.start(
        reuse=(Reused(node="a", output=Raw(b"1")),),
        edits=(Edit(node="b", inputs=Raw(b'{"x":9}')),),
        origin=Origin(run="r0", kind="rerun"),
    )
    assert told == ["run.started", "node.reused a", "node.edited b", "node.dispatched b"]
    assert life.inputs("b/1") == {"x": 9}


def test_a_run_all_of_whose_results_are_there_is_done() -> None:
    life = Life(task("a"), output="{{ nodes.a.output }}")
    told = life.start(reuse=(Reused(node="a", output=Raw(b"1")),))
    assert told == ["run.started", "node.reused a", "run.succeeded"]
    assert life.event_of(RunSucceeded).output == Raw(b"1")


@pytest.mark.parametrize("stage", ["stopping", "compensating", "handling"])
def test_an_ending_run_cannot_be_paused(stage: str) -> None:
    life = Life(booking("a"), task("b"), onFailure=[task("tell")])
    life.start()
    life.done("a", {"id": 1})
    if stage == "stopping":
        life.cancel()
    else:
        life.failed("b")
    if stage == "handling":
        life.done("a.compensate")
    assert life.event_of(RunEnding).stage == stage
    assert life.pause() == []
    assert life.ignored == "run_ending"


def test_a_deadline_in_an_ending_stage_ends_the_run() -> None:
    life = Life(booking("a"), task("b", "a"), timeout="2h")
    life.start()
    life.done("a", {"id": 1})
    life.failed("b")
    told = life.later(DAY)
    assert told[-1] == "run.failed"
    assert life.event_of(RunFailed).uncompensated == ("a",)

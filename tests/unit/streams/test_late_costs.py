"""What attempts cost whose results came too late, or that ended in a question to people."""

from decimal import Decimal
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from run_life import Life, task

from streams.cost import Cost
from streams.events import NodeCharged
from streams.lifecycle import UNPAID_KEPT, RunState
from streams.messages import Result
from streams.records import Failure

PRICE = Cost(
    kind="api", source="s", quantity=Decimal(1), unit="request", unit_price=Decimal(2),
    amount=Decimal(2),
)  # fmt: skip


def result(node: str, attempt: int = 1, item: int | None = None, **answer: Any) -> Result:
    fields: dict[str, Any] = {"costs": (PRICE,), "output": Raw(b"1")} | answer
    return Result(
        run="r1", node=node, item=item, attempt=attempt, started_at=1, finished_at=2, **fields
    )


def unpaid(life: Life) -> tuple[str, ...]:
    assert life.state is not None
    return life.state.head.unpaid


def test_a_late_result_is_charged_once_and_changes_nothing_else() -> None:
    life = Life(task("a", timeout="1m", retry={"attempts": 3, "initialDelay": "10s"}))
    life.start()
    assert life.later(60_000) == ["node.retrying a"]
    assert unpaid(life) == ("a/1",)
    before = life.node("a")
    assert life.hear(result("a")) == ["node.charged a"]
    assert life.event_of(NodeCharged) == NodeCharged(node="a", attempt=1, costs=(PRICE,))
    assert life.node("a") == before
    assert unpaid(life) == ()
    assert life.hear(result("a")) == []
    assert life.ignored == "late_result"
    assert life.later(20_000) == ["node.dispatched a"]
    assert life.hear(result("a")) == []
    assert life.hear(result("a", 2)) == ["node.succeeded a", "run.succeeded"]


def test_the_result_may_come_while_the_next_attempt_is_under_way() -> None:
    life = Life(task("a", timeout="1m", retry={"attempts": 2, "initialDelay": 1}))
    life.start()
    assert life.later(60_000) + life.later(1_000) == ["node.retrying a", "node.dispatched a"]
    assert life.hear(result("a", output=Raw(b'"late"'))) == ["node.charged a"]
    assert life.done("a", "right")[0] == "node.succeeded a"


def test_an_item_of_a_node_that_has_failed_still_tells() -> None:
    life = Life(
        task("a", forEach="{{ context.list }}", timeout="1m", retry={"attempts": 1}),
        task("b", timeout="1h"),
    )
    life.start({"list": [1, 2]})
    assert life.later(60_000) == ["node.failed a.0", "node.failed a.1", "node.failed a"]
    assert unpaid(life) == ("a.0/1", "a.1/1")
    assert life.hear(result("a", item=1)) == ["node.charged a.1"]
    assert life.done("b") == ["node.succeeded b", "run.failed"]
    assert unpaid(life) == ("a.0/1",)


def test_a_run_that_has_ended_is_charged_once_and_stays_as_it_was() -> None:
    life = Life(task("a", timeout="1m", retry={"attempts": 1}))
    life.start()
    assert life.later(60_000) == ["node.failed a", "run.failed"]
    assert life.state is not None
    head = life.state.head
    life.now += 5_000
    assert life.hear(result("a")) == ["node.charged a"]
    assert life.state == RunState(replace(head, seq=head.seq + 1, unpaid=()))
    assert life.last.decision is not None
    assert (life.last.decision.status, life.last.decision.previous) == ("FAILED", "FAILED")
    assert not life.last.tells
    assert life.hear(result("a")) == []
    assert life.ignored == "run_finished"


def test_a_run_that_was_cancelled_hears_what_it_has_cost() -> None:
    life = Life(task("a"), task("b"))
    life.start()
    assert life.cancel(force=True)[-1] == "run.cancelled"
    assert life.hear(result("b")) == ["node.charged b"]
    assert life.hear(result("a", costs=())) == []
    assert unpaid(life) == ("a/1",)


def test_what_has_no_costs_is_late_as_ever() -> None:
    life = Life(task("a", timeout="1m", retry={"attempts": 2, "initialDelay": "10s"}))
    life.start()
    life.later(60_000)
    assert life.hear(result("a", costs=())) == []
    assert life.ignored == "late_result"
    assert unpaid(life) == ("a/1",)


def test_a_question_is_charged_before_people_are_asked() -> None:
    life = Life(task("a"))
    life.start()
    question = Failure(kind="approval_required", message="may I?", retryable=False)
    asks = result("a", output=None, failure=question)
    assert life.hear(asks) == ["node.charged a", "node.approvalRequested a"]
    assert life.hear(asks) == []
    assert life.approve("a") == ["node.approved a", "node.dispatched a"]
    assert life.hear(result("a", 2))[0] == "node.succeeded a"


def test_a_question_while_the_run_is_stopping_is_charged_with_the_end() -> None:
    life = Life(task("a"), task("b"))
    life.start()
    life.cancel()
    question = Failure(kind="approval_required", message="may I?", retryable=False)
    asks = result("a", output=None, failure=question)
    assert life.hear(asks) == ["node.cancelled a"]
    assert life.last.decision is not None
    assert life.last.decision.events[0].costs == (PRICE,)  # type: ignore[union-attr]  # as above
    assert life.hear(asks) == []


def test_a_run_knows_the_newest_of_many() -> None:
    count = UNPAID_KEPT + 5
    life = Life(
        task(
            "a", forEach="{{ context.list }}", timeout="1m", maxParallel=count,
            retry={"attempts": 2, "initialDelay": "10s"},
        )
    )  # fmt: skip
    life.start({"list": list(range(count))})
    life.later(60_000)
    assert len(unpaid(life)) == UNPAID_KEPT
    assert life.hear(result("a", item=0)) == []
    assert life.hear(result("a", item=count - 1)) == [f"node.charged a.{count - 1}"]

from decimal import Decimal
from typing import Any

from msgspec import Raw, structs

from sinks import decision_record
from sinks.decision_record import DecisionRecord
from sinks.known_runs import KnownRuns, Recorded
from sinks.projection import (
    AGENT_RUN_COLUMNS,
    COST_COLUMNS,
    EVENT_COLUMNS,
    RUN_COLUMNS,
    Projection,
    Table,
    project,
)
from streams import codec
from streams.cost import Cost
from streams.events import (
    Decision,
    Event,
    NodeApprovalRequested,
    NodeApproved,
    NodeCancelled,
    NodeCharged,
    NodeDispatched,
    NodeFailed,
    NodeRequested,
    NodeRetrying,
    NodeSkipped,
    NodeSucceeded,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)
from streams.records import Failure, RunStatus, Trigger

RUNNING, PENDING = RunStatus.RUNNING, RunStatus.PENDING
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STARTED = RunStarted(
    trigger=Trigger(id="e-1", source="/ci", type="repo.push", subject="main"), nodes=2, deadline=900
)


def dispatched(node: str, attempt: int = 1) -> NodeDispatched:
    return NodeDispatched(
        node=node,
        attempt=attempt,
        task=f"r/{node}/{attempt}",
        agent="scanner",
        action="scan",
        inputs=Raw(b'{"path":"\xc3\xa9"}'),
        deadline=800,
    )


def decided(
    seq: int,
    at: int,
    *events: Event,
    status: RunStatus = RUNNING,
    previous: RunStatus = RUNNING,
    run: str = "r",
    offset: int = 0,
) -> DecisionRecord:
    value = codec.encode(
        Decision(
            run=run,
            project="p",
            workflow="review",
            version=3,
            seq=seq,
            at=at,
            status=status,
            previous=previous,
            events=events,
            traceparent=TRACE,
        )
    )
    return decision_record.read(1, offset, value)


def projected(*records: DecisionRecord, known: KnownRuns | None = None) -> Projection:
    return project(records, known or KnownRuns(), "events-topic")


def named(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    assert all(len(row) == len(names) for row in rows)
    return [dict(zip(names, row, strict=True)) for row in rows]


def agent_runs(*records: DecisionRecord) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if value}
        for row in named(AGENT_RUN_COLUMNS, projected(*records).agent_runs)
    ]


RUN = {"run_started_at": 100, "run_id": "r", "project": "p", "workflow": "review", "version": 3}


def test_each_event_is_a_row_with_its_place_and_its_own_text() -> None:
    record = decided(0, 100, STARTED, dispatched("scan"), previous=PENDING, offset=7)
    first, second = named(EVENT_COLUMNS, projected(record).events)

    assert first["payload"] == record.payloads[0]
    assert second == {
        "run_id": "r",
        "seq": 1,
        "type": "node.dispatched",
        "at": 100,
        "project": "p",
        "workflow": "review",
        "version": 3,
        "node": "scan",
        "attempt": 1,
        "item": -1,
        "agent": "scanner",
        "action": "scan",
        "worker": "",
        "status": "RUNNING",
        "previous_status": "PENDING",
        "topic": "events-topic",
        "partition": 1,
        "offset": 7,
        "payload": record.payloads[1],
        "traceparent": TRACE,
        "run_started_at": 100,
    }


def test_the_start_of_a_run_is_a_part_of_it() -> None:
    [row] = named(
        RUN_COLUMNS, projected(decided(0, 100, STARTED, dispatched("a"), previous=PENDING)).runs
    )
    assert row == {
        "started_at": 100,
        "run_id": "r",
        "project": "p",
        "workflow": "review",
        "version": 3,
        "nodes": 2,
        "deadline": 900,
        "trigger_type": "repo.push",
        "trigger_source": "/ci",
        "trigger_id": "e-1",
        "trigger_subject": "main",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "depth": 0,
        "parent_run": "",
        "origin_run": "",
        "origin_kind": "",
        "tags": (),
        "latest": (1, "RUNNING", 0, "", "", ""),
        "pause": (0, 0),
    }


def test_a_decision_that_keeps_the_status_says_nothing_of_the_run() -> None:
    start = decided(0, 100, STARTED, previous=PENDING)
    assert len(projected(start, decided(1, 110, dispatched("b"))).runs) == 1


def test_the_end_of_a_run_says_when_and_why_under_the_key_of_its_start() -> None:
    start = decided(0, 100, STARTED, previous=PENDING)
    failure = Failure(kind="node_failed", message="node 'a' failed", node="a")
    ends: dict[Event, tuple[RunStatus, tuple[object, ...]]] = {
        RunSucceeded(): (RunStatus.SUCCESS, (1, "SUCCESS", 200, "", "", "")),
        RunFailed(failure=failure): (
            RunStatus.FAILED,
            (1, "FAILED", 200, "node_failed", "a", "node 'a' failed"),
        ),
        RunTimedOut(failure=Failure(kind="timeout", message="too long")): (
            RunStatus.TIMED_OUT,
            (1, "TIMED_OUT", 200, "timeout", "", "too long"),
        ),
        RunCancelled(reason="not wanted"): (
            RunStatus.CANCELLED,
            (1, "CANCELLED", 200, "cancelled", "", "not wanted"),
        ),
    }
    for event, (status, latest) in ends.items():
        rows = named(RUN_COLUMNS, projected(start, decided(1, 200, event, status=status)).runs)
        assert (rows[1]["started_at"], rows[1]["latest"]) == (100, latest)
        assert not any(rows[1][name] for name in ("nodes", "trigger_type", "trace_id"))


def test_an_attempt_has_a_part_for_its_dispatch_and_one_for_its_end() -> None:
    first, last = agent_runs(
        decided(0, 100, STARTED, dispatched("a"), previous=PENDING),
        decided(
            2,
            140,
            NodeSucceeded(
                node="a",
                attempt=1,
                output=Raw(b"[1,2]"),
                started_at=110,
                finished_at=130,
                worker="w1",
            ),
        ),
    )
    assert first == RUN | {
        "node": "a",
        "attempt": 1,
        "task_id": "r/a/1",
        "agent": "scanner",
        "action": "scan",
        "dispatched_at": 100,
        "deadline": 800,
        "inputs": '{"path":"é"}',
    }
    assert last == RUN | {
        "node": "a",
        "attempt": 1,
        "started_at": 110,
        "finished_at": 130,
        "outcome": "SUCCESS",
        "worker": "w1",
        "output": "[1,2]",
    }


def test_a_failed_attempt_says_why_and_when_the_next_one_is_due() -> None:
    lost = Failure(kind="timeout", message="no result")
    broken = Failure(kind="agent_error", message="boom")
    start = decided(0, 100, STARTED, previous=PENDING)
    retried, failed = agent_runs(
        start,
        decided(1, 300, NodeRetrying(node="a", attempt=1, failure=lost, retry_at=350)),
        decided(
            2,
            420,
            NodeFailed(
                node="a", attempt=2, failure=broken, started_at=400, finished_at=410, worker="w"
            ),
        ),
    )
    failure = {"outcome": "FAILED", "error_kind": "timeout", "error_message": "no result"}
    assert retried == RUN | failure | {
        "node": "a",
        "attempt": 1,
        "finished_at": 300,  # nobody answered: when it was given up
        "retry_at": 350,
    }
    failure = {"outcome": "FAILED", "error_kind": "agent_error", "error_message": "boom"}
    assert failed == RUN | failure | {
        "node": "a",
        "attempt": 2,
        "started_at": 400,
        "finished_at": 410,
        "worker": "w",
    }


def test_only_an_attempt_that_was_begun_can_be_cancelled_and_a_skipped_node_has_none() -> None:
    [cancelled] = agent_runs(
        decided(
            0,
            100,
            STARTED,
            NodeCancelled(node="a", attempt=2),
            NodeCancelled(node="b"),
            NodeSkipped(node="c", reason="a failed"),
            previous=PENDING,
        )
    )
    assert cancelled == RUN | {"node": "a", "attempt": 2, "cancelled_at": 100}


def test_an_item_has_attempts_of_its_own() -> None:
    event = structs.replace(dispatched("a"), item=0)
    done = NodeSucceeded(node="a", item=4, attempt=1, output=Raw(b"1"), started_at=1, finished_at=2)
    whole = NodeSucceeded(node="a", attempt=1, started_at=1, finished_at=2)
    record = decided(0, 100, STARTED, event, done, whole, previous=PENDING)
    first, second = agent_runs(record)
    assert (first["item_number"], second["item_number"]) == (1, 5)
    items = [row["item"] for row in named(EVENT_COLUMNS, projected(record).events)]
    assert items == [-1, 0, 4, -1]


def test_a_run_that_is_asked_for_is_an_attempt_without_an_agent() -> None:
    event = NodeRequested(
        node="a", attempt=1, run="child", workflow="w", inputs=Raw(b"{}"), deadline=300
    )
    [row] = agent_runs(decided(0, 100, STARTED, event, previous=PENDING))
    assert row == RUN | {
        "node": "a",
        "attempt": 1,
        "task_id": "r/a/1",
        "child_run": "child",
        "dispatched_at": 100,
        "deadline": 300,
        "inputs": "{}",
    }


def test_what_people_decide_ends_no_attempt() -> None:
    def failed(kind: str) -> NodeFailed:
        return NodeFailed(node="a", attempt=1, failure=Failure(kind=kind, message="no"))

    asked = NodeApprovalRequested(
        node="a",
        inputs=Raw(b"{}"),
        needed=1,
        deadline=900,
        on_deadline="reject",
        cause="workflow",
    )
    events = (asked, failed("rejected"), failed("approval_expired"))
    assert agent_runs(decided(0, 100, STARTED, *events, previous=PENDING)) == []
    refused = structs.replace(asked, cause="agent", attempt=1)
    [row] = agent_runs(decided(0, 100, STARTED, refused, previous=PENDING))
    assert (row["attempt"], row["finished_at"], row["error_kind"]) == (1, 100, "approval_required")


def test_a_pause_is_a_part_of_the_run_with_the_number_of_its_event() -> None:
    start = decided(0, 100, STARTED, dispatched("a"), previous=PENDING)
    parts = projected(
        start,
        decided(2, 110, RunPaused()),
        decided(3, 120, RunResumed(deadline=950)),
        decided(4, 130, RunEnding(stage="stopping", outcome=RunStatus.CANCELLED, deadline=990)),
    )
    rows = named(RUN_COLUMNS, parts.runs)
    assert [row["pause"] for row in rows] == [(0, 0), (2, 1), (3, 0), (4, 0)]
    assert {row["latest"] for row in rows[1:]} == {(0, "", 0, "", "", "")}


def test_each_move_to_waiting_and_back_is_a_part_of_the_run() -> None:
    waiting = RunStatus.WAITING_APPROVAL
    asked = NodeApproved(node="a", by="ann", missing=0)
    parts = projected(
        decided(0, 100, STARTED, previous=PENDING),
        decided(1, 110, asked, status=waiting),
        decided(2, 120, asked, previous=waiting),
    )
    rows = named(RUN_COLUMNS, parts.runs)
    assert [row["latest"][:2] for row in rows] == [
        (0, "RUNNING"),
        (1, "WAITING_APPROVAL"),
        (2, "RUNNING"),
    ]


def test_a_decision_that_is_recorded_already_makes_no_rows() -> None:
    start = decided(0, 100, STARTED, dispatched("a"), previous=PENDING)
    again = decided(0, 100, STARTED, dispatched("a"), previous=PENDING, offset=1)
    rows = projected(start, again)
    assert (len(rows.events), len(rows.runs), len(rows.agent_runs)) == (2, 1, 1)
    assert rows.duplicates == [again]
    assert rows.gaps == []


def test_what_was_recorded_before_counts() -> None:
    known = KnownRuns([("r", Recorded(next_seq=2, started_at=50))])
    rows = projected(decided(0, 100, STARTED), decided(2, 110, dispatched("b")), known=known)
    assert [row["seq"] for row in named(EVENT_COLUMNS, rows.events)] == [2]
    assert rows.agent_runs[0][0] == 50
    assert len(rows.duplicates) == 1
    assert known.get("r") == Recorded(3, 50)


def test_missing_events_are_told_and_what_follows_is_recorded() -> None:
    rows = projected(
        decided(0, 100, STARTED, previous=PENDING),
        decided(3, 110, dispatched("b"), offset=9),
        decided(4, 120, dispatched("c")),
    )
    assert len(rows.events) == 3
    assert rows.gaps == [
        "run r: events 1 to 2 are missing before offset 9 of events-topic-1",
    ]


def test_a_run_without_its_beginning_is_recorded_from_where_it_is_seen() -> None:
    rows = projected(decided(2, 110, dispatched("b"), offset=9), decided(3, 120, dispatched("c")))
    assert [row[0] for row in rows.agent_runs] == [110, 110]
    assert rows.gaps == [
        "run r: events 0 to 1 are missing before offset 9 of events-topic-1",
    ]


def test_rows_are_handed_over_by_column() -> None:
    table = Table(("a", "b"))
    table.add([(1, "x"), (2, "y")])
    table.add([])
    table.add([(3, "z")])
    assert table.columns == {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    assert table.length == 3


def test_each_cost_of_an_event_is_a_row_at_its_place() -> None:
    worked = Cost(
        kind="compute",
        source="scanner",
        quantity=Decimal("1.5"),
        unit="minute",
        unit_price=Decimal("0.01"),
        amount=Decimal("0.015"),
        price_version="default",
    )
    asked = Cost(
        kind="tokens",
        source="anthropic",
        model="m",
        quantity=Decimal(9),
        unit="input_token",
        unit_price=Decimal("0.5"),
        amount=Decimal("4.5"),
    )
    no = Failure(kind="timeout", message="late")
    record = decided(
        0,
        100,
        STARTED,
        dispatched("a"),
        NodeRetrying(node="a", attempt=1, failure=no, retry_at=200, costs=(worked, asked)),
        NodeCancelled(node="b", attempt=3, item=4, costs=(asked,)),
        NodeFailed(node="c", attempt=1, failure=no),
        NodeCharged(node="c", attempt=1, costs=(worked,)),
        previous=PENDING,
    )
    rows = list(named(COST_COLUMNS, projected(record).costs))
    assert [(row["seq"], row["entry"], row["kind"], row["amount"]) for row in rows] == [
        (2, 0, "compute", Decimal("0.015")),
        (2, 1, "tokens", Decimal("4.5")),
        (3, 0, "tokens", Decimal("4.5")),
        (5, 0, "compute", Decimal("0.015")),
    ]
    assert [(r["node"], r["item"], r["attempt"], r["agent"]) for r in rows] == [
        ("a", -1, 1, "scanner"),
        ("a", -1, 1, "scanner"),
        ("b", 4, 3, ""),
        ("c", -1, 1, "scanner"),
    ]
    assert {(row["run_started_at"], row["at"], row["run_id"]) for row in rows} == {(100, 100, "r")}

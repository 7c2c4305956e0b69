"""Records on the wire: exact bytes, whole round trips, and decoding that never crashes a reader."""

from decimal import Decimal
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from streams import codec
from streams.catalog import Definition, Retirement
from streams.cost import Cost
from streams.errors import UnreadableRecordError
from streams.events import (
    Decision,
    Event,
    NodeApprovalRequested,
    NodeApproved,
    NodeAwaiting,
    NodeCancelled,
    NodeCharged,
    NodeDispatched,
    NodeEdited,
    NodeFailed,
    NodeFannedOut,
    NodeProgressed,
    NodeRejected,
    NodeRequested,
    NodeRetrying,
    NodeReused,
    NodeSkipped,
    NodeSleeping,
    NodeStarted,
    NodeStopping,
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
from streams.messages import Cancel, DeadLetter, Result, Start, Task, Timer
from streams.records import Failure, NodeStatus, RunStatus, Trigger
from streams.registry import AgentRecord
from streams.run_state import NodeState, RunHead

TRIGGER = Trigger(id="e1", source="ci", type="repo.push", data=Raw(b'{"n":1.0}'))
TRIGGER_JSON = b'{"id":"e1","source":"ci","type":"repo.push","data":{"n":1.0}}'
FAILURE = Failure(kind="agent_error", message="ö", retryable=False, node="a")
FAILURE_JSON = '{"kind":"agent_error","message":"ö","retryable":false,"node":"a"}'.encode()
WHERE: dict[str, Any] = {"run": "r1", "project": "default", "workflow": "w", "version": 2}

EVENTS = (
    RunStarted(trigger=TRIGGER, nodes=3, deadline=9),
    NodeDispatched(
        node="a", attempt=1, task="r1/a/1", agent="x", action="y", inputs=Raw(b"{}"), deadline=5
    ),
    NodeSucceeded(node="a", attempt=1, output=Raw(b"[1]"), started_at=2, finished_at=3, worker="h"),
    NodeRetrying(node="b", attempt=1, failure=FAILURE, retry_at=7),
    NodeFailed(node="b", attempt=2, failure=FAILURE, started_at=2, finished_at=3, worker="h"),
    NodeSkipped(node="c", reason="why"),
    NodeCancelled(node="c"),
    RunSucceeded(),
    RunFailed(failure=FAILURE),
    RunTimedOut(failure=FAILURE),
    RunCancelled(reason="enough", requested_by="me"),
)

WIRE: list[tuple[codec.Reader[Any], Any, bytes]] = [
    (
        codec.messages,
        Start(run="r1", project="default", workflow="w", version=2, trigger=TRIGGER),
        b'{"v":1,"type":"start","run":"r1","project":"default","workflow":"w","version":2,'
        b'"trigger":' + TRIGGER_JSON + b"}",
    ),
    (
        codec.messages,
        Result(run="r1", node="a", attempt=1, started_at=2, finished_at=3, output=Raw(b"null")),
        (
            b'{"v":1,"type":"result","run":"r1","node":"a","attempt":1,"startedAt":2,"finishedAt":3,'
            b'"output":null}'
        ),
    ),
    (
        codec.messages,
        Result(run="r1", node="a", attempt=1, started_at=2, finished_at=3, failure=FAILURE),
        b'{"v":1,"type":"result","run":"r1","node":"a","attempt":1,"startedAt":2,"finishedAt":3,'
        b'"failure":' + FAILURE_JSON + b"}",
    ),
    (
        codec.messages,
        Cancel(run="r1", reason="enough", requested_by="me"),
        b'{"v":1,"type":"cancel","run":"r1","reason":"enough","requestedBy":"me"}',
    ),
    (
        codec.messages,
        Timer(run="r1", due=5, node="a"),
        b'{"v":1,"type":"timer","run":"r1","due":5,"node":"a"}',
    ),
    (codec.messages, Timer(run="r1", due=5), b'{"v":1,"type":"timer","run":"r1","due":5}'),
    (
        codec.tasks,
        Task(
            id="r1/a/1",
            run="r1",
            project="default",
            workflow="w",
            node="a",
            attempt=1,
            agent="x",
            action="y",
            inputs=Raw(b'{"i":[]}'),
            timeout_ms=10,
            reply_partition=3,
        ),
        (
            b'{"v":1,"id":"r1/a/1","run":"r1","project":"default","workflow":"w","node":"a",'
            b'"attempt":1,"agent":"x","action":"y","inputs":{"i":[]},"timeoutMs":10,'
            b'"replyPartition":3}'
        ),
    ),
    (
        codec.decisions,
        Decision(
            **WHERE,
            seq=4,
            at=8,
            status=RunStatus.FAILED,
            previous=RunStatus.RUNNING,
            events=EVENTS,
            traceparent="00-1",
        ),
        b'{"v":1,"run":"r1","project":"default","workflow":"w","version":2,"seq":4,"at":8,'
        b'"status":"FAILED","previous":"RUNNING","events":['
        b'{"type":"run.started","trigger":' + TRIGGER_JSON + b',"nodes":3,"deadline":9},'
        b'{"type":"node.dispatched","node":"a","attempt":1,"task":"r1/a/1","agent":"x",'
        b'"action":"y","inputs":{},"deadline":5},'
        b'{"type":"node.succeeded","node":"a","attempt":1,"output":[1],"startedAt":2,'
        b'"finishedAt":3,"worker":"h"},'
        b'{"type":"node.retrying","node":"b","attempt":1,"failure":'
        + FAILURE_JSON
        + b',"retryAt":7},'
        b'{"type":"node.failed","node":"b","attempt":2,"failure":'
        + FAILURE_JSON
        + b',"startedAt":2,"finishedAt":3,"worker":"h"},'
        b'{"type":"node.skipped","node":"c","reason":"why"},'
        b'{"type":"node.cancelled","node":"c"},'
        b'{"type":"run.succeeded"},'
        b'{"type":"run.failed","failure":' + FAILURE_JSON + b"},"
        b'{"type":"run.timedOut","failure":' + FAILURE_JSON + b"},"
        b'{"type":"run.cancelled","reason":"enough","requestedBy":"me"}'
        b'],"traceparent":"00-1"}',
    ),
    (
        codec.heads,
        RunHead(
            **WHERE,
            status=RunStatus.RUNNING,
            seq=3,
            started_at=1,
            deadline=9,
            open=2,
        ),
        (
            b'{"v":1,"run":"r1","project":"default","workflow":"w","version":2,"status":"RUNNING",'
            b'"seq":3,"startedAt":1,"deadline":9,"open":2}'
        ),
    ),
    (codec.triggers, TRIGGER, b'{"v":1,' + TRIGGER_JSON[1:]),
    (
        codec.nodes,
        NodeState(node="a", status=NodeStatus.SUCCESS, attempt=1, output=Raw(b'"x"')),
        b'{"v":1,"node":"a","status":"SUCCESS","attempt":1,"output":"x"}',
    ),
    (
        codec.nodes,
        NodeState(node="a", status=NodeStatus.RETRYING, attempt=1, wake_at=7),
        b'{"v":1,"node":"a","status":"RETRYING","attempt":1,"wakeAt":7}',
    ),
    (
        codec.catalog,
        Definition(
            project="p", name="w", version=2, digest="d", published_at=1, definition=Raw(b"{}")
        ),
        (
            b'{"v":1,"type":"definition","project":"p","name":"w","version":2,"digest":"d",'
            b'"publishedAt":1,"definition":{}}'
        ),
    ),
    (
        codec.catalog,
        Retirement(project="p", name="w", version=2, retired_at=1),
        b'{"v":1,"type":"retirement","project":"p","name":"w","version":2,"retiredAt":1}',
    ),
    (
        codec.agents,
        AgentRecord(name="x", version="1", worker="h", registered_at=1, descriptor=Raw(b"{}")),
        b'{"v":1,"name":"x","version":"1","worker":"h","registeredAt":1,"descriptor":{}}',
    ),
    (
        codec.dead_letters,
        DeadLetter(
            topic="t",
            partition=1,
            offset=2,
            at=3,
            error="E",
            reason="why",
            worker="h",
            key=b"\xff",
            value=b"",
            headers=(("h", b"1"),),
        ),
        (
            b'{"v":1,"type":"letter","topic":"t","partition":1,"offset":2,"at":3,"error":"E",'
            b'"reason":"why",'
            b'"worker":"h","key":"/w==","value":"","headers":[["h","MQ=="]]}'
        ),
    ),
]
READERS = {id(reader): reader for reader, _, _ in WIRE}.values()


@pytest.mark.parametrize(("reader", "record", "wire"), WIRE)
def test_a_record_has_exactly_these_bytes_and_comes_back_whole(
    reader: codec.Reader[Any], record: Any, wire: bytes
) -> None:
    assert codec.encode(record) == wire
    assert reader.decode(wire) == record
    assert codec.encode(reader.decode(wire)) == wire


LATER_EVENTS: list[tuple[Event, bytes]] = [
    (
        NodeReused(node="a", output=Raw(b"1"), run="r0", item=2),
        b'"node.reused","node":"a","output":1,"run":"r0","item":2}',
    ),
    (NodeEdited(node="a", inputs=Raw(b"{}")), b'"node.edited","node":"a","inputs":{}}'),
    (
        NodeStarted(node="a", attempt=1, deadline=9, item=0, beat_by=3, worker="h"),
        b'"node.started","node":"a","attempt":1,"deadline":9,"item":0,"beatBy":3,"worker":"h"}',
    ),
    (
        NodeCharged(
            node="a",
            attempt=1,
            item=2,
            costs=(
                Cost(
                    kind="api", source="s", quantity=Decimal(2), unit="u",
                    unit_price=Decimal("0.1"), amount=Decimal("0.2"),
                ),
            ),
        ),
        (
            b'"node.charged","node":"a","attempt":1,"item":2,"costs":[{"kind":"api","source":"s",'
            b'"quantity":"2","unit":"u","unitPrice":"0.1","amount":"0.2"}]}'
        ),
    ),
    (
        NodeProgressed(node="a", attempt=1, beat_by=3, percent=0.5, message="half"),
        b'"node.progressed","node":"a","attempt":1,"beatBy":3,"percent":0.5,"message":"half"}',
    ),
    (
        NodeApprovalRequested(
            node="a", inputs=Raw(b"{}"), needed=2, deadline=9, on_deadline="reject",
            cause="agent", roles=("sre",), attempt=1,
        ),
        (
            b'"node.approvalRequested","node":"a","inputs":{},"needed":2,"deadline":9,'
            b'"onDeadline":"reject","cause":"agent","roles":["sre"],"attempt":1}'
        ),
    ),
    (
        NodeApproved(node="a", by="me", missing=0, notes="ok", inputs=Raw(b"{}")),
        b'"node.approved","node":"a","by":"me","missing":0,"notes":"ok","inputs":{}}',
    ),
    (
        NodeRejected(node="a", by="me", notes="no"),
        b'"node.rejected","node":"a","by":"me","notes":"no"}',
    ),
    (NodeSleeping(node="a", until=9), b'"node.sleeping","node":"a","until":9}'),
    (
        NodeAwaiting(node="a", event="x.*", deadline=9),
        b'"node.awaiting","node":"a","event":"x.*","deadline":9}',
    ),
    (
        NodeFannedOut(node="a", items=Raw(b"[1]"), count=1),
        b'"node.fannedOut","node":"a","items":[1],"count":1}',
    ),
    (
        NodeRequested(node="a", attempt=1, run="c", workflow="w", inputs=Raw(b"{}"), deadline=9),
        (
            b'"node.runRequested","node":"a","attempt":1,"run":"c","workflow":"w","inputs":{},'
            b'"deadline":9}'
        ),
    ),
    (
        NodeStopping(node="a", attempt=1, deadline=9),
        b'"node.stopping","node":"a","attempt":1,"deadline":9}',
    ),
    (
        RunPaused(reason="why", requested_by="me"),
        b'"run.paused","reason":"why","requestedBy":"me"}',
    ),
    (RunResumed(deadline=9), b'"run.resumed","deadline":9}'),
    (
        RunEnding(
            stage="compensating", outcome=RunStatus.FAILED, deadline=9, open=1, undo=("a",),
            failure=FAILURE,
        ),
        b'"run.ending","stage":"compensating","outcome":"FAILED","deadline":9,"open":1,'
        b'"undo":["a"],"failure":' + FAILURE_JSON + b"}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "wire"), LATER_EVENTS)
def test_an_event_has_exactly_these_bytes(event: Event, wire: bytes) -> None:
    assert msgspec.json.encode(event) == b'{"type":' + wire
    assert msgspec.json.decode(b'{"type":' + wire, type=Event) == event


def test_every_kind_of_event_is_in_a_table_above() -> None:
    known = [*EVENTS, *(event for event, _ in LATER_EVENTS)]
    assert {type(event) for event in known} == set(get_args(Event))


UNREADABLE: list[tuple[codec.Reader[Any], bytes | None, str]] = [
    (codec.messages, None, "empty value where an inbox message was expected"),
    (
        codec.messages,
        b"",
        "not an inbox message: not a JSON object (Input data was truncated)",
    ),
    (
        codec.tasks,
        b"[]",
        "not a task: not a JSON object (Expected `object`, got `array`)",
    ),
    (
        codec.heads,
        b"\xff\xfe",
        "not a run's head: not a JSON object (JSON is malformed: invalid character (byte 0))",
    ),
    (
        codec.messages,
        b'{"v":2,"type":"telepathy"}',
        "not an inbox message: format version 2, only 1 is known",
    ),
    (
        codec.decisions,
        b'{"v":"1"}',
        "not a decision: format version '1', only 1 is known",
    ),
    (
        codec.catalog,
        b'{"v":[2],"type":"definition"}',
        "not a workflow definition: format version [2], only 1 is known",
    ),
    (
        codec.messages,
        b'{"v":1,"type":"telepathy"}',
        "not an inbox message: Invalid value 'telepathy' - at `$.type`",
    ),
    (
        codec.messages,
        b'{"v":1,"run":"r1"}',
        "not an inbox message: Object missing required field `type`",
    ),
    (
        codec.nodes,
        b'{"v":1,"node":"a","status":"ASLEEP"}',
        "not a node's state: Invalid enum value 'ASLEEP' - at `$.status`",
    ),
    (
        codec.agents,
        b'{"v":1,"name":1}',
        "not an agent's registration: Expected `str`, got `int` - at `$.name`",
    ),
    (
        codec.dead_letters,
        b'{"v":1,"topic":"t"',
        "not a dead letter: not a JSON object (Input data was truncated)",
    ),
]


@pytest.mark.parametrize(("reader", "data", "why"), UNREADABLE)
def test_what_cannot_be_read_says_why(
    reader: codec.Reader[Any], data: bytes | None, why: str
) -> None:
    with pytest.raises(UnreadableRecordError) as caught:
        reader.decode(data)
    assert str(caught.value) == why


def test_a_record_nested_too_deep_is_unreadable_not_a_crash() -> None:
    with pytest.raises(UnreadableRecordError, match="recursion"):
        codec.tasks.decode(b'{"v":1,"inputs":' + b"[" * 100_000)


@given(st.data())
def test_decoding_is_total(data: st.DataObject) -> None:
    """Whatever a topic holds, a reader gives a record or says that there is none."""
    reader, _, wire = data.draw(st.sampled_from(WIRE))
    at = data.draw(st.integers(0, len(wire)))
    damage = data.draw(st.binary(max_size=6))
    dropped = data.draw(st.integers(0, 6))
    for candidate in (wire[:at] + damage + wire[at + dropped :], damage):
        try:
            record = reader.decode(candidate)
        except UnreadableRecordError:
            continue
        codec.encode(record)


COST = (
    b'{"kind":"api","source":"maps","quantity":"2","unit":"request","unitPrice":"%s","amount":"%s"}'
)
RESULT = (
    b'{"v":1,"type":"result","run":"r","node":"n","attempt":1,"startedAt":1,"finishedAt":2,'
    b'"costs":[%s]}'
)


def test_costs_are_exact_numbers_written_as_strings() -> None:
    read = codec.messages.decode(RESULT % (COST % (b"0.000000000001", b"2E-12")))
    assert isinstance(read, Result)
    (cost,) = read.costs
    assert (cost.unit_price, cost.amount) == (Decimal("0.000000000001"), Decimal("0.000000000002"))
    assert b'"unitPrice":"1E-12"' in codec.encode(read)
    assert codec.messages.decode(codec.encode(read)) == read


@pytest.mark.parametrize(
    "amount",
    [
        b"NaN",
        b"Infinity",
        b"-1",
        b"1e12",
        b"0.0000000000001",
        b"much",
        b"",
        b"9" * 5_000,
        b"1e999999",
    ],
)
def test_costs_that_cannot_be_added_up_are_refused(amount: bytes) -> None:
    with pytest.raises(UnreadableRecordError, match="not an inbox message"):
        codec.messages.decode(RESULT % (COST % (b"1", amount)))


def test_a_result_has_at_most_a_hundred_costs() -> None:
    entry = COST % (b"1", b"2")
    assert codec.messages.decode(RESULT % b",".join([entry] * 100))
    with pytest.raises(UnreadableRecordError):
        codec.messages.decode(RESULT % b",".join([entry] * 101))

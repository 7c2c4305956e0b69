from typing import get_args

import pytest
from msgspec import Raw

from sinks import decision_record
from sinks.decision_record import DecisionRecord, StatusName
from streams import codec
from streams.errors import UnreadableRecordError
from streams.events import (
    Decision,
    Event,
    NodeDispatched,
    NodeFailed,
    NodeSucceeded,
    RunCancelled,
    RunFailed,
    RunStarted,
)
from streams.records import Failure, RunStatus, Trigger

STARTED = RunStarted(
    trigger=Trigger(
        id="e-1", source="/ci", type="repo.push", data=Raw(b'{"text":"\\u00e9 \xc3\xa9"}')
    ),
    nodes=2,
    deadline=1_000_000,
)
DISPATCHED = NodeDispatched(
    node="scan",
    attempt=1,
    task="r/scan/1",
    agent="scanner",
    action="scan",
    inputs=Raw(b'{"b": 1,  "a": [1.50, null]}'),
    deadline=900_000,
)


def decision(*events: Event, traceparent: str | None = None) -> Decision:
    return Decision(
        run="r",
        project="default",
        workflow="review",
        version=3,
        seq=4,
        at=1_700_000_000_123,
        status=RunStatus.RUNNING,
        previous=RunStatus.PENDING,
        events=events,
        traceparent=traceparent,
    )


def test_statuses_are_those_of_runs() -> None:
    assert set(get_args(StatusName)) == {status.value for status in RunStatus}


def written(record: DecisionRecord) -> bytes:
    head = record.head
    return decision_record.write(
        run=head.run,
        project=head.project,
        workflow=head.workflow,
        version=head.version,
        seq=head.seq,
        at=head.at,
        status=head.status,
        previous=head.previous,
        payloads=list(record.payloads),
        traceparent=head.traceparent or "",
    )


@pytest.mark.parametrize(
    "traceparent", [None, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
)
def test_a_decision_is_given_back_byte_for_byte(traceparent: str | None) -> None:
    value = codec.encode(decision(STARTED, DISPATCHED, traceparent=traceparent))
    record = decision_record.read(2, 17, value)

    assert written(record) == value
    assert (record.partition, record.offset, record.next_seq) == (2, 17, 6)
    assert record.events == codec.decisions.decode(value).events


def test_it_has_the_fields_of_the_contract() -> None:
    # A field that the contract gets and this form does not would be lost in the store.
    ours = decision_record.DecisionHead
    assert ours.__struct_fields__ == Decision.__struct_fields__
    assert ours.__struct_encode_fields__ == Decision.__struct_encode_fields__
    assert ours.__struct_defaults__ == Decision.__struct_defaults__


def _with_events(events: bytes) -> bytes:
    value = codec.encode(decision(RunCancelled(reason="x")))
    return value.replace(b'[{"type":"run.cancelled","reason":"x"}]', events)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty value"),
        (b"", "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (codec.encode(decision(STARTED)).replace(b'"v":1', b'"v":2'), "format version 2"),
        (codec.encode(decision(STARTED)).replace(b'"seq":4', b'"seq":-1'), "seq"),
        (codec.encode(decision(STARTED)).replace(b'"at":17', b'"at":99999917'), "at"),
        (_with_events(b"[]"), "events"),
        (_with_events(b'[{"type":"run.exploded"}]'), "run.exploded"),
        (_with_events(b'[{"type":"run.cancelled","reason":"x","extra":"\xff"}]'), "utf-8"),
        (_with_events(b'[{"type":"run.cancelled","reason":5}]'), "reason"),
        (codec.encode(decision(NodeSucceeded(
            node="n", attempt=1, output=Raw(b"1"), started_at=-5, finished_at=2))), "is -5"),
        (codec.encode(decision(NodeSucceeded(
            node="n", attempt=2**40, output=Raw(b"1"), started_at=1, finished_at=2))), "attempt"),
        (codec.encode(decision(RunStarted(
            trigger=STARTED.trigger, nodes=1, deadline=10**30))), "deadline"),
    ],
)  # fmt: skip
def test_what_the_store_could_not_keep_is_unreadable(value: bytes | None, reason: str) -> None:
    with pytest.raises(UnreadableRecordError, match=reason):
        decision_record.read(0, 0, value)


def test_an_attempt_that_nobody_answered_has_no_times() -> None:
    failure = Failure(kind="timeout", message="no result")
    value = codec.encode(
        decision(NodeFailed(node="n", attempt=1, failure=failure), RunFailed(failure=failure))
    )
    assert decision_record.read(0, 0, value).events[0].started_at is None

"""Decisions to rows: pure, one pass, in the order of the log.

Rules:
- Each event becomes one row of `events`. A start or a change of status becomes a part of its run in
  `runs_log`; a dispatch, an end or a cancellation a part of its attempt in `agent_runs_log`.
- A column of a part is left unset (0, empty) where the part does not say it: see the schema.
- A decision whose sequence numbers are recorded already is a duplicate and makes no rows; one that
  leaves some out is recorded, and counted as a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Raw

from sinks.decision_record import DecisionRecord
from sinks.known_runs import KnownRuns, Recorded
from streams.records import (
    Event,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeRetrying,
    NodeSucceeded,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)

EVENT_COLUMNS: Final = (
    "run_id",
    "seq",
    "type",
    "at",
    "project",
    "workflow",
    "version",
    "node",
    "attempt",
    "agent",
    "action",
    "worker",
    "status",
    "previous_status",
    "topic",
    "partition",
    "offset",
    "payload",
    "traceparent",
)
RUN_COLUMNS: Final = (
    "started_at",
    "run_id",
    "project",
    "workflow",
    "version",
    "nodes",
    "deadline",
    "trigger_type",
    "trigger_source",
    "trigger_id",
    "trigger_subject",
    "trace_id",
    "latest",
)
AGENT_RUN_COLUMNS: Final = (
    "run_started_at",
    "run_id",
    "project",
    "workflow",
    "version",
    "node",
    "attempt",
    "task_id",
    "agent",
    "action",
    "dispatched_at",
    "deadline",
    "started_at",
    "finished_at",
    "retry_at",
    "cancelled_at",
    "outcome",
    "error_kind",
    "error_message",
    "worker",
    "inputs",
    "output",
)

_TYPES: Final = {kind: str(kind.__struct_config__.tag) for kind in Event.__args__}
_NOBODY: Final = ("", 0, "", "", "")

Row = tuple[Any, ...]


@dataclass(slots=True)
class Projection:
    """The rows that some decisions make, in the order of the columns above."""

    events: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    agent_runs: list[Row] = field(default_factory=list)
    duplicates: list[DecisionRecord] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    """What is missing, a sentence each."""


def project(records: Iterable[DecisionRecord], known: KnownRuns, topic: str) -> Projection:
    """Project records of one partition.

    Args:
        records: In the order of their offsets.
        known: What is recorded of their runs; afterwards it includes these records.
        topic: That the records were read from.
    """
    rows = Projection()
    for record in records:
        head = record.head
        recorded = known.get(head.run)
        if recorded is None:
            recorded = Recorded(0, head.at)
        if head.seq < recorded.next_seq:
            rows.duplicates.append(record)
            continue
        if head.seq > recorded.next_seq:
            rows.gaps.append(
                f"run {head.run}: events {recorded.next_seq} to {head.seq - 1} are missing before "
                f"offset {record.offset} of {topic}-{record.partition}"
            )
        known.learn(head.run, Recorded(record.next_seq, recorded.started_at))
        _events(rows, record, topic)
        _parts(rows, record, recorded.started_at)
    return rows


def columns(names: Sequence[str], rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    """Rows as the store takes them: by column."""
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _events(rows: Projection, record: DecisionRecord, topic: str) -> None:
    head = record.head
    after = (
        head.status.value,
        head.previous.value,
        topic,
        record.partition,
        record.offset,
    )
    traceparent = head.traceparent or ""
    seq = head.seq
    for event, payload in zip(record.events, record.payloads, strict=True):
        rows.events.append(
            (
                head.run,
                seq,
                _TYPES[type(event)],
                head.at,
                head.project,
                head.workflow,
                head.version,
                *_who(event),
                *after,
                payload,
                traceparent,
            )
        )
        seq += 1


def _who(event: Event) -> Row:
    """Node, attempt, agent, action and worker, as far as the event names them."""
    match event:
        case NodeDispatched():
            return (event.node, event.attempt, event.agent, event.action, "")
        case NodeSucceeded() | NodeRetrying() | NodeFailed():
            return (event.node, event.attempt, "", "", event.worker)
        case NodeCancelled():
            return (event.node, event.attempt, "", "", "")
        case RunStarted() | RunSucceeded() | RunFailed() | RunTimedOut() | RunCancelled():
            return _NOBODY
        case _:
            return (getattr(event, "node", ""), getattr(event, "attempt", 0), "", "", "")


def _parts(rows: Projection, record: DecisionRecord, run_started_at: int) -> None:
    head = record.head
    run = (run_started_at, head.run, head.project, head.workflow, head.version)
    start: Row = (0, 0, "", "", "", "", "")
    finished_at, error = 0, ("", "", "")
    for event in record.events:
        match event:
            case NodeDispatched() | NodeSucceeded() | NodeRetrying() | NodeFailed():
                rows.agent_runs.append((*run, event.node, event.attempt, *_attempt(event, head.at)))
            case NodeCancelled(attempt=attempt) if attempt:
                rows.agent_runs.append((*run, event.node, attempt, *_cancelled(head.at)))
            case RunStarted():
                start = _start(event, head.traceparent)
            case RunSucceeded():
                finished_at = head.at
            case RunFailed(failure=failure) | RunTimedOut(failure=failure):
                finished_at = head.at
                error = (failure.kind, failure.node or "", failure.message)
            case RunCancelled():
                finished_at = head.at
                error = ("cancelled", "", event.reason)
            case _:
                pass
    if head.status is not head.previous:
        latest = (record.next_seq - 1, head.status.value, finished_at, *error)
        rows.runs.append((*run, *start, latest))


def _start(event: RunStarted, traceparent: str | None) -> Row:
    trigger = event.trigger
    ids = (traceparent or "").split("-")
    return (
        event.nodes,
        event.deadline,
        trigger.type,
        trigger.source,
        trigger.id,
        trigger.subject or "",
        ids[1] if len(ids) > 1 else "",
    )


def _attempt(event: NodeDispatched | NodeSucceeded | NodeRetrying | NodeFailed, at: int) -> Row:
    """From task_id on. The end of an attempt that nobody answered is when it was given up."""
    match event:
        case NodeDispatched():
            sent = (event.task, event.agent, event.action, at, event.deadline)
            return (*sent, 0, 0, 0, 0, "", "", "", "", str(event.inputs, "utf-8"), "")
        case NodeSucceeded():
            times = (event.started_at, event.finished_at, 0, 0)
            output = str(event.output, "utf-8") if isinstance(event.output, Raw) else ""
            return ("", "", "", 0, 0, *times, "SUCCESS", "", "", event.worker, "", output)
        case NodeRetrying() | NodeFailed():
            retry_at = event.retry_at if isinstance(event, NodeRetrying) else 0
            times = (event.started_at or 0, event.finished_at or at, retry_at, 0)
            why = ("FAILED", event.failure.kind, event.failure.message)
            return ("", "", "", 0, 0, *times, *why, event.worker, "", "")


def _cancelled(at: int) -> Row:
    return ("", "", "", 0, 0, 0, 0, 0, at, "", "", "", "", "", "")

"""Decisions to rows: pure, one pass, in the order of the log.

Rules:
- Each event becomes one row of `events`. A start, a change of status or a pause becomes a part of
  its run in `runs_log`; a dispatch, an end or a cancellation a part of its attempt in
  `agent_runs_log`. What is no attempt (a node that sleeps, say) ends like one: the view leaves out
  what was never dispatched.
- Each entry of an event's costs becomes one row of `costs_log`.
- A column of a part is left unset (0, empty) where the part does not say it: see the schema.
- A decision whose sequence numbers are recorded already is a duplicate and makes no rows; one that
  leaves some out is recorded, and counted as a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from msgspec import Raw

from sinks.decision_record import DecisionRecord
from sinks.known_runs import KnownRuns, Recorded
from streams.ids import task_id
from streams.records import (
    Event,
    NodeApprovalRequested,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeRequested,
    NodeRetrying,
    NodeStarted,
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
    "item",
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
    "depth",
    "parent_run",
    "origin_run",
    "origin_kind",
    "tags",
    "latest",
    "pause",
)
AGENT_RUN_COLUMNS: Final = (
    "run_started_at",
    "run_id",
    "project",
    "workflow",
    "version",
    "node",
    "attempt",
    "item_number",
    "task_id",
    "agent",
    "action",
    "child_run",
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

COST_COLUMNS: Final = (
    "run_started_at",
    "run_id",
    "project",
    "workflow",
    "version",
    "seq",
    "entry",
    "at",
    "node",
    "item",
    "attempt",
    "agent",
    "kind",
    "source",
    "model",
    "quantity",
    "unit",
    "unit_price",
    "amount",
    "currency",
    "price_version",
)

_TYPES: Final = {kind: str(kind.__struct_config__.tag) for kind in Event.__args__}
_NOBODY: Final = ("", 0, -1, "", "", "")
_DECIDED_BY_PEOPLE: Final = frozenset({"rejected", "approval_expired"})

Row = tuple[Any, ...]

_ROWS_AT_ONCE: Final = 256

Attempt = (
    NodeDispatched
    | NodeRequested
    | NodeSucceeded
    | NodeRetrying
    | NodeFailed
    | NodeApprovalRequested
    | NodeCancelled
)
"""Events that tell of an attempt, where they are about one."""

Charged = NodeSucceeded | NodeRetrying | NodeFailed | NodeCancelled
"""Events that tell what an attempt cost."""

_ATTEMPTS: Final = get_args(Attempt)
_NO_START: Final[Row] = (0, 0, "", "", "", "", "", 0, "", "", "", ())
_SAME_STATUS: Final[Row] = (0, "", 0, "", "", "")
_NOT_SENT: Final[Row] = ("", "", "", "", 0, 0)
"""Task, agent, action, child run, time of dispatch and deadline, in parts of other events."""


@dataclass(slots=True)
class Projection:
    """The rows that some decisions make, in the order of the columns above."""

    events: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    agent_runs: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
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
        _costs(rows, record, recorded.started_at)
    return rows


def columns(names: Sequence[str], rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    """Rows as the store takes them: by column.

    Some rows at a time, which the processor's cache can hold: all at once takes ten times as long.
    """
    found: list[list[Any]] = [[] for _ in names]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        for column, part in zip(found, zip(*block, strict=True), strict=True):
            column.extend(part)
    return dict(zip(names, found, strict=True))


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
    """Node, attempt, item, agent, action and worker, as far as the event names them."""
    match event:
        case NodeDispatched():
            return (event.node, event.attempt, _item(event), event.agent, event.action, "")
        case NodeSucceeded() | NodeRetrying() | NodeFailed() | NodeStarted():
            return (event.node, event.attempt, _item(event), "", "", event.worker)
        case NodeCancelled():
            return (event.node, event.attempt, _item(event), "", "", "")
        case RunStarted() | RunSucceeded() | RunFailed() | RunTimedOut() | RunCancelled():
            return _NOBODY
        case _:
            item = getattr(event, "item", None)
            place = -1 if item is None else item
            return (getattr(event, "node", ""), getattr(event, "attempt", 0), place, "", "", "")


def _item(event: Attempt | NodeStarted | NodeCancelled) -> int:
    return -1 if event.item is None else event.item


def _parts(rows: Projection, record: DecisionRecord, run_started_at: int) -> None:
    head = record.head
    run = (run_started_at, head.run, head.project, head.workflow, head.version)
    start: Row = _NO_START
    pause: Row = (0, 0)
    finished_at, error = 0, ("", "", "")
    for seq, event in enumerate(record.events, head.seq):
        match event:
            case _ if isinstance(event, _ATTEMPTS):
                if (attempt := _attempt(event, head.run, head.at)) is not None:
                    rows.agent_runs.append((*run, *attempt))
            case RunStarted():
                start = _start(event, head.traceparent)
            case RunPaused():
                pause = (seq, 1)
            case RunResumed() | RunEnding():
                pause = (seq, 0)
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
        rows.runs.append((*run, *start, latest, pause))
    elif pause[0]:
        rows.runs.append((*run, *start, _SAME_STATUS, pause))


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
        event.depth,
        "" if event.parent is None else event.parent.run,
        "" if event.origin is None else event.origin.run,
        "" if event.origin is None else event.origin.kind,
        event.tags,
    )


def _costs(rows: Projection, record: DecisionRecord, run_started_at: int) -> None:
    """A row for each entry. An event does not say who worked: whoever is paid for the compute."""
    head = record.head
    run = (run_started_at, head.run, head.project, head.workflow, head.version)
    for seq, event in enumerate(record.events, head.seq):
        if not isinstance(event, Charged) or not event.costs:
            continue
        agent = next((cost.source for cost in event.costs if cost.kind == "compute"), "")
        rows.costs += [
            (
                *(*run, seq, entry, head.at),
                *(event.node, _item(event), event.attempt, agent),
                *(cost.kind, cost.source, cost.model),
                *(cost.quantity, cost.unit, cost.unit_price, cost.amount),
                *(cost.currency, cost.price_version),
            )
            for entry, cost in enumerate(event.costs)
        ]


def _attempt(event: Attempt, run: str, at: int) -> Row | None:
    """From node on; None where the event does not speak of an attempt.

    The end of an attempt that nobody answered is when it was given up.
    """
    number = 0 if event.item is None else event.item + 1
    key = (event.node, event.attempt, number)
    match event:
        case NodeDispatched():
            sent = (event.task, event.agent, event.action, "", at, event.deadline)
            return (*key, *sent, 0, 0, 0, 0, "", "", "", "", str(event.inputs, "utf-8"), "")
        case NodeRequested():
            task = task_id(run, event.node, event.item, event.attempt)
            sent = (task, "", "", event.run, at, event.deadline)
            return (*key, *sent, 0, 0, 0, 0, "", "", "", "", str(event.inputs, "utf-8"), "")
        case NodeSucceeded():
            if not isinstance(event.output, Raw):  # a fan-out: its items were attempted
                return None
            times = (event.started_at, event.finished_at, 0, 0)
            output = str(event.output, "utf-8")
            return (*key, *_NOT_SENT, *times, "SUCCESS", "", "", event.worker, "", output)
        case NodeRetrying() | NodeFailed():
            if not event.attempt or event.failure.kind in _DECIDED_BY_PEOPLE:
                return None
            retry_at = event.retry_at if isinstance(event, NodeRetrying) else 0
            times = (event.started_at or 0, event.finished_at or at, retry_at, 0)
            why = ("FAILED", event.failure.kind, event.failure.message)
            return (*key, *_NOT_SENT, *times, *why, event.worker, "", "")
        case NodeApprovalRequested():
            if not event.attempt:  # nothing was attempted yet
                return None
            # A question, not a failure: it must not count in anybody's failure rate.
            why = ("CANCELLED", "approval_required", "the agent acts only if a person has agreed")
            return (*key, *_NOT_SENT, 0, at, 0, 0, *why, "", "", "")
        case NodeCancelled():
            if not event.attempt:
                return None
            return (*key, *_NOT_SENT, 0, 0, 0, at, "", "", "", "", "", "")

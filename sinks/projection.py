"""Decisions to rows: pure, one pass, in the order of the log.

Rules:
- Each event becomes one row of `events`. A start, a change of status or a pause becomes a part of
  its run in `runs_log`; a dispatch, an end or a cancellation a part of its attempt in
  `agent_runs_log`. What is no attempt (a node that sleeps, say) ends like one: the view leaves out
  what was never dispatched.
- Each entry of an event's costs becomes one row of `costs_log`, the beginning of a run one of
  `run_places`.
- A column of a part is left unset (0, empty) where the part does not say it: see the schema.
- A decision whose sequence numbers are recorded already is a duplicate and makes no rows; one that
  leaves some out is recorded, and counted as a gap.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from msgspec import Raw

from sinks.decision_record import DecisionRecord
from sinks.known_runs import KnownRuns, Recorded
from streams.events import (
    Event,
    NodeApprovalRequested,
    NodeCancelled,
    NodeCharged,
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
from streams.ids import task_id

EVENT_COLUMNS: Final = (
    "seq",
    "type",
    "payload",
    "node",
    "attempt",
    "item",
    "agent",
    "action",
    "worker",
    # from here on the same for all events of a decision
    "run_id",
    "at",
    "project",
    "workflow",
    "version",
    "status",
    "previous_status",
    "topic",
    "partition",
    "offset",
    "traceparent",
    "run_started_at",
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
    "agent_version",
    "inputs",
    "output",
)

PLACE_COLUMNS: Final = ("run_id", "started_at")

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

_NOBODY: Final = ("", 0, -1, "", "", "")
_DECIDED_BY_PEOPLE: Final = frozenset({"rejected", "approval_expired"})

Row = tuple[Any, ...]

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

Charged = NodeSucceeded | NodeRetrying | NodeFailed | NodeCancelled | NodeCharged
"""Events that tell what an attempt cost."""

_NO_START: Final[Row] = (0, 0, "", "", "", "", "", 0, "", "", "", ())
_SAME_STATUS: Final[Row] = (0, "", 0, "", "", "")
_NOT_SENT: Final[Row] = ("", "", "", "", 0, 0)
"""Task, agent, action, child run, time of dispatch and deadline, in parts of other events."""

_NOT_ENDED: Final[Row] = (0, 0, 0, 0, "", "", "", "", "")
"""Four times, outcome, the error's kind and message, worker and version, in parts of a dispatch."""


@dataclass(slots=True)
class Projection:
    """The rows that some decisions make, in the order of the columns above."""

    events: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    agent_runs: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    places: list[Row] = field(default_factory=list)
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
            rows.places.append((head.run, head.at))
        if head.seq < recorded.next_seq:
            rows.duplicates.append(record)
            continue
        if head.seq > recorded.next_seq:
            rows.gaps.append(
                f"run {head.run}: events {recorded.next_seq} to {head.seq - 1} are missing before "
                f"offset {record.offset} of {topic}-{record.partition}"
            )
        known.learn(head.run, Recorded(record.next_seq, recorded.started_at))
        _take(rows, record, topic, recorded.started_at)
    return rows


class Table:
    """Rows as the store takes them: by column.

    Args:
        names: Of the columns.
    """

    __slots__ = ("_values", "columns", "length")

    def __init__(self, names: Sequence[str]) -> None:
        self._values: list[list[Any]] = [[] for _ in names]
        self.columns: dict[str, list[Any]] = dict(zip(names, self._values, strict=True))
        self.length = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Some more rows, in the order of the names."""
        if not rows:
            return
        self.length += len(rows)
        for column, values in zip(self._values, zip(*rows, strict=True), strict=True):
            column.extend(values)


def _take(rows: Projection, record: DecisionRecord, topic: str, run_started_at: int) -> None:
    """All rows of one decision. What is done for each event is looked up by its type, once."""
    head = record.head
    run_id, at, status, seq = head.run, head.at, head.status, head.seq
    project_of, workflow, version = head.project, head.workflow, head.version
    run = (run_started_at, run_id, project_of, workflow, version)
    decided = (
        *(run_id, at, project_of, workflow, version, status, head.previous),
        *(topic, record.partition, record.offset, head.traceparent or "", run_started_at),
    )
    changes_run = status != head.previous
    event: Any
    for event, payload in zip(record.events, record.payloads, strict=True):
        name, who, attempt, is_charged, pauses = _TELLING[type(event)]
        # Tuples are added: unpacking them takes twice as long, for every event of every run.
        rows.events.append((seq, name, payload) + who(event) + decided)  # noqa: RUF005
        if attempt is not None and (part := attempt(event, run_id, at)) is not None:
            rows.agent_runs.append(run + part)
        if is_charged and event.costs:
            _costs(rows, event, (*run, seq), at)
        if pauses:
            changes_run = True
        seq += 1
    if changes_run:
        _run_part(rows, record, run)


def _of_nobody(_event: Any) -> Row:
    """Node, attempt, item, agent, action and worker, as far as an event names them."""
    return _NOBODY


def _of_dispatch(event: NodeDispatched) -> Row:
    item = event.item
    place = -1 if item is None else item
    return (event.node, event.attempt, place, event.agent, event.action, "")


def _of_worker(event: NodeSucceeded | NodeRetrying | NodeFailed | NodeStarted) -> Row:
    item = event.item
    return (event.node, event.attempt, -1 if item is None else item, "", "", event.worker)


def _of_any(event: Any) -> Row:
    item = getattr(event, "item", None)
    place = -1 if item is None else item
    return (getattr(event, "node", ""), getattr(event, "attempt", 0), place, "", "", "")


def _run_part(rows: Projection, record: DecisionRecord, run: Row) -> None:
    head = record.head
    start: Row = _NO_START
    pause: Row = (0, 0)
    finished_at, error = 0, ("", "", "")
    for seq, event in enumerate(record.events, head.seq):
        match event:
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
    if head.status != head.previous:
        latest = (record.next_seq - 1, head.status, finished_at, *error)
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


def _costs(rows: Projection, event: Charged, place: Row, at: int) -> None:
    """A row for each entry. An event does not say who worked: whoever is paid for the compute."""
    agent = ""
    for cost in event.costs:
        if cost.kind == "compute":
            agent = cost.source
            break
    item = -1 if event.item is None else event.item
    for entry, cost in enumerate(event.costs):
        rows.costs.append(
            (
                *place,
                entry,
                *(at, event.node, item, event.attempt, agent),
                *(cost.kind, cost.source, cost.model),
                *(cost.quantity, cost.unit, cost.unit_price, cost.amount),
                *(cost.currency, cost.price_version),
            )
        )


def _number(item: int | None) -> int:
    """The place of an item in its node, from 1; 0 where there is none."""
    return 0 if item is None else item + 1


def _sent(event: NodeDispatched, _run: str, at: int) -> Row:
    """What an event tells of an attempt, from node on; None where it does not speak of one."""
    key = (event.node, event.attempt, _number(event.item))
    sent = (event.task, event.agent, event.action, "", at, event.deadline)
    return key + sent + _NOT_ENDED + (str(event.inputs, "utf-8"), "")


def _key(event: Attempt) -> Row:
    return (event.node, event.attempt, _number(event.item))


def _requested(event: NodeRequested, run: str, at: int) -> Row:
    task = task_id(run, event.node, event.item, event.attempt)
    sent = (task, "", "", event.run, at, event.deadline)
    return (*_key(event), *sent, *_NOT_ENDED, str(event.inputs, "utf-8"), "")


def _succeeded(event: NodeSucceeded, _run: str, _at: int) -> Row | None:
    output = event.output
    if not isinstance(output, Raw):  # a fan-out: its items were attempted
        return None
    key = (event.node, event.attempt, _number(event.item))
    ended = (
        event.started_at,
        event.finished_at,
        0,
        0,
        "SUCCESS",
        "",
        "",
        event.worker,
        event.agent_version,
    )
    return key + _NOT_SENT + ended + ("", str(output, "utf-8"))


def _failed(event: NodeRetrying | NodeFailed, _run: str, at: int) -> Row | None:
    """The end of an attempt that nobody answered is when it was given up."""
    if not event.attempt or event.failure.kind in _DECIDED_BY_PEOPLE:
        return None
    retry_at = event.retry_at if isinstance(event, NodeRetrying) else 0
    times = (event.started_at or 0, event.finished_at or at, retry_at, 0)
    why = ("FAILED", event.failure.kind, event.failure.message)
    return (*_key(event), *_NOT_SENT, *times, *why, event.worker, event.agent_version, "", "")


def _asked(event: NodeApprovalRequested, _run: str, at: int) -> Row | None:
    if not event.attempt:  # nothing was attempted yet
        return None
    # A question, not a failure: it must not count in anybody's failure rate.
    why = ("CANCELLED", "approval_required", "the agent acts only if a person has agreed")
    return (*_key(event), *_NOT_SENT, 0, at, 0, 0, *why, "", "", "", "")


def _cancelled(event: NodeCancelled, _run: str, at: int) -> Row | None:
    if not event.attempt:
        return None
    return (*_key(event), *_NOT_SENT, 0, 0, 0, at, "", "", "", "", "", "", "")


_PAUSING: Final = frozenset({RunPaused, RunResumed, RunEnding})
_WHO: Final[dict[Any, Callable[[Any], Row]]] = {
    NodeDispatched: _of_dispatch,
    **dict.fromkeys((NodeSucceeded, NodeRetrying, NodeFailed, NodeStarted), _of_worker),
    **dict.fromkeys((RunStarted, RunSucceeded, RunFailed, RunTimedOut, RunCancelled), _of_nobody),
}
_ATTEMPTS: Final[dict[Any, Callable[[Any, str, int], Row | None]]] = {
    NodeDispatched: _sent,
    NodeRequested: _requested,
    NodeSucceeded: _succeeded,
    NodeRetrying: _failed,
    NodeFailed: _failed,
    NodeApprovalRequested: _asked,
    NodeCancelled: _cancelled,
}
_TELLING: Final[dict[Any, Any]] = {
    kind: (
        str(kind.__struct_config__.tag),
        _WHO.get(kind, _of_any),
        _ATTEMPTS.get(kind),
        kind in get_args(Charged),
        kind in _PAUSING,
    )
    for kind in get_args(Event)
}
"""By type of event: its name, who it is about, what it tells of an attempt, whether it costs and
whether it pauses the run or ends a pause."""

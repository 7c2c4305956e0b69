"""A run and its nodes as they stand, told from the run's events alone.

Because everything of the run comes from one list of events, its parts always agree. Nodes that the
events do not name yet are PENDING; their agent and action come from the definition.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from gateway.recent_starts import AcceptedStart
from gateway.views import FailureView, NodeView, RunDetail, TriggerView, moment
from streams.errors import UnreadableRecordError
from streams.lifecycle import TERMINAL
from streams.plan import Plan
from streams.records import (
    Event,
    Failure,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    NodeStatus,
    NodeSucceeded,
    RunFailed,
    RunStarted,
    RunStatus,
    RunTimedOut,
    Trigger,
)
from streams.trigger import trace_context

_events = msgspec.json.Decoder(Event)


class EventRow(NamedTuple):
    """An event as the store gives it."""

    run: str
    project: str
    workflow: str
    version: int
    seq: int
    type: str
    at: datetime
    status: str
    payload: bytes
    traceparent: str | None = None


def tell(rows: Sequence[EventRow], plan: Plan | None, watermark: Mapping[int, int]) -> RunDetail:
    """The run of these events (at least one, in order).

    Raises:
        UnreadableRecordError: An event is not of a known kind.
    """
    first, last = rows[0], rows[-1]
    nodes = {} if plan is None else pending_nodes(plan)
    started: RunStarted | None = None
    failure: Failure | None = None
    for row in rows:
        event = _decode(row)
        match event:
            case RunStarted():
                started = event
            case RunFailed() | RunTimedOut():
                failure = event.failure
            case _:
                _apply(nodes, event, row.at)
    traceparent = trace_context(last.traceparent)
    finished_at = last.at if RunStatus(last.status) in TERMINAL else None
    return RunDetail(
        id=first.run,
        project=first.project,
        workflow=first.workflow,
        version=first.version,
        status=RunStatus(last.status),
        trigger=trigger_view(None if started is None else started.trigger),
        started_at=first.at,
        finished_at=finished_at,
        duration_ms=None if finished_at is None else _milliseconds(first.at, finished_at),
        deadline=None if started is None else moment(started.deadline),
        nodes=len(nodes) if started is None else started.nodes,
        error=failure_view(failure),
        trace_id=None if traceparent is None else traceparent.split("-")[1],
        seq=last.seq,
        steps=list(nodes.values()),
        watermark=dict(watermark),
    )


def tell_accepted(
    accepted: AcceptedStart, plan: Plan | None, watermark: Mapping[int, int]
) -> RunDetail:
    """A run of which there is nothing but its start: PENDING, with all its nodes."""
    start = accepted.start
    steps = [] if plan is None else list(pending_nodes(plan).values())
    return RunDetail(
        id=start.run,
        project=start.project,
        workflow=start.workflow,
        version=start.version,
        status=RunStatus.PENDING,
        trigger=trigger_view(start.trigger),
        nodes=len(steps),
        steps=steps,
        watermark=dict(watermark),
        seq=-1,
    )


def pending_nodes(plan: Plan) -> dict[str, NodeView]:
    """The nodes of a definition as they are before a run has done anything."""
    return {
        node.id: NodeView(
            id=node.id,
            status=NodeStatus.PENDING,
            agent=node.agent,
            action=node.action,
            description=node.description,
            depends_on=node.depends_on,
        )
        for node in plan.spec.nodes
    }


def trigger_view(trigger: Trigger | None) -> TriggerView:
    """A run's trigger with its data."""
    if trigger is None:
        return TriggerView(id="", source="", type="")
    return TriggerView(
        id=trigger.id,
        source=trigger.source,
        type=trigger.type,
        subject=trigger.subject,
        time=trigger.time,
        data=trigger.data,
    )


def failure_view(failure: Failure | None) -> FailureView | None:
    """A failure as answers show it."""
    if failure is None:
        return None
    return FailureView(kind=failure.kind, message=failure.message, node=failure.node)


def _decode(row: EventRow) -> Event:
    try:
        event: Event = _events.decode(row.payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableRecordError(
            f"event {row.seq} of run {row.run} cannot be read by this release: {error}"
        ) from error
    return event


def _apply(nodes: dict[str, NodeView], event: Any, at: datetime) -> None:
    if not hasattr(event, "node"):
        return
    node = nodes.get(event.node) or NodeView(id=event.node, status=NodeStatus.PENDING)
    changes: dict[str, Any]
    match event:
        case NodeDispatched():
            changes = {
                "status": NodeStatus.RUNNING,
                "agent": event.agent,
                "action": event.action,
                "attempts": event.attempt,
                "inputs": event.inputs,
                "dispatched_at": at,
                "started_at": at,
                "finished_at": None,
                "duration_ms": None,
                "retry_at": None,
                "error": None,
            }
        case NodeSucceeded():
            changes = {
                "status": NodeStatus.SUCCESS,
                "output": event.output,
                **_times(event, node, at),
            }
        case NodeRetrying():
            changes = {
                "status": NodeStatus.RETRYING,
                "error": failure_view(event.failure),
                "retry_at": moment(event.retry_at),
                **_times(event, node, at),
            }
        case NodeFailed():
            changes = {
                "status": NodeStatus.FAILED,
                "error": failure_view(event.failure),
                **_times(event, node, at),
            }
        case NodeSkipped():
            changes = {"status": NodeStatus.SKIPPED, "reason": event.reason}
        case NodeCancelled():
            changes = {"status": NodeStatus.CANCELLED, "finished_at": at}
        case _:
            return
    nodes[event.node] = replace(node, **changes)


def _times(
    event: NodeSucceeded | NodeRetrying | NodeFailed, node: NodeView, at: datetime
) -> dict[str, Any]:
    """When the attempt ran: by the agent's clock, or until it was given up."""
    if event.started_at is None or event.finished_at is None:
        spent = None if node.started_at is None else _milliseconds(node.started_at, at)
        return {"finished_at": at, "duration_ms": spent, "worker": event.worker or None}
    return {
        "started_at": moment(event.started_at),
        "finished_at": moment(event.finished_at),
        "duration_ms": event.finished_at - event.started_at,
        "worker": event.worker or None,
    }


def _milliseconds(start: datetime, end: datetime) -> int:
    return round((end - start).total_seconds() * 1000)

"""A run and its nodes as they stand, told from the run's events alone.

Because everything of the run comes from its events up to one of them, its parts always agree. Nodes
that the events do not name yet are PENDING; their agent and action come from the definition. Of the
items of fan-outs it is enough to know how many stand where: see `gateway.run_reading`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway.recent_starts import AcceptedStart
from gateway.run_costs import ItemsCost
from gateway.run_nodes import RunNodes, failure_view, milliseconds_between
from gateway.run_views import (
    EndingView,
    FailureView,
    ItemCounts,
    NodeView,
    OriginView,
    ParentView,
    PauseView,
    RunDetail,
    TriggerView,
)
from gateway.views import moment
from streams.errors import UnreadableRecordError
from streams.events import (
    Event,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)
from streams.lifecycle import SETTLED, TERMINAL
from streams.plan import Plan
from streams.records import Origin, Parent, RunStatus, Trigger
from streams.trigger import trace_context

SHOWN_WAITING: Final = 100
"""Of the approvals that a run waits for, so many are named with it."""
_CHARGED: Final = "node.charged"
_events: Final = msgspec.json.Decoder(Event)


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


class Told(NamedTuple):
    """A run as its events tell it, with its nodes open to further questions."""

    detail: RunDetail
    nodes: RunNodes
    plan: Plan | None = None


class ItemsTold(NamedTuple):
    """What is known of items where not all of their events are there.

    How many stand where, by node; what they cost; and all events of those that are shown.
    """

    counts: Mapping[str, ItemCounts]
    costs: Sequence[ItemsCost]
    rows: Sequence[EventRow]


def tell(rows: Sequence[EventRow], plan: Plan | None, watermark: Mapping[int, int]) -> RunDetail:
    """The run of these events (at least one, in order).

    Raises:
        UnreadableRecordError: An event is not of a known kind.
    """
    return tell_all(rows, plan, watermark).detail


def tell_all(
    rows: Sequence[EventRow],
    plan: Plan | None,
    watermark: Mapping[int, int],
    last: EventRow | None = None,
    items: ItemsTold | None = None,
) -> Told:
    """As `tell`, with the run's nodes.

    Args:
        rows: Where there are `items`, without the events of items.
        plan: As for `RunNodes`.
        watermark: How far the history was read.
        last: The run's last event, where that is not the last of `rows`.
        items: What is known of items; None: their events are among `rows`.
    """
    first, last = rows[0], last or rows[-1]
    nodes = RunNodes(first.run, first.workflow, first.project, plan)
    head = _Head()
    for row, event in decoded(rows):
        head.apply(event, row.at)
        nodes.apply(event, row.at)
    if items is not None:
        nodes.count_items(items.counts, items.costs)
        for row, event in decoded(items.rows):
            nodes.apply(event, row.at)
    started = head.started
    waiting = tuple(islice(nodes.waiting(), SHOWN_WAITING + 1))
    traceparent = trace_context(last.traceparent)
    finished_at = None
    if RunStatus(last.status) in TERMINAL:
        # Costs may be told after the end.
        finished_at = next(row.at for row in reversed(rows) if row.type != _CHARGED)
    views = nodes.views()
    parent, origin = (None, None) if started is None else (started.parent, started.origin)
    return Told(
        RunDetail(
            id=first.run,
            project=first.project,
            workflow=first.workflow,
            version=first.version,
            status=RunStatus(last.status),
            trigger=trigger_view(None if started is None else started.trigger),
            started_at=first.at,
            finished_at=finished_at,
            duration_ms=None
            if finished_at is None
            else milliseconds_between(first.at, finished_at),
            deadline=head.deadline,
            nodes=len(views) if started is None else started.nodes,
            tags=() if started is None else started.tags,
            error=head.error,
            trace_id=None if traceparent is None else traceparent.split("-")[1],
            paused=head.pause is not None,
            depth=0 if started is None else started.depth,
            parent_run=None if parent is None else parent.run,
            origin_run=None if origin is None else origin.run,
            seq=last.seq,
            steps=views,
            output=head.output,
            waited_ms=_waited_ms(rows),
            waiting_for=waiting[:SHOWN_WAITING],
            more_waiting=len(waiting) > SHOWN_WAITING,
            pause=head.pause,
            ending=None if finished_at is not None else _left(head.ending, views),
            parent=_parent_view(parent),
            origin=_origin_view(origin),
            uncompensated=head.uncompensated,
            cost=nodes.cost.totals(),
            watermark=dict(watermark),
        ),
        nodes,
        plan,
    )


def tell_accepted(accepted: AcceptedStart, plan: Plan | None, watermark: Mapping[int, int]) -> Told:
    """A run of which there is nothing but its start: PENDING, with all its nodes."""
    start = accepted.start
    nodes = RunNodes(start.run, start.workflow, start.project, plan)
    steps = nodes.views()
    detail = RunDetail(
        id=start.run,
        project=start.project,
        workflow=start.workflow,
        version=start.version,
        status=RunStatus.PENDING,
        trigger=trigger_view(start.trigger),
        nodes=len(steps),
        tags=() if plan is None else plan.spec.tags,
        depth=start.depth,
        origin_run=None if start.origin is None else start.origin.run,
        origin=_origin_view(start.origin),
        steps=steps,
        watermark=dict(watermark),
        seq=-1,
    )
    return Told(detail, nodes, plan)


def decoded(rows: Sequence[EventRow]) -> Iterator[tuple[EventRow, Event]]:
    """Each row with its event; errors as for `tell`."""
    for row in rows:
        try:
            yield row, _events.decode(row.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableRecordError(
                f"event {row.seq} of run {row.run} cannot be read by this release: {error}"
            ) from error


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


class _Head:
    """What the events of the run itself say."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.deadline: datetime | None = None
        self.error: FailureView | None = None
        self.output: Raw | None = None
        self.pause: PauseView | None = None
        self.ending: EndingView | None = None
        self.uncompensated: tuple[str, ...] = ()

    def apply(self, event: Event, at: datetime) -> None:
        match event:
            case RunStarted():
                self.started = event
                self.deadline = moment(event.deadline)
            case RunPaused():
                self.pause = PauseView(at=at, reason=event.reason, requested_by=event.requested_by)
            case RunResumed():
                self.pause = None
                self.deadline = moment(event.deadline)
            case RunEnding():
                self.pause = None
                self.deadline = moment(event.deadline)
                self.ending = EndingView(
                    stage=event.stage,
                    outcome=event.outcome,
                    deadline=self.deadline,
                    undo=event.undo,
                    error=failure_view(event.failure),
                    reason=event.reason,
                    requested_by=event.requested_by,
                )
            case RunSucceeded():
                self.output = event.output if isinstance(event.output, Raw) else None
            case RunFailed() | RunTimedOut():
                self.error = failure_view(event.failure)
                self.uncompensated = event.uncompensated
            case RunCancelled():
                self.error = FailureView(kind="cancelled", message=event.reason)
                self.uncompensated = event.uncompensated
            case _:
                pass


def _left(ending: EndingView | None, nodes: Sequence[NodeView]) -> EndingView | None:
    """The ending, with the nodes that are still to be undone."""
    if ending is None or not ending.undo:
        return ending
    done = {
        node.id
        for node in nodes
        if node.compensation is not None and node.compensation.status in SETTLED
    }
    return replace(ending, undo=tuple(name for name in ending.undo if name not in done))


def _waited_ms(rows: Sequence[EventRow]) -> int:
    """How long the run was WAITING_APPROVAL, up to its last event."""
    waited = 0
    since: datetime | None = None
    for row in rows:
        waits = row.status == RunStatus.WAITING_APPROVAL
        if waits and since is None:
            since = row.at
        elif not waits and since is not None:
            waited += milliseconds_between(since, row.at)
            since = None
    return waited


def _parent_view(parent: Parent | None) -> ParentView | None:
    if parent is None:
        return None
    return ParentView(run=parent.run, node=parent.node, item=parent.item, attempt=parent.attempt)


def _origin_view(origin: Origin | None) -> OriginView | None:
    if origin is None:
        return None
    return OriginView(run=origin.run, kind=origin.kind, requested_by=origin.requested_by)

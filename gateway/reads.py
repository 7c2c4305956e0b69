"""What the routes ask of the recorded history, and that asked of the store."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import Raw

from gateway.recorded_log import RecordedLog
from gateway.run_costs import ItemsCost, KindCost, RunCost, plain
from gateway.run_detail import EventRow
from gateway.run_views import (
    AgentRunView,
    AnswerView,
    ApprovalView,
    CostView,
    FailureView,
    RunView,
    TriggerView,
)
from gateway.views import moment
from sinks.history import ApprovalFilter, EventFilter, History, RunFilter
from streams.events import NodeApproved, NodeRejected
from streams.records import NodeStatus, RunStatus

_PAGE: Final = 2_000
_said: Final = msgspec.json.Decoder(NodeApproved | NodeRejected)


class RunQuery(NamedTuple):
    """Which runs, newest first; what is left empty narrows nothing.

    `before` is the start (ms since the epoch) and id of the last run seen.
    """

    project: str = ""
    workflow: str = ""
    status: RunStatus | None = None
    before: tuple[int, str] | None = None
    limit: int = 50


class EventQuery(NamedTuple):
    """Which events, newest first; what is left empty narrows nothing.

    `before` is the time (ms since the epoch), run and sequence number of the last event seen.
    """

    project: str = ""
    workflow: str = ""
    type: str = ""
    before: tuple[int, str, int] | None = None
    limit: int = 50


class ApprovalQuery(NamedTuple):
    """Which approvals; what is left empty narrows nothing. `state` is pending or decided.

    `before` is whether the last one seen waits, when it was asked for (ms), and its id.
    """

    project: str = ""
    workflow: str = ""
    run: str = ""
    state: str = ""
    before: tuple[bool, int, str] | None = None
    limit: int = 50


class ItemQuery(NamedTuple):
    """Of `span` items of a node from `start` on, those whose last event is one of `types`.

    '' is that of an item that has none. `until` is the last sequence number that counts.
    """

    run: str
    node: str
    until: int
    types: tuple[str, ...]
    start: int
    span: int
    limit: int


class LastEvent(NamedTuple):
    """How many `items` of a node had this last event, and a result of an earlier run or not."""

    node: str
    type: str
    reused: bool
    items: int


AttemptPlace = tuple[int, str, int, int]
"""Where an attempt stands among those of its run: dispatch (ms), node, item or -1, attempt."""


class Reads(RecordedLog, Protocol):
    """The recorded history as the routes need it."""

    async def runs(self, query: RunQuery) -> Sequence[RunView]:
        """Runs, newest first."""
        ...

    async def run_events(self, run: str) -> Sequence[EventRow]:
        """All events of a run, in order; none where the run is unknown."""
        ...

    async def events(self, query: EventQuery) -> Sequence[EventRow]:
        """Events, newest first."""
        ...

    async def run_events_page(self, run: str, start: int, limit: int) -> Sequence[EventRow]:
        """Events of a run from a sequence number on, in order."""
        ...

    async def newest_run_events(
        self, run: str, before: int | None, limit: int
    ) -> Sequence[EventRow]:
        """Events of a run before a sequence number, the newest first."""
        ...

    async def agent_runs(
        self, run: str, after: AttemptPlace | None, limit: int
    ) -> Sequence[AgentRunView]:
        """Attempts of a run, in the order of their dispatch."""
        ...

    async def events_naming(self, run: str, digest: str) -> Sequence[EventRow]:
        """Events of a run that name this payload, the first of them."""
        ...

    async def fan_outs(self, run: str) -> Sequence[EventRow]:
        """The events by which nodes of a run got their items."""
        ...

    async def repetitions(self, run: str, since: datetime | None) -> Sequence[str]:
        """The runs that repeat a run, which began at `since`."""
        ...

    async def run_story(self, run: str, until: int) -> Sequence[EventRow]:
        """Events of a run that are about no item, in order; of signs of life a node's newest."""
        ...

    async def item_counts(self, run: str, until: int, node: str = "") -> Sequence[LastEvent]:
        """How many items of a node, or of each, stand where."""
        ...

    async def item_costs(self, run: str, until: int) -> Sequence[ItemsCost]:
        """What the items of each node cost."""
        ...

    async def run_cost_sums(self, run: str, until: int) -> Sequence[KindCost]:
        """What all that a run is charged adds up to."""
        ...

    async def run_costs(
        self, run: str, until: int, after: tuple[int, int] | None, limit: int
    ) -> Sequence[RunCost]:
        """What a run is charged, in the order of its events, after (sequence number, entry)."""
        ...

    async def item_outputs(self, run: str, until: int, nodes: Sequence[str]) -> Sequence[EventRow]:
        """The events that gave the items of these nodes their outputs, in order."""
        ...

    async def items(self, query: ItemQuery) -> Sequence[int]:
        """The items that are wanted, in their order."""
        ...

    async def item_events(
        self, run: str, node: str, until: int, items: Sequence[int]
    ) -> Sequence[EventRow]:
        """All events of these items of a node, in order."""
        ...

    async def approvals(self, query: ApprovalQuery) -> Sequence[ApprovalView]:
        """Approvals, those that wait first, the newest first."""
        ...


class StoreReads:
    """`Reads` of the store.

    Args:
        history: The store's history.
        recorded: The next offset of each partition that the recorder in this process has not
            recorded; without it, or before it has begun, the store is asked.
    """

    def __init__(
        self, history: History, recorded: Callable[[], Mapping[int, int]] | None = None
    ) -> None:
        self._history = history
        self._recorded = recorded

    async def watermark(self) -> Mapping[int, int]:
        """Partition → the next offset that is not recorded yet."""
        recorded = {} if self._recorded is None else self._recorded()
        if recorded:
            return recorded
        last = await self._history.positions()
        return {partition: offset + 1 for partition, offset in last.items()}

    async def decisions(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        """The first `limit` recorded decisions with start ≤ offset < end."""
        found = await self._history.decisions(
            partition, after=start - 1, until=end - 1, limit=limit
        )
        return [(decision.offset, decision.value) for decision in found]

    async def runs(self, query: RunQuery) -> Sequence[RunView]:
        """Runs, newest first."""
        wanted = RunFilter(
            project=query.project,
            workflow=query.workflow,
            statuses=() if query.status is None else (query.status.value,),
        )
        rows = await self._history.runs(wanted, limit=query.limit, before=query.before)
        return [_run(row) for row in rows]

    async def run_events(self, run: str) -> Sequence[EventRow]:
        """All events of a run, in order."""
        found: list[EventRow] = []
        while True:
            rows = await self._history.run_events(
                run, from_seq=found[-1].seq + 1 if found else 0, limit=_PAGE
            )
            found += [_event(row) for row in rows]
            if len(rows) < _PAGE:
                return found

    async def events(self, query: EventQuery) -> Sequence[EventRow]:
        """Events, newest first."""
        wanted = EventFilter(project=query.project, workflow=query.workflow, type=query.type)
        rows = await self._history.events(wanted, limit=query.limit, before=query.before)
        return [_event(row) for row in rows]

    async def run_events_page(self, run: str, start: int, limit: int) -> Sequence[EventRow]:
        """Events of a run from a sequence number on, in order."""
        rows = await self._history.run_events(run, from_seq=start, limit=limit)
        return [_event(row) for row in rows]

    async def newest_run_events(
        self, run: str, before: int | None, limit: int
    ) -> Sequence[EventRow]:
        """Events of a run before a sequence number, the newest first."""
        rows = await self._history.newest_run_events(run, before_seq=before, limit=limit)
        return [_event(row) for row in rows]

    async def agent_runs(
        self, run: str, after: AttemptPlace | None, limit: int
    ) -> Sequence[AgentRunView]:
        """Attempts of a run, in the order of their dispatch."""
        rows = await self._history.agent_runs(run, after=after, limit=limit)
        return [_agent_run(row) for row in rows]

    async def events_naming(self, run: str, digest: str) -> Sequence[EventRow]:
        """Events of a run that name this payload, the first of them."""
        return [_event(row) for row in await self._history.events_naming(run, digest)]

    async def fan_outs(self, run: str) -> Sequence[EventRow]:
        """The events by which nodes of a run got their items."""
        return [_event(row) for row in await self._history.fan_outs(run)]

    async def repetitions(self, run: str, since: datetime | None) -> Sequence[str]:
        """The runs that repeat a run, which began at `since`."""
        return await self._history.repetitions(run, milliseconds(since))

    async def run_story(self, run: str, until: int) -> Sequence[EventRow]:
        """Events of a run that are about no item, in order; of signs of life a node's newest."""
        return [_event(row) for row in await self._history.run_story(run, until)]

    async def item_counts(self, run: str, until: int, node: str = "") -> Sequence[LastEvent]:
        """How many items of a node, or of each, stand where."""
        rows = await self._history.item_counts(run, until, node=node)
        return [
            LastEvent(row["node"], row["last"], bool(row["reused"]), row["items"]) for row in rows
        ]

    async def item_costs(self, run: str, until: int) -> Sequence[ItemsCost]:
        """What the items of each node cost."""
        rows = await self._history.item_costs(run, until)
        return [ItemsCost(r["node"], r["currency"], r["kind"], r["amount"]) for r in rows]

    async def run_cost_sums(self, run: str, until: int) -> Sequence[KindCost]:
        """What all that a run is charged adds up to."""
        rows = await self._history.run_cost_sums(run, until)
        return [KindCost(row["currency"], row["kind"], row["amount"]) for row in rows]

    async def run_costs(
        self, run: str, until: int, after: tuple[int, int] | None, limit: int
    ) -> Sequence[RunCost]:
        """What a run is charged, in the order of its events, after (sequence number, entry)."""
        rows = await self._history.run_costs(run, until, after=after, limit=limit)
        return [RunCost(row["seq"], row["entry"], _cost(row)) for row in rows]

    async def item_outputs(self, run: str, until: int, nodes: Sequence[str]) -> Sequence[EventRow]:
        """The events that gave the items of these nodes their outputs, in order."""
        return [_event(row) for row in await self._history.item_outputs(run, until, nodes)]

    async def items(self, query: ItemQuery) -> Sequence[int]:
        """The items that are wanted, in their order."""
        return await self._history.items_by_last_event(
            query.run,
            query.node,
            query.until,
            types=query.types,
            start=query.start,
            count=query.span,
            limit=query.limit,
        )

    async def item_events(
        self, run: str, node: str, until: int, items: Sequence[int]
    ) -> Sequence[EventRow]:
        """All events of these items of a node, in order."""
        rows = await self._history.item_events(run, node, until, items)
        return [_event(row) for row in rows]

    async def approvals(self, query: ApprovalQuery) -> Sequence[ApprovalView]:
        """Approvals, those that wait first, the newest first."""
        wanted = ApprovalFilter(query.project, query.workflow, query.run, query.state)
        rows = await self._history.approvals(wanted, limit=query.limit, before=query.before)
        return [_approval(row) for row in rows]


def milliseconds(time: datetime | None) -> int:
    """The time in milliseconds since the epoch; 0 where there is none."""
    return 0 if time is None else round(time.timestamp() * 1000)


def _run(row: Mapping[str, Any]) -> RunView:
    return RunView(
        id=row["run_id"],
        project=row["project"],
        workflow=row["workflow"],
        version=row["version"],
        status=RunStatus(row["status"]),
        trigger=TriggerView(
            id=row["trigger_id"],
            source=row["trigger_source"],
            type=row["trigger_type"],
            subject=row["trigger_subject"] or None,
        ),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        duration_ms=row["duration_ms"],
        deadline=row["deadline"],
        nodes=row["nodes"],
        tags=tuple(row["tags"]),
        error=_failure(row, row["error_node"]),
        trace_id=row["trace_id"] or None,
        paused=row["paused"],
        depth=row["depth"],
        parent_run=row["parent_run"] or None,
        origin_run=row["origin_run"] or None,
        seq=row["seq"],
    )


def _event(row: Mapping[str, Any]) -> EventRow:
    return EventRow(
        run=row["run_id"],
        project=row["project"],
        workflow=row["workflow"],
        version=row["version"],
        seq=row["seq"],
        type=row["type"],
        at=row["at"],
        status=row["status"],
        payload=row["payload"].encode(),
        traceparent=row["traceparent"] or None,
    )


def _agent_run(row: Mapping[str, Any]) -> AgentRunView:
    return AgentRunView(
        task=row["task_id"],
        run=row["run_id"],
        node=row["node"],
        item=None if row["item"] < 0 else row["item"],
        attempt=row["attempt"],
        agent=row["agent"],
        action=row["action"],
        child_run=row["child_run"] or None,
        status=NodeStatus(row["status"]),
        dispatched_at=row["dispatched_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        duration_ms=row["duration_ms"],
        retry_at=row["retry_at"],
        worker=row["worker"] or None,
        agent_version=row["agent_version"] or None,
        inputs=_json(row["inputs"]),
        output=_json(row["output"]),
        error=_failure(row, ""),
    )


def _cost(row: Mapping[str, Any]) -> CostView:
    return CostView(
        node=row["node"],
        item=None if row["item"] < 0 else row["item"],
        attempt=row["attempt"],
        kind=row["kind"],
        source=row["source"],
        model=row["model"] or None,
        quantity=plain(row["quantity"]),
        unit=row["unit"],
        unit_price=plain(row["unit_price"]),
        amount=plain(row["amount"]),
        currency=row["currency"],
        price_version=row["price_version"] or None,
    )


def _approval(row: Mapping[str, Any]) -> ApprovalView:
    answers = [_answer(moment(said["at"]), said["event"]) for said in row["answers"]]
    agreed = sum(answer.approved and bool(answer.by) for answer in answers)
    return ApprovalView(
        id=row["id"],
        run=row["run_id"],
        workflow=row["workflow"],
        project=row["project"],
        node=row["node"],
        item=None if row["item"] < 0 else row["item"],
        status=row["status"],
        cause=row["cause"],
        needed=row["needed"],
        missing=0 if row["status"] == "APPROVED" else max(0, row["needed"] - agreed),
        roles=tuple(row["roles"]),
        requested_at=row["requested_at"],
        deadline=row["deadline"],
        on_deadline=row["on_deadline"],
        decided_at=row["decided_at"],
        waited_ms=row["waited_ms"],
        attempt=row["attempt"],
        inputs=Raw(row["inputs"].encode()),
        answers=tuple(answers),
    )


def _answer(at: datetime, event: str) -> AnswerView:
    said: NodeApproved | NodeRejected = _said.decode(event)
    inputs = said.inputs if isinstance(said, NodeApproved) else None
    return AnswerView(
        at=at,
        by=said.by,
        approved=isinstance(said, NodeApproved),
        notes=said.notes,
        inputs=inputs if isinstance(inputs, Raw) else None,
    )


def _failure(row: Mapping[str, Any], node: str) -> FailureView | None:
    if not row["error_kind"]:
        return None
    return FailureView(kind=row["error_kind"], message=row["error_message"], node=node or None)


def _json(text: str) -> Raw | None:
    return Raw(text.encode()) if text else None

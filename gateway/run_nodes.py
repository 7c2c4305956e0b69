"""The nodes and items of a run, told from its events one by one.

What is known of a node or item is kept as the fields of its view: an event changes a few of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.run_costs import CostSum, ItemsCost, costs_of
from gateway.run_views import (
    AnswerView,
    ApprovalView,
    AwaitedView,
    ChildView,
    CompensationView,
    CostTotal,
    FailureView,
    ItemCounts,
    ItemView,
    NodeView,
    ProgressView,
)
from gateway.views import moment
from streams.events import (
    NodeApprovalRequested,
    NodeApproved,
    NodeAwaiting,
    NodeCancelled,
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
)
from streams.ids import COMPENSATION, node_key
from streams.payload import as_reference
from streams.plan import NodePlan, Plan
from streams.records import Failure, NodeStatus

Fields = dict[str, Any]

COMPOSED_ITEMS: Final = 200
COMPOSED_BYTES: Final = 64 * 1024
"""A fan-out's output is composed of its items' up to so many and so much."""

_DECIDED_BY_PEOPLE: Final = frozenset({"rejected", "approval_expired"})
_NEW_ATTEMPT: Final[Mapping[str, Any]] = {
    "status": NodeStatus.RUNNING,
    "finished_at": None,
    "duration_ms": None,
    "retry_at": None,
    "error": None,
    "progress": None,
    "stopping": False,
}


class RunNodes:
    """What a run's events say of its nodes.

    Args:
        run: The run's id.
        workflow: Its workflow.
        project: Its project.
        plan: The workflow's version, where this release can read it: nodes that no event names are
            PENDING; without it they are left out.
    """

    def __init__(self, run: str, workflow: str, project: str, plan: Plan | None) -> None:
        self._run = run
        self._workflow = workflow
        self._project = project
        self._plan = plan
        self._nodes: dict[str, Fields] = {}
        self._items: dict[str, dict[int, Fields]] = {}
        self._lists: dict[str, NodeFannedOut] = {}
        self._undone: dict[str, Fields] = {}
        self._counted: dict[str, ItemCounts] = {}
        self._costs: dict[tuple[str, int | None], CostSum] = {}
        self.cost = CostSum()
        """What all of them cost."""
        if plan is not None:
            for spec in plan.spec.nodes:
                self._nodes[spec.id] = _pending(plan.nodes[spec.id])

    def apply(self, event: Any, at: datetime) -> None:
        """Take in an event of a node; any other changes nothing."""
        node = getattr(event, "node", None)
        if node is None:
            return
        item = getattr(event, "item", None)
        fields = self._fields(node, item)
        fields.update(self._changes(event, fields, at))
        if costs := costs_of(event):
            self._costs.setdefault((node, item), CostSum()).add(costs)
            if item is None or node not in self._counted:
                self.cost.add(costs)
            if item is not None and node not in self._counted:
                self._costs.setdefault((node, None), CostSum()).add(costs)

    def count_items(self, counts: Mapping[str, ItemCounts], costs: Iterable[ItemsCost]) -> None:
        """Take in how many items of each node stand where, and what they cost, counted elsewhere.

        After that the events of some items add to neither: of others there need be none.
        """
        self._counted.update(counts)
        for cost in costs:
            for total in (self.cost, self._costs.setdefault((cost.node, None), CostSum())):
                total.count(cost.currency, cost.kind, cost.amount)

    def views(self) -> list[NodeView]:
        """Every node, in the order of the definition; then those of the failure handler."""
        return [self._view(node, fields) for node, fields in self._nodes.items()]

    def has_items(self, node: str) -> bool:
        """Whether the node was done once for each of some items."""
        return node in self._lists

    def counts(self, node: str) -> ItemCounts:
        """The node's items by status."""
        if node in self._counted:
            return self._counted[node]
        total = self._lists[node].count
        known = self._items.get(node, {})
        found = Counter(fields["status"] for fields in known.values())
        return ItemCounts(
            total=total,
            pending=total - len(known),
            running=found[NodeStatus.RUNNING],
            waiting=found[NodeStatus.WAITING_APPROVAL],
            retrying=found[NodeStatus.RETRYING],
            succeeded=found[NodeStatus.SUCCESS],
            reused=sum("reused_from" in fields for fields in known.values()),
            failed=found[NodeStatus.FAILED],
            cancelled=found[NodeStatus.CANCELLED],
        )

    def items(self, node: str, places: Iterable[int]) -> Iterator[ItemView]:
        """The node's items in these places."""
        values = _values(self._lists[node])
        known = self._items.get(node, {})
        for index in places:
            fields = known.get(index) or {"status": NodeStatus.PENDING}
            value = values[index] if index < len(values) else None
            cost = self._cost(node, index)
            yield ItemView(index=index, item=value, cost=cost, **fields)

    def approval(self, node: str, item: int | None) -> ApprovalView | None:
        """What people were asked about the node or item; None where they were not."""
        fields = self._nodes.get(node) if item is None else self._items.get(node, {}).get(item)
        return None if fields is None else fields.get("approval")

    def waiting(self) -> Iterator[str]:
        """The ids of the approvals that wait."""
        everything = [*self._nodes.values()]
        for items in self._items.values():
            everything += items.values()
        for fields in everything:
            approval: ApprovalView | None = fields.get("approval")
            if approval is not None and approval.status == "PENDING":
                yield approval.id

    # --- how an event changes a node ---

    def _fields(self, node: str, item: int | None) -> Fields:
        if node.endswith(COMPENSATION):
            name = node.removesuffix(COMPENSATION)
            return self._undone.setdefault(name, {"status": NodeStatus.PENDING})
        if item is not None:
            return self._items.setdefault(node, {}).setdefault(item, {"status": NodeStatus.PENDING})
        known = self._nodes.get(node)
        if known is None:
            plan = None if self._plan is None else self._plan.nodes.get(node)
            known = {"id": node, "status": NodeStatus.PENDING} if plan is None else _pending(plan)
            self._nodes[node] = known
        return known

    def _changes(self, event: Any, fields: Fields, at: datetime) -> Fields:
        match event:
            case NodeDispatched() | NodeRequested():
                return _begun(event, at)
            case NodeStarted():
                return {
                    "started_at": at,
                    "deadline": moment(event.deadline),
                    "worker": event.worker or None,
                }
            case NodeProgressed():
                said = ProgressView(at=at, percent=event.percent, message=event.message)
                return {"progress": said}
            case NodeApprovalRequested() | NodeApproved() | NodeRejected():
                return self._approval(event, fields, at)
            case NodeSleeping() | NodeAwaiting() | NodeFannedOut():
                return self._waits(event, at)
            case NodeReused() | NodeEdited() | NodeSkipped() | NodeStopping():
                return _set_aside(event, at)
            case NodeSucceeded() | NodeRetrying() | NodeFailed() | NodeCancelled():
                return _ended(event, fields, at)
            case _:
                return {}

    def _waits(self, event: NodeSleeping | NodeAwaiting | NodeFannedOut, at: datetime) -> Fields:
        begun = {**_NEW_ATTEMPT, "started_at": at, "attempts": 1}
        match event:
            case NodeSleeping():
                return {**begun, "sleeping_until": moment(event.until)}
            case NodeAwaiting():
                awaited = AwaitedView(event=event.event, deadline=moment(event.deadline))
                return {**begun, "awaiting": awaited}
            case NodeFannedOut():
                self._lists[event.node] = event
                return begun

    def _approval(
        self,
        event: NodeApprovalRequested | NodeApproved | NodeRejected,
        fields: Fields,
        at: datetime,
    ) -> Fields:
        if isinstance(event, NodeApprovalRequested):
            changes: Fields = {"status": NodeStatus.WAITING_APPROVAL, "inputs": event.inputs}
            if event.attempt:
                changes["finished_at"] = at
                changes["duration_ms"] = _since(fields.get("started_at"), at)
            return {**changes, "approval": self._requested(event, at)}
        known: ApprovalView | None = fields.get("approval")
        if known is None:
            return {}
        approved = isinstance(event, NodeApproved)
        inputs = event.inputs if isinstance(event, NodeApproved) else None
        answer = AnswerView(
            at=at,
            by=event.by,
            approved=approved,
            notes=event.notes,
            inputs=inputs if isinstance(inputs, Raw) else None,
        )
        missing = event.missing if isinstance(event, NodeApproved) else known.missing
        approval = msgspec.structs.replace(known, missing=missing, answers=(*known.answers, answer))
        if not approved:
            approval = _settled(approval, "REJECTED", at)
        elif not missing:
            approval = _settled(approval, "APPROVED", at)
        return {"approval": approval, **({"inputs": inputs} if isinstance(inputs, Raw) else {})}

    def _requested(self, event: NodeApprovalRequested, at: datetime) -> ApprovalView:
        return ApprovalView(
            id=f"{self._run}:{node_key(event.node, event.item)}",
            run=self._run,
            workflow=self._workflow,
            project=self._project,
            node=event.node,
            item=event.item,
            status="PENDING",
            cause=event.cause,
            needed=event.needed,
            missing=event.needed,
            roles=event.roles,
            requested_at=at,
            deadline=moment(event.deadline),
            on_deadline=event.on_deadline,
            attempt=event.attempt,
            inputs=event.inputs,
        )

    # --- views ---

    def _view(self, node: str, fields: Fields) -> NodeView:
        undone = self._undone.get(node)
        extra: Fields = {}
        if undone is not None:
            cost = self._cost(node + COMPENSATION, None)
            extra["compensation"] = CompensationView(cost=cost, **undone)
        if node in self._lists:
            extra["items"] = self.counts(node)
            if fields["status"] is NodeStatus.SUCCESS and "reused_from" not in fields:
                extra["output"] = self._composed(node)
        return NodeView(cost=self._cost(node, None), **fields, **extra)

    def _cost(self, node: str, item: int | None) -> tuple[CostTotal, ...]:
        known = self._costs.get((node, item))
        return () if known is None else known.totals()

    def _composed(self, node: str) -> Raw | None:
        """The outputs of the node's items as one list, where that is small."""
        count = self._lists[node].count
        if count > COMPOSED_ITEMS:
            return None
        known = self._items.get(node, {})
        outputs = [known.get(index, {}).get("output") or Raw(b"null") for index in range(count)]
        if sum(len(bytes(output)) for output in outputs) > COMPOSED_BYTES:
            return None
        return Raw(msgspec.json.encode(outputs))


def failure_view(failure: Failure | None) -> FailureView | None:
    """A failure as answers show it."""
    if failure is None:
        return None
    return FailureView(kind=failure.kind, message=failure.message, node=failure.node)


def _pending(plan: NodePlan) -> Fields:
    spec = plan.spec
    kind = "agent"
    if spec.agent is None:
        kind = "workflow" if spec.workflow else "waitForEvent" if spec.wait_for_event else "delay"
    return {
        "id": spec.id,
        "status": NodeStatus.PENDING,
        "kind": kind,
        "agent": spec.agent,
        "action": spec.action,
        "workflow": spec.workflow,
        "description": spec.description,
        "depends_on": spec.depends_on,
        "handler": plan.handler,
    }


def _begun(event: NodeDispatched | NodeRequested, at: datetime) -> Fields:
    begun: Fields = {
        **_NEW_ATTEMPT,
        "attempts": event.attempt,
        "inputs": event.inputs,
        "dispatched_at": at,
        "started_at": at,
        "deadline": moment(event.deadline),
    }
    if isinstance(event, NodeRequested):
        return {**begun, "child": ChildView(run=event.run, workflow=event.workflow)}
    if event.item is None:
        begun |= {"agent": event.agent, "action": event.action}
    return begun


def _set_aside(event: NodeReused | NodeEdited | NodeSkipped | NodeStopping, at: datetime) -> Fields:
    match event:
        case NodeReused():
            return {
                "status": NodeStatus.SUCCESS,
                "output": event.output,
                "reused_from": event.run,
                "finished_at": at,
            }
        case NodeEdited():
            return {"edited": True, "inputs": event.inputs}
        case NodeSkipped():
            return {"status": NodeStatus.SKIPPED, "reason": event.reason}
        case NodeStopping():
            return {"stopping": True, "deadline": moment(event.deadline)}


def _ended(
    event: NodeSucceeded | NodeRetrying | NodeFailed | NodeCancelled, fields: Fields, at: datetime
) -> Fields:
    ended: Fields = {"stopping": False, "deadline": None}
    approval: ApprovalView | None = fields.get("approval")
    waits = approval is not None and approval.status == "PENDING"
    match event:
        case NodeSucceeded():
            ended |= {"status": NodeStatus.SUCCESS, **_times(event, fields, at)}
            if isinstance(event.output, Raw):
                ended["output"] = event.output
        case NodeRetrying():
            ended |= {
                "status": NodeStatus.RETRYING,
                "error": failure_view(event.failure),
                "retry_at": moment(event.retry_at),
                **_times(event, fields, at),
            }
        case NodeFailed():
            ended |= {"status": NodeStatus.FAILED, "error": failure_view(event.failure)}
            if event.failure.kind in _DECIDED_BY_PEOPLE:
                ended["finished_at"] = at
            else:
                ended |= _times(event, fields, at)
            if event.tolerated:
                ended["tolerated"] = True
            if approval is not None and waits:
                ended["approval"] = _settled(approval, "EXPIRED", at)
        case NodeCancelled():
            ended |= {"status": NodeStatus.CANCELLED, "finished_at": at}
            if approval is not None and waits:
                ended["approval"] = _settled(approval, "CANCELLED", at)
    return ended


def _times(
    event: NodeSucceeded | NodeRetrying | NodeFailed, fields: Fields, at: datetime
) -> Fields:
    """When the attempt ran: by the agent's clock, or until it was given up.

    A node that slept or waited, or had items, has no agent: it ran from its beginning to its end.
    """
    alone = "dispatched_at" not in fields
    if alone or event.started_at is None or event.finished_at is None:
        spent = _since(fields.get("started_at"), at)
        worker = event.worker or fields.get("worker")
        return {"finished_at": at, "duration_ms": spent, "worker": worker or None}
    return {
        "started_at": moment(event.started_at),
        "finished_at": moment(event.finished_at),
        "duration_ms": event.finished_at - event.started_at,
        "worker": event.worker or None,
    }


def _settled(approval: ApprovalView, status: str, at: datetime) -> ApprovalView:
    return msgspec.structs.replace(
        approval, status=status, decided_at=at, waited_ms=_since(approval.requested_at, at)
    )


def _since(start: datetime | None, end: datetime) -> int | None:
    return None if start is None else milliseconds_between(start, end)


def milliseconds_between(start: datetime, end: datetime) -> int:
    """The whole milliseconds from one time to another."""
    return round((end - start).total_seconds() * 1000)


def _values(listed: NodeFannedOut) -> list[Raw]:
    """The items, where they stand on the log; none where the list is a reference."""
    if as_reference(listed.items) is not None:
        return []
    return msgspec.json.decode(listed.items, type=list[Raw])

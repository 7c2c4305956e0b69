"""How a run ended in a test of a workflow, as its events tell it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw

from agents.cost import CURRENCY
from agents.memory_log import BEGIN, Decided, MemoryLog
from streams.cost import Cost
from streams.events import (
    Event,
    NodeApprovalRequested,
    NodeAwaiting,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeFannedOut,
    NodeRequested,
    NodeRetrying,
    NodeSkipped,
    NodeSleeping,
    NodeSucceeded,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    RunTimedOut,
)
from streams.plan import Plan
from streams.records import Failure, NodeStatus, RunStatus

_STATUS: Final[Mapping[type, NodeStatus]] = {
    NodeApprovalRequested: NodeStatus.WAITING_APPROVAL,
    NodeDispatched: NodeStatus.RUNNING,
    NodeRequested: NodeStatus.RUNNING,
    NodeSleeping: NodeStatus.RUNNING,
    NodeAwaiting: NodeStatus.RUNNING,
    NodeFannedOut: NodeStatus.RUNNING,
    NodeRetrying: NodeStatus.RETRYING,
    NodeSucceeded: NodeStatus.SUCCESS,
    NodeFailed: NodeStatus.FAILED,
    NodeSkipped: NodeStatus.SKIPPED,
    NodeCancelled: NodeStatus.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """How a node ended, or an item of it.

    Attributes:
        status: `SUCCESS`, `FAILED`, `SKIPPED`, `CANCELLED`, or how it stood when the run ended.
        output: what it gave; of a fan-out, the outputs of its items.
        attempts: how many were begun.
        inputs: what the last attempt was given.
        error: why it failed; None where it did not.
        costs: of all of its attempts, without those of its items.
        items: of a fan-out, by their place.
    """

    status: NodeStatus = NodeStatus.PENDING
    output: Any = None
    attempts: int = 0
    inputs: Any = None
    error: Failure | None = None
    costs: tuple[Cost, ...] = ()
    items: Mapping[int, "NodeResult"] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorkflowResult:
    """How a run ended.

    Attributes:
        status: `SUCCESS`, `FAILED`, `CANCELLED` or `TIMED_OUT`.
        output: what the workflow says its output is.
        error: why it did not succeed; None where it did.
        nodes: by id; of what undoes a node, with `.compensate` behind.
        costs: all that the run was charged; runs that it started are charged their own.
        events: the run's events, as they stand on the log, each with `type`, `seq` and `at` (ms).
        duration_ms: how long it took, by the clock that jumps.
    """

    status: RunStatus
    output: Any
    error: Failure | None
    nodes: Mapping[str, NodeResult]
    costs: tuple[Cost, ...]
    events: Sequence[Mapping[str, Any]]
    duration_ms: int

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of the nodes that succeeded, by id."""
        return {
            name: node.output
            for name, node in self.nodes.items()
            if node.status is NodeStatus.SUCCESS
        }

    def cost(self, currency: str = CURRENCY) -> Decimal:
        """What the run cost in all, in a currency."""
        return sum((c.amount for c in self.costs if c.currency == currency), Decimal(0))


class _Nodes:
    """What the events of a run say of its nodes and items."""

    def __init__(self, plan: Plan, value: Callable[[Raw], Any]) -> None:
        self._value = value
        self._nodes: dict[str, dict[str, Any]] = {node.id: {} for node in plan.spec.nodes}
        self._items: dict[str, dict[int, dict[str, Any]]] = {}

    def apply(self, event: Event) -> None:
        node, item = getattr(event, "node", None), getattr(event, "item", None)
        if node is None:
            return
        if item is None:
            known = self._nodes.setdefault(node, {})
        else:
            known = self._items.setdefault(node, {}).setdefault(item, {})
        known["costs"] = (*known.get("costs", ()), *getattr(event, "costs", ()))
        status = _STATUS.get(type(event))
        if status is not None:
            known["status"] = status
        match event:
            case NodeDispatched() | NodeRequested():
                known |= {"attempts": event.attempt, "inputs": self._value(event.inputs)}
            case NodeFannedOut():
                self._items.setdefault(event.node, {})
            case NodeSucceeded():
                known["error"] = None
                if isinstance(event.output, Raw):
                    known["output"] = self._value(event.output)
            case NodeRetrying() | NodeFailed():
                known["error"] = event.failure
            case _:
                pass

    def results(self) -> dict[str, NodeResult]:
        return {name: self._result(name, known) for name, known in self._nodes.items()}

    def _result(self, name: str, known: dict[str, Any]) -> NodeResult:
        if name not in self._items:
            return NodeResult(**known)
        items = {index: NodeResult(**each) for index, each in sorted(self._items[name].items())}
        if known.get("status") is NodeStatus.SUCCESS:
            known = {**known, "output": [items[index].output for index in sorted(items)]}
        return NodeResult(**known, items=items)


def told(decided: Sequence[Decided], plan: Plan, log: MemoryLog) -> WorkflowResult:
    """The result of a run, of which these are all the events."""
    nodes = _Nodes(plan, log.value)
    output: Any = None
    error: Failure | None = None
    costs: list[Cost] = []
    for each in decided:
        event = each.event
        nodes.apply(event)
        costs += getattr(event, "costs", ())
        if isinstance(event, RunSucceeded) and isinstance(event.output, Raw):
            output = log.value(event.output)
        elif isinstance(event, RunFailed | RunTimedOut):
            error = event.failure
        elif isinstance(event, RunCancelled):
            error = Failure(kind="cancelled", message=event.reason, retryable=False)
    return WorkflowResult(
        status=log.states[decided[0].run].head.status,
        output=output,
        error=error,
        nodes=nodes.results(),
        costs=tuple(costs),
        events=[_event(each) for each in decided],
        duration_ms=decided[-1].at - BEGIN,
    )


def _event(decided: Decided) -> Mapping[str, Any]:
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(decided.event))
    return {**told, "seq": decided.seq, "at": decided.at}

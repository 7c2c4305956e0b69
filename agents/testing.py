"""Whole workflows in a unit test: the real core and real actions on a log in memory, no server.

    result = await run_workflow("review.yaml", [scanner], {"path": "."}, approve=True)
    assert result.status == "SUCCESS"

Delays, retries and time-outs take no time: the clock jumps to what is due next. What Kafka, workers
and the store do is left out; a run decides here as it does there.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from agents.agent import Agent
from agents.cost import CURRENCY
from agents.memory_log import BEGIN, Decided, MemoryLog
from agents.registry import AgentRegistry
from streams import pattern
from streams.errors import AgentError, CallerError, DefinitionError
from streams.ids import run_id
from streams.plan import Plan, parse
from streams.records import (
    Approval,
    Cost,
    Event,
    Failure,
    Message,
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
    NodeStatus,
    NodeSucceeded,
    Occurrence,
    RunCancelled,
    RunFailed,
    RunStatus,
    RunSucceeded,
    RunTimedOut,
    Start,
    Trigger,
)
from streams.workflow_file import read, read_text

__all__ = ["Answer", "Asked", "NodeResult", "WorkflowResult", "run_workflow"]

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

Workflow = Mapping[str, Any] | str | Path
"""A definition, the YAML or JSON text of one, or the path of its file."""

PATIENCE_S: Final = 5.0
SOURCE: Final = "/test"
EVENT_TYPE: Final = "test.started"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What people are asked: whether the node (or item) may be given these inputs.

    Attributes:
        node: the node's id.
        inputs: what it would be given; of a fan-out as a whole, its items.
        needed: how many people have to agree.
        roles: of which one is needed; empty: anybody may agree.
        cause: who asks, `workflow` or `agent`.
        item: the item, counted from 0; None where it is about the node.
    """

    node: str
    inputs: Any
    needed: int
    roles: tuple[str, ...]
    cause: str
    item: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What people say.

    Attributes:
        approved: whether they agree. As many people do as are needed, with the roles for it.
        notes: why; a rejection needs some.
        by: who; several people are told apart by a number.
        inputs: given to the node instead of those that were asked about.
    """

    approved: bool
    notes: str = "as the test says"
    by: str = "tester"
    inputs: Any = UNSET


Said = bool | Answer | None
"""Yes, no, something more exact, or nothing: then the deadline decides."""

Approve = Callable[[Asked], Said] | Sequence[Said] | bool | None


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


async def run_workflow(
    workflow: Workflow,
    agents: Iterable[Agent],
    trigger: Any = None,
    *,
    approve: Approve = None,
    events: Iterable[tuple[str, Any]] = (),
    workflows: Iterable[Workflow] = (),
    secrets: Mapping[str, str] | None = None,
    event_type: str = EVENT_TYPE,
    subject: str | None = None,
    patience: float = PATIENCE_S,
) -> WorkflowResult:
    """Run a workflow from its trigger to its end.

    Args:
        workflow: a definition, the YAML or JSON text of one, or the path of its file.
        agents: those that its nodes name.
        trigger: the data of the event that starts it, any JSON value. Whether the event would
            start it (`trigger.event`, `trigger.filter`) is not asked.
        approve: what people answer: the same to all, one answer for each question in turn, or a
            function of the question. Unsaid, nobody answers, and the deadlines decide.
        events: (type, data) of events that nodes wait for (`waitForEvent`); each comes once, as
            soon as a node waits for its type.
        workflows: others that nodes run as steps.
        secrets: what `context.secrets` gives the actions.
        event_type: type of the event that starts the run.
        subject: subject of that event.
        patience: real seconds that an action may be at work before it is taken to hang and the
            clock goes on to its time-out.

    Raises:
        DefinitionError: A workflow is wrong, or names an agent or action that there is not.
        CallerError: A file cannot be read.
        AgentError: `approve` has fewer answers than there were questions.
    """
    plans = {plan.spec.name: plan for plan in map(_plan, (workflow, *workflows))}
    main = _plan(workflow)
    registry = AgentRegistry(agents)
    for plan in plans.values():
        _check(plan, registry)
    people = _People(approve, lambda payload: log.value(payload))
    world = _World(main.spec.project, list(events))

    def react(decided: Decided) -> Iterable[Message]:
        if isinstance(decided.event, NodeApprovalRequested):
            return people.answer(decided.run, decided.event)
        return world.occur(decided)

    log = MemoryLog(plans, registry, secrets or {}, patience, react)
    run = run_id(main.spec.project, main.spec.name, SOURCE, "1")
    await log.run(
        Start(
            run=run,
            project=main.spec.project,
            workflow=main.spec.name,
            version=1,
            trigger=Trigger(
                id="1",
                source=SOURCE,
                type=event_type,
                subject=subject,
                data=Raw(msgspec.json.encode(trigger)),
            ),
        )
    )
    return _told([each for each in log.decided if each.run == run], main, log)


def _plan(workflow: Workflow) -> Plan:
    if isinstance(workflow, Mapping):
        return parse(workflow)
    is_path = isinstance(workflow, Path) or "\n" not in workflow
    found = read(Path(workflow)) if is_path else read_text(str(workflow), "workflow")
    if len(found) != 1:
        names = ", ".join(document.name for document in found)
        raise CallerError(f"one workflow was expected, there are {len(found)}: {names}")
    return parse(found[0].definition)


def _check(plan: Plan, registry: AgentRegistry) -> None:
    for path, agent, action in plan.spec.actions():
        if registry.find(agent, action) is None:
            where = ".".join(map(str, path))
            raise DefinitionError(f"{where}: {registry.explain_missing(agent, action)}")


class _People:
    """Answers what is asked."""

    def __init__(self, approve: Approve, value: Callable[[Raw], Any]) -> None:
        self._value = value
        self._approve = approve
        self._answers = deque(approve) if isinstance(approve, Sequence) else None

    def answer(self, run: str, event: NodeApprovalRequested) -> Iterator[Message]:
        asked = Asked(
            node=event.node,
            item=event.item,
            inputs=self._value(event.inputs),
            needed=event.needed,
            roles=event.roles,
            cause=event.cause,
        )
        said = self._said(asked)
        if isinstance(said, bool):
            said = Answer(approved=said)
        if said is None:
            return
        edited = UNSET if said.inputs is UNSET else Raw(msgspec.json.encode(said.inputs))
        for number in range(1, (event.needed if said.approved else 1) + 1):
            yield Approval(
                run=run,
                node=event.node,
                item=event.item,
                approved=said.approved,
                by=said.by if number == 1 else f"{said.by} {number}",
                roles=event.roles,
                notes=said.notes,
                # Whoever edits the inputs begins the count anew.
                inputs=edited if number == 1 else UNSET,
            )

    def _said(self, asked: Asked) -> Said:
        if self._answers is not None:
            if not self._answers:
                raise AgentError(
                    f"{asked.node!r} asks for approval, and no answer is left: give `approve` one"
                    " for each question"
                )
            return self._answers.popleft()
        if callable(self._approve):
            return self._approve(asked)
        return self._approve if isinstance(self._approve, bool) else None


class _World:
    """The events that come from outside, each as soon as somebody waits for it."""

    def __init__(self, project: str, events: list[tuple[str, Any]]) -> None:
        self._project = project
        self._events = list(enumerate(events))

    def occur(self, decided: Decided) -> Iterator[Message]:
        event = decided.event
        if not isinstance(event, NodeAwaiting):
            return
        for place, (number, (kind, data)) in enumerate(self._events):
            if pattern.matches(event.event, kind):
                del self._events[place]
                trigger = Trigger(
                    id=f"event {number}",
                    source=SOURCE,
                    type=kind,
                    data=Raw(msgspec.json.encode(data)),
                )
                yield Occurrence(project=self._project, trigger=trigger)
                return


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


def _told(decided: Sequence[Decided], plan: Plan, log: MemoryLog) -> WorkflowResult:
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

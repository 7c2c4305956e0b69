"""The life of a run: what one message decides, and what the events make of the state.

Rules:
- `decide` is a pure function of the state, the message, the time in it and the plan (law 2);
  `evolve` replays a decision onto the state it was made from, and gives the same state.
- A node begins when all its dependencies have succeeded. A node that fails for good skips all that
  depend on it; other branches go on. The run ends when no node is open: FAILED with the first
  failure if there was one, else SUCCESS.
- A run ends in exactly one terminal state. Whatever it hears afterwards changes nothing.
- A message that does not fit the state (a result of an attempt given up, a timer overtaken, a
  second start) makes no events; `Outcome.ignored` says why.
- What is due when stands in the state (`RunHead.deadline`, `NodeState.wake_at`): timers can be
  rebuilt from it at any time.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from streams.ids import task_id
from streams.records import (
    NULL,
    Cancel,
    Decision,
    Event,
    Failure,
    Message,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    NodeState,
    NodeStatus,
    NodeSucceeded,
    Result,
    RunCancelled,
    RunFailed,
    RunHead,
    RunStarted,
    RunStatus,
    RunSucceeded,
    RunTimedOut,
    Start,
    Task,
    Timer,
    Trigger,
)
from streams.scope import RunScope
from streams.template import TemplateError
from streams.workflow import Plan

RUN_TRANSITIONS: Final = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING}),
    RunStatus.RUNNING: frozenset(
        {RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
    ),
    RunStatus.SUCCESS: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
    RunStatus.TIMED_OUT: frozenset(),
}
"""The legal moves of a run. A status with none is terminal."""

NODE_TRANSITIONS: Final = {
    NodeStatus.PENDING: frozenset(
        {NodeStatus.RUNNING, NodeStatus.FAILED, NodeStatus.SKIPPED, NodeStatus.CANCELLED}
    ),
    NodeStatus.RUNNING: frozenset(
        {NodeStatus.SUCCESS, NodeStatus.RETRYING, NodeStatus.FAILED, NodeStatus.CANCELLED}
    ),
    NodeStatus.RETRYING: frozenset({NodeStatus.RUNNING, NodeStatus.FAILED, NodeStatus.CANCELLED}),
    NodeStatus.SUCCESS: frozenset(),
    NodeStatus.FAILED: frozenset(),
    NodeStatus.SKIPPED: frozenset(),
    NodeStatus.CANCELLED: frozenset(),
}
"""The legal moves of a node. A status with none is terminal."""

TERMINAL: Final = frozenset(status for status, moves in RUN_TRANSITIONS.items() if not moves)

PAYLOAD_LIMIT: Final = 1024 * 1024
"""Bytes of JSON that the inputs or the output of one node may have."""

DECISION_LIMIT: Final = 4 * PAYLOAD_LIMIT
"""Bytes of inputs that one decision may dispatch: it has to fit into one record of the log."""


class RunState(NamedTuple):
    """A run: its head and the nodes that have left PENDING. A terminal run keeps no nodes."""

    head: RunHead
    nodes: dict[str, NodeState]


class Outcome(NamedTuple):
    """What a message decided.

    `decision` and `state` are None, and `ignored` says why, where it changed nothing. `tasks` are
    the effects: work to hand to agents. `touched` are the nodes whose state is new.
    """

    decision: Decision | None
    state: RunState | None
    tasks: tuple[Task, ...] = ()
    touched: frozenset[str] = frozenset()
    ignored: str = ""


def decide(
    state: RunState | None, message: Message, at: int, plan: Plan, partition: int
) -> Outcome:
    """What the message changes.

    Args:
        state: The run before, or None where there is none yet.
        message: What the run hears.
        at: When it was appended to the inbox, milliseconds.
        plan: The version of the workflow that the run is pinned to.
        partition: The run's partition of the inbox, where agents send their results.
    """
    if state is None:
        if not isinstance(message, Start):
            return Outcome(None, None, ignored="unknown_run")
        return _start(message, at, plan, partition)
    if state.head.status in TERMINAL:
        return Outcome(
            None, None, ignored="duplicate_start" if isinstance(message, Start) else "run_finished"
        )
    draft = _Draft(state, at, plan, partition)
    match message:
        case Start():
            ignored = "duplicate_start"
        case Result():
            ignored = draft.hear_result(message)
        case Timer():
            ignored = draft.hear_timer(message)
        case Cancel():
            ignored = draft.hear_cancel(message)
    return Outcome(None, None, ignored=ignored) if ignored else draft.outcome()


def evolve(state: RunState | None, decision: Decision) -> RunState:
    """The state after the decision, which was made from `state` (None: the run's first)."""
    fold = _Fold(state)
    for event in decision.events:
        fold.apply(event)
    return fold.state(decision)


def _start(message: Start, at: int, plan: Plan, partition: int) -> Outcome:
    started = RunStarted(
        trigger=message.trigger, nodes=len(plan.nodes), deadline=at + plan.spec.timeout
    )
    pending = RunState(
        RunHead(
            run=message.run,
            project=message.project,
            workflow=message.workflow,
            version=message.version,
            status=RunStatus.PENDING,
            seq=0,
            started_at=at,
            deadline=started.deadline,
            open=0,
            trigger=message.trigger,
            traceparent=message.traceparent,
        ),
        {},
    )
    draft = _Draft(pending, at, plan, partition)
    draft.emit(started)
    for node in plan.roots:
        draft.dispatch(node, 1)
    draft.finish_if_done()
    return draft.outcome()


class _Fold:
    """Events applied one by one to a copy of a state."""

    __slots__ = (
        "deadline",
        "failure",
        "finished",
        "head",
        "nodes",
        "open",
        "status",
        "touched",
        "trigger",
    )

    def __init__(self, state: RunState | None) -> None:
        self.nodes: dict[str, NodeState] = {} if state is None else dict(state.nodes)
        self.touched: set[str] = set()
        self.head = None if state is None else state.head
        self.status = RunStatus.PENDING if state is None else state.head.status
        self.open = 0 if state is None else state.head.open
        self.failure = None if state is None else state.head.failure
        self.deadline = 0 if state is None else state.head.deadline
        self.trigger: Trigger | None = None if state is None else state.head.trigger
        self.finished = False

    def apply(self, event: Event) -> None:  # noqa: C901  # one case an event type
        match event:
            case NodeDispatched():
                self._node(event.node, NodeStatus.RUNNING, event.attempt, event.deadline)
            case NodeSucceeded():
                self._closed(event.node, NodeStatus.SUCCESS, event.attempt, event.output)
            case NodeRetrying():
                self._node(event.node, NodeStatus.RETRYING, event.attempt, event.retry_at)
            case NodeFailed():
                self._closed(event.node, NodeStatus.FAILED, event.attempt)
                if self.failure is None:
                    self.failure = _run_failure(event)
            case NodeSkipped():
                self._closed(event.node, NodeStatus.SKIPPED, 0)
            case NodeCancelled():
                self._closed(event.node, NodeStatus.CANCELLED, event.attempt)
            case RunStarted():
                self._run(RunStatus.RUNNING)
                self.open = event.nodes
                self.deadline = event.deadline
                self.trigger = event.trigger
            case RunSucceeded():
                self._run(RunStatus.SUCCESS)
            case RunFailed():
                self._run(RunStatus.FAILED)
            case RunTimedOut():
                self.failure = event.failure
                self._run(RunStatus.TIMED_OUT)
            case RunCancelled():
                self._run(RunStatus.CANCELLED)

    def _run(self, status: RunStatus) -> None:
        if status not in RUN_TRANSITIONS[self.status]:
            raise AssertionError(f"a run cannot go from {self.status} to {status}")
        self.status = status
        self.finished = status in TERMINAL

    def _node(self, node: str, status: NodeStatus, attempt: int, wake_at: int | None) -> None:
        self._put(NodeState(node=node, status=status, attempt=attempt, wake_at=wake_at))

    def _closed(
        self,
        node: str,
        status: NodeStatus,
        attempt: int,
        output: msgspec.Raw | msgspec.UnsetType = UNSET,
    ) -> None:
        self._put(NodeState(node=node, status=status, attempt=attempt, output=output))
        self.open -= 1

    def _put(self, node: NodeState) -> None:
        before = self.nodes.get(node.node)
        known = NodeStatus.PENDING if before is None else before.status
        if node.status not in NODE_TRANSITIONS[known]:
            raise AssertionError(f"node {node.node} cannot go from {known} to {node.status}")
        self.nodes[node.node] = node
        self.touched.add(node.node)

    def state(self, decision: Decision) -> RunState:
        """The state after `decision`, whose events were applied."""
        trigger = self.trigger
        if trigger is None:
            raise AssertionError(f"run {decision.run} has no run.started event")
        if self.finished:  # its history is in the events; the head is kept to know the run by
            trigger = msgspec.structs.replace(trigger, data=NULL)
        head = self.head
        return RunState(
            RunHead(
                run=decision.run,
                project=decision.project,
                workflow=decision.workflow,
                version=decision.version,
                status=self.status,
                seq=decision.seq + len(decision.events),
                started_at=decision.at if head is None or head.seq == 0 else head.started_at,
                deadline=self.deadline,
                open=self.open,
                trigger=trigger,
                failure=self.failure,
                finished_at=decision.at if self.finished else None,
                traceparent=decision.traceparent,
            ),
            {} if self.finished else self.nodes,
        )


def _run_failure(event: NodeFailed) -> Failure:
    return Failure(
        kind="node_failed",
        message=f"node {event.node!r} failed: {event.failure.message}",
        retryable=False,
        node=event.node,
    )


class _Draft:
    """A decision being made: every event is applied as soon as it is emitted."""

    __slots__ = (
        "at",
        "before",
        "dispatched_bytes",
        "events",
        "fold",
        "partition",
        "plan",
        "scope",
        "tasks",
    )

    def __init__(self, before: RunState, at: int, plan: Plan, partition: int) -> None:
        self.before = before
        self.at = at
        self.plan = plan
        self.partition = partition
        self.fold = _Fold(before)
        self.scope = RunScope(before.head.trigger, self.fold.nodes)
        self.events: list[Event] = []
        self.tasks: list[Task] = []
        self.dispatched_bytes = 0

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.fold.apply(event)

    def outcome(self) -> Outcome:
        head = self.before.head
        decision = Decision(
            run=head.run,
            project=head.project,
            workflow=head.workflow,
            version=head.version,
            seq=head.seq,
            at=self.at,
            status=self.fold.status,
            previous=head.status,
            events=tuple(self.events),
            traceparent=head.traceparent,
        )
        return Outcome(
            decision,
            self.fold.state(decision),
            () if self.fold.finished else tuple(self.tasks),
            frozenset(self.fold.touched),
        )

    # --- what the run hears ---

    def hear_result(self, message: Result) -> str:
        node = self.fold.nodes.get(message.node)
        if node is None or node.status is not NodeStatus.RUNNING or node.attempt != message.attempt:
            return "unknown_node" if message.node not in self.plan.nodes else "late_result"
        if message.failure is not None:
            self._attempt_failed(node, message.failure, message)
        elif isinstance(message.output, msgspec.Raw):
            self.emit(
                NodeSucceeded(
                    node=node.node,
                    attempt=node.attempt,
                    output=message.output,
                    started_at=message.started_at,
                    finished_at=message.finished_at,
                    worker=message.worker,
                )
            )
            for dependent in self.plan.nodes[node.node].dependents:
                if self._ready(dependent):
                    self.dispatch(dependent, 1)
        else:
            failure = Failure(
                kind="invalid_output",
                message="the agent's result has neither an output nor a failure",
                retryable=False,
            )
            self._attempt_failed(node, failure, message)
        self.finish_if_done()
        return ""

    def hear_timer(self, message: Timer) -> str:
        now = max(self.at, message.due)
        if not message.node:
            if now < self.before.head.deadline:
                return "stale_timer"
            text = f"the run took longer than its timeout of {self.plan.spec.timeout / 1000:g} s"
            self._end(RunTimedOut(failure=Failure(kind="timeout", message=text, retryable=False)))
            return ""
        node = self.fold.nodes.get(message.node)
        if node is None or node.wake_at is None or node.wake_at > now:
            return "stale_timer"
        if node.status is NodeStatus.RETRYING:
            self.dispatch(node.node, node.attempt + 1)
        else:
            seconds = self.plan.nodes[node.node].spec.timeout / 1000
            text = f"no result of attempt {node.attempt} within {seconds:g} s"
            self._attempt_failed(node, Failure(kind="timeout", message=text), None)
        self.finish_if_done()
        return ""

    def hear_cancel(self, message: Cancel) -> str:
        self._end(RunCancelled(reason=message.reason, requested_by=message.requested_by))
        return ""

    # --- moves ---

    def dispatch(self, node: str, attempt: int) -> None:
        """Send the node's task; where its inputs cannot be made, the node fails."""
        head = self.before.head
        spec = self.plan.nodes[node].spec
        try:
            inputs = msgspec.json.encode(self.plan.nodes[node].inputs.render(self.scope))
        except TemplateError as error:
            self._node_failed(
                node, 0, Failure(kind="template", message=str(error), retryable=False)
            )
            return
        if len(inputs) > PAYLOAD_LIMIT or self.dispatched_bytes + len(inputs) > DECISION_LIMIT:
            text = (
                f"inputs of {len(inputs):,} bytes: a node may have {PAYLOAD_LIMIT:,},"
                f" and all nodes that begin together {DECISION_LIMIT:,}"
            )
            failure = Failure(kind="inputs_too_large", message=text, retryable=False)
            self._node_failed(node, 0, failure)
            return
        self.dispatched_bytes += len(inputs)
        task = Task(
            id=task_id(head.run, node, None, attempt),
            run=head.run,
            project=head.project,
            workflow=head.workflow,
            node=node,
            attempt=attempt,
            agent=spec.agent,
            action=spec.action,
            inputs=msgspec.Raw(inputs),
            timeout_ms=spec.timeout,
            reply_partition=self.partition,
            traceparent=head.traceparent,
        )
        self.tasks.append(task)
        self.emit(
            NodeDispatched(
                node=node,
                attempt=attempt,
                task=task.id,
                agent=spec.agent,
                action=spec.action,
                inputs=task.inputs,
                deadline=self.at + spec.timeout,
            )
        )

    def finish_if_done(self) -> None:
        if self.fold.open:
            return
        failure = self.fold.failure
        self.emit(RunSucceeded() if failure is None else RunFailed(failure=failure))

    def _ready(self, node: str) -> bool:
        nodes = self.fold.nodes
        if node in nodes:
            return False
        for dependency in self.plan.nodes[node].spec.depends_on:
            state = nodes.get(dependency)
            if state is None or state.status is not NodeStatus.SUCCESS:
                return False
        return True

    def _attempt_failed(self, node: NodeState, failure: Failure, result: Result | None) -> None:
        retry = self.plan.nodes[node.node].spec.retry
        if failure.retryable and node.attempt < retry.attempts:
            task = task_id(self.before.head.run, node.node, None, node.attempt)
            self.emit(
                NodeRetrying(
                    node=node.node,
                    attempt=node.attempt,
                    failure=failure,
                    retry_at=self.at + retry.delay_ms(task, node.attempt),
                    started_at=None if result is None else result.started_at,
                    finished_at=None if result is None else result.finished_at,
                    worker="" if result is None else result.worker,
                )
            )
        else:
            self._node_failed(node.node, node.attempt, failure, result)

    def _node_failed(
        self, node: str, attempt: int, failure: Failure, result: Result | None = None
    ) -> None:
        self.emit(
            NodeFailed(
                node=node,
                attempt=attempt,
                failure=failure,
                started_at=None if result is None else result.started_at,
                finished_at=None if result is None else result.finished_at,
                worker="" if result is None else result.worker,
            )
        )
        doomed = list(self.plan.nodes[node].dependents)
        while doomed:
            dependent = doomed.pop(0)
            if dependent not in self.fold.nodes:
                self.emit(NodeSkipped(node=dependent, reason=f"{node!r}, which it needs, failed"))
                doomed += self.plan.nodes[dependent].dependents

    def _end(self, event: RunTimedOut | RunCancelled) -> None:
        """End the run now: what is open is cancelled, then the run."""
        for node in self.plan.nodes:
            state = self.fold.nodes.get(node)
            if state is None or NODE_TRANSITIONS[state.status]:
                attempt = 0 if state is None else state.attempt
                self.emit(NodeCancelled(node=node, attempt=attempt))
        self.emit(event)

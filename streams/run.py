"""What a run decides when it hears a message.

Rules:
- `decide` is a pure function of the state, the message, the time in it and the plan (law 2). What
  its events make of the state is `streams.lifecycle`.
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

from streams.ids import task_id
from streams.lifecycle import NODE_TRANSITIONS, TERMINAL, Fold, RunState
from streams.records import (
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
)
from streams.scope import RunScope
from streams.template import TemplateError
from streams.workflow import Plan

PAYLOAD_LIMIT: Final = 1024 * 1024
"""Bytes of JSON that the inputs or the output of one node may have."""

DECISION_LIMIT: Final = 4 * PAYLOAD_LIMIT
"""Bytes of inputs that one decision may dispatch: it has to fit into one record of the log."""


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
        self.fold = Fold(before)
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

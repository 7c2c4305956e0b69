"""What a run decides when it hears a message.

Rules:
- `decide` is a pure function of the state, the message, the time in it and the plan (law 2). What
  its events make of the state is `streams.lifecycle`; how nodes begin and end is `streams.steps`,
  how the run does `streams.ending`.
- A run ends in exactly one terminal state. Whatever it hears afterwards changes nothing of it.
- A message that does not fit the state (a timer overtaken, a second start) makes no events;
  `Outcome.ignored` says why.
- The result of an attempt that was given up changes nothing but what the run has cost, once; it
  does so after the run's end, too.
- What is due when stands in the state (`RunHead.deadline`, `NodeState.wake_at`): timers can be
  rebuilt from it at any time.
- A paused run begins nothing; what is under way goes on, and its results are taken.
"""

from typing import Final

import msgspec

from streams import duration, ending, pattern, steps
from streams.draft import PAYLOAD_LIMIT, Draft, Limits, Outcome
from streams.events import (
    Decision,
    NodeApproved,
    NodeCharged,
    NodeEdited,
    NodeProgressed,
    NodeRejected,
    NodeReused,
    NodeStarted,
    RunPaused,
    RunResumed,
    RunStarted,
)
from streams.expression import event_fields
from streams.ids import attempt_key, node_key
from streams.lifecycle import TERMINAL, RunState, evolve
from streams.messages import (
    Approval,
    Cancel,
    Message,
    Occurrence,
    Pause,
    Progress,
    Result,
    Resume,
    Start,
    Timer,
)
from streams.payload import Blobs, as_reference, no_blobs, same
from streams.plan import Plan
from streams.records import Failure, NodeStatus, RunStatus
from streams.run_state import NodeState, RunHead
from streams.scope import RunScope
from streams.template import TemplateError
from streams.workflow import NodeSpec

__all__ = ["DEFAULT_LIMITS", "PAYLOAD_LIMIT", "Limits", "Outcome", "decide"]

DEFAULT_LIMITS: Final = Limits()


def decide(
    state: RunState | None,
    message: Message,
    at: int,
    plan: Plan,
    partition: int,
    *,
    limits: Limits = DEFAULT_LIMITS,
    blobs: Blobs = no_blobs,
) -> Outcome:
    """What the message changes.

    Args:
        state: The run before, or None where there is none yet.
        message: What the run hears.
        at: When it was appended to the inbox, milliseconds.
        plan: The version of the workflow that the run is pinned to.
        partition: The run's partition of the inbox, where agents send their results.
        limits: What a run may take.
        blobs: Gives payloads that travel by reference.

    Raises:
        MissingBlobError: `blobs` has not got what the decision needs.
    """
    if state is None:
        if not isinstance(message, Start):
            return Outcome(None, None, ignored="unknown_run")
        return _start(message, at, plan, partition, limits, blobs)
    if state.head.status in TERMINAL:
        return _after_the_end(state, message, at)
    draft = Draft(state, at, plan, partition, limits, blobs)
    ignored = _hear(draft, message)
    if ignored:
        return Outcome(None, None, ignored=ignored)
    ending.advance(draft)
    return draft.outcome()


def _after_the_end(state: RunState, message: Message, at: int) -> Outcome:
    head = state.head
    if not isinstance(message, Result) or not _is_unpaid(head.unpaid, message):
        ignored = "duplicate_start" if isinstance(message, Start) else "run_finished"
        return Outcome(None, None, ignored=ignored)
    decision = Decision(
        run=head.run,
        project=head.project,
        workflow=head.workflow,
        version=head.version,
        seq=head.seq,
        at=at,
        status=head.status,
        previous=head.status,
        events=(_charged(message),),
        traceparent=head.traceparent,
    )
    return Outcome(decision, evolve(state, decision))


def _hear(draft: Draft, message: Message) -> str:  # one case a message type
    """Take in the message; why it means nothing to the run, if it does not."""
    match message:
        case Result():
            return _hear_result(draft, message)
        case Timer():
            return _hear_timer(draft, message)
        case Progress():
            return _hear_progress(draft, message)
        case Approval():
            return _hear_approval(draft, message)
        case Cancel():
            return _hear_cancel(draft, message)
        case Pause():
            return _hear_pause(draft, message)
        case Resume():
            return _hear_resume(draft, message)
        case Occurrence():
            return _hear_occurrence(draft, message)
        case Start():
            return "duplicate_start"


def _start(
    message: Start, at: int, plan: Plan, partition: int, limits: Limits, blobs: Blobs
) -> Outcome:
    started = RunStarted(
        trigger=message.trigger,
        nodes=len(plan.spec.nodes),
        deadline=at + plan.spec.timeout,
        depth=message.depth,
        parent=message.parent,
        origin=message.origin,
        tags=plan.spec.tags,
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
            depth=message.depth,
            parent=message.parent,
            traceparent=message.traceparent,
        ),
        message.trigger,
    )
    draft = Draft(pending, at, plan, partition, limits, blobs)
    draft.emit(started)
    _take_over(draft, message)
    if message.compensate:
        for node in plan.spec.nodes:
            if draft.state(node.id) is None:
                steps.skip(draft, node.id, "this run only undoes another one's work")
        draft.queue.clear()
        ending.compensate_only(draft, [each.node for each in message.undone])
    else:
        draft.queue.extend(plan.roots)
        draft.queue.extend(n for r in message.reuse for n in _dependents(plan, r.node))
    ending.advance(draft)
    return draft.outcome()


def _dependents(plan: Plan, node: str) -> tuple[str, ...]:
    known = plan.nodes.get(node)
    return () if known is None else known.dependents


def _take_over(draft: Draft, message: Start) -> None:
    """Results and inputs that the run is given with its start; what does not fit is left out."""
    origin = "" if message.origin is None else message.origin.run
    for reused in (*message.reuse, *(message.undone if message.compensate else ())):
        plan = draft.plan.nodes.get(reused.node)
        key = node_key(reused.node, reused.item)
        if plan is None or plan.handler or draft.state(key) is not None:
            continue
        if reused.item is not None and plan.for_each is None:
            continue
        draft.emit(NodeReused(node=reused.node, item=reused.item, output=reused.output, run=origin))
    for edit in () if message.compensate else message.edits:
        if edit.node in draft.plan.nodes and draft.state(edit.node) is None:
            draft.emit(NodeEdited(node=edit.node, inputs=edit.inputs))


# --- results and signs of life --------------------------------------------------------------------


def _addressed(draft: Draft, message: Result | Progress | Approval) -> NodeState | None:
    """The node or item that is meant. The key of an item is no node's name, and means nothing."""
    state = draft.state(node_key(message.node, message.item))
    return state if state is not None and state.node == message.node else None


def _hear_result(draft: Draft, message: Result) -> str:
    state = _addressed(draft, message)
    if (
        state is None
        or state.status is not NodeStatus.RUNNING
        or state.attempt != message.attempt
        or state.items is not None
        or not _is_worked_on(draft, state)
    ):
        if _is_unpaid(draft.fold.unpaid, message):
            draft.emit(_charged(message))
            return ""
        return "late_result" if draft.node_plan(message.node) else "unknown_node"
    if message.failure is not None:
        approved = steps.is_approved(draft, message.node, message.item)
        if message.failure.kind == "approval_required" and not approved:
            _ask_for_agent(draft, state, message.failure, message)
        else:
            steps.attempt_failed(draft, state, message.failure, message)
    elif isinstance(message.output, msgspec.Raw):
        _take_output(draft, state, message.output, message)
    else:
        failure = Failure(
            kind="invalid_output",
            message="the agent's result has neither an output nor a failure",
            retryable=False,
        )
        steps.attempt_failed(draft, state, failure, message)
    return ""


def _is_unpaid(unpaid: tuple[str, ...], message: Result) -> bool:
    """Whether the attempt was given up, and says only now what it cost."""
    key = attempt_key(message.node, message.item, message.attempt)
    return bool(message.costs) and key in unpaid


def _charged(message: Result) -> NodeCharged:
    return NodeCharged(
        node=message.node, item=message.item, attempt=message.attempt, costs=message.costs
    )


def _is_worked_on(draft: Draft, state: NodeState) -> bool:
    """Whether somebody outside owes a result: not where the node sleeps or awaits an event."""
    plan = draft.node_plan(state.node)
    return plan is not None and (plan.work is not None or plan.spec.workflow is not None)


def _take_output(
    draft: Draft, state: NodeState, output: msgspec.Raw, message: Result | None = None
) -> None:
    """Big ones go by reference: not every worker can write where payloads are kept."""
    content = bytes(output)
    if as_reference(content) is not None:
        steps.succeed(draft, state, output, message)
        return
    if len(content) <= draft.limits.payload:
        steps.succeed(draft, state, draft.pack(content), message)
        return
    text = f"the output is {len(content):,} bytes; {draft.limits.payload:,} may be"
    text += " (COMMANDCENTER_PAYLOAD_LIMIT)"
    failure = Failure(kind="output_too_large", message=text, retryable=False)
    steps.attempt_failed(draft, state, failure, message)


def _ask_for_agent(draft: Draft, state: NodeState, failure: Failure, message: Result) -> None:
    """The agent acts only if a person has agreed."""
    if draft.stage == "stopping":
        steps.cancel(draft, state, message)
        return
    plan = draft.plan.nodes.get(state.node)
    if plan is None:  # a compensation: nobody is asked whether to undo
        steps.fail(draft, state.node, state.item, state.attempt, failure, message)
        return
    try:
        inputs = steps.inputs_of(draft, plan, state.item)
    except TemplateError as error:
        failed = Failure(kind="template", message=str(error), retryable=False)
        steps.fail(draft, state.node, state.item, state.attempt, failed, message)
        return
    if message.costs:
        draft.emit(_charged(message))
    steps.ask(draft, state.node, state.item, state.attempt, draft.pack(inputs), "agent")


def _hear_progress(draft: Draft, message: Progress) -> str:
    state = _addressed(draft, message)
    if state is None or state.status is not NodeStatus.RUNNING or state.attempt != message.attempt:
        return "late_progress" if draft.node_plan(message.node) else "unknown_node"
    plan = draft.plan.nodes.get(message.node)
    if state.stopping or plan is None or plan.work is None:
        return "late_progress"
    heartbeat = plan.spec.heartbeat_timeout
    beat_by = None if heartbeat is None else draft.at + heartbeat
    if not state.begun:
        # Without a limit that depends on the beginning, the attempt has its time from dispatch.
        counts = heartbeat is not None or plan.spec.start_timeout is not None
        limit = None if counts else state.deadline or state.wake_at
        draft.emit(
            NodeStarted(
                node=message.node,
                item=message.item,
                attempt=message.attempt,
                deadline=draft.at + plan.spec.attempt_timeout if limit is None else limit,
                beat_by=beat_by,
                worker=message.worker,
            )
        )
        if message.percent is None and not message.message:
            return ""
    draft.emit(
        NodeProgressed(
            node=message.node,
            item=message.item,
            attempt=message.attempt,
            beat_by=beat_by,
            percent=message.percent,
            message=message.message,
        )
    )
    return ""


# --- time -----------------------------------------------------------------------------------------


def _hear_timer(draft: Draft, message: Timer) -> str:
    now = max(draft.at, message.due)
    if not message.node:
        return _run_is_due(draft, now)
    state = draft.state(message.node)
    if state is None or state.wake_at is None or state.wake_at > now:
        return "stale_timer"
    if state.status is NodeStatus.RETRYING:
        if draft.paused:
            return "paused"
        _begin_again(draft, state)
    elif state.status is NodeStatus.WAITING_APPROVAL:
        _nobody_answered(draft, state)
    elif state.stopping:
        steps.cancel(draft, state)
    else:
        _is_over_time(draft, state, now)
    return ""


def _run_is_due(draft: Draft, now: int) -> str:
    if now < draft.head.deadline:
        return "stale_timer"
    if draft.paused:
        return "paused"
    if draft.head.ending is not None:
        ending.force(draft)
        return ""
    text = f"the run took longer than its timeout of {duration.text(draft.plan.spec.timeout)}"
    failure = Failure(kind="timeout", message=text, retryable=False)
    ending.stop(draft, RunStatus.TIMED_OUT, failure)
    return ""


def _begin_again(draft: Draft, state: NodeState) -> None:
    plan = draft.node_plan(state.node)
    if plan is None:
        raise AssertionError(f"no node {state.node}")
    if state.give_up_at is not None and state.give_up_at <= draft.at:
        # The back-off ends before that, but a pause may not have.
        steps.fail(draft, state.node, state.item, state.attempt, _no_time_left(plan.spec))
    elif state.node in draft.plan.nodes:
        steps.execute(draft, plan, state.item, state.attempt + 1)
    elif plan.compensation is not None:
        steps.dispatch(draft, state.node, None, state.attempt + 1, plan.compensation)
    if state.item is not None:
        steps.go_on_with_items(draft, state.node)


def _nobody_answered(draft: Draft, state: NodeState) -> None:
    spec = steps.approval_of(draft, state.node)
    deadline = f"within {duration.text(spec.deadline)}"
    if spec.on_deadline == "approve" and not state.attempt:  # the agent has not asked
        text = f"nobody answered {deadline}"
        draft.emit(
            NodeApproved(node=state.node, item=state.item, by=steps.NOBODY, missing=0, notes=text)
        )
        _go_ahead(draft, state.node, state.item)
    else:
        text = f"nobody approved it {deadline}"
        failure = Failure(kind="approval_expired", message=text, retryable=False)
        steps.fail(draft, state.node, state.item, state.attempt, failure)


def _is_over_time(draft: Draft, state: NodeState, now: int) -> None:
    plan = draft.node_plan(state.node)
    if plan is None:
        raise AssertionError(f"no node {state.node}")
    spec = plan.spec
    in_graph = state.node in draft.plan.nodes
    if in_graph and plan.work is None and spec.workflow is None:
        if spec.wait_for_event is not None:
            text = f"no {spec.wait_for_event.event} came within"
            text += f" {duration.text(spec.wait_for_event.timeout)}"
            failure = Failure(kind="timeout", message=text, retryable=False)
            steps.fail(draft, state.node, None, state.attempt, failure)
        else:
            steps.succeed(draft, state, msgspec.Raw(b"null"), None)
        return
    limit = spec.attempt_timeout if in_graph else _undo_timeout(draft, state.node)
    if state.give_up_at is not None and state.give_up_at <= now:
        failure = _no_time_left(spec)
    elif state.beat_by is not None and state.beat_by <= now:
        text = f"no heartbeat for {duration.text(spec.heartbeat_timeout or 0)}"
        failure = Failure(kind="heartbeat", message=f"{text} in attempt {state.attempt}")
    elif in_graph and spec.start_timeout is not None and not state.begun:
        text = f"no agent began it within {duration.text(spec.start_timeout)}"
        failure = Failure(kind="not_started", message=text, retryable=False)
    else:
        text = f"no result of attempt {state.attempt} within {duration.text(limit)}"
        failure = Failure(kind="timeout", message=text)
    steps.call_off(draft, state, 0, failure.message)
    steps.attempt_failed(draft, state, failure)


def _no_time_left(spec: NodeSpec) -> Failure:
    text = f"no result within {duration.text(spec.total_timeout or 0)}, over all attempts"
    return Failure(kind="timeout", message=text, retryable=False)


def _undo_timeout(draft: Draft, node: str) -> int:
    plan = draft.node_plan(node)
    return 0 if plan is None or plan.compensation is None else plan.compensation.timeout


# --- people ---------------------------------------------------------------------------------------


def _hear_approval(draft: Draft, message: Approval) -> str:
    state = _addressed(draft, message)
    if state is None or state.status is not NodeStatus.WAITING_APPROVAL or state.approved:
        return "late_approval" if draft.node_plan(message.node) else "unknown_node"
    spec = steps.approval_of(draft, message.node)
    if spec.roles and not set(spec.roles) & set(message.roles):
        return "not_allowed"
    if not message.approved:
        if not message.notes.strip():
            return "no_reason"
        draft.emit(
            NodeRejected(node=message.node, item=message.item, by=message.by, notes=message.notes)
        )
        text = f"rejected by {message.by or 'somebody'}: {message.notes}"
        failure = Failure(kind="rejected", message=text, retryable=False)
        steps.fail(draft, message.node, message.item, state.attempt, failure)
        return ""
    inputs = _edited(state, message)
    edits = inputs is not msgspec.UNSET
    if edits and message.item is None and steps.has_items_taken_over(draft, message.node):
        return "items_taken_over"  # their results would stand for other items
    # Who edits the inputs begins the count anew: nobody has agreed to these yet.
    agreed = () if edits else state.approvers
    if message.by in agreed:
        return "approved_already"
    missing = max(0, spec.count - len(agreed) - 1)
    draft.emit(
        NodeApproved(
            node=message.node,
            item=message.item,
            by=message.by,
            missing=missing,
            notes=message.notes,
            inputs=inputs,
        )
    )
    if not missing:
        _go_ahead(draft, message.node, message.item)
    return ""


def _edited(state: NodeState, message: Approval) -> msgspec.Raw | msgspec.UnsetType:
    """The inputs that a person gave; unset also where they are those that were shown."""
    shown, given = state.inputs, message.inputs
    if isinstance(shown, msgspec.Raw) and isinstance(given, msgspec.Raw) and same(shown, given):
        return msgspec.UNSET
    return given


def _go_ahead(draft: Draft, node: str, item: int | None) -> None:
    """Do what was approved, unless the run is paused."""
    state = draft.state(node_key(node, item))
    plan = draft.plan.nodes.get(node)
    if state is None or plan is None or draft.paused:
        return
    steps.execute(draft, plan, item, state.attempt + 1)
    if item is not None:
        steps.go_on_with_items(draft, node)


def _hear_cancel(draft: Draft, message: Cancel) -> str:
    if draft.head.ending is not None:
        # The same request may come twice, from the log or from who got no answer to it.
        if not message.force:
            return "run_ending"
        ending.force(draft)
        return ""
    ending.stop(
        draft, RunStatus.CANCELLED, reason=message.reason, requested_by=message.requested_by
    )
    if message.force:
        if draft.fold.ending is not None:
            ending.force(draft)
        draft.forced = True
    return ""


def _hear_pause(draft: Draft, message: Pause) -> str:
    if draft.paused:
        return "paused"
    if draft.head.ending is not None:
        return "run_ending"
    draft.emit(RunPaused(reason=message.reason, requested_by=message.requested_by))
    return ""


def _hear_resume(draft: Draft, message: Resume) -> str:
    paused_at = draft.head.paused_at
    if paused_at is None:
        return "not_paused"
    deadline = draft.head.deadline + max(0, draft.at - paused_at)
    draft.emit(RunResumed(deadline=deadline, requested_by=message.requested_by))
    for node, plan in draft.plan.nodes.items():
        state = draft.state(node)
        if state is None:
            draft.queue.append(node)
        elif state.items is not None and state.status is NodeStatus.RUNNING:
            for index in range(state.items):
                item = draft.state(node_key(node, index))
                if item is not None:
                    _resume_node(draft, item)
            steps.go_on_with_items(draft, node)
        elif plan is not None:
            _resume_node(draft, state)
            draft.queue.append(node)
    return ""


def _resume_node(draft: Draft, state: NodeState) -> None:
    """Make up for what was due while the run was paused."""
    if state.status is NodeStatus.WAITING_APPROVAL and state.approved:
        _go_ahead(draft, state.node, state.item)
    due = state.wake_at is not None and state.wake_at <= draft.at
    if state.status is NodeStatus.RETRYING and due:
        _begin_again(draft, state)


# --- events from outside --------------------------------------------------------------------------


def _hear_occurrence(draft: Draft, message: Occurrence) -> str:
    began, trigger = draft.trigger, message.trigger
    if (trigger.source, trigger.id) == (began.source, began.id):
        return "no_match"  # the event that started the run, delivered again
    matched = False
    for node in draft.plan.waits:
        state = draft.state(node)
        if state is None or state.status is not NodeStatus.RUNNING:
            continue
        plan = draft.plan.nodes[node]
        wait = plan.spec.wait_for_event
        if wait is None or not pattern.matches(wait.event, trigger.type):
            continue
        if plan.match is not None:
            event = RunScope(draft.head, trigger, {}, draft.blob_of).values(["event"], ())
            try:
                names = plan.match.variables - {"event"}
                values = draft.scope.values(names, sorted(plan.ancestors))
            except TemplateError:
                continue
            if not plan.match.check({**values, **event}).matched:
                continue
        if any(draft.scope.is_output(other, trigger) for other in draft.plan.waits):
            continue  # the same event again: it was taken by an earlier node
        matched = True
        # Big data stays the reference as which it came: data and all around it may be too much.
        _take_output(draft, state, msgspec.Raw(msgspec.json.encode(event_fields(trigger))))
    return "" if matched else "no_match"

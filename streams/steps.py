"""How the nodes of a run begin and end.

Rules:
- A node is looked at when something that it depends on has ended. By its `runIf` it then begins, is
  skipped, or waits for more. A node that is skipped counts as not successful, and so skips those
  that need its success, and so on.
- A failed node that is tolerated (`onFailure: continue`) counts as successful for what depends on
  it; its output is null.
- What a node is, decides how it begins: a task for an agent, a run of another workflow, a sleep,
  waiting for an event; or its items, of which at most `maxParallel` are under way.
- Where an agent will not act unless a person has agreed, the node waits for that, and the task is
  then sent again as the next attempt. A question uses up none of `retry.attempts`. A deadline is no
  person: by `onDeadline: approve` a node goes on, but its agent asks all the same, and is answered
  by people alone.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from streams.draft import Draft
from streams.duration import moment
from streams.events import (
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
    NodeStopping,
    NodeSucceeded,
)
from streams.ids import COMPENSATION, child_run_id, node_key, task_id
from streams.lifecycle import SETTLED
from streams.messages import Cancel, Result, RunRequest, Task, TaskCancellation
from streams.payload import as_reference, reference_in
from streams.plan import NodePlan, Work
from streams.records import Failure, NodeStatus, Parent
from streams.run_state import NodeState
from streams.template import Scope, Template, TemplateError, kind_of
from streams.workflow import ApprovalSpec

# Looked at in every decision: to find them in their class takes four times as long.
_PENDING: Final = NodeStatus.PENDING
_SUCCESS: Final = NodeStatus.SUCCESS

NOBODY: Final = ""
"""Who approves where nobody answered before the deadline."""

ANYBODY = ApprovalSpec()
"""What an agent's demand for approval means where the workflow says nothing of it."""


# --- beginning ------------------------------------------------------------------------------------


def consider(draft: Draft, node: str) -> None:
    """Begin or skip the node, if that is due."""
    plan = draft.plan.nodes[node]
    state = draft.state(node)
    if state is not None and state.status is not _PENDING:
        return
    stage = draft.stage
    if plan.handler != (stage == "handling") or stage == "stopping":
        return
    due, reason = _due(draft, plan)
    if not due:
        return
    if reason:
        skip(draft, node, reason)
    elif not draft.paused:
        _begin_if(draft, plan)


def skip(draft: Draft, node: str, reason: str) -> None:
    """End the node without its having begun."""
    draft.emit(NodeSkipped(node=node, reason=reason))
    draft.queue.extend(draft.plan.nodes[node].dependents)


def _due(draft: Draft, plan: NodePlan) -> tuple[bool, str]:
    """Whether it is settled what becomes of the node, and why it is skipped, if it is."""
    run_if = plan.spec.run_if
    waiting = failed = False
    for name in plan.needs:
        state = draft.state(name)
        if state is None or state.status not in SETTLED:
            waiting = True
        elif state.status is not _SUCCESS:
            tolerated = _is_tolerated(draft, name, state)
            if run_if == "allSuccess" and not tolerated:
                return True, f"{name!r}, which it needs, {_HOW[state.status]}"
            if run_if == "anyFailed":
                failed = failed or state.status is NodeStatus.FAILED
            elif state.status is not NodeStatus.SKIPPED and not tolerated:
                failed = True
    if waiting:
        return False, ""
    if run_if == "noneFailed" and failed:
        return True, "a node that it depends on failed"
    if run_if == "anyFailed" and not failed:
        return True, "no node that it depends on failed"
    return True, ""


_HOW: Mapping[NodeStatus, str] = {
    NodeStatus.FAILED: "failed",
    NodeStatus.SKIPPED: "was skipped",
    NodeStatus.CANCELLED: "was cancelled",
}


def _is_tolerated(draft: Draft, name: str, state: NodeState) -> bool:
    spec = draft.plan.nodes[name].spec
    return state.status is NodeStatus.FAILED and spec.on_failure == "continue"


def _begin_if(draft: Draft, plan: NodePlan) -> None:
    node = plan.spec.id
    if plan.condition is not None:
        try:
            values = draft.scope.values(plan.condition.variables, sorted(plan.ancestors))
        except TemplateError as error:
            fail(draft, node, None, 0, _final("condition", f"when: {error}"))
            return
        verdict = plan.condition.check(values)
        if verdict.reason:
            fail(draft, node, None, 0, _final("condition", f"when: {verdict.reason}"))
            return
        if not verdict.matched:
            skip(draft, node, f"its condition is false: {plan.condition.text}")
            return
    if plan.spec.approval is not None:
        _ask_first(draft, plan)
    else:
        execute(draft, plan, None, 1)


def _ask_first(draft: Draft, plan: NodePlan) -> None:
    """Ask for approval, showing what the node would be given."""
    node = plan.spec.id
    try:
        inputs = inputs_of(draft, plan, None)
    except TemplateError as error:
        fail(draft, node, None, 0, _final("template", str(error)))
        return
    if len(inputs) > draft.limits.payload:
        fail(draft, node, None, 0, _too_large(draft, len(inputs)))
        return
    ask(draft, node, None, 0, draft.pack(inputs), "workflow")


def ask(
    draft: Draft, node: str, item: int | None, attempt: int, inputs: msgspec.Raw, cause: str
) -> None:
    """Let the node wait for approval. Meanwhile the time for all its attempts stands still."""
    spec = approval_of(draft, node)
    on_deadline = spec.on_deadline if cause == "workflow" else "reject"
    known = draft.state(node_key(node, item))
    give_up_at = None if known is None else known.give_up_at
    draft.emit(
        NodeApprovalRequested(
            node=node,
            item=item,
            attempt=attempt,
            inputs=inputs,
            needed=spec.count,
            deadline=draft.at + spec.deadline,
            on_deadline=on_deadline,
            cause=cause,
            roles=spec.roles,
            time_left=None if give_up_at is None else max(0, give_up_at - draft.at),
        )
    )


def approval_of(draft: Draft, node: str) -> ApprovalSpec:
    """Who has to agree to the node."""
    plan = draft.plan.nodes.get(node)
    return ANYBODY if plan is None or plan.spec.approval is None else plan.spec.approval


def is_approved(draft: Draft, node: str, item: int | None) -> bool:
    """Whether people have agreed to the node, with all of its items, or to this one."""
    if _people_agreed(draft.state(node)):
        return True
    return item is not None and _people_agreed(draft.state(node_key(node, item)))


def _people_agreed(state: NodeState | None) -> bool:
    return state is not None and state.approved and NOBODY not in state.approvers


def execute(draft: Draft, plan: NodePlan, item: int | None, attempt: int) -> None:
    """Begin the attempt, whatever the node is."""
    spec = plan.spec
    if plan.for_each is not None and item is None:
        _fan_out(draft, plan)
    elif plan.work is not None:
        dispatch(draft, spec.id, item, attempt, plan.work)
    elif spec.workflow is not None:
        _request_run(draft, plan, item, attempt)
    elif spec.wait_for_event is not None:
        wait = spec.wait_for_event
        deadline = draft.at + wait.timeout
        draft.emit(NodeAwaiting(node=spec.id, event=wait.event, deadline=deadline))
    else:
        _sleep(draft, plan)


def dispatch(draft: Draft, node: str, item: int | None, attempt: int, work: Work) -> None:
    """Send the task; where its inputs cannot be made, the node fails."""
    head = draft.head
    plan = draft.node_plan(node)
    if plan is None:
        raise AssertionError(f"no node {node}")
    spec = plan.spec
    undoing = node.endswith(COMPENSATION)
    whole = draft.state(spec.id) if undoing else None
    if whole is not None and whole.items is None and whole.output is msgspec.UNSET:
        draft.scope.taken_over[spec.id] = items_taken_over(draft, plan)
    try:
        content = _encoded(work.inputs, draft.scope) if undoing else inputs_of(draft, plan, item)
    except TemplateError as error:
        fail(draft, node, item, 0, _final("template", str(error)))
        return
    if len(content) > draft.limits.payload:
        fail(draft, node, item, 0, _too_large(draft, len(content)))
        return
    inputs = draft.pack(content)
    start_timeout = None if undoing else spec.start_timeout
    heartbeat = None if undoing else spec.heartbeat_timeout
    task = Task(
        id=task_id(head.run, node, item, attempt),
        run=head.run,
        project=head.project,
        workflow=head.workflow,
        node=node,
        attempt=attempt,
        agent=work.agent,
        action=work.action,
        inputs=inputs,
        timeout_ms=work.timeout,
        reply_partition=draft.partition,
        item=item,
        approved=is_approved(draft, node, item),
        report=start_timeout is not None or heartbeat is not None,
        heartbeat_ms=heartbeat or 0,
        traceparent=head.traceparent,
    )
    draft.tasks.append(task)
    draft.emit(
        NodeDispatched(
            node=node,
            item=item,
            attempt=attempt,
            task=task.id,
            agent=work.agent,
            action=work.action,
            inputs=inputs,
            deadline=draft.at + (work.timeout if start_timeout is None else start_timeout),
            give_up_at=None if undoing else _give_up_at(draft, plan, node_key(node, item)),
            approved=task.approved,
        )
    )


def _request_run(draft: Draft, plan: NodePlan, item: int | None, attempt: int) -> None:
    head = draft.head
    spec = plan.spec
    workflow = str(spec.workflow)
    if head.depth >= draft.limits.depth:
        text = f"runs start runs more than {draft.limits.depth} deep"
        text += " (COMMANDCENTER_RUN_DEPTH_LIMIT)"
        fail(draft, spec.id, item, 0, _final("depth", text))
        return
    try:
        content = inputs_of(draft, plan, item)
    except TemplateError as error:
        fail(draft, spec.id, item, 0, _final("template", str(error)))
        return
    if len(content) > draft.limits.payload:
        fail(draft, spec.id, item, 0, _too_large(draft, len(content)))
        return
    inputs = draft.pack(content)
    task = task_id(head.run, spec.id, item, attempt)
    child = child_run_id(head.project, workflow, head.run, task)
    draft.requests.append(
        RunRequest(
            run=child,
            project=head.project,
            workflow=workflow,
            parent=Parent(run=head.run, node=spec.id, item=item, attempt=attempt),
            depth=head.depth + 1,
            inputs=inputs,
            traceparent=head.traceparent,
        )
    )
    draft.emit(
        NodeRequested(
            node=spec.id,
            item=item,
            attempt=attempt,
            run=child,
            workflow=workflow,
            inputs=inputs,
            deadline=draft.at + spec.attempt_timeout,
            give_up_at=_give_up_at(draft, plan, node_key(spec.id, item)),
        )
    )


def _give_up_at(draft: Draft, plan: NodePlan, key: str) -> int | None:
    known = draft.state(key)
    if known is not None and known.give_up_at is not None:
        return known.give_up_at
    if known is not None and known.time_left is not None:
        return draft.at + known.time_left
    total = plan.spec.total_timeout
    return None if total is None else draft.at + total


def _sleep(draft: Draft, plan: NodePlan) -> None:
    spec = plan.spec
    if spec.delay is not None:
        draft.emit(NodeSleeping(node=spec.id, until=draft.at + spec.delay))
        return
    try:
        template = plan.delay_until
        until = moment(None if template is None else template.render(draft.scope))
    except (TemplateError, ValueError) as error:
        fail(draft, spec.id, None, 0, _final("template", f"delayUntil: {error}"))
        return
    draft.emit(NodeSleeping(node=spec.id, until=max(until, draft.at)))


def inputs_of(draft: Draft, plan: NodePlan, item: int | None) -> bytes:
    """What the node or item is given: what a person saw or made, or what the templates make."""
    known = draft.state(node_key(plan.spec.id, item))
    if known is not None and isinstance(known.inputs, msgspec.Raw):
        return _content(draft, known.inputs)
    if item is not None:
        raw = draft.fold.lists[plan.spec.id].get(item, draft.blob_of)
        return _encoded(plan.inputs, draft.scope.of_item(raw, item))
    if plan.for_each is not None:
        return _encoded(plan.for_each, draft.scope)
    return _encoded(plan.inputs, draft.scope)


def _content(draft: Draft, payload: msgspec.Raw) -> bytes:
    reference = as_reference(payload)
    return bytes(payload) if reference is None else draft.blob_of(reference)


def _encoded(template: Template, scope: Scope) -> bytes:
    return msgspec.json.encode(template.render(scope))


# --- items ----------------------------------------------------------------------------------------


def _fan_out(draft: Draft, plan: NodePlan) -> None:
    node = plan.spec.id
    try:
        content, value = _items_of(draft, plan)
    except TemplateError as error:
        fail(draft, node, None, 0, _final("template", f"forEach: {error}"))
        return
    if not isinstance(value, list):
        fail(draft, node, None, 0, _final("items", f"forEach: {kind_of(value)} is not a list"))
        return
    if len(value) > draft.limits.items:
        text = f"forEach: {len(value):,} items, {draft.limits.items:,} may be"
        text += " (COMMANDCENTER_FAN_OUT_LIMIT)"
        fail(draft, node, None, 0, _final("items", text))
        return
    if len(content) > draft.limits.payload:
        fail(draft, node, None, 0, _too_large(draft, len(content)))
        return
    packed = draft.pack(content)
    draft.listed.add(node)
    reused = _are_taken_over(draft, node, value)
    draft.emit(NodeFannedOut(node=node, items=packed, count=len(value), reused=reused))
    if packed != msgspec.Raw(content):
        draft.fold.lists[node].fill(content)
    go_on_with_items(draft, node)


def _items_of(draft: Draft, plan: NodePlan) -> tuple[bytes, Any]:
    """The items as JSON and decoded; a list, if all is well."""
    content = inputs_of(draft, plan, None)
    value: Any = msgspec.json.decode(content)
    if (reference := reference_in(value)) is not None:
        content = draft.blob_of(reference)
        value = msgspec.json.decode(content)
    return content, value


def has_items_taken_over(draft: Draft, node: str) -> bool:
    """Whether results of an earlier run stand for items of a node that has not fanned out yet."""
    plan = draft.plan.nodes.get(node)
    if plan is None or plan.for_each is None:
        return False
    try:
        _, value = _items_of(draft, plan)
    except TemplateError:
        return False
    return isinstance(value, list) and _are_taken_over(draft, node, value)


def items_taken_over(draft: Draft, plan: NodePlan) -> int:
    """How many items a node has that has not fanned out, up to the last one taken over."""
    if plan.for_each is None:
        return 0
    places = range(draft.limits.items - 1, -1, -1)
    found = (n + 1 for n in places if draft.state(node_key(plan.spec.id, n)) is not None)
    return next(found, 0)


def _are_taken_over(draft: Draft, node: str, items: list[Any]) -> bool:
    return any(draft.state(node_key(node, index)) for index in range(len(items)))


def go_on_with_items(draft: Draft, node: str) -> None:
    """Begin items while there is room, and end their node when they have ended."""
    plan = draft.plan.nodes[node]
    spec = plan.spec
    while True:
        state = draft.state(node)
        if state is None or state.items is None or state.status is not NodeStatus.RUNNING:
            return
        stopped = draft.stage == "stopping" or (spec.item_failure == "stop" and state.failed > 0)
        if stopped or state.done + state.active >= state.items:
            break
        if draft.paused or state.active >= spec.max_parallel:
            return
        index = state.next_item
        while draft.state(node_key(node, index)) is not None:  # the result of an earlier run
            index += 1
        execute(draft, plan, index, 1)
    if state.active:
        return
    if draft.stage == "stopping":
        draft.emit(NodeCancelled(node=node, attempt=state.attempt))
        draft.queue.extend(plan.dependents)
    elif state.failed and spec.item_failure != "ignore":
        first = state.failure
        why = "" if first is None else f"; the first: {first.message}"
        text = f"{state.failed} of {state.items} items failed{why}"
        # Whether a run that has this one as a step should try it again.
        in_vain = first is not None and not first.retryable
        failure = Failure(kind="items", message=text, retryable=not in_vain)
        fail(draft, node, None, state.attempt, failure)
    else:
        draft.emit(
            NodeSucceeded(
                node=node, attempt=state.attempt, started_at=draft.at, finished_at=draft.at
            )
        )
        draft.queue.extend(plan.dependents)


# --- ending ---------------------------------------------------------------------------------------


def succeed(draft: Draft, state: NodeState, output: msgspec.Raw, result: Result | None) -> None:
    """The attempt gave this output."""
    draft.emit(
        NodeSucceeded(
            node=state.node,
            item=state.item,
            attempt=state.attempt,
            output=output,
            started_at=draft.at if result is None else result.started_at,
            finished_at=draft.at if result is None else result.finished_at,
            worker="" if result is None else result.worker,
            agent_version="" if result is None else result.agent_version,
            costs=() if result is None else result.costs,
        )
    )
    _ended(draft, state.node, state.item)


def attempt_failed(
    draft: Draft, state: NodeState, failure: Failure, result: Result | None = None
) -> None:
    """The attempt failed: try again, if that is allowed and worth while, or fail the node."""
    if draft.stage == "stopping":
        cancel(draft, state, result)
        return
    plan = draft.node_plan(state.node)
    if plan is None:
        raise AssertionError(f"no node {state.node}")
    undoing = state.node.endswith(COMPENSATION)
    retry = plan.compensation.retry if undoing and plan.compensation else plan.spec.retry
    tried = state.attempt - state.asked
    if retry.allows(failure, tried):
        task = task_id(draft.head.run, state.node, state.item, state.attempt)
        retry_at = draft.at + retry.delay_ms(task, tried)
        budget = draft.plan.spec.retry_budget
        if draft.fold.retries >= budget and not undoing:
            text = f"{failure.message} (the run's retry budget of {budget} is used up)"
            failure = msgspec.structs.replace(failure, message=text)
        elif state.give_up_at is not None and retry_at >= state.give_up_at:
            text = f"{failure.message} (no time is left for another attempt)"
            failure = msgspec.structs.replace(failure, message=text)
        else:
            draft.emit(
                NodeRetrying(
                    node=state.node,
                    item=state.item,
                    attempt=state.attempt,
                    failure=failure,
                    retry_at=retry_at,
                    started_at=None if result is None else result.started_at,
                    finished_at=None if result is None else result.finished_at,
                    worker="" if result is None else result.worker,
                    agent_version="" if result is None else result.agent_version,
                    costs=() if result is None else result.costs,
                )
            )
            return
    fail(draft, state.node, state.item, state.attempt, failure, result)


def fail(
    draft: Draft,
    node: str,
    item: int | None,
    attempt: int,
    failure: Failure,
    result: Result | None = None,
) -> None:
    """The node or item fails for good."""
    plan = draft.plan.nodes.get(node)
    tolerated = item is None and plan is not None and plan.spec.on_failure == "continue"
    draft.emit(
        NodeFailed(
            node=node,
            item=item,
            attempt=attempt,
            failure=failure,
            tolerated=tolerated,
            started_at=None if result is None else result.started_at,
            finished_at=None if result is None else result.finished_at,
            worker="" if result is None else result.worker,
            agent_version="" if result is None else result.agent_version,
            costs=() if result is None else result.costs,
        )
    )
    # An item that fails as it is begun is seen by the loop that began it.
    if item is None or attempt:
        _ended(draft, node, item)


def cancel(draft: Draft, state: NodeState, result: Result | None = None) -> None:
    """End the node or item, because the run ends."""
    draft.emit(
        NodeCancelled(
            node=state.node,
            item=state.item,
            attempt=state.attempt,
            costs=() if result is None else result.costs,
        )
    )
    _ended(draft, state.node, state.item)


def _ended(draft: Draft, node: str, item: int | None) -> None:
    if item is not None:
        go_on_with_items(draft, node)
    elif node in draft.plan.nodes:
        draft.queue.extend(draft.plan.nodes[node].dependents)


def call_off(draft: Draft, state: NodeState, grace: int, reason: str) -> None:
    """Tell whoever works on the attempt that its result is not wanted any more."""
    plan = draft.node_plan(state.node)
    if plan is None:
        return
    head = draft.head
    task = task_id(head.run, state.node, state.item, state.attempt)
    undoing = state.node.endswith(COMPENSATION)
    work = plan.compensation if undoing else plan.work
    if work is not None:
        draft.cancellations.append(
            TaskCancellation(task=task, agent=work.agent, reason=reason, grace_ms=grace)
        )
    elif plan.spec.workflow is not None:
        child = child_run_id(head.project, plan.spec.workflow, head.run, task)
        draft.messages.append(
            Cancel(
                run=child,
                reason=reason,
                requested_by=f"run {head.run}",
                force=draft.forced,
                by_parent=True,
            )
        )


def stop(draft: Draft, state: NodeState, grace: int, reason: str) -> None:
    """End the node or item in order: who works on it has `grace` milliseconds."""
    plan = draft.node_plan(state.node)
    works = plan is not None and (plan.work is not None or plan.spec.workflow is not None)
    if state.status is NodeStatus.RUNNING and works:
        call_off(draft, state, grace, reason)
        if grace:
            draft.emit(
                NodeStopping(
                    node=state.node,
                    item=state.item,
                    attempt=state.attempt,
                    deadline=draft.at + grace,
                )
            )
            return
    cancel(draft, state)


def _final(kind: str, message: str) -> Failure:
    return Failure(kind=kind, message=message, retryable=False)


def _too_large(draft: Draft, size: int) -> Failure:
    text = f"inputs of {size:,} bytes: a node may have {draft.limits.payload:,}"
    text += " (COMMANDCENTER_PAYLOAD_LIMIT)"
    return _final("inputs_too_large", text)

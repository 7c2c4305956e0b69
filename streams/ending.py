"""How a run ends: stages between the last of its nodes and its terminal status.

Rules:
- A run that is cancelled, times out or breaks a limit is *stopping*: nothing more begins, agents at
  work are told, and have the workflow's `cancelGrace`. A run whose nodes have all ended is past it.
- A run that does not succeed is *compensating*: nodes that have succeeded and say what undoes them
  are undone, the last first, one after the other. What cannot be undone is named in the end; so is
  what a run that is ended by force leaves.
- A run that failed or timed out is *handling*: the nodes of `onFailure` run.
- A stage with nothing to do is passed by without a word. A paused run enters none before it is
  resumed or cancelled. While a run is stopping or later, its status is as before; how it will end
  stands in `run.ending`.
- Each stage has the workflow's time-out again. When that passes, or somebody cancels by force, what
  is open is cancelled and the run ends.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from streams import steps
from streams.draft import Draft
from streams.events import (
    NodeCancelled,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunSucceeded,
    RunTimedOut,
)
from streams.ids import COMPENSATION, node_key
from streams.lifecycle import SETTLED
from streams.messages import Result
from streams.plan import NodePlan
from streams.records import Failure, NodeStatus, RunStatus, Trigger
from streams.run_state import Ending, NodeState
from streams.template import TemplateError

FINISHED_TYPE = "commandcenter.run.finished"
"""The type of the event that the end of every run is."""


def finished_source(workflow: str) -> str:
    """The source of the events that the ends of a workflow's runs are."""
    return f"commandcenter/workflows/{workflow}"


def advance(draft: Draft) -> None:
    """Let begin what may, and pass from stage to stage, until nothing moves."""
    while True:
        while draft.queue:
            steps.consider(draft, draft.queue.popleft())
        if draft.fold.ended is not None:
            return
        if draft.fold.seq >= draft.limits.events and draft.stage == "" and draft.fold.open:
            text = f"the run has more than {draft.limits.events:,} events"
            text += " (COMMANDCENTER_RUN_EVENTS_LIMIT)"
            stop(draft, RunStatus.FAILED, Failure(kind="events", message=text, retryable=False))
            continue
        if draft.stage == "compensating" and _undo_next(draft):
            return
        if draft.fold.open or not _end_stage(draft):
            return


def stop(
    draft: Draft,
    outcome: RunStatus,
    failure: Failure | None = None,
    *,
    reason: str = "",
    requested_by: str = "",
) -> None:
    """Begin nothing more, and end what is under way in order."""
    grace = draft.plan.spec.cancel_grace
    why = failure.message if failure is not None else reason
    nodes = [plan for plan in draft.plan.nodes.values() if not plan.handler]
    if any(_is_at_work(draft, plan) for plan in nodes):
        draft.emit(
            RunEnding(
                stage="stopping",
                outcome=outcome,
                deadline=draft.at + grace + draft.plan.spec.timeout,
                failure=failure,
                reason=reason,
                requested_by=requested_by,
            )
        )
    else:
        draft.verdict = Ending(stage="", outcome=outcome, reason=reason, requested_by=requested_by)
        draft.verdict_failure = failure
    for plan in nodes:
        _stop_node(draft, plan, grace, why)
    draft.queue.clear()


def _is_at_work(draft: Draft, plan: NodePlan) -> bool:
    """Whether somebody works on the node who is to be told."""
    state = draft.state(plan.spec.id)
    if state is None or (plan.work is None and plan.spec.workflow is None):
        return False
    return state.status is NodeStatus.RUNNING and (state.items is None or state.active > 0)


def _stop_node(draft: Draft, plan: NodePlan, grace: int, why: str) -> None:
    node = plan.spec.id
    state = draft.state(node)
    if state is None or state.status is NodeStatus.PENDING:
        draft.emit(NodeCancelled(node=node))
    elif state.items is not None and state.status is NodeStatus.RUNNING:
        for index in range(state.items if state.active else 0):
            item = draft.state(node_key(node, index))
            if item is not None and item.status not in SETTLED:
                steps.stop(draft, item, grace, why)
        left = draft.state(node)
        if left is not None and left.status not in SETTLED and not left.active:
            draft.emit(NodeCancelled(node=node, attempt=state.attempt))
    elif state.status not in SETTLED:
        steps.stop(draft, state, grace, why)


def force(draft: Draft) -> None:
    """End at once: what is open is cancelled."""
    ending = draft.fold.ending
    draft.forced = True
    for plan in draft.plan.nodes.values():
        if plan.handler and draft.stage != "handling":
            continue
        node = plan.spec.id
        state = draft.state(node)
        if state is not None and state.items is not None:
            for index in range(state.items if state.active else 0):
                item = draft.state(node_key(node, index))
                if item is not None:
                    _cancel_now(draft, node, item)
        _cancel_now(draft, node, draft.state(node))
    for node in () if ending is None else ending.undo:
        key = node + COMPENSATION
        _cancel_now(draft, key, draft.state(key))
    draft.queue.clear()


def _cancel_now(draft: Draft, node: str, state: NodeState | None) -> None:
    if state is None:
        draft.emit(NodeCancelled(node=node))
    elif state.status not in SETTLED:
        if state.status is NodeStatus.RUNNING and state.items is None:
            steps.call_off(draft, state, 0, "the run was ended by force")
        draft.emit(NodeCancelled(node=node, item=state.item, attempt=state.attempt))


# --- stages ---------------------------------------------------------------------------------------


def _end_stage(draft: Draft) -> bool:
    """Nothing is open: go on to the next stage that has something to do, or end.

    False where that has to wait: a paused run begins nothing by itself.
    """
    stage = draft.stage
    ending = draft.fold.ending or draft.verdict
    failure = draft.verdict_failure or draft.fold.failure
    output: msgspec.Raw | msgspec.UnsetType = UNSET
    if ending is None:
        if failure is None:
            output, failure = _output(draft)
        outcome = RunStatus.SUCCESS if failure is None else RunStatus.FAILED
        ending = Ending(stage="", outcome=outcome)
    if not draft.forced and ending.outcome is not RunStatus.SUCCESS:
        waits = draft.paused and draft.verdict is None
        if stage in ("", "stopping") and (undo := _to_undo(draft)):
            if not waits:
                _enter(draft, "compensating", ending, failure, undo)
            return not waits
        handles = ending.outcome in (RunStatus.FAILED, RunStatus.TIMED_OUT)
        if stage != "handling" and handles and draft.plan.handler_roots:
            if not waits:
                _enter(draft, "handling", ending, failure, ())
                draft.queue.extend(draft.plan.handler_roots)
            return not waits
    elif ending.outcome is not RunStatus.SUCCESS and stage in ("", "stopping"):
        ending = replace(ending, uncompensated=_to_undo(draft))
    _finish(draft, ending, failure, output)
    return True


def _enter(
    draft: Draft, stage: str, ending: Ending, failure: Failure | None, undo: tuple[str, ...]
) -> None:
    draft.emit(
        RunEnding(
            stage=stage,
            outcome=ending.outcome,
            deadline=draft.at + draft.plan.spec.timeout,
            open=len(undo) or len(draft.plan.spec.on_failure),
            undo=undo,
            failure=failure,
            reason=ending.reason,
            requested_by=ending.requested_by,
        )
    )


def compensate_only(draft: Draft, undone: Iterable[str]) -> None:
    """Do nothing but undo what is said to have been done, and is not among the `undone`."""
    known = frozenset(undone)
    undo = tuple(node for node in _to_undo(draft) if node not in known)
    draft.emit(
        RunEnding(
            stage="compensating",
            outcome=RunStatus.SUCCESS,
            deadline=draft.at + draft.plan.spec.timeout,
            open=len(undo),
            undo=undo,
        )
    )


def _to_undo(draft: Draft) -> tuple[str, ...]:
    """The nodes that are to be undone: the last that succeeded first."""
    done: list[tuple[int, str]] = []
    for name, plan in draft.plan.nodes.items():
        state = draft.state(name)
        if plan.compensation is None or state is None:
            continue
        if state.status is NodeStatus.SUCCESS or _has_done_items(draft, plan, state):
            done.append((state.order, name))
    return tuple(name for _, name in sorted(done, reverse=True))


def _has_done_items(draft: Draft, plan: NodePlan, state: NodeState) -> bool:
    """Whether some items of a node that is no success were done, here or in an earlier run."""
    if state.items is not None:
        return state.done > state.failed
    return steps.items_taken_over(draft, plan) > 0


def _undo_next(draft: Draft) -> bool:
    """Begin undoing the next node; False where all are undone, or as good as that."""
    while draft.fold.ending is not None and draft.fold.ending.undo:
        node = draft.fold.ending.undo[0]
        key = node + COMPENSATION
        state = draft.state(key)
        if state is not None and state.status not in SETTLED:
            return True
        work = draft.plan.nodes[node].compensation
        if work is None:
            raise AssertionError(f"node {node} has nothing that undoes it")
        steps.dispatch(draft, key, None, 1, work)
    return False


def _output(draft: Draft) -> tuple[msgspec.Raw | msgspec.UnsetType, Failure | None]:
    """The run's output, or why there is none although there should be."""
    template = draft.plan.output
    if template is None:
        return UNSET, None
    try:
        content = msgspec.json.encode(template.render(draft.scope))
    except TemplateError as error:
        return UNSET, Failure(kind="output", message=f"output: {error}", retryable=False)
    if len(content) > draft.limits.payload:
        text = f"an output of {len(content):,} bytes: a run may have {draft.limits.payload:,}"
        text += " (COMMANDCENTER_PAYLOAD_LIMIT)"
        return UNSET, Failure(kind="output", message=text, retryable=False)
    return draft.pack(content), None


def _finish(
    draft: Draft,
    ending: Ending,
    failure: Failure | None,
    output: msgspec.Raw | msgspec.UnsetType,
) -> None:
    lost = ending.uncompensated
    match ending.outcome:
        case RunStatus.SUCCESS if lost:
            text = f"not undone: {', '.join(lost)}"
            failure = Failure(kind="compensation", message=text, retryable=False)
            draft.emit(RunFailed(failure=failure, uncompensated=lost))
        case RunStatus.SUCCESS:
            draft.emit(RunSucceeded(output=output))
        case RunStatus.CANCELLED:
            draft.emit(
                RunCancelled(
                    reason=ending.reason, requested_by=ending.requested_by, uncompensated=lost
                )
            )
        case outcome:
            if failure is None:
                raise AssertionError(f"run {draft.head.run} ends {outcome} for no reason")
            ended = RunTimedOut if outcome is RunStatus.TIMED_OUT else RunFailed
            draft.emit(ended(failure=failure, uncompensated=lost))
    _tell(draft, failure, output, ending.reason)


_CURABLE: Final = frozenset({"timeout", "not_started"})
"""Final failures that may well not happen in another run."""


def _is_worth_another_run(draft: Draft, failure: Failure | None) -> bool:
    """Whether a new run in the place of this one could succeed.

    Not where it was cancelled, nor where the node that failed it would fail again: with every level
    of runs above it the attempts would multiply.
    """
    if draft.fold.status is RunStatus.CANCELLED:  # a node may have failed before that
        return False
    cause = _cause(draft, failure)
    return cause is not None and (cause.retryable or cause.kind in _CURABLE)


def _cause(draft: Draft, failure: Failure | None) -> Failure | None:
    """Why the node failed that the run failed by; else why the run did."""
    state = None if failure is None or failure.node is None else draft.state(failure.node)
    return failure if state is None or state.failure is None else state.failure


def _tell(
    draft: Draft,
    failure: Failure | None,
    output: msgspec.Raw | msgspec.UnsetType,
    reason: str,
) -> None:
    """Tell the node that this run is a step of, and everybody, that the run has ended."""
    head = draft.head
    status = draft.fold.status
    parent = draft.fold.parent
    value = output if isinstance(output, msgspec.Raw) else msgspec.Raw(b"null")
    if parent is not None:
        why = failure.message if failure is not None else reason
        cause = _cause(draft, failure)
        if cause is not None and cause.kind == "child_failed":
            text = cause.message  # names the run where it happened: no level repeats it
        else:
            text = f"run {head.run} of workflow {head.workflow!r} ended {status}: {why}"
        failed = Failure(
            kind="child_failed", message=text, retryable=_is_worth_another_run(draft, failure)
        )
        draft.messages.append(
            Result(
                run=parent.run,
                node=parent.node,
                item=parent.item,
                attempt=parent.attempt,
                started_at=head.started_at,
                finished_at=draft.at,
                output=value if status is RunStatus.SUCCESS else UNSET,
                failure=None if status is RunStatus.SUCCESS else failed,
            )
        )
    data: dict[str, Any] = {
        "run": head.run,
        "workflow": head.workflow,
        "version": head.version,
        "project": head.project,
        "status": status.value,
        "output": value,
        "failure": None if failure is None else replace(failure, retryable=True),
        "startedAt": head.started_at,
        "finishedAt": draft.at,
        "depth": head.depth,
    }
    if (
        draft.stage == "compensating"
        and draft.head.ending is not None
        and (draft.head.ending.outcome is RunStatus.SUCCESS)
    ):
        data["compensation"] = True  # it only undid what another run had done
    draft.announcement = Trigger(
        id=head.run,
        source=finished_source(head.workflow),
        type=FINISHED_TYPE,
        subject=status.value,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )

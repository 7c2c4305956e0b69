"""What the events make of a run: the legal moves as tables, and the fold of events over a state.

Rules:
- A status moves only as the tables say; a terminal one has no moves.
- `evolve` replays a decision onto the state that it was made from. Replaying all decisions of a run
  gives its state, byte for byte (law 2).
- The first node that fails for good, and is not tolerated, gives the run its failure.
- A run waits for approval when some of its nodes do and none is under way.
- The items of a fan-out have states of their own, and are counted in that of their node. Maps that
  share what did not change keep a step with 10,000 items as cheap as one with three (law 7).
- A terminal run keeps its head alone: by it the run is known when its event comes again. Its
  history is in the events. Nothing happens in it any more; what attempts cost that it had given up
  may still be told.
"""

from typing import Final, cast, get_args

import msgspec
from immutables import Map
from msgspec import UNSET
from msgspec.structs import replace

from streams.events import (
    Decision,
    Event,
    NodeApprovalRequested,
    NodeApproved,
    NodeAwaiting,
    NodeCancelled,
    NodeCharged,
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
    RunCancelled,
    RunEnding,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)
from streams.ids import COMPENSATION, attempt_key, node_key
from streams.payload import Blobs, as_reference
from streams.records import Failure, NodeStatus, RunStatus, Trigger
from streams.run_state import Ending, NodeState, RunHead

_ENDS: Final = frozenset(
    {RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
)

RUN_TRANSITIONS: Final = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING}),
    RunStatus.RUNNING: frozenset({RunStatus.WAITING_APPROVAL, *_ENDS}),
    RunStatus.WAITING_APPROVAL: frozenset({RunStatus.RUNNING, *_ENDS}),
    RunStatus.SUCCESS: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
    RunStatus.TIMED_OUT: frozenset(),
}
"""The legal moves of a run. A status with none is terminal."""

NODE_TRANSITIONS: Final = {
    NodeStatus.PENDING: frozenset(
        {
            NodeStatus.RUNNING,
            NodeStatus.WAITING_APPROVAL,
            NodeStatus.SUCCESS,
            NodeStatus.FAILED,
            NodeStatus.SKIPPED,
            NodeStatus.CANCELLED,
        }
    ),
    NodeStatus.WAITING_APPROVAL: frozenset(
        {NodeStatus.RUNNING, NodeStatus.FAILED, NodeStatus.CANCELLED}
    ),
    NodeStatus.RUNNING: frozenset(
        {
            NodeStatus.WAITING_APPROVAL,
            NodeStatus.SUCCESS,
            NodeStatus.RETRYING,
            NodeStatus.FAILED,
            NodeStatus.CANCELLED,
        }
    ),
    NodeStatus.RETRYING: frozenset({NodeStatus.RUNNING, NodeStatus.FAILED, NodeStatus.CANCELLED}),
    NodeStatus.SUCCESS: frozenset(),
    NodeStatus.FAILED: frozenset(),
    NodeStatus.SKIPPED: frozenset(),
    NodeStatus.CANCELLED: frozenset(),
}
"""The legal moves of a node. PENDING to SUCCESS: its result is that of an earlier run."""

TERMINAL: Final = frozenset(status for status, moves in RUN_TRANSITIONS.items() if not moves)
SETTLED: Final = frozenset(status for status, moves in NODE_TRANSITIONS.items() if not moves)
UNDER_WAY: Final = frozenset({NodeStatus.RUNNING, NodeStatus.RETRYING})

UNPAID_KEPT: Final = 100
"""So many attempts that were given up are known to a run: the head of each is written often."""

# Every decision needs these: to find them in their class takes four times as long.
_PENDING: Final = NodeStatus.PENDING
_RUNNING: Final = NodeStatus.RUNNING
_WAITING: Final = NodeStatus.WAITING_APPROVAL
_SUCCESS: Final = NodeStatus.SUCCESS
_RUN_PENDING: Final = RunStatus.PENDING
_RUN_RUNNING: Final = RunStatus.RUNNING


class Items:
    """The items of a fan-out: a JSON array as it stands on the log, parsed when first asked."""

    __slots__ = ("_parsed", "raw")

    def __init__(self, raw: msgspec.Raw) -> None:
        self.raw = raw
        self._parsed: list[msgspec.Raw] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Items) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(bytes(self.raw))

    def fill(self, content: bytes) -> None:
        """Say what the reference stands for."""
        self._parsed = msgspec.json.decode(content, type=list[msgspec.Raw])

    def get(self, index: int, blobs: Blobs) -> msgspec.Raw:
        """One item; `MissingBlobError` where the array is elsewhere and has to be fetched."""
        if self._parsed is None:
            reference = as_reference(self.raw)
            content = self.raw if reference is None else blobs(reference)
            self._parsed = msgspec.json.decode(content, type=list[msgspec.Raw])
        return self._parsed[index]


class RunState(msgspec.Struct, frozen=True):
    """A run: head, trigger, the nodes and items that have left PENDING, the items of its fan-outs.

    `nodes` are by `streams.ids.node_key`. A terminal run keeps its head alone.
    """

    head: RunHead
    trigger: Trigger | None = None
    nodes: Map[str, NodeState] = Map()
    lists: Map[str, Items] = Map()


def evolve(state: RunState | None, decision: Decision) -> RunState:
    """The state after the decision, which was made from `state` (None: the run's first)."""
    fold = Fold(state)
    for event in decision.events:
        fold.apply(event)
    return fold.state(decision)


class Fold:
    """Events applied one by one to a copy of a state; for `evolve`, and for making decisions."""

    __slots__ = (
        "deadline", "depth", "ended", "ending", "failure", "head", "lists", "nodes", "open",
        "parent", "paused_at", "retries", "running", "seq", "touched", "trigger", "unpaid",
        "waiting",
    )  # fmt: skip

    def __init__(self, state: RunState | None) -> None:
        self.touched: set[str] = set()
        self.head = head = _NOTHING if state is None else state.head
        self.ended: RunStatus | None = None if head.finished_at is None else head.status
        self.trigger, self.nodes, self.lists = (
            (None, Map[str, NodeState]().mutate(), Map[str, Items]())
            if state is None
            else (state.trigger, state.nodes.mutate(), state.lists)
        )
        self.seq = head.seq
        self.open = head.open
        self.running = head.running
        self.waiting = head.waiting
        self.retries = head.retries
        self.depth = head.depth
        self.parent = head.parent
        self.failure = head.failure
        self.deadline = head.deadline
        self.paused_at = head.paused_at
        self.ending = head.ending
        self.unpaid = head.unpaid

    @property
    def status(self) -> RunStatus:
        """The run's, as far as events were applied."""
        if self.ended is not None:
            return self.ended
        if self.trigger is None or self.seq == 0:
            return _RUN_PENDING
        if self.waiting and not self.running:
            return RunStatus.WAITING_APPROVAL
        return _RUN_RUNNING

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        if type(event) in _RUN_EVENTS:
            self._apply_to_run(cast("RunEvent", event))
        elif self.ended is not None and type(event) is not NodeCharged:
            raise AssertionError(f"a run cannot hear of {type(event).__name__} after its end")
        else:
            self._apply_to_node(cast("NodeEvent", event))
        self.seq += 1

    def _apply_to_run(self, event: "RunEvent") -> None:  # one case an event type
        if self.ended is not None:
            raise AssertionError(f"a run cannot hear of {type(event).__name__} after its end")
        match event:
            case RunStarted():
                self.open = event.nodes
                self.deadline = event.deadline
                self.trigger = event.trigger
                self.depth = event.depth
                self.parent = event.parent
            case RunPaused():
                self.paused_at = 0  # `state` knows the time of the decision
            case RunResumed():
                self.paused_at = None
                self.deadline = event.deadline
            case RunEnding():
                self._ending(event)
            case RunSucceeded():
                self.ended = RunStatus.SUCCESS
            case RunFailed():
                self.failure = event.failure
                self.ended = RunStatus.FAILED
            case RunTimedOut():
                self.failure = event.failure
                self.ended = RunStatus.TIMED_OUT
            case RunCancelled():
                self.ended = RunStatus.CANCELLED

    def _ending(self, event: RunEnding) -> None:
        before = self.ending
        self.ending = Ending(
            stage=event.stage,
            outcome=event.outcome,
            undo=event.undo,
            uncompensated=() if before is None else before.uncompensated,
            reason=event.reason,
            requested_by=event.requested_by,
        )
        self.open += event.open
        self.deadline = event.deadline
        self.paused_at = None
        if event.failure is not None:
            self.failure = event.failure

    def _apply_to_node(self, event: "NodeEvent") -> None:  # noqa: C901  # one case an event type
        match event:
            case NodeDispatched():
                self._begin(event)
            case NodeSucceeded():
                self._close(event, _SUCCESS, event.attempt, output=event.output)
            case NodeRequested():
                self._begin(event)
            case NodeStarted():
                self._change(event, begun=True, deadline=event.deadline, beat_by=event.beat_by)
            case NodeProgressed():
                self._change(event, beat_by=event.beat_by)
            case NodeReused():
                self._close(event, _SUCCESS, 0, output=event.output)
            case NodeRetrying():
                self.retries += 1
                self._given_up(event)
                before = self._known(event)
                self._put(
                    NodeState(
                        node=event.node,
                        item=event.item,
                        status=NodeStatus.RETRYING,
                        attempt=event.attempt,
                        wake_at=event.retry_at,
                        give_up_at=before.give_up_at,
                        inputs=before.inputs,
                        approved=before.approved,
                        approvers=before.approvers,
                        asked=before.asked,
                    )
                )
            case NodeFailed():
                self._given_up(event)
                self._close(event, NodeStatus.FAILED, event.attempt, failure=event.failure)
                self._failed(event)
            case NodeSkipped():
                self._put(NodeState(node=event.node, status=NodeStatus.SKIPPED))
            case NodeCharged():
                key = attempt_key(event.node, event.item, event.attempt)
                self.unpaid = tuple(each for each in self.unpaid if each != key)
            case NodeCancelled():
                self._given_up(event)
                self._close(event, NodeStatus.CANCELLED, event.attempt)
            case NodeStopping():
                self._change(event, stopping=True, wake_at=event.deadline)
            case NodeApprovalRequested():
                before = self._known(event)
                self._put(
                    NodeState(
                        node=event.node,
                        item=event.item,
                        status=NodeStatus.WAITING_APPROVAL,
                        attempt=event.attempt,
                        wake_at=event.deadline,
                        time_left=event.time_left,
                        inputs=event.inputs,
                        asked=before.asked + (event.attempt > 0),
                    )
                )
            case NodeApproved():
                before = self._known(event)
                self._put(
                    replace(
                        before,
                        approvers=(
                            (*before.approvers, event.by) if event.inputs is UNSET else (event.by,)
                        ),
                        approved=event.missing == 0,
                        inputs=before.inputs if event.inputs is UNSET else event.inputs,
                        wake_at=None if event.missing == 0 else before.wake_at,
                    ),
                    stays=True,
                )
            case NodeRejected():
                pass  # that it failed is the next event
            case NodeEdited():
                self._put(
                    NodeState(node=event.node, status=NodeStatus.PENDING, inputs=event.inputs),
                    stays=True,
                )
            case NodeSleeping():
                self._put(
                    NodeState(
                        node=event.node, status=NodeStatus.RUNNING, attempt=1, wake_at=event.until
                    )
                )
            case NodeAwaiting():
                self._put(
                    NodeState(
                        node=event.node,
                        status=NodeStatus.RUNNING,
                        attempt=1,
                        wake_at=event.deadline,
                        awaits=event.event,
                    )
                )
            case NodeFannedOut():
                self.lists = self.lists.set(event.node, Items(event.items))
                # Results of an earlier run, if there are any, stood here before their node did.
                keys = (node_key(event.node, index) for index in range(event.count))
                there = sum(key in self.nodes for key in keys) if event.reused else 0
                self._put(
                    replace(
                        self._known(event),
                        status=NodeStatus.RUNNING,
                        attempt=1,
                        wake_at=None,
                        inputs=UNSET,  # the items are kept by themselves: written once
                        items=event.count,
                        done=there,
                    )
                )

    # --- nodes and items ---

    def _known(self, event: "NodeEvent") -> NodeState:
        """The node's or item's state before the event; a fresh one where there is none."""
        item = getattr(event, "item", None)
        known = self.nodes.get(node_key(event.node, item))
        return known or NodeState(node=event.node, item=item, status=NodeStatus.PENDING)

    def _given_up(self, event: NodeRetrying | NodeFailed | NodeCancelled) -> None:
        """Know the attempt, if somebody is at work on it whom nobody has heard."""
        told = event.costs if isinstance(event, NodeCancelled) else event.started_at is not None
        if told or not event.attempt:
            return
        before = self._known(event)
        if before.status is _RUNNING and before.items is None and before.awaits is None:
            key = attempt_key(event.node, event.item, event.attempt)
            self.unpaid = (*self.unpaid, key)[-UNPAID_KEPT:]

    def _begin(self, event: NodeDispatched | NodeRequested) -> None:
        item = event.item
        key = event.node if item is None else node_key(event.node, item)
        before = self.nodes.get(key) or _FRESH
        give_up_at = event.give_up_at
        deadline = event.deadline
        self._put(
            NodeState(
                node=event.node,
                item=item,
                status=_RUNNING,
                attempt=event.attempt,
                wake_at=deadline if give_up_at is None else min(deadline, give_up_at),
                deadline=None if give_up_at is None else deadline,
                give_up_at=give_up_at,
                inputs=before.inputs,
                approved=before.approved,
                approvers=before.approvers,
                asked=before.asked,
            )
        )

    def _change(self, event: "NodeEvent", **changes: object) -> None:
        state = replace(self._known(event), **changes)
        if "wake_at" not in changes:
            limits = (state.deadline, state.beat_by, state.give_up_at)
            state = replace(
                state, wake_at=min((n for n in limits if n is not None), default=state.wake_at)
            )
        self._put(state, stays=True)

    def _close(
        self,
        event: NodeSucceeded | NodeReused | NodeFailed | NodeCancelled,
        status: NodeStatus,
        attempt: int,
        *,
        output: msgspec.Raw | msgspec.UnsetType = UNSET,
        failure: Failure | None = None,
    ) -> None:
        item = event.item
        key = event.node if item is None else node_key(event.node, item)
        before = self.nodes.get(key)
        if before is None:
            if type(event) is NodeSucceeded:
                raise AssertionError(f"node {key} cannot go from PENDING to SUCCESS")
            before = _FRESH
        # Of a fan-out that failed, some items may have to be undone.
        in_turn = status is _SUCCESS or before.items is not None
        self._put(
            NodeState(
                node=event.node,
                item=item,
                status=status,
                attempt=attempt,
                output=output,
                failure=failure,
                order=self.seq if in_turn else 0,
                items=before.items,
                done=before.done,
                failed=before.failed,
            )
        )

    def _failed(self, event: NodeFailed) -> None:
        counts = event.item is None and not event.tolerated
        if self.failure is None and counts and not event.node.endswith(COMPENSATION):
            self.failure = _run_failure(event)

    def _put(self, node: NodeState, *, stays: bool = False) -> None:
        """Take over a new state; where it `stays`, of a node whose status is the same."""
        key = node.node if node.item is None else node_key(node.node, node.item)
        before = self.nodes.get(key)
        known = _PENDING if before is None else before.status
        status = node.status
        if status is not known if stays else status not in NODE_TRANSITIONS[known]:
            raise AssertionError(f"node {key} cannot go from {known} to {status}")
        self.nodes[key] = node
        self.touched.add(key)
        if node.item is not None:
            self._count_item(node, known)
            return
        if status is known:
            return
        settled = status in SETTLED
        self.open -= settled
        self.running += (status in UNDER_WAY) - (known in UNDER_WAY)
        self.waiting += (status is _WAITING) - (known is _WAITING)
        if settled and key.endswith(COMPENSATION):
            self._undone(key.removesuffix(COMPENSATION), status)

    def _undone(self, node: str, how: NodeStatus) -> None:
        ending = self.ending
        if ending is not None:
            left = tuple(name for name in ending.undo if name != node)
            kept = ending.uncompensated
            if how is not NodeStatus.SUCCESS:
                kept = (*kept, node)
            self.ending = replace(ending, undo=left, uncompensated=kept)

    def _count_item(self, item: NodeState, known: NodeStatus) -> None:
        """Keep count of the item in the state of its node."""
        node = self.nodes.get(item.node)
        if node is None or node.items is None:
            return
        under_way = known is not NodeStatus.PENDING
        settled = item.status in SETTLED
        if under_way and not settled:
            return
        index = item.item or 0
        self.nodes[item.node] = replace(
            node,
            active=node.active + (not settled) - (settled and under_way),
            done=node.done + settled,
            failed=node.failed + (settled and item.status is not NodeStatus.SUCCESS),
            failure=node.failure or item.failure,
            next_item=node.next_item if under_way else max(node.next_item, index + 1),
        )
        self.touched.add(item.node)

    def state(self, decision: Decision) -> RunState:
        """The state after `decision`, whose events were applied."""
        finished = self.ended is not None
        before = self.head
        if self.trigger is None and before.finished_at is None:
            raise AssertionError(f"run {decision.run} has no run.started event")
        finished_at = before.finished_at
        if finished and finished_at is None:
            finished_at = decision.at
        head = RunHead(
            run=decision.run,
            project=decision.project,
            workflow=decision.workflow,
            version=decision.version,
            status=self.status,
            seq=self.seq,
            started_at=before.started_at if before.seq else decision.at,
            deadline=self.deadline,
            open=self.open,
            running=self.running,
            waiting=self.waiting,
            retries=self.retries,
            depth=self.depth,
            parent=self.parent,
            paused_at=decision.at if self.paused_at == 0 else self.paused_at,
            ending=None if finished else self.ending,
            failure=self.failure,
            finished_at=finished_at,
            traceparent=decision.traceparent,
            unpaid=self.unpaid,
        )
        if finished:  # its history is in the events; the head is kept to know the run by
            return RunState(head)
        return RunState(head, self.trigger, self.nodes.finish(), self.lists)


_NOTHING: Final = RunHead(
    run="", project="", workflow="", version=0, status=_RUN_PENDING, seq=0, started_at=0,
    deadline=0, open=0,
)  # fmt: skip
"""The head of a run that does not exist yet."""

_FRESH: Final = NodeState(node="", status=_PENDING)
"""What a node is before its first event."""

RunEvent = (
    RunStarted
    | RunPaused
    | RunResumed
    | RunEnding
    | RunSucceeded
    | RunFailed
    | RunTimedOut
    | RunCancelled
)
"""Events of the run itself."""

_RUN_EVENTS: Final = frozenset(get_args(RunEvent))

NodeEvent = (
    NodeReused
    | NodeEdited
    | NodeDispatched
    | NodeStarted
    | NodeProgressed
    | NodeApprovalRequested
    | NodeApproved
    | NodeRejected
    | NodeSleeping
    | NodeAwaiting
    | NodeFannedOut
    | NodeRequested
    | NodeSucceeded
    | NodeRetrying
    | NodeFailed
    | NodeSkipped
    | NodeStopping
    | NodeCancelled
    | NodeCharged
)
"""Events of a node, or of an item of one."""


def _run_failure(event: NodeFailed) -> Failure:
    return Failure(
        kind="node_failed",
        message=f"node {event.node!r} failed: {event.failure.message}",
        retryable=False,
        node=event.node,
    )

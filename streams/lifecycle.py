"""What the events make of a run: the legal moves as tables, and the fold of events over a state.

Rules:
- A status moves only as the tables say; a terminal one has no moves.
- `evolve` replays a decision onto the state that it was made from. Replaying all decisions of a run
  gives its state, byte for byte (law 2).
- The first node that fails for good gives the run its failure.
- A terminal run keeps its head alone: by it the run is known when its event comes again. Its
  history is in the events.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from streams.records import (
    NULL,
    Decision,
    Event,
    Failure,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    NodeState,
    NodeStatus,
    NodeSucceeded,
    RunCancelled,
    RunFailed,
    RunHead,
    RunStarted,
    RunStatus,
    RunSucceeded,
    RunTimedOut,
    Trigger,
)

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


class RunState(NamedTuple):
    """A run: its head and the nodes that have left PENDING. A terminal run keeps no nodes."""

    head: RunHead
    nodes: dict[str, NodeState]


def evolve(state: RunState | None, decision: Decision) -> RunState:
    """The state after the decision, which was made from `state` (None: the run's first)."""
    fold = Fold(state)
    for event in decision.events:
        fold.apply(event)
    return fold.state(decision)


class Fold:
    """Events applied one by one to a copy of a state; for `evolve`, and for making decisions."""

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
        """Take in the next event."""
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

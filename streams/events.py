"""Events: what was decided about a run, and the decision that they stand in on the log."""

from typing import Literal

from msgspec import UNSET, Raw, UnsetType

from streams.cost import Costs
from streams.records import FORMAT, Failure, Origin, Parent, RunStatus, Trigger, Value


class RunStarted(Value, tag_field="type", tag="run.started", frozen=True, kw_only=True):
    """The run exists, with `nodes` nodes to do. `deadline` is when it times out.

    `tags` are those of its workflow's version.
    """

    trigger: Trigger
    nodes: int
    deadline: int
    depth: int = 0
    parent: Parent | None = None
    origin: Origin | None = None
    tags: tuple[str, ...] = ()


class NodeReused(Value, tag_field="type", tag="node.reused", frozen=True, kw_only=True):
    """The node's (or item's) result was taken over from the run that this one repeats."""

    node: str
    output: Raw
    run: str
    item: int | None = None


class NodeEdited(Value, tag_field="type", tag="node.edited", frozen=True, kw_only=True):
    """The node will get these inputs instead of those that the definition makes."""

    node: str
    inputs: Raw


class NodeDispatched(Value, tag_field="type", tag="node.dispatched", frozen=True, kw_only=True):
    """A task was sent to an agent.

    `deadline` is when the attempt counts as lost (or, where the agent has to say that it began, as
    never begun). `give_up_at` ends all attempts.
    """

    node: str
    attempt: int
    task: str
    agent: str
    action: str
    inputs: Raw
    deadline: int
    item: int | None = None
    give_up_at: int | None = None
    approved: bool = False


class NodeStarted(Value, tag_field="type", tag="node.started", frozen=True, kw_only=True):
    """The agent began: the attempt has until `deadline` now, the next heartbeat until `beat_by`."""

    node: str
    attempt: int
    deadline: int
    item: int | None = None
    beat_by: int | None = None
    worker: str = ""


class NodeProgressed(Value, tag_field="type", tag="node.progressed", frozen=True, kw_only=True):
    """A heartbeat, with what the agent says of its progress."""

    node: str
    attempt: int
    item: int | None = None
    beat_by: int | None = None
    percent: float | None = None
    message: str = ""


class NodeApprovalRequested(
    Value, tag_field="type", tag="node.approvalRequested", frozen=True, kw_only=True
):
    """The node waits for `needed` people with one of `roles` (anybody, where empty).

    `cause` is `workflow` or `agent`: who asks for it. At `deadline` it is decided by `on_deadline`,
    `reject` or `approve`. `attempt` is the one that the agent refused to make without; `time_left`
    is what all attempts together still have when it goes on, milliseconds: waiting does not count.
    """

    node: str
    inputs: Raw
    needed: int
    deadline: int
    on_deadline: str
    cause: str
    item: int | None = None
    roles: tuple[str, ...] = ()
    attempt: int = 0
    time_left: int | None = None


class NodeApproved(Value, tag_field="type", tag="node.approved", frozen=True, kw_only=True):
    """Somebody approved; `missing` more are needed. `inputs` replace those asked about."""

    node: str
    by: str
    missing: int
    item: int | None = None
    notes: str = ""
    inputs: Raw | UnsetType = UNSET


class NodeRejected(Value, tag_field="type", tag="node.rejected", frozen=True, kw_only=True):
    """Somebody rejected, because of `notes`."""

    node: str
    by: str
    notes: str
    item: int | None = None


class NodeSleeping(Value, tag_field="type", tag="node.sleeping", frozen=True, kw_only=True):
    """The node does nothing until `until`."""

    node: str
    until: int


class NodeAwaiting(Value, tag_field="type", tag="node.awaiting", frozen=True, kw_only=True):
    """The node waits for an event whose type fits `event`, until `deadline`."""

    node: str
    event: str
    deadline: int


class NodeFannedOut(Value, tag_field="type", tag="node.fannedOut", frozen=True, kw_only=True):
    """The node is done once for each of its `count` items, which are `items` (a JSON array).

    `reused`: some of them have results of an earlier run.
    """

    node: str
    items: Raw
    count: int
    reused: bool = False


class NodeRequested(Value, tag_field="type", tag="node.runRequested", frozen=True, kw_only=True):
    """A run of another workflow was asked for as this step."""

    node: str
    attempt: int
    run: str
    workflow: str
    inputs: Raw
    deadline: int
    item: int | None = None
    give_up_at: int | None = None


class NodeSucceeded(Value, tag_field="type", tag="node.succeeded", frozen=True, kw_only=True):
    """The node (or item) is done; its output can be referenced. `costs` are the attempt's.

    The output of a node with items is the list of theirs, and not repeated here.
    """

    node: str
    attempt: int
    output: Raw | UnsetType = UNSET
    started_at: int
    finished_at: int
    worker: str = ""
    agent_version: str = ""
    item: int | None = None
    costs: Costs = ()


class NodeRetrying(Value, tag_field="type", tag="node.retrying", frozen=True, kw_only=True):
    """An attempt failed; the next one is dispatched at `retry_at`. `costs` are the attempt's."""

    node: str
    attempt: int
    failure: Failure
    retry_at: int
    started_at: int | None = None
    finished_at: int | None = None
    worker: str = ""
    agent_version: str = ""
    item: int | None = None
    costs: Costs = ()


class NodeFailed(Value, tag_field="type", tag="node.failed", frozen=True, kw_only=True):
    """The node failed for good. `attempt` 0: it could not even be dispatched.

    `tolerated`: the run does not fail by it. `costs` are the attempt's.
    """

    node: str
    attempt: int
    failure: Failure
    started_at: int | None = None
    finished_at: int | None = None
    worker: str = ""
    agent_version: str = ""
    item: int | None = None
    tolerated: bool = False
    costs: Costs = ()


class NodeSkipped(Value, tag_field="type", tag="node.skipped", frozen=True, kw_only=True):
    """The node will not run, because `reason`."""

    node: str
    reason: str


class NodeStopping(Value, tag_field="type", tag="node.stopping", frozen=True, kw_only=True):
    """The agent at work was told to end; it has until `deadline`."""

    node: str
    attempt: int
    deadline: int
    item: int | None = None


class NodeCancelled(Value, tag_field="type", tag="node.cancelled", frozen=True, kw_only=True):
    """The run ended while the node was under way (`attempt` of it) or not begun (0).

    `costs` are the attempt's, where its agent still said what they are.
    """

    node: str
    attempt: int = 0
    item: int | None = None
    costs: Costs = ()


class NodeCharged(Value, tag_field="type", tag="node.charged", frozen=True, kw_only=True):
    """What an attempt cost whose end is told by another event, or was: nothing else changes.

    It asked people before it acted, or its result came when the run had given it up.
    """

    node: str
    attempt: int
    item: int | None = None
    costs: Costs


class RunPaused(Value, tag_field="type", tag="run.paused", frozen=True, kw_only=True):
    """Nothing more begins until the run is resumed."""

    reason: str = ""
    requested_by: str = ""


class RunResumed(Value, tag_field="type", tag="run.resumed", frozen=True, kw_only=True):
    """The run goes on; the pause does not count: the new `deadline` is later by it."""

    deadline: int
    requested_by: str = ""


class RunEnding(Value, tag_field="type", tag="run.ending", frozen=True, kw_only=True):
    """It is settled how the run will end, `outcome`, and something is left to do before.

    `stage` says what: `stopping` (agents at work were told to end), `compensating` (`undo` are the
    nodes to undo, in this order), `handling` (the workflow's failure handler runs). `open` nodes
    are added to what is open. `deadline` is when the rest is given up.
    """

    stage: str
    outcome: RunStatus
    deadline: int
    open: int = 0
    undo: tuple[str, ...] = ()
    failure: Failure | None = None
    reason: str = ""
    requested_by: str = ""


class RunSucceeded(Value, tag_field="type", tag="run.succeeded", frozen=True, kw_only=True):
    """Every node is done. `output` is what the workflow says it is, if it does."""

    output: Raw | UnsetType = UNSET


class RunFailed(Value, tag_field="type", tag="run.failed", frozen=True, kw_only=True):
    """A node failed; `failure` names the first one and why.

    `uncompensated` are nodes that could not be undone.
    """

    failure: Failure
    uncompensated: tuple[str, ...] = ()


class RunTimedOut(Value, tag_field="type", tag="run.timedOut", frozen=True, kw_only=True):
    """The run's own time-out passed."""

    failure: Failure
    uncompensated: tuple[str, ...] = ()


class RunCancelled(Value, tag_field="type", tag="run.cancelled", frozen=True, kw_only=True):
    """Somebody cancelled the run."""

    reason: str
    requested_by: str = ""
    uncompensated: tuple[str, ...] = ()


Event = (
    RunStarted
    | NodeReused
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
    | RunPaused
    | RunResumed
    | RunEnding
    | RunSucceeded
    | RunFailed
    | RunTimedOut
    | RunCancelled
)


class Decision(Value, frozen=True, kw_only=True):
    """One record of the events topic: the 1..n events that one message made, in order.

    The events carry the sequence numbers `seq`, `seq + 1`, …; (run, sequence) is an event's id.
    `at` is when the message was appended to the inbox. `status` is the run's after, `previous`
    before this decision.
    """

    run: str
    project: str
    workflow: str
    version: int
    seq: int
    at: int
    status: RunStatus
    previous: RunStatus
    events: tuple[Event, ...]
    traceparent: str | None = None
    v: Literal[1] = FORMAT

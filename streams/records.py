"""The records on the log: inbox messages, tasks, decisions with their events, and run state.

Rules:
- On the wire every record is one JSON object in camelCase with its format version in `v`
  (`streams.codec`). Times are integers, milliseconds since the Unix epoch, UTC.
- Values are immutable. Payloads (`Trigger.data`, task inputs, outputs) stay undecoded JSON
  (`msgspec.Raw`) until somebody looks inside: most records pass through without that.
- A key names a node or one item of it (`streams.ids.node_key`).
- Statuses are the contract's words; the same words stand in REST, SQL and the UI.
"""

from decimal import Context, Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

FORMAT: Final = 1
NULL: Final = Raw(b"null")

COST_DIGITS: Final = 12
"""Digits that a cost's numbers may have after the point."""
COST_LIMIT: Final = 10**12
"""A cost's numbers are less than this."""
_COST_STEP: Final = Decimal(1).scaleb(-COST_DIGITS)
_COST_LIMIT: Final = Decimal(COST_LIMIT)
_ZERO: Final = Decimal(0)
_EXACT: Final = Context(prec=60)
COST_ENTRIES: Final = 100
"""Costs that one result may have."""
COST_TEXT: Final = 200
"""Characters of a cost's texts."""


class RunStatus(StrEnum):
    """Where a run stands. The last four are terminal."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING_APPROVAL = "WAITING_APPROVAL"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class NodeStatus(StrEnum):
    """Where a node of a run stands. The last four are terminal."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING_APPROVAL = "WAITING_APPROVAL"
    RETRYING = "RETRYING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class _Value(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all records and their parts."""


class Failure(_Value, frozen=True, kw_only=True):
    """Why a task, node or run did not succeed. `kind` is one of a small vocabulary.

    From agents: `agent_error` (`error` names the exception's class), `timeout`, `invalid_input`,
    `invalid_output`, `unknown_action`, `output_too_large`, `cancelled`, `approval_required`. From
    the engine: `template`, `condition`, `timeout`, `not_started`, `heartbeat`, `rejected`,
    `approval_expired`, `items`, `child_failed`, `depth`, `inputs_too_large`, `events`, `output`,
    `compensation`, and `node_failed` (on a run; `node` says which).
    """

    kind: str
    message: str
    retryable: bool = True
    node: str | None = None
    error: str = ""


CostKind = Literal["compute", "tokens", "api"]
_CostText = Annotated[str, Meta(max_length=COST_TEXT)]


class Cost(_Value, frozen=True, kw_only=True):
    """Something that an attempt used: `quantity` units at `unit_price` are `amount`.

    `source` is who is paid (an agent for compute), `price_version` the price list. Numbers are
    exact, not negative, and stand on the wire as strings: 12 digits after the point at most.
    """

    kind: CostKind
    source: _CostText
    quantity: Decimal
    unit: _CostText
    unit_price: Decimal
    amount: Decimal
    model: _CostText = ""
    currency: _CostText = "USD"
    price_version: _CostText = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be added up exactly."""
        # By their texts: the hash of a number that is fresh from the log takes ten times as long.
        if problem := _problem(str(self.quantity), str(self.unit_price), str(self.amount)):
            raise ValueError(problem)


@lru_cache(maxsize=4096)  # most costs are those of compute, which are much the same
def _problem(*numbers: str) -> str:
    for value in map(Decimal, numbers):
        if not value.is_finite() or not _ZERO <= value < _COST_LIMIT:
            return f"a cost of {value}: its numbers are from 0 to {COST_LIMIT:,}"
        if value != value.quantize(_COST_STEP, context=_EXACT):
            return (
                f"a cost of {value}: its numbers have at most {COST_DIGITS} digits after the point"
            )
    return ""


_Costs = Annotated[tuple[Cost, ...], Meta(max_length=COST_ENTRIES)]


class Trigger(_Value, frozen=True, kw_only=True):
    """The event that started a run, as CloudEvents names its parts. `data` is any JSON value."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    data: Raw = NULL


class Parent(_Value, frozen=True, kw_only=True):
    """The node of another run that a run was started by, and where its end is to be reported."""

    run: str
    node: str
    attempt: int
    item: int | None = None


class Origin(_Value, frozen=True, kw_only=True):
    """The run that this one repeats, and how: `retry`, `rerun` or `compensation`."""

    run: str
    kind: str
    requested_by: str = ""


class Reused(_Value, frozen=True, kw_only=True):
    """A result of the run that this one repeats, taken over instead of worked for again."""

    node: str
    output: Raw
    item: int | None = None


class Edit(_Value, frozen=True, kw_only=True):
    """Inputs that replace those that the definition makes for a node."""

    node: str
    inputs: Raw


# --- the inbox: everything that a run hears -------------------------------------------------------


class Start(_Value, tag_field="type", tag="start", frozen=True, kw_only=True):
    """Start run `run` of a workflow version. A second one for the same run is ignored.

    `depth` counts the runs above it: those that started it as a step, or by their end. With
    `compensate` the run does nothing but undo what `reuse` says was done.
    """

    run: str
    project: str
    workflow: str
    version: int
    trigger: Trigger
    depth: int = 0
    parent: Parent | None = None
    origin: Origin | None = None
    reuse: tuple[Reused, ...] = ()
    edits: tuple[Edit, ...] = ()
    compensate: bool = False
    traceparent: str | None = None
    v: Literal[1] = FORMAT


class Result(_Value, tag_field="type", tag="result", frozen=True, kw_only=True):
    """An agent's answer to one task: `output` or, where that is unset, `failure`.

    `started_at` and `finished_at` are the agent's clock around the work itself. `costs` are those
    of this attempt, whatever became of it. `agent_version` is the version of the agent that did it.
    """

    run: str
    node: str
    attempt: int
    started_at: int
    finished_at: int
    worker: str = ""
    agent_version: str = ""
    item: int | None = None
    output: Raw | UnsetType = UNSET
    failure: Failure | None = None
    costs: _Costs = ()
    v: Literal[1] = FORMAT


class Progress(_Value, tag_field="type", tag="progress", frozen=True, kw_only=True):
    """An agent is at work on an attempt: its first sign of life, or a heartbeat.

    `percent` and `message` are what it says of its progress.
    """

    run: str
    node: str
    attempt: int
    item: int | None = None
    worker: str = ""
    percent: float | None = None
    message: str = ""
    v: Literal[1] = FORMAT


class Approval(_Value, tag_field="type", tag="approval", frozen=True, kw_only=True):
    """What a person says to a node that waits for approval.

    `inputs`, where given, replace those that were asked about. A rejection needs `notes`.
    """

    run: str
    node: str
    approved: bool
    by: str
    item: int | None = None
    roles: tuple[str, ...] = ()
    notes: str = ""
    inputs: Raw | UnsetType = UNSET
    v: Literal[1] = FORMAT


class Cancel(_Value, tag_field="type", tag="cancel", frozen=True, kw_only=True):
    """Stop the run: agents at work are told, and have the workflow's grace to end.

    `force`, or a second one, ends it at once, whatever is open. `by_parent`: the run is a step of
    another one that needs it no more; such a cancel may be repeated, which is no second one.
    """

    run: str
    reason: str
    requested_by: str = ""
    force: bool = False
    by_parent: bool = False
    v: Literal[1] = FORMAT


class Pause(_Value, tag_field="type", tag="pause", frozen=True, kw_only=True):
    """Begin nothing more until the run is resumed; what is under way goes on."""

    run: str
    reason: str = ""
    requested_by: str = ""
    v: Literal[1] = FORMAT


class Resume(_Value, tag_field="type", tag="resume", frozen=True, kw_only=True):
    """Go on after a pause."""

    run: str
    requested_by: str = ""
    v: Literal[1] = FORMAT


class Timer(_Value, tag_field="type", tag="timer", frozen=True, kw_only=True):
    """A wake-up that the run asked for at `due`.

    `node` is the key of a node (`streams.ids.node_key`), or empty for the run itself.
    """

    run: str
    due: int
    node: str = ""
    v: Literal[1] = FORMAT


class Occurrence(_Value, tag_field="type", tag="occurrence", frozen=True, kw_only=True):
    """An event that some run may be waiting for; a copy stands in every partition of the inbox."""

    project: str
    trigger: Trigger
    v: Literal[1] = FORMAT


RunMessage = Start | Result | Progress | Approval | Cancel | Pause | Resume | Timer
"""What is addressed to one run."""

Message = RunMessage | Occurrence


# --- tasks: the work for agents -------------------------------------------------------------------


class Task(_Value, frozen=True, kw_only=True):
    """One attempt at one node, for the agent named by the topic.

    The answer is a `Result`, keyed by `run`, to partition `reply_partition` of the inbox.
    `id` is the idempotency key for whatever the agent calls. `timeout_ms` bounds the attempt.
    `approved`: a person has agreed to this action. Where `report` is set, a `Progress` is owed when
    the work begins, and then one every `heartbeat_ms` at most, if that is not 0.
    """

    id: str
    run: str
    project: str
    workflow: str
    node: str
    attempt: int
    agent: str
    action: str
    inputs: Raw
    timeout_ms: int
    reply_partition: int
    item: int | None = None
    approved: bool = False
    report: bool = False
    heartbeat_ms: int = 0
    traceparent: str | None = None
    v: Literal[1] = FORMAT


class TaskCancellation(_Value, frozen=True, kw_only=True):
    """An order to whoever works on a task: end it within `grace_ms`, its result is not wanted."""

    task: str
    agent: str
    reason: str
    grace_ms: int = 0
    v: Literal[1] = FORMAT


class RunRequest(_Value, frozen=True, kw_only=True):
    """A run that a node of another one starts; the router finds the workflow's version."""

    run: str
    project: str
    workflow: str
    parent: Parent
    depth: int
    inputs: Raw
    traceparent: str | None = None


# --- events: what was decided ---------------------------------------------------------------------


class RunStarted(_Value, tag_field="type", tag="run.started", frozen=True, kw_only=True):
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


class NodeReused(_Value, tag_field="type", tag="node.reused", frozen=True, kw_only=True):
    """The node's (or item's) result was taken over from the run that this one repeats."""

    node: str
    output: Raw
    run: str
    item: int | None = None


class NodeEdited(_Value, tag_field="type", tag="node.edited", frozen=True, kw_only=True):
    """The node will get these inputs instead of those that the definition makes."""

    node: str
    inputs: Raw


class NodeDispatched(_Value, tag_field="type", tag="node.dispatched", frozen=True, kw_only=True):
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


class NodeStarted(_Value, tag_field="type", tag="node.started", frozen=True, kw_only=True):
    """The agent began: the attempt has until `deadline` now, the next heartbeat until `beat_by`."""

    node: str
    attempt: int
    deadline: int
    item: int | None = None
    beat_by: int | None = None
    worker: str = ""


class NodeProgressed(_Value, tag_field="type", tag="node.progressed", frozen=True, kw_only=True):
    """A heartbeat, with what the agent says of its progress."""

    node: str
    attempt: int
    item: int | None = None
    beat_by: int | None = None
    percent: float | None = None
    message: str = ""


class NodeApprovalRequested(
    _Value, tag_field="type", tag="node.approvalRequested", frozen=True, kw_only=True
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


class NodeApproved(_Value, tag_field="type", tag="node.approved", frozen=True, kw_only=True):
    """Somebody approved; `missing` more are needed. `inputs` replace those asked about."""

    node: str
    by: str
    missing: int
    item: int | None = None
    notes: str = ""
    inputs: Raw | UnsetType = UNSET


class NodeRejected(_Value, tag_field="type", tag="node.rejected", frozen=True, kw_only=True):
    """Somebody rejected, because of `notes`."""

    node: str
    by: str
    notes: str
    item: int | None = None


class NodeSleeping(_Value, tag_field="type", tag="node.sleeping", frozen=True, kw_only=True):
    """The node does nothing until `until`."""

    node: str
    until: int


class NodeAwaiting(_Value, tag_field="type", tag="node.awaiting", frozen=True, kw_only=True):
    """The node waits for an event whose type fits `event`, until `deadline`."""

    node: str
    event: str
    deadline: int


class NodeFannedOut(_Value, tag_field="type", tag="node.fannedOut", frozen=True, kw_only=True):
    """The node is done once for each of its `count` items, which are `items` (a JSON array).

    `reused`: some of them have results of an earlier run.
    """

    node: str
    items: Raw
    count: int
    reused: bool = False


class NodeRequested(_Value, tag_field="type", tag="node.runRequested", frozen=True, kw_only=True):
    """A run of another workflow was asked for as this step."""

    node: str
    attempt: int
    run: str
    workflow: str
    inputs: Raw
    deadline: int
    item: int | None = None
    give_up_at: int | None = None


class NodeSucceeded(_Value, tag_field="type", tag="node.succeeded", frozen=True, kw_only=True):
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
    costs: _Costs = ()


class NodeRetrying(_Value, tag_field="type", tag="node.retrying", frozen=True, kw_only=True):
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
    costs: _Costs = ()


class NodeFailed(_Value, tag_field="type", tag="node.failed", frozen=True, kw_only=True):
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
    costs: _Costs = ()


class NodeSkipped(_Value, tag_field="type", tag="node.skipped", frozen=True, kw_only=True):
    """The node will not run, because `reason`."""

    node: str
    reason: str


class NodeStopping(_Value, tag_field="type", tag="node.stopping", frozen=True, kw_only=True):
    """The agent at work was told to end; it has until `deadline`."""

    node: str
    attempt: int
    deadline: int
    item: int | None = None


class NodeCancelled(_Value, tag_field="type", tag="node.cancelled", frozen=True, kw_only=True):
    """The run ended while the node was under way (`attempt` of it) or not begun (0).

    `costs` are the attempt's, where its agent still said what they are.
    """

    node: str
    attempt: int = 0
    item: int | None = None
    costs: _Costs = ()


class NodeCharged(_Value, tag_field="type", tag="node.charged", frozen=True, kw_only=True):
    """What an attempt cost whose end is told by another event, or was: nothing else changes.

    It asked people before it acted, or its result came when the run had given it up.
    """

    node: str
    attempt: int
    item: int | None = None
    costs: _Costs


class RunPaused(_Value, tag_field="type", tag="run.paused", frozen=True, kw_only=True):
    """Nothing more begins until the run is resumed."""

    reason: str = ""
    requested_by: str = ""


class RunResumed(_Value, tag_field="type", tag="run.resumed", frozen=True, kw_only=True):
    """The run goes on; the pause does not count: the new `deadline` is later by it."""

    deadline: int
    requested_by: str = ""


class RunEnding(_Value, tag_field="type", tag="run.ending", frozen=True, kw_only=True):
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


class RunSucceeded(_Value, tag_field="type", tag="run.succeeded", frozen=True, kw_only=True):
    """Every node is done. `output` is what the workflow says it is, if it does."""

    output: Raw | UnsetType = UNSET


class RunFailed(_Value, tag_field="type", tag="run.failed", frozen=True, kw_only=True):
    """A node failed; `failure` names the first one and why.

    `uncompensated` are nodes that could not be undone.
    """

    failure: Failure
    uncompensated: tuple[str, ...] = ()


class RunTimedOut(_Value, tag_field="type", tag="run.timedOut", frozen=True, kw_only=True):
    """The run's own time-out passed."""

    failure: Failure
    uncompensated: tuple[str, ...] = ()


class RunCancelled(_Value, tag_field="type", tag="run.cancelled", frozen=True, kw_only=True):
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


class Decision(_Value, frozen=True, kw_only=True):
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


# --- the state of a run: the table's records ------------------------------------------------------


class Ending(_Value, frozen=True, kw_only=True):
    """How a run will end, once what `RunEnding` names is done. `undo` is left to be undone."""

    stage: str
    outcome: RunStatus
    undo: tuple[str, ...] = ()
    uncompensated: tuple[str, ...] = ()
    reason: str = ""
    requested_by: str = ""


class RunHead(_Value, frozen=True, kw_only=True):
    """The run itself, without its trigger and its nodes: what is written with every decision.

    `seq` is the next event's. `open` nodes are not terminal yet; of these `running` are under way
    and `waiting` wait for approval. `retries` of the workflow's budget are used. `unpaid` are the
    newest of the attempts that were given up without a result: it may come, and say what they cost.
    """

    run: str
    project: str
    workflow: str
    version: int
    status: RunStatus
    seq: int
    started_at: int
    deadline: int
    open: int
    running: int = 0
    waiting: int = 0
    retries: int = 0
    depth: int = 0
    parent: Parent | None = None
    paused_at: int | None = None
    ending: Ending | None = None
    failure: Failure | None = None
    finished_at: int | None = None
    traceparent: str | None = None
    unpaid: tuple[str, ...] = ()
    v: Literal[1] = FORMAT


class NodeState(_Value, frozen=True, kw_only=True):
    """One node of a run, or one item of it; one without a record is PENDING.

    `wake_at` is when something is due: the next attempt, or the end of waiting for what is under
    way, whose limits are `deadline`, `beat_by` and `give_up_at`.
    """

    node: str
    status: NodeStatus
    attempt: int = 0
    item: int | None = None
    wake_at: int | None = None
    deadline: int | None = None
    beat_by: int | None = None
    give_up_at: int | None = None
    begun: bool = False
    """The agent has said so; only asked for where a limit depends on it."""
    stopping: bool = False
    output: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    """Those that a person saw or made; unset: the definition makes them."""
    failure: Failure | None = None
    order: int = 0
    """The sequence number of its end, if it did something: undone is in the reverse order."""
    approvers: tuple[str, ...] = ()
    approved: bool = False
    time_left: int | None = None
    """Of the time for all attempts, while the node waits for people: `give_up_at` stands still."""
    asked: int = 0
    """Attempts that ended in a question to people: none of `retry.attempts`."""
    awaits: str | None = None
    """The pattern of the event that it waits for."""
    items: int | None = None
    """How many items; these count the items under way, done, and of those failed."""
    next_item: int = 0
    active: int = 0
    done: int = 0
    failed: int = 0
    v: Literal[1] = FORMAT


# --- definitions, agents, dead letters ------------------------------------------------------------


class Definition(_Value, tag_field="type", tag="definition", frozen=True, kw_only=True):
    """One version of a workflow. The first record of a (project, name, version) is the one."""

    project: str
    name: str
    version: int
    digest: str
    published_at: int
    definition: Raw
    v: Literal[1] = FORMAT


class Retirement(_Value, tag_field="type", tag="retirement", frozen=True, kw_only=True):
    """Versions up to `version` start no new runs; runs in progress stay on theirs."""

    project: str
    name: str
    version: int
    retired_at: int
    v: Literal[1] = FORMAT


CatalogRecord = Definition | Retirement


class Budget(_Value, frozen=True, kw_only=True):
    """What may be spent in a month, UTC: by one `workflow`, by those with a `tag`, or by a project.

    Its key is `project/name`; the newest record counts, and a tombstone takes the budget away.
    """

    project: str
    name: str
    amount: Decimal
    currency: str
    set_at: int
    set_by: str = ""
    workflow: str | None = None
    tag: str | None = None
    v: Literal[1] = FORMAT

    def __post_init__(self) -> None:
        """Refuse an amount that no cost could have."""
        if problem := _problem(self.amount):
            raise ValueError(problem)


class AgentRecord(_Value, frozen=True, kw_only=True):
    """An agent that some worker serves: `descriptor` has its actions and their JSON Schemas."""

    name: str
    version: str
    worker: str
    registered_at: int
    descriptor: Raw
    v: Literal[1] = FORMAT


class Serving(_Value, frozen=True, kw_only=True):
    """An agent that a worker serves: at most `capacity` of its tasks at once, `in_hand` now."""

    name: str
    version: str
    capacity: int
    in_hand: int = 0


class WorkerRecord(_Value, frozen=True, kw_only=True):
    """A worker's sign of life on the agents topic; the next one is due in `interval_ms`.

    Its key is `streams.ids.worker_key`. A tombstone says that the worker has left. `trouble` says
    what it cannot read at the moment besides its tasks, such as orders; empty while all is well.
    """

    worker: str
    started_at: int
    interval_ms: int
    agents: tuple[Serving, ...]
    trouble: str = ""
    v: Literal[1] = FORMAT


class DeadLetter(_Value, tag_field="type", tag="letter", frozen=True, kw_only=True):
    """A record that could not be processed: where it stood, why, and its original bytes.

    `attempts` counts how often it was tried. With `parts` the original stands in so many records
    before this one (`streams.letters`), and is left out here.
    """

    topic: str
    partition: int
    offset: int
    at: int
    error: str
    reason: str
    worker: str
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    attempts: int = 1
    parts: int = 0
    v: Literal[1] = FORMAT

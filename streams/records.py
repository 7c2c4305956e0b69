"""The records on the log: inbox messages, tasks, decisions with their events, and run state.

Rules:
- On the wire every record is one JSON object in camelCase with its format version in `v`
  (`streams.codec`). Times are integers, milliseconds since the Unix epoch, UTC.
- Values are immutable. Payloads (`Trigger.data`, task inputs, outputs) stay undecoded JSON
  (`msgspec.Raw`) until somebody looks inside: most records pass through without that.
- Statuses are the contract's words; the same words stand in REST, SQL and the UI.
"""

from enum import StrEnum
from typing import Final, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

FORMAT: Final = 1
NULL: Final = Raw(b"null")


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

    From agents: `agent_error`, `timeout`, `invalid_input`, `invalid_output`, `unknown_action`,
    `output_too_large`. From the engine: `template`, `timeout`, `node_failed` (on a run; `node`
    says which).
    """

    kind: str
    message: str
    retryable: bool = True
    node: str | None = None


class Trigger(_Value, frozen=True, kw_only=True):
    """The event that started a run, as CloudEvents names its parts. `data` is any JSON value."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    data: Raw = NULL


# --- the inbox: everything that a run hears -------------------------------------------------------


class Start(_Value, tag_field="type", tag="start", frozen=True, kw_only=True):
    """Start run `run` of a workflow version. A second one for the same run is ignored."""

    run: str
    project: str
    workflow: str
    version: int
    trigger: Trigger
    traceparent: str | None = None
    v: Literal[1] = FORMAT


class Result(_Value, tag_field="type", tag="result", frozen=True, kw_only=True):
    """An agent's answer to one task: `output` or, where that is unset, `failure`.

    `started_at` and `finished_at` are the agent's clock around the work itself.
    """

    run: str
    node: str
    attempt: int
    started_at: int
    finished_at: int
    worker: str = ""
    item: int | None = None
    output: Raw | UnsetType = UNSET
    failure: Failure | None = None
    v: Literal[1] = FORMAT


class Cancel(_Value, tag_field="type", tag="cancel", frozen=True, kw_only=True):
    """Stop the run. Work already dispatched may still finish; its result is ignored."""

    run: str
    reason: str
    requested_by: str = ""
    v: Literal[1] = FORMAT


class Timer(_Value, tag_field="type", tag="timer", frozen=True, kw_only=True):
    """A wake-up that the run asked for at `due`; for `node`, or for the run itself when empty."""

    run: str
    due: int
    node: str = ""
    v: Literal[1] = FORMAT


Message = Start | Result | Cancel | Timer


# --- tasks: the work for agents -------------------------------------------------------------------


class Task(_Value, frozen=True, kw_only=True):
    """One attempt at one node, for the agent named by the topic.

    The answer is a `Result`, keyed by `run`, to partition `reply_partition` of the inbox.
    `id` is the idempotency key for whatever the agent calls. `timeout_ms` bounds the attempt.
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
    traceparent: str | None = None
    v: Literal[1] = FORMAT


# --- events: what was decided ---------------------------------------------------------------------


class RunStarted(_Value, tag_field="type", tag="run.started", frozen=True, kw_only=True):
    """The run exists, with `nodes` nodes to do. `deadline` is when it times out."""

    trigger: Trigger
    nodes: int
    deadline: int


class NodeDispatched(_Value, tag_field="type", tag="node.dispatched", frozen=True, kw_only=True):
    """A task was sent to an agent. `deadline` is when the attempt counts as lost."""

    node: str
    attempt: int
    task: str
    agent: str
    action: str
    inputs: Raw
    deadline: int


class NodeSucceeded(_Value, tag_field="type", tag="node.succeeded", frozen=True, kw_only=True):
    """The node is done; its output can be referenced."""

    node: str
    attempt: int
    output: Raw
    started_at: int
    finished_at: int
    worker: str = ""


class NodeRetrying(_Value, tag_field="type", tag="node.retrying", frozen=True, kw_only=True):
    """An attempt failed; the next one is dispatched at `retry_at`."""

    node: str
    attempt: int
    failure: Failure
    retry_at: int
    started_at: int | None = None
    finished_at: int | None = None
    worker: str = ""


class NodeFailed(_Value, tag_field="type", tag="node.failed", frozen=True, kw_only=True):
    """The node failed for good. `attempt` 0: it could not even be dispatched."""

    node: str
    attempt: int
    failure: Failure
    started_at: int | None = None
    finished_at: int | None = None
    worker: str = ""


class NodeSkipped(_Value, tag_field="type", tag="node.skipped", frozen=True, kw_only=True):
    """The node will not run, because `reason`."""

    node: str
    reason: str


class NodeCancelled(_Value, tag_field="type", tag="node.cancelled", frozen=True, kw_only=True):
    """The run ended while the node was under way (`attempt` of it) or not begun (0)."""

    node: str
    attempt: int = 0


class RunSucceeded(_Value, tag_field="type", tag="run.succeeded", frozen=True, kw_only=True):
    """Every node is done."""


class RunFailed(_Value, tag_field="type", tag="run.failed", frozen=True, kw_only=True):
    """A node failed; `failure` names the first one and why."""

    failure: Failure


class RunTimedOut(_Value, tag_field="type", tag="run.timedOut", frozen=True, kw_only=True):
    """The run's own time-out passed."""

    failure: Failure


class RunCancelled(_Value, tag_field="type", tag="run.cancelled", frozen=True, kw_only=True):
    """Somebody cancelled the run."""

    reason: str
    requested_by: str = ""


Event = (
    RunStarted
    | NodeDispatched
    | NodeSucceeded
    | NodeRetrying
    | NodeFailed
    | NodeSkipped
    | NodeCancelled
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


class RunHead(_Value, frozen=True, kw_only=True):
    """The run itself: all but its nodes. `open` nodes are not terminal yet; `seq` is the next."""

    run: str
    project: str
    workflow: str
    version: int
    status: RunStatus
    seq: int
    started_at: int
    deadline: int
    open: int
    trigger: Trigger
    failure: Failure | None = None
    finished_at: int | None = None
    traceparent: str | None = None
    v: Literal[1] = FORMAT


class NodeState(_Value, frozen=True, kw_only=True):
    """One node of a run; a node without a record is PENDING.

    `wake_at` is when the attempt under way is lost, or when the next one is due.
    """

    node: str
    status: NodeStatus
    attempt: int = 0
    wake_at: int | None = None
    output: Raw | UnsetType = UNSET
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


class AgentRecord(_Value, frozen=True, kw_only=True):
    """An agent that some worker serves: `descriptor` has its actions and their JSON Schemas."""

    name: str
    version: str
    worker: str
    registered_at: int
    descriptor: Raw
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

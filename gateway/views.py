"""The answers of the REST interface, as the types that they are encoded from and documented by.

Names are camelCase; times are RFC 3339 in UTC with milliseconds; durations are whole milliseconds.
`watermark` says how far into the log an answer has read: partition → next offset.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from streams.letters import LetterState
from streams.records import NodeStatus, RunStatus


class View(Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all answers."""


class TriggerView(View, frozen=True, kw_only=True):
    """The event that started a run; `data` is left out of lists."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    data: Raw | msgspec.UnsetType = msgspec.UNSET


class FailureView(View, frozen=True, kw_only=True):
    """Why something did not succeed; `node` is the node that failed first, for a run."""

    kind: str
    message: str
    node: str | None = None


class RunView(View, frozen=True, kw_only=True):
    """A run as lists show it. `seq` is the sequence number of an event that it includes."""

    id: str
    project: str
    workflow: str
    version: int
    status: RunStatus
    trigger: TriggerView
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    deadline: datetime | None = None
    nodes: int | None = None
    error: FailureView | None = None
    trace_id: str | None = None
    seq: int = 0


class NodeView(View, frozen=True, kw_only=True):
    """A node of a run. `attempts` is how many were begun; times are of the last one."""

    id: str
    status: NodeStatus
    agent: str | None = None
    action: str | None = None
    description: str = ""
    depends_on: tuple[str, ...] = ()
    attempts: int = 0
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    retry_at: datetime | None = None
    worker: str | None = None
    reason: str | None = None
    inputs: Raw | None = None
    output: Raw | None = None
    error: FailureView | None = None


class RunDetail(RunView, frozen=True, kw_only=True):
    """A run with its nodes, in the order of the definition."""

    steps: list[NodeView]
    watermark: dict[int, int]


class RunList(View, frozen=True, kw_only=True):
    """A page of runs, newest first; `next` is the cursor of the next page, null on the last."""

    runs: list[RunView]
    next: str | None
    watermark: dict[int, int]


class EventView(View, frozen=True, kw_only=True):
    """An event of the log: `id` is `<run>/<seq>`; `event` is what happened, with its `type`."""

    id: str
    run: str
    project: str
    workflow: str
    seq: int
    type: str
    at: datetime
    status: RunStatus
    event: Raw


class EventList(View, frozen=True, kw_only=True):
    """A page of events; `next` is the cursor of the next page, null on the last."""

    events: list[EventView]
    next: str | None
    watermark: dict[int, int]


class AgentRunView(View, frozen=True, kw_only=True):
    """One attempt at a node."""

    task: str
    run: str
    node: str
    attempt: int
    agent: str
    action: str
    status: NodeStatus
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    retry_at: datetime | None = None
    worker: str | None = None
    inputs: Raw | None = None
    output: Raw | None = None
    error: FailureView | None = None


class AgentRunList(View, frozen=True, kw_only=True):
    """Every attempt of a run, in the order in which they were dispatched."""

    agent_runs: list[AgentRunView]
    watermark: dict[int, int]


class AgentView(View, frozen=True, kw_only=True):
    """An agent; `descriptor` has its actions with the JSON Schemas of their inputs and outputs."""

    name: str
    version: str
    worker: str
    registered_at: datetime
    descriptor: Raw


class AgentList(View, frozen=True, kw_only=True):
    """Every agent that registered, by name."""

    agents: list[AgentView]


class WorkflowView(View, frozen=True, kw_only=True):
    """A workflow at its active version; `problem` where this release cannot read it."""

    name: str
    project: str
    version: int
    description: str
    event: str | None
    filter: str | None
    nodes: int
    published_at: datetime
    digest: str
    problem: str | None = None


class WorkflowList(View, frozen=True, kw_only=True):
    """The active workflows, by project and name."""

    workflows: list[WorkflowView]


class VersionView(View, frozen=True, kw_only=True):
    """One version of a workflow."""

    version: int
    digest: str
    published_at: datetime
    active: bool


class WorkflowDetail(View, frozen=True, kw_only=True):
    """A workflow: the definition of the version asked for, and all versions, newest first."""

    name: str
    project: str
    version: int
    active: bool
    definition: Raw
    versions: list[VersionView]


class ChangeView(View, frozen=True, kw_only=True):
    """A path of a definition that differs: added, removed, changed or reordered; and the values."""

    path: str
    change: str
    old: Any = msgspec.field(name="from")
    new: Any = msgspec.field(name="to")


class VersionDiff(View, frozen=True, kw_only=True):
    """What changed between two versions: a unified diff of their YAML, and every path."""

    name: str
    project: str
    old: int = msgspec.field(name="from")
    new: int = msgspec.field(name="to")
    diff: str
    changes: list[ChangeView]


class Published(View, frozen=True, kw_only=True):
    """The version that a definition has; `created` is false where it was the latest already."""

    name: str
    project: str
    version: int
    created: bool


class Retired(View, frozen=True, kw_only=True):
    """The last version of a workflow that starts no new runs any more."""

    name: str
    project: str
    version: int


class RunAccepted(View, frozen=True, kw_only=True):
    """A run that was accepted: it will end in exactly one terminal status."""

    workflow_run_id: str
    status: RunStatus


class CancelAccepted(View, frozen=True, kw_only=True):
    """A cancellation that was accepted; `status` is the run's at that moment."""

    workflow_run_id: str
    status: RunStatus


class EventAccepted(View, frozen=True, kw_only=True):
    """An event that the log has; the same event sent again starts nothing twice."""

    id: str
    source: str
    type: str
    project: str
    topic: str
    partition: int
    offset: int


class DeadLetterView(View, frozen=True, kw_only=True):
    """A record that could not be processed: where it stood and why; its bytes in base64.

    `attempts` is how often it was tried. Where it is not `complete`, key, value and headers are
    left out: the letter itself has them. `closedAt` and `closedBy` are of the replay or purge.
    """

    id: str
    state: LetterState
    topic: str
    partition: int
    offset: int
    at: datetime
    error: str
    reason: str
    worker: str
    attempts: int
    replays: int
    replayed_to: str | None
    purge_reason: str | None
    closed_at: datetime | None
    closed_by: str | None
    complete: bool
    key: str | None
    value: bytes | None
    value_text: str | None
    headers: dict[str, str]


class DeadLetterList(View, frozen=True, kw_only=True):
    """A page of dead letters, newest first; `open` is how many of all that fit are open."""

    dead_letters: list[DeadLetterView]
    open: int
    next: str | None


class SqlAnswer(View, frozen=True, kw_only=True):
    """The rows of a query, by column name."""

    columns: list[str]
    rows: list[dict[str, Any]]
    row_count: int
    elapsed_ms: float


class Health(View, frozen=True, kw_only=True):
    """The gateway answers."""

    status: str
    version: str


class Readiness(View, frozen=True, kw_only=True):
    """Which parts are usable: part → "ok" or what is missing."""

    ready: bool
    parts: dict[str, str]


def moment(milliseconds: int) -> datetime:
    """A time of the log as a datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

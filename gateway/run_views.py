"""What answers say of runs: lists, one run with its nodes and items, attempts, approvals.

A payload that is too big for the log stands as its reference, `{"$blob": digest, "size": bytes}`;
`GET /api/runs/{id}/payloads/{digest}` gives its content.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Raw

from gateway.views import View
from streams.records import NodeStatus, RunStatus

ApprovalStatus = Literal["PENDING", "APPROVED", "REJECTED", "EXPIRED", "CANCELLED"]


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
    """A run as lists show it. `seq` is the sequence number of an event that it includes.

    `tags` are those of its workflow's version. `depth` counts the runs above it. `parentRun` is the
    run that it is a step of, `originRun` the one that it repeats.
    """

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
    tags: tuple[str, ...] = ()
    error: FailureView | None = None
    trace_id: str | None = None
    paused: bool = False
    depth: int = 0
    parent_run: str | None = None
    origin_run: str | None = None
    seq: int = 0


class AnswerView(View, frozen=True, kw_only=True):
    """What one person said to an approval; `by` is empty where the deadline decided.

    `inputs` replace those that were asked about.
    """

    at: datetime
    by: str
    approved: bool
    notes: str = ""
    inputs: Raw | None = None


class ApprovalView(View, frozen=True, kw_only=True):
    """An approval: `needed` people with one of `roles` (anybody, where empty) have to agree.

    `cause` is `workflow` or `agent`: who asks. At `deadline` it is decided by `onDeadline`.
    `inputs` are what the node would be given; for a fan-out, its items. `attempt` is the one that
    the agent refused to make without.
    """

    id: str
    run: str
    workflow: str
    node: str
    item: int | None = None
    project: str
    status: ApprovalStatus
    cause: str
    needed: int
    missing: int
    roles: tuple[str, ...] = ()
    requested_at: datetime
    deadline: datetime
    on_deadline: str
    decided_at: datetime | None = None
    waited_ms: int | None = None
    attempt: int = 0
    inputs: Raw
    answers: tuple[AnswerView, ...] = ()


class ApprovalList(View, frozen=True, kw_only=True):
    """A page of approvals, those that wait first; `next` is the cursor of the next page."""

    approvals: list[ApprovalView]
    next: str | None
    watermark: dict[int, int]


class DecisionAccepted(View, frozen=True, kw_only=True):
    """A decision that was accepted; the run hears of it in its turn."""

    approval: str
    workflow_run_id: str
    decision: str


class ProgressView(View, frozen=True, kw_only=True):
    """What an agent said last of its progress."""

    at: datetime
    percent: float | None = None
    message: str = ""


class ChildView(View, frozen=True, kw_only=True):
    """The run that a step is."""

    run: str
    workflow: str


class AwaitedView(View, frozen=True, kw_only=True):
    """The event that a node waits for, by the pattern of its type, and until when."""

    event: str
    deadline: datetime


class CostTotal(View, frozen=True, kw_only=True):
    """What something cost in one currency, and how much of that for what: exact decimal texts.

    `compute` is time at work, `tokens` those of language models, `api` the rest.
    """

    currency: str
    amount: str
    compute: str = "0"
    tokens: str = "0"
    api: str = "0"


class CostView(View, frozen=True, kw_only=True):
    """One thing that an attempt is charged: `quantity` units at `unitPrice`; exact decimal texts.

    `source` is who is paid: the agent for compute, else a provider or an API.
    """

    node: str
    item: int | None = None
    attempt: int
    kind: str
    source: str
    model: str | None = None
    quantity: str
    unit: str
    unit_price: str
    amount: str
    currency: str
    price_version: str | None = None


class CostList(View, frozen=True, kw_only=True):
    """What a run is charged, in the order of its events, and what all of it adds up to."""

    totals: tuple[CostTotal, ...]
    costs: list[CostView]
    next: str | None = None
    watermark: dict[int, int]


class StepView(View, frozen=True, kw_only=True):
    """How something that is to be done stands. `attempts` were begun; times are of the last one.

    Waiting for approval is not part of `durationMs`. `deadline` is when what is under way counts as
    lost. `reusedFrom` is the run whose result was taken over. `cost` is that of all attempts, and
    of all items, by currency.
    """

    status: NodeStatus
    attempts: int = 0
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    deadline: datetime | None = None
    retry_at: datetime | None = None
    worker: str | None = None
    inputs: Raw | None = None
    output: Raw | None = None
    error: FailureView | None = None
    progress: ProgressView | None = None
    approval: ApprovalView | None = None
    child: ChildView | None = None
    reused_from: str | None = None
    stopping: bool = False
    cost: tuple[CostTotal, ...] = ()


class ItemCounts(View, frozen=True, kw_only=True):
    """The items of a node by their status; `waiting` are for approval, `reused` have succeeded.

    `GET /api/runs/{id}/nodes/{node}/items` gives them.
    """

    total: int
    pending: int = 0
    running: int = 0
    waiting: int = 0
    retrying: int = 0
    succeeded: int = 0
    reused: int = 0
    failed: int = 0
    cancelled: int = 0


class CompensationView(StepView, frozen=True, kw_only=True):
    """The undoing of a node."""

    agent: str | None = None
    action: str | None = None


class NodeView(StepView, frozen=True, kw_only=True):
    """A node of a run.

    `kind` is agent, workflow, waitForEvent or delay. `handler`: it is of the workflow's failure
    handler. `edited`: a person gave it its inputs. `tolerated`: the run did not fail by it. The
    `output` of a node with items is the list of theirs, where that is small. `unserved` says that
    no worker serves its agent now: it waits for one, until its `startTimeout` or `timeout`.
    """

    id: str
    kind: str = "agent"
    agent: str | None = None
    action: str | None = None
    workflow: str | None = None
    description: str = ""
    depends_on: tuple[str, ...] = ()
    handler: bool = False
    reason: str | None = None
    edited: bool = False
    tolerated: bool = False
    items: ItemCounts | None = None
    sleeping_until: datetime | None = None
    awaiting: AwaitedView | None = None
    unserved: str | None = None
    compensation: CompensationView | None = None


class ItemView(StepView, frozen=True, kw_only=True):
    """An item of a node: its place, and the item itself."""

    index: int
    item: Raw | None = None


class ItemList(View, frozen=True, kw_only=True):
    """A page of a node's items; `next` is the cursor of the next page, null on the last."""

    node: str
    counts: ItemCounts
    items: list[ItemView]
    next: str | None
    watermark: dict[int, int]


class PauseView(View, frozen=True, kw_only=True):
    """Since when a run begins nothing more, and who said so."""

    at: datetime
    reason: str = ""
    requested_by: str = ""


class EndingView(View, frozen=True, kw_only=True):
    """How a run will end, and what is left to do before: stopping, compensating or handling.

    `undo` are the nodes that are left to be undone, in that order.
    """

    stage: str
    outcome: RunStatus
    deadline: datetime
    undo: tuple[str, ...] = ()
    error: FailureView | None = None
    reason: str = ""
    requested_by: str = ""


class ParentView(View, frozen=True, kw_only=True):
    """The node of another run that a run was started by."""

    run: str
    node: str
    item: int | None = None
    attempt: int


class OriginView(View, frozen=True, kw_only=True):
    """The run that this one repeats, and how: retry, rerun or compensation."""

    run: str
    kind: str
    requested_by: str = ""


class RunDetail(RunView, frozen=True, kw_only=True):
    """A run with a page of its nodes, in the order of the definition.

    `next` is the cursor of the next page of nodes, null on the last one; the rest is of the run as
    it stands. `waitedMs`: so long did nothing go on because people were asked; of `durationMs`, it
    is no work. `waitingFor` are the ids of approvals that wait, the first 100; where there are more
    (`moreWaiting`), `GET /api/approvals?run=…&status=pending` has all. `uncompensated` are nodes
    that could not be undone. `error` and `output` are the run's. `cost` is what it cost so far, by
    currency, without the runs that it started.
    """

    steps: Sequence[NodeView]
    next: str | None = None
    output: Raw | None = None
    waited_ms: int = 0
    waiting_for: tuple[str, ...] = ()
    more_waiting: bool = False
    pause: PauseView | None = None
    ending: EndingView | None = None
    parent: ParentView | None = None
    origin: OriginView | None = None
    uncompensated: tuple[str, ...] = ()
    cost: tuple[CostTotal, ...] = ()
    watermark: dict[int, int]


class RunList(View, frozen=True, kw_only=True):
    """A page of runs, newest first; `next` is the cursor of the next page, null on the last."""

    runs: list[RunView]
    next: str | None
    watermark: dict[int, int]


class AgentRunView(View, frozen=True, kw_only=True):
    """One attempt at a node or item; where another workflow is run, `childRun` is that run."""

    task: str
    run: str
    node: str
    item: int | None = None
    attempt: int
    agent: str
    action: str
    child_run: str | None = None
    status: NodeStatus
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    retry_at: datetime | None = None
    worker: str | None = None
    agent_version: str | None = None
    inputs: Raw | None = None
    output: Raw | None = None
    error: FailureView | None = None


class AgentRunList(View, frozen=True, kw_only=True):
    """Attempts of a run, in the order of their dispatch; `next` is the cursor of the next page."""

    agent_runs: list[AgentRunView]
    next: str | None
    watermark: dict[int, int]


class RunAccepted(View, frozen=True, kw_only=True):
    """A run that was accepted: it will end in exactly one terminal status."""

    workflow_run_id: str
    status: RunStatus


class RepetitionAccepted(View, frozen=True, kw_only=True):
    """A run that repeats another one was accepted; `reused` results are taken over from it."""

    workflow_run_id: str
    status: RunStatus
    origin_run: str
    kind: str
    reused: int


class ControlAccepted(View, frozen=True, kw_only=True):
    """An order to a run that was accepted; `status` is the run's at that moment."""

    workflow_run_id: str
    status: RunStatus

"""The answers of the REST interface, as the types that they are encoded from and documented by.

Names are camelCase; times are RFC 3339 in UTC with milliseconds; durations are whole milliseconds.
`watermark` says how far into the log an answer has read: partition → next offset.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from streams.letters import LetterState
from streams.records import RunStatus


class View(Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all answers."""


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


class ServerView(View, frozen=True, kw_only=True):
    """A worker that serves an agent: at most `capacity` tasks at once, `inHand` when last seen."""

    worker: str
    version: str
    capacity: int
    in_hand: int
    started_at: datetime
    last_seen: datetime


class AgentView(View, frozen=True, kw_only=True):
    """An agent; `descriptor` has its actions with the JSON Schemas of their inputs and outputs.

    `version` and `worker` are of its last registration, `workers` those that serve it now; it is
    `alive` while there is one. `capacity` and `inHand` are of all of them.
    """

    name: str
    version: str
    worker: str
    registered_at: datetime
    descriptor: Raw
    alive: bool = False
    capacity: int = 0
    in_hand: int = 0
    workers: list[ServerView] = []


class AgentList(View, frozen=True, kw_only=True):
    """The agents that registered, by name."""

    agents: list[AgentView]
    next: str | None = None


class WorkflowView(View, frozen=True, kw_only=True):
    """A workflow at its active version; `problem` where this release cannot read it."""

    name: str
    project: str
    version: int
    description: str
    event: str | None
    filter: str | None
    nodes: int
    tags: tuple[str, ...] = ()
    published_at: datetime
    digest: str
    problem: str | None = None


class WorkflowList(View, frozen=True, kw_only=True):
    """The active workflows, by project and name."""

    workflows: list[WorkflowView]
    next: str | None = None


class VersionView(View, frozen=True, kw_only=True):
    """One version of a workflow."""

    version: int
    digest: str
    published_at: datetime
    active: bool


class WorkflowDetail(View, frozen=True, kw_only=True):
    """A workflow: the definition of the version asked for, and its versions, newest first."""

    name: str
    project: str
    version: int
    active: bool
    definition: Raw
    versions: list[VersionView]
    next: str | None = None


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


class EventAccepted(View, frozen=True, kw_only=True):
    """An event that the log has; the same event sent again starts nothing twice."""

    id: str
    source: str
    type: str
    project: str
    topic: str
    partition: int
    offset: int


class HeaderView(View, frozen=True, kw_only=True):
    """A header of a record: its value in base64, or null where it has none."""

    name: str
    value: bytes | None


class DeadLetterView(View, frozen=True, kw_only=True):
    """A record that could not be processed: where it stood and why; its bytes in base64.

    `attempts` is how often it was tried. Where it is not `complete`, key, value and headers are
    left out: the letter itself has them. `closedAt` and `closedBy` are of the replay or purge.
    `key`, `valueText` and `headers` are for people: texts as far as there are, one header of each
    name. `keyBytes`, `value` and `allHeaders` are what stood there.
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
    key_bytes: bytes | None
    value: bytes | None
    value_text: str | None
    headers: dict[str, str]
    all_headers: tuple[HeaderView, ...]


class DeadLetterList(View, frozen=True, kw_only=True):
    """A page of dead letters, newest first; `open` is how many of all that fit are open."""

    dead_letters: list[DeadLetterView]
    open: int
    next: str | None


class SqlAnswer(View, frozen=True, kw_only=True):
    """The rows of a query, by column name.

    `watermark` is the next offset of each partition of the events; what is before it is told.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    row_count: int
    elapsed_ms: float
    watermark: dict[str, int]


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

"""Messages: to runs (the inbox), to agents (tasks), and those that nobody could process."""

from typing import Literal

from msgspec import UNSET, Raw, UnsetType

from streams.cost import Costs
from streams.records import FORMAT, Edit, Failure, Origin, Parent, Reused, Trigger, Value


class Start(Value, tag_field="type", tag="start", frozen=True, kw_only=True):
    """Start run `run` of a workflow version. A second one for the same run is ignored.

    `depth` counts the runs above it: those that started it as a step, or by their end. With
    `compensate` the run does nothing but undo what `reuse` says was done; `undone` are results that
    are only there to be referred to.
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
    undone: tuple[Reused, ...] = ()
    traceparent: str | None = None
    v: Literal[1] = FORMAT


class Result(Value, tag_field="type", tag="result", frozen=True, kw_only=True):
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
    costs: Costs = ()
    v: Literal[1] = FORMAT


class Progress(Value, tag_field="type", tag="progress", frozen=True, kw_only=True):
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


class Approval(Value, tag_field="type", tag="approval", frozen=True, kw_only=True):
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


class Cancel(Value, tag_field="type", tag="cancel", frozen=True, kw_only=True):
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


class Pause(Value, tag_field="type", tag="pause", frozen=True, kw_only=True):
    """Begin nothing more until the run is resumed; what is under way goes on."""

    run: str
    reason: str = ""
    requested_by: str = ""
    v: Literal[1] = FORMAT


class Resume(Value, tag_field="type", tag="resume", frozen=True, kw_only=True):
    """Go on after a pause."""

    run: str
    requested_by: str = ""
    v: Literal[1] = FORMAT


class Timer(Value, tag_field="type", tag="timer", frozen=True, kw_only=True):
    """A wake-up that the run asked for at `due`.

    `node` is the key of a node (`streams.ids.node_key`), or empty for the run itself.
    """

    run: str
    due: int
    node: str = ""
    v: Literal[1] = FORMAT


class Occurrence(Value, tag_field="type", tag="occurrence", frozen=True, kw_only=True):
    """An event that some run may be waiting for; a copy stands in every partition of the inbox."""

    project: str
    trigger: Trigger
    v: Literal[1] = FORMAT


RunMessage = Start | Result | Progress | Approval | Cancel | Pause | Resume | Timer
"""What is addressed to one run."""

Message = RunMessage | Occurrence


class Task(Value, frozen=True, kw_only=True):
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


class TaskCancellation(Value, frozen=True, kw_only=True):
    """An order to whoever works on a task: end it within `grace_ms`, its result is not wanted."""

    task: str
    agent: str
    reason: str
    grace_ms: int = 0
    v: Literal[1] = FORMAT


class RunRequest(Value, frozen=True, kw_only=True):
    """A run that a node of another one starts; the router finds the workflow's version."""

    run: str
    project: str
    workflow: str
    parent: Parent
    depth: int
    inputs: Raw
    traceparent: str | None = None


class DeadLetter(Value, tag_field="type", tag="letter", frozen=True, kw_only=True):
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
    headers: tuple[tuple[str, bytes | None], ...] = ()
    attempts: int = 1
    parts: int = 0
    v: Literal[1] = FORMAT

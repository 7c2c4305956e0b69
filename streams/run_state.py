"""The state of a run: the records of the table, its head and a record for each of its nodes."""

from typing import Literal

from msgspec import UNSET, Raw, UnsetType

from streams.records import FORMAT, Failure, NodeStatus, Parent, RunStatus, Value


class Ending(Value, frozen=True, kw_only=True):
    """How a run will end, once what `RunEnding` names is done. `undo` is left to be undone."""

    stage: str
    outcome: RunStatus
    undo: tuple[str, ...] = ()
    uncompensated: tuple[str, ...] = ()
    reason: str = ""
    requested_by: str = ""


class RunHead(Value, frozen=True, kw_only=True):
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


class NodeState(Value, frozen=True, kw_only=True):
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

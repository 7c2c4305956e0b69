"""What the records on the log have in common: their form, statuses, failures, and origins of runs.

Rules:
- On the wire every record is one JSON object in camelCase with its format version in `v`
  (`streams.codec`). Times are integers, milliseconds since the Unix epoch, UTC.
- Values are immutable. Payloads (`Trigger.data`, task inputs, outputs) stay undecoded JSON
  (`msgspec.Raw`) until somebody looks inside: most records pass through without that.
- A key names a node or one item of it (`streams.ids.node_key`).
- Statuses are the contract's words; the same words stand in REST, SQL and the UI.
"""

from enum import StrEnum
from typing import Final

from msgspec import Raw, Struct

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


class Value(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all records and their parts."""


class Failure(Value, frozen=True, kw_only=True):
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


class Trigger(Value, frozen=True, kw_only=True):
    """The event that started a run, as CloudEvents names its parts. `data` is any JSON value."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    data: Raw = NULL


class Parent(Value, frozen=True, kw_only=True):
    """The node of another run that a run was started by, and where its end is to be reported."""

    run: str
    node: str
    attempt: int
    item: int | None = None


class Origin(Value, frozen=True, kw_only=True):
    """The run that this one repeats, and how: `retry`, `rerun` or `compensation`."""

    run: str
    kind: str
    requested_by: str = ""


class Reused(Value, frozen=True, kw_only=True):
    """A result of the run that this one repeats, taken over instead of worked for again."""

    node: str
    output: Raw
    item: int | None = None


class Edit(Value, frozen=True, kw_only=True):
    """Inputs that replace those that the definition makes for a node."""

    node: str
    inputs: Raw

"""The workflow definition: what authors write, field by field.

Rules:
- What one field alone can be wrong in is found here; what the graph is wrong in, in `streams.plan`.
- A definition is immutable once published; `digest` names its content.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from streams import pattern
from streams.duration import Duration
from streams.retry import RetryPolicy

NodeId = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_\-]{0,63}$")]
NAME: Final = r"[a-z0-9][a-z0-9_.\-]{0,127}"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
TAG: Final = r"[A-Za-z0-9][A-Za-z0-9_.:=/@+\-]{0,63}"
Tag = Annotated[str, Field(pattern=f"^{TAG}$")]

MAX_NODES: Final = 1_000
MAX_TAGS: Final = 20
TASK_TIMEOUT: Final = 600_000
RUN_TIMEOUT: Final = 7 * 86_400_000
"""Far beyond the deadline of an approval: a run outlives what its people leave unanswered."""
EVENT_FIELDS: Final = ("id", "source", "type", "subject", "time", "data")
RUN_FIELDS: Final = ("id", "project", "workflow", "version", "startedAt")


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class TriggerSpec(_Model):
    """What starts the workflow. Without `event` it is started by name only."""

    event: str | None = Field(
        default=None,
        description="Event-type pattern: `*` is one dot-segment, `>` the rest.",
        examples=["repo.push", "repo.*", "alert.>"],
    )
    filter: str | None = Field(
        default=None,
        description="CEL expression over `event`; the run starts where it is true.",
        examples=["event.data.branch == 'main'"],
    )

    @model_validator(mode="after")
    def _event_pattern(self) -> "TriggerSpec":
        if self.event is not None and (problem := pattern.check(self.event)):
            raise ValueError(problem)
        if self.filter is not None and self.event is None:
            raise ValueError("a filter needs an event to look at: add trigger.event")
        return self


class ApprovalSpec(_Model):
    """Who has to agree before the node is done, and what happens if nobody answers."""

    roles: tuple[str, ...] = Field(
        default=(), description="Only people with one of these roles may decide; empty: anybody."
    )
    count: int = Field(default=1, ge=1, le=20, description="How many different people must agree.")
    deadline: Duration = Field(default=86_400_000, description="Then `onDeadline` decides.")
    on_deadline: Literal["reject", "approve"] = "reject"


class ActionSpec(_Model):
    """A task for an agent's action: what undoes a node."""

    agent: Name
    action: str = Field(min_length=1, max_length=128)
    inputs: dict[str, Any] = Field(default_factory=dict, description="Values or templates.")
    retry: RetryPolicy = RetryPolicy()
    timeout: Duration = TASK_TIMEOUT


class WaitSpec(_Model):
    """An event to wait for."""

    event: str = Field(description="Event-type pattern.", examples=["payment.received"])
    match: str | None = Field(
        default=None,
        description="CEL over `event`, `context` and `nodes`: whether it is the event meant.",
        examples=["event.data.orderId == context.orderId"],
    )
    timeout: Duration = Field(default=86_400_000, description="Then the node fails.")

    @model_validator(mode="after")
    def _event_pattern(self) -> "WaitSpec":
        if problem := pattern.check(self.event):
            raise ValueError(problem)
        return self


class NodeSpec(_Model):
    """One step. What it is, one of these fields says.

    `agent` (a task for its `action`), `workflow` (a run of another workflow), `waitForEvent`,
    `delay` or `delayUntil`.
    """

    id: NodeId
    agent: Name | None = None
    action: str | None = Field(default=None, min_length=1, max_length=128)
    workflow: Name | None = Field(default=None, description="A workflow to run as this step.")
    wait_for_event: WaitSpec | None = None
    delay: Duration | None = Field(default=None, description="Do nothing for so long.")
    delay_until: str | None = Field(
        default=None, description="Do nothing until then: RFC 3339, or a template that gives it."
    )
    description: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict, description="Values or templates.")
    depends_on: tuple[NodeId, ...] = ()
    when: str | None = Field(
        default=None,
        description="CEL over `context`, `event`, `nodes`, `run`; where it is false, SKIPPED.",
        examples=["nodes.scan.output.summary.total > 0"],
    )
    run_if: Literal["allSuccess", "noneFailed", "anyFailed", "always"] = Field(
        default="allSuccess", description="How the nodes that it depends on must have ended."
    )
    on_failure: Literal["fail", "continue"] = Field(
        default="fail", description="Whether the run fails where this node does."
    )
    approval_required: bool | ApprovalSpec = Field(
        default=False, description="People have to agree before it is done."
    )
    for_each: list[Any] | str | None = Field(
        default=None, description="Do it once for each item: a list, or a template that gives one."
    )
    max_parallel: int = Field(default=20, ge=1, le=1_000, description="Items under way at once.")
    item_failure: Literal["finish", "stop", "ignore"] = Field(
        default="finish",
        description="Where an item fails: do the others, then fail; begin no more, and fail; or"
        " succeed with null in its place.",
    )
    compensate: ActionSpec | None = Field(
        default=None, description="What undoes this node, if the run does not succeed."
    )
    retry: RetryPolicy = RetryPolicy()
    timeout: Duration | None = Field(
        default=None,
        description="From dispatch to result of one attempt; then it is lost. With startTimeout or"
        " heartbeatTimeout from when the agent began. By default 10 minutes, for a workflow 7"
        " days.",
    )
    start_timeout: Duration | None = Field(
        default=None, description="From dispatch until the agent begins; then the node fails."
    )
    total_timeout: Duration | None = Field(
        default=None, description="From the first dispatch to the result, over all attempts."
    )
    heartbeat_timeout: Duration | None = Field(
        default=None,
        description="Between two signs of life of the agent; then the attempt is lost.",
    )

    @property
    def attempt_timeout(self) -> int:
        """Of one attempt, milliseconds."""
        if self.timeout is not None:
            return self.timeout
        return RUN_TIMEOUT if self.workflow is not None else TASK_TIMEOUT

    @property
    def approval(self) -> ApprovalSpec | None:
        """What the workflow asks for; None where it asks for nothing."""
        if isinstance(self.approval_required, ApprovalSpec):
            return self.approval_required
        return ApprovalSpec() if self.approval_required else None

    @model_validator(mode="after")
    def _one_kind(self) -> "NodeSpec":
        kinds = {
            "agent": self.agent,
            "workflow": self.workflow,
            "waitForEvent": self.wait_for_event,
            "delay": self.delay,
            "delayUntil": self.delay_until,
        }
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "has none of them"
            raise ValueError(f"a node is one of {', '.join(kinds)}; this one {what}")
        if (self.agent is None) != (self.action is None):
            raise ValueError("agent and action go together")
        if self.agent is None and self.workflow is None:
            extra = {
                "forEach": self.for_each is not None,
                "compensate": self.compensate is not None,
                "inputs": bool(self.inputs),
            }
            if wrong := [name for name, there in extra.items() if there]:
                raise ValueError(f"a node with {given[0]} cannot have {wrong[0]}")
        if given[0] not in ("agent", "workflow"):
            self._refuse("timeout", "total_timeout", "retry", because=f"a node with {given[0]}")
        if self.for_each is None:
            self._refuse("max_parallel", "item_failure", because="a node without forEach")
        reports = self.start_timeout is not None or self.heartbeat_timeout is not None
        if reports and self.agent is None:
            raise ValueError("startTimeout and heartbeatTimeout are for nodes with an agent")
        if self.run_if == "anyFailed" and not self.depends_on:
            raise ValueError("runIf: anyFailed needs dependsOn")
        return self

    def _refuse(self, *fields: str, because: str) -> None:
        """A field that would mean nothing here is a mistake."""
        for field in fields:
            if field in self.model_fields_set:
                waits = self.wait_for_event is not None and field == "timeout"
                hint = ": say waitForEvent.timeout" if waits else ""
                raise ValueError(f"{because} cannot have {to_camel(field)}{hint}")


class WorkflowSpec(_Model):
    """A workflow: when it starts, and the graph of its nodes."""

    name: Name
    description: str = ""
    project: Name = "default"
    tags: tuple[Tag, ...] = Field(
        default=(),
        max_length=MAX_TAGS,
        description="What its runs and their costs are told apart by, beside its name.",
        examples=[["team:payments", "nightly"]],
    )
    trigger: TriggerSpec = TriggerSpec()
    timeout: Duration = Field(default=RUN_TIMEOUT, description="The whole run; then TIMED_OUT.")
    cancel_grace: Duration = Field(
        default=10_000, description="What agents at work have to end in, when the run is stopped."
    )
    retry_budget: int = Field(
        default=100, ge=0, le=1_000_000, description="Attempts after the first, of all nodes."
    )
    output: Any = Field(
        default=None,
        description="What the run gives: any value, with templates.",
        examples=[{"total": "{{ nodes.scan.output.summary.total }}"}],
    )
    nodes: tuple[NodeSpec, ...] = Field(min_length=1, max_length=MAX_NODES)
    on_failure: tuple[NodeSpec, ...] = Field(
        default=(),
        max_length=MAX_NODES,
        description="Nodes that are done after the run has failed or timed out.",
    )

    @field_validator("tags")
    @classmethod
    def _each_once(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [tag for tag in dict.fromkeys(tags) if tags.count(tag) > 1]:
            raise ValueError(f"the tag {twice[0]!r} stands there twice: leave one out")
        return tags

    def actions(self) -> Iterator[tuple[tuple[str | int, ...], str, str, dict[str, Any]]]:
        """Every action that it uses: the path of the field, agent, action and inputs."""
        for stage, nodes in (("nodes", self.nodes), ("onFailure", self.on_failure)):
            for index, node in enumerate(nodes):
                if node.agent is not None and node.action is not None:
                    yield (stage, index), node.agent, node.action, node.inputs
                if node.compensate is not None:
                    undo = node.compensate
                    yield (stage, index, "compensate"), undo.agent, undo.action, undo.inputs

    @property
    def digest(self) -> str:
        """Names the content: equal definitions have equal digests."""
        return sha256(self.canonical()).hexdigest()[:16]

    def canonical(self) -> bytes:
        """The definition as JSON bytes, in one order, defaults left out."""
        body = self.model_dump(by_alias=True, mode="json", exclude_defaults=True)
        return msgspec.json.encode(body, order="sorted")


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a definition."""
    schema = WorkflowSpec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

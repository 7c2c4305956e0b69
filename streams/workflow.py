"""The workflow definition: what authors write, checked as a whole, and the plan made from it.

Rules:
- A definition is refused with every fault found, each with the path of its field: duplicate node
  ids, dependencies that do not exist, cycles, references to what cannot be known.
- A reference to a node's output needs that node among the (transitive) dependencies, so that the
  output exists when the inputs are made.
- A definition is immutable once published; `digest` names its content.
"""

from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from streams import pattern
from streams.duration import Duration
from streams.errors import DefinitionError, Problem
from streams.retry import RetryPolicy
from streams.template import Reference, Template, TemplateError

NodeId = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_\-]{0,63}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,127}$")]

MAX_NODES: Final = 1_000
EVENT_FIELDS: Final = ("id", "source", "type", "subject", "time", "data")


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


class NodeSpec(_Model):
    """One step: a task for an agent's action, begun when all it depends on has succeeded."""

    id: NodeId
    agent: Name
    action: str = Field(min_length=1, max_length=128)
    description: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict, description="Values or templates.")
    depends_on: tuple[NodeId, ...] = ()
    retry: RetryPolicy = RetryPolicy()
    timeout: Duration = Field(
        default=600_000, description="From dispatch to result of one attempt; then it is lost."
    )


class WorkflowSpec(_Model):
    """A workflow: when it starts, and the graph of its nodes."""

    name: Name
    description: str = ""
    project: Name = "default"
    trigger: TriggerSpec = TriggerSpec()
    timeout: Duration = Field(default=86_400_000, description="The whole run; then TIMED_OUT.")
    nodes: tuple[NodeSpec, ...] = Field(min_length=1, max_length=MAX_NODES)

    @property
    def digest(self) -> str:
        """Names the content: equal definitions have equal digests."""
        return sha256(self.canonical()).hexdigest()[:16]

    def canonical(self) -> bytes:
        """The definition as JSON bytes, in one order, defaults left out."""
        body = self.model_dump(by_alias=True, mode="json", exclude_defaults=True)
        return msgspec.json.encode(body, order="sorted")


class NodePlan:
    """A node made ready for deciding: its templates compiled, its place in the graph known."""

    __slots__ = ("ancestors", "dependents", "inputs", "spec")

    def __init__(self, spec: NodeSpec, inputs: Template, ancestors: frozenset[str]) -> None:
        self.spec = spec
        self.inputs = inputs
        self.ancestors = ancestors
        self.dependents: tuple[str, ...] = ()


class Plan:
    """A checked definition made ready for deciding: built once a version, shared by its runs."""

    def __init__(self, spec: WorkflowSpec) -> None:
        """Check the graph and the references; `DefinitionError` with every problem found."""
        problems: list[Problem] = []
        order = _topological(spec, problems)
        self.spec = spec
        self.nodes: dict[str, NodePlan] = {}
        by_id = {node.id: node for node in reversed(spec.nodes)}
        ancestors: dict[str, frozenset[str]] = {}
        for node_id in order:
            known = [d for d in by_id[node_id].depends_on if d in ancestors]
            ancestors[node_id] = frozenset(known).union(*(ancestors[d] for d in known))
        templates: dict[str, Template] = {}
        for index, node in enumerate(spec.nodes):
            try:
                template = Template(node.inputs)
            except TemplateError as error:
                problems.append(Problem(("nodes", index, "inputs"), str(error)))
                continue
            templates[node.id] = template
            problems += _reference_problems(index, node.id, template, ancestors, set(by_id))
        if problems:
            raise DefinitionError(_summary(spec.name, problems), tuple(problems))
        for node_id in order:
            self.nodes[node_id] = NodePlan(by_id[node_id], templates[node_id], ancestors[node_id])
        self.roots = tuple(node.id for node in spec.nodes if not node.depends_on)
        for node in spec.nodes:
            self.nodes[node.id].dependents = tuple(
                other.id for other in spec.nodes if node.id in other.depends_on
            )

    @cached_property
    def agents(self) -> frozenset[str]:
        """The agents whose task topics this workflow writes to."""
        return frozenset(node.agent for node in self.spec.nodes)


def parse(definition: Mapping[str, Any]) -> Plan:
    """A definition as read from YAML or JSON, checked; `DefinitionError` lists what is wrong."""
    name = str(definition.get("name", "workflow"))
    try:
        spec = WorkflowSpec.model_validate(definition)
    except ValidationError as error:
        items = error.errors()
        inside_nodes = any(item["loc"][0] == "nodes" and len(item["loc"]) > 1 for item in items)
        problems = tuple(
            Problem(tuple(item["loc"]), _plain(item["msg"], item["type"]))
            for item in items
            # With a fault in a node pydantic counts the nodes without it: no fault of its own.
            if not (inside_nodes and item["type"] == "too_short" and item["loc"] == ("nodes",))
        )
        raise DefinitionError(_summary(name, problems), problems) from error
    return Plan(spec)


def _plain(message: str, kind: str) -> str:
    if kind == "extra_forbidden":
        return "no such field in a workflow definition"
    return message.removeprefix("Value error, ")


def _summary(name: str, problems: list[Problem] | tuple[Problem, ...]) -> str:
    first = problems[0]
    where = ".".join(map(str, first.path))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"workflow {name!r}: {where + ': ' if where else ''}{first.message}{more}"


def _topological(spec: WorkflowSpec, problems: list[Problem]) -> list[str]:
    """Node ids, dependencies first. Duplicates, unknown dependencies and cycles are problems."""
    ids: dict[str, int] = {}
    for index, node in enumerate(spec.nodes):
        if node.id in ids:
            problems.append(
                Problem(
                    ("nodes", index, "id"),
                    f"node id {node.id!r} is already used by node {ids[node.id] + 1} of the list",
                )
            )
        else:
            ids[node.id] = index
    waiting: dict[str, set[str]] = {node_id: set() for node_id in ids}
    for index, node in enumerate(spec.nodes):
        for position, dependency in enumerate(node.depends_on):
            if dependency not in ids:
                problems.append(
                    Problem(
                        ("nodes", index, "dependsOn", position),
                        f"node {node.id!r} depends on {dependency!r}, which is not a node"
                        f" (nodes: {', '.join(ids)})",
                    )
                )
        waiting[node.id] |= {d for d in node.depends_on if d in ids}
    order: list[str] = []
    ready = [n for n, deps in waiting.items() if not deps]
    dependents: dict[str, list[str]] = {n: [] for n in waiting}
    for node_id, deps in waiting.items():
        for dependency in deps:
            dependents[dependency].append(node_id)
    while ready:
        node_id = ready.pop(0)
        order.append(node_id)
        for dependent in dependents[node_id]:
            waiting[dependent].discard(node_id)
            if not waiting[dependent]:
                ready.append(dependent)
    if len(order) < len(ids):
        cycle = _cycle({n: waiting[n] for n in ids if n not in set(order)})
        problems.append(
            Problem(
                ("nodes", ids[cycle[0]], "dependsOn"),
                f"the dependencies make a cycle: {' → '.join([*cycle, cycle[0]])}",
            )
        )
    return order


def _cycle(waiting: dict[str, set[str]]) -> list[str]:
    """One cycle among nodes that all wait for one another."""
    path: list[str] = []
    node = next(iter(waiting))
    while node not in path:
        path.append(node)
        node = min(d for d in waiting[node] if d in waiting)
    return path[path.index(node) :]


def _reference_problems(
    index: int,
    node: str,
    template: Template,
    ancestors: Mapping[str, frozenset[str]],
    ids: set[str],
) -> list[Problem]:
    """References of a node's inputs that can be seen to lead nowhere."""
    problems = []
    for reference in template.references:
        message = _reference_problem(reference, node, ancestors.get(node), ids)
        if message:
            problems.append(Problem(("nodes", index, "inputs"), message))
    return problems


def _reference_problem(
    reference: Reference, node: str, ancestors: frozenset[str] | None, ids: set[str]
) -> str | None:
    """`ancestors` is None for a node in a cycle: what it could refer to cannot be said."""
    if reference.path[0] == "event":
        if len(reference.path) > 1 and reference.path[1] not in EVENT_FIELDS:
            return (
                f"'{{{{ {reference.text} }}}}': an event has {', '.join(EVENT_FIELDS)},"
                f" not {reference.path[1]!r}"
            )
        return None
    target = reference.node
    if target is None:
        return None
    if target not in ids:
        return f"'{{{{ {reference.text} }}}}' refers to {target!r}, which is not a node"
    if ancestors is None or target in ancestors:
        return None
    return (
        f"'{{{{ {reference.text} }}}}' refers to {target!r}, which {node!r} does not"
        f" depend on: add it to dependsOn"
    )


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a definition."""
    schema = WorkflowSpec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

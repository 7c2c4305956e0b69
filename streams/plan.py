"""The plan made from a definition: its graph checked, its templates and expressions compiled.

Rules:
- A definition is refused with every fault found, each with the path of its field: duplicate node
  ids, dependencies that do not exist, cycles, references to what cannot be known.
- A reference to a node needs that node among the (transitive) dependencies, so that it has ended
  when the inputs are made. The failure handler and what undoes a node may refer to all nodes.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from streams.duration import moment
from streams.errors import DefinitionError, Problem, path_text
from streams.expression import Expression, ExpressionError, compiled
from streams.retry import RetryPolicy
from streams.template import Reference, Template, TemplateError
from streams.workflow import (
    EVENT_FIELDS,
    MAX_NODES,
    RUN_FIELDS,
    ActionSpec,
    ApprovalSpec,
    NodeSpec,
    TriggerSpec,
    WaitSpec,
    WorkflowSpec,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Work(NamedTuple):
    """A task as the definition describes it, made ready: a node's, or what undoes one."""

    agent: str
    action: str
    inputs: Template
    retry: RetryPolicy
    timeout: int


class NodePlan:
    """A node made ready for deciding: its templates compiled, its place in the graph known."""

    __slots__ = (
        "ancestors",
        "compensation",
        "condition",
        "delay_until",
        "dependents",
        "for_each",
        "handler",
        "inputs",
        "match",
        "needs",
        "spec",
        "work",
    )

    def __init__(self, spec: NodeSpec, ancestors: frozenset[str], *, handler: bool) -> None:
        """Compile; TemplateError and ExpressionError are for the caller to place."""
        self.spec = spec
        self.ancestors = ancestors
        self.handler = handler
        self.dependents: tuple[str, ...] = ()
        self.needs = spec.depends_on
        self.inputs = Template(spec.inputs)
        self.for_each = None if spec.for_each is None else Template(spec.for_each)
        self.delay_until = None if spec.delay_until is None else Template(spec.delay_until)
        self.condition = None if spec.when is None else compiled(spec.when)
        wait = spec.wait_for_event
        self.match = None if wait is None or wait.match is None else compiled(wait.match)
        self.work = (
            None
            if spec.agent is None or spec.action is None
            else Work(spec.agent, spec.action, self.inputs, spec.retry, spec.attempt_timeout)
        )
        undo = spec.compensate
        self.compensation = (
            None
            if undo is None
            else Work(undo.agent, undo.action, Template(undo.inputs), undo.retry, undo.timeout)
        )


class Plan:
    """A checked definition made ready for deciding: built once a version, shared by its runs.

    `nodes` are in topological order; those of the failure handler have `handler` set.
    """

    def __init__(self, spec: WorkflowSpec) -> None:
        """Check the graph and the references; `DefinitionError` with every problem found."""
        problems: list[Problem] = []
        self.spec = spec
        self.nodes: dict[str, NodePlan] = {}
        self.filter = _filter(spec.trigger, problems)
        graph = _Graph(spec, problems)
        for stage, nodes in (("nodes", spec.nodes), ("onFailure", spec.on_failure)):
            for index, node in enumerate(nodes):
                if graph.index.get(node.id) == (stage, index):
                    graph.check(stage, index, node, problems)
        self.output = _output(spec, graph, problems)
        if problems:
            raise DefinitionError(_summary(spec.name, problems), tuple(problems))
        self.nodes = {name: graph.plans[name] for name in graph.order}
        self.roots = tuple(node.id for node in spec.nodes if not node.depends_on)
        self.handler_roots = tuple(node.id for node in spec.on_failure if not node.depends_on)
        for node in (*spec.nodes, *spec.on_failure):
            self.nodes[node.id].dependents = tuple(
                other.id for other in (*spec.nodes, *spec.on_failure) if node.id in other.depends_on
            )
        self.waits = tuple(node.id for node in spec.nodes if node.wait_for_event) + tuple(
            node.id for node in spec.on_failure if node.wait_for_event
        )

    @cached_property
    def agents(self) -> frozenset[str]:
        """The agents whose task topics this workflow writes to."""
        works = [work for plan in self.nodes.values() for work in (plan.work, plan.compensation)]
        return frozenset(work.agent for work in works if work is not None)

    @cached_property
    def awaited(self) -> frozenset[str]:
        """The patterns of events that its runs may wait for."""
        waits = (plan.spec.wait_for_event for plan in self.nodes.values())
        return frozenset(wait.event for wait in waits if wait is not None)


class _Graph:
    """The nodes of both stages: their order, and what each may refer to."""

    def __init__(self, spec: WorkflowSpec, problems: list[Problem]) -> None:
        self.main = _topological("nodes", spec.nodes, {}, problems)
        self.index = {node.id: ("nodes", n) for n, node in reversed(list(enumerate(spec.nodes)))}
        taken = dict.fromkeys(self.index, "nodes")
        handler = _topological("onFailure", spec.on_failure, taken, problems)
        for n, node in reversed(list(enumerate(spec.on_failure))):
            if node.id not in taken:
                self.index[node.id] = ("onFailure", n)
        self.order = [*self.main, *handler]
        by_id = {node.id: node for node in reversed((*spec.on_failure, *spec.nodes))}
        self.ancestors: dict[str, frozenset[str]] = {}
        for name in self.order:
            known = [d for d in by_id[name].depends_on if d in self.ancestors]
            above = frozenset(known).union(*(self.ancestors[d] for d in known))
            self.ancestors[name] = above if name in self.main else above | frozenset(self.main)
        self.plans: dict[str, NodePlan] = {}

    def check(self, stage: str, index: int, node: NodeSpec, problems: list[Problem]) -> None:
        """Compile a node, and hold its references against what can be known there."""
        handler = stage == "onFailure"
        if handler and node.compensate is not None:
            text = "what onFailure does is not undone: leave it out"
            problems.append(Problem((stage, index, "compensate"), text))
        ancestors = self.ancestors.get(node.id)
        try:
            plan = NodePlan(node, ancestors or frozenset(), handler=handler)
        except (TemplateError, ExpressionError):
            problems += _malformed(stage, index, node)
            return
        self.plans[node.id] = plan
        roots = ("context", "event", "nodes", "run", *(("failure",) if handler else ()))
        inner = (*roots, "item", "index") if plan.for_each is not None else roots
        undo = None if plan.compensation is None else plan.compensation.inputs
        for field, template, known in (
            (("inputs",), plan.inputs, inner),
            (("forEach",), plan.for_each, roots),
            (("delayUntil",), plan.delay_until, roots),
        ):
            for reference in () if template is None else template.references:
                message = _reference_problem(reference, node.id, ancestors, self.index, known)
                if message:
                    problems.append(Problem((stage, index, *field), message))
        for reference in () if undo is None else undo.references:
            message = _reference_problem(
                reference, node.id, frozenset(self.main), self.index, (*roots, "failure")
            )
            if message:
                problems.append(Problem((stage, index, "compensate", "inputs"), message))
        problems += [
            Problem((stage, index, *path), text)
            for path, text in self._faulty_expressions(plan, ancestors, roots)
        ]

    def _faulty_expressions(
        self, plan: NodePlan, ancestors: frozenset[str] | None, roots: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], str]]:
        """The field and the fault of each expression, and of a time, that leads nowhere."""
        spec = plan.spec
        for path, expression in (
            (("when",), plan.condition),
            (("waitForEvent", "match"), plan.match),
        ):
            if expression is None:
                continue
            try:
                expression.expect(*roots)
            except ExpressionError as error:
                yield path, str(error)
                continue
            for fault in _expression_problems(expression, spec.id, ancestors, self.index):
                yield path, fault
        if plan.delay_until is not None and not plan.delay_until.references:
            try:
                moment(spec.delay_until)
            except ValueError as error:
                yield ("delayUntil",), str(error)


def _malformed(stage: str, index: int, node: NodeSpec) -> list[Problem]:
    """Which of the node's templates and expressions cannot be compiled, and why."""
    problems = []
    undo = node.compensate
    wait = node.wait_for_event
    templates: tuple[tuple[tuple[str, ...], Any], ...] = (
        (("inputs",), node.inputs),
        (("forEach",), node.for_each),
        (("delayUntil",), node.delay_until),
        (("compensate", "inputs"), None if undo is None else undo.inputs),
    )
    for path, value in templates:
        try:
            Template(value)
        except TemplateError as error:
            problems.append(Problem((stage, index, *path), str(error)))
    expressions = (
        (("when",), node.when),
        (("waitForEvent", "match"), None if wait is None else wait.match),
    )
    for path, text in expressions:
        try:
            if text is not None:
                compiled(text)
        except ExpressionError as error:
            problems.append(Problem((stage, index, *path), str(error)))
    return problems


def _filter_problems(definition: Mapping[str, Any]) -> tuple[Problem, ...]:
    """What is wrong with the filter of a definition that is wrong elsewhere too."""
    trigger = definition.get("trigger")
    text = trigger.get("filter") if isinstance(trigger, dict) else None
    found: list[Problem] = []
    if isinstance(text, str):
        _filter(TriggerSpec.model_construct(event="*", filter=text), found)
    return tuple(found)


def _filter(trigger: TriggerSpec, problems: list[Problem]) -> Expression | None:
    if trigger.filter is None:
        return None
    try:
        found = compiled(trigger.filter)
        found.expect("event", needed="event")
    except ExpressionError as error:
        problems.append(Problem(("trigger", "filter"), str(error)))
        return None
    faults = _expression_problems(found, "", frozenset(), {})
    problems += [Problem(("trigger", "filter"), fault) for fault in faults]
    return found


def _output(spec: WorkflowSpec, graph: _Graph, problems: list[Problem]) -> Template | None:
    if spec.output is None:
        return None
    try:
        template = Template(spec.output)
    except TemplateError as error:
        problems.append(Problem(("output",), str(error)))
        return None
    main = frozenset(graph.main)
    for reference in template.references:
        message = _reference_problem(
            reference, "output", main, graph.index, ("context", "event", "nodes", "run")
        )
        if message:
            problems.append(Problem(("output",), message))
    return template


def parse(definition: Mapping[str, Any]) -> Plan:
    """A definition as read from YAML or JSON, checked; `DefinitionError` lists what is wrong."""
    name = str(definition.get("name", "workflow"))
    try:
        spec = WorkflowSpec.model_validate(definition)
    except ValidationError as error:
        items = [item for item in error.errors() if not _is_other_form(item)]
        inside_nodes = any(item["loc"][0] == "nodes" and len(item["loc"]) > 1 for item in items)
        problems = tuple(
            Problem(_path(item["loc"]), _plain(item))
            for item in items
            # With a fault in a node pydantic counts the nodes without it: no fault of its own.
            if not (inside_nodes and item["type"] == "too_short" and item["loc"] == ("nodes",))
        )
        problems += _filter_problems(definition)
        raise DefinitionError(_summary(name, problems), problems) from error
    return Plan(spec)


_WITH_FORMS: Final = ("approvalRequired", "approval_required", "forEach", "for_each")
"""Fields that take values of two forms; pydantic tells what is wrong with each of them."""

_FORMS: Final[Mapping[str, str]] = {
    "ApprovalSpec": "true, false, or who has to agree: roles, count, deadline, onDeadline",
    "str": "a list, or a template that gives one",
}
"""The form that such a value is held against, as pydantic calls it; and what there may be."""


def _is_other_form(item: "ErrorDetails") -> bool:
    """A fault of the second form, of which the first one tells all."""
    place = item["loc"]
    return len(place) > 1 and place[-2] in _WITH_FORMS and place[-1] in ("bool", "list[any]")


def _path(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The field as the author wrote it: without the form that its value was taken for."""
    return tuple(
        part
        for before, part in zip(("", *place), place, strict=False)
        if not (before in _WITH_FORMS and part in _FORMS)
    )


_MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "trigger": TriggerSpec,
    "nodes": NodeSpec,
    "onFailure": NodeSpec,
    "retry": RetryPolicy,
    "compensate": ActionSpec,
    "waitForEvent": WaitSpec,
    "approvalRequired": ApprovalSpec,
}
"""What is below a field, where that has fields of its own."""


def _no_field(place: tuple[int | str, ...]) -> str:
    """An unknown field, and the one that may have been meant."""
    above = [to_camel(part) for part in place[:-1] if isinstance(part, str)]
    model = _MODELS.get(above[-1], WorkflowSpec) if above else WorkflowSpec
    known = [field.alias or name for name, field in model.model_fields.items()]
    near = get_close_matches(str(place[-1]), known, n=1)
    return f"no such field: {place[-1]!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def _plain(item: "ErrorDetails") -> str:
    message, kind, last = item["msg"], item["type"], item["loc"][-1]
    if kind in ("model_type", "string_type") and last in _FORMS:
        return f"write {_FORMS[str(last)]}"
    if kind == "extra_forbidden":
        return _no_field(_path(item["loc"]))
    if kind == "string_pattern_mismatch":
        return (
            "not a name: letters, digits, '-' and '_', at most 64, a letter first for a node;"
            " for others lower case, also '.', at most 128; for a tag letters, digits and any of"
            " _ . : = / @ + -, at most 64"
        )
    if kind == "too_long" and last in ("nodes", "onFailure", "on_failure"):
        return (
            f"{item['ctx']['actual_length']:,} nodes, {MAX_NODES:,} may be"
            " (COMMANDCENTER_NODES_LIMIT): use forEach, or split the workflow"
        )
    if kind == "too_long":
        return message.replace("Tuple", "the list").replace(" after validation", "")
    return message.removeprefix("Value error, ")


def _summary(name: str, problems: list[Problem] | tuple[Problem, ...]) -> str:
    first = problems[0]
    where = path_text(first.path)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"workflow {name!r}: {where + ': ' if where else ''}{first.message}{more}"


def _topological(
    stage: str, nodes: tuple[NodeSpec, ...], taken: Mapping[str, str], problems: list[Problem]
) -> list[str]:
    """Node ids, dependencies first. Duplicates, unknown dependencies and cycles are problems.

    `taken` are ids that are used elsewhere, with the name of that list.
    """
    ids = _unique_ids(stage, nodes, taken, problems)
    waiting: dict[str, set[str]] = {node_id: set() for node_id in ids}
    for index, node in enumerate(nodes):
        for position, dependency in enumerate(node.depends_on):
            if dependency not in ids:
                what = f"is not a node (nodes: {', '.join(ids)})"
                if dependency in taken:
                    what = f"has ended by then, like all of {taken[dependency]}: leave it out"
                text = f"node {node.id!r} depends on {dependency!r}, which {what}"
                problems.append(Problem((stage, index, "dependsOn", position), text))
        if node.id in waiting:
            waiting[node.id] |= {d for d in node.depends_on if d in ids}
    order = _ordered(waiting)
    if len(order) < len(ids):
        cycle = _cycle({n: waiting[n] for n in ids if n not in set(order)})
        problems.append(
            Problem(
                (stage, ids[cycle[0]], "dependsOn"),
                f"the dependencies make a cycle: {' → '.join([*cycle, cycle[0]])}",
            )
        )
    return order


def _unique_ids(
    stage: str, nodes: tuple[NodeSpec, ...], taken: Mapping[str, str], problems: list[Problem]
) -> dict[str, int]:
    ids: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node.id in taken:
            text = f"node id {node.id!r} is already used in {taken[node.id]}"
            problems.append(Problem((stage, index, "id"), text))
        elif node.id in ids:
            problems.append(
                Problem(
                    (stage, index, "id"),
                    f"node id {node.id!r} is already used by node {ids[node.id] + 1} of the list",
                )
            )
        else:
            ids[node.id] = index
    return ids


def _ordered(waiting: dict[str, set[str]]) -> list[str]:
    """The nodes, dependencies first; takes what is done out of `waiting`."""
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
    return order


def _cycle(waiting: dict[str, set[str]]) -> list[str]:
    """One cycle among nodes that all wait for one another."""
    path: list[str] = []
    node = next(iter(waiting))
    while node not in path:
        path.append(node)
        node = min(d for d in waiting[node] if d in waiting)
    return path[path.index(node) :]


def _expression_problems(
    expression: Expression,
    node: str,
    ancestors: frozenset[str] | None,
    ids: Mapping[str, Any],
) -> Iterator[str]:
    """What it can be seen to look at that is not there."""
    for root, name in dict.fromkeys(expression.looks_at()):
        if root == "event":
            if name not in EVENT_FIELDS:
                yield f"an event has {', '.join(EVENT_FIELDS)}, not {name!r}"
        elif name not in ids:
            yield f"the expression looks at {name!r}, which is not a node"
        elif ancestors is not None and name not in ancestors:
            yield (
                f"the expression looks at {name!r}, which {node!r} does not depend on:"
                " add it to dependsOn"
            )


def _reference_problem(
    reference: Reference,
    node: str,
    ancestors: frozenset[str] | None,
    ids: Mapping[str, Any],
    roots: tuple[str, ...],
) -> str | None:
    """Why a reference can be seen to lead nowhere.

    `ancestors` is None for a node in a cycle: what it could refer to cannot be said.
    """
    text = f"'{{{{ {reference.text} }}}}'"
    if reference.path[0] not in roots:
        return f"{text}: here there is no {reference.path[0]!r}, only {', '.join(roots)}"
    if reference.path[0] == "event":
        if len(reference.path) > 1 and reference.path[1] not in EVENT_FIELDS:
            return f"{text}: an event has {', '.join(EVENT_FIELDS)}, not {reference.path[1]!r}"
        return None
    if reference.path[0] == "run":
        if len(reference.path) > 1 and reference.path[1] not in RUN_FIELDS:
            return f"{text}: a run has {', '.join(RUN_FIELDS)}, not {reference.path[1]!r}"
        return None
    target = reference.node
    if target is None:
        return None
    if target not in ids:
        return f"{text} refers to {target!r}, which is not a node"
    if ancestors is None or target in ancestors or node == "output":
        return None
    return f"{text} refers to {target!r}, which {node!r} does not depend on: add it to dependsOn"

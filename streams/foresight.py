"""What a definition can be seen to fail at, whenever it comes to that: told before it is published.

These are no rules of `streams.plan`: a version that is published already goes on as it is, and may
well never come to the node in question.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Union

from streams import duration
from streams.errors import Problem
from streams.plan import NodePlan, Plan
from streams.template import Reference, Template, TemplateError, follow
from streams.workflow import EVENT_FIELDS, RUN_FIELDS, NodeSpec

_Path = tuple[str | int, ...]


class _Kind(Enum):
    """What a value is where its fields are not known: anything, a list, or nothing with parts."""

    ANYTHING = 0
    LIST = 1
    VALUE = 2


class _Described(NamedTuple):
    """A value that a part of a JSON Schema describes; opened where a reference leads into it."""

    schema: Any
    whole: Mapping[str, Any]

    def opened(self) -> "_Shape":
        """What is certain of it: only what an object cannot have is known not to be there."""
        schema = self.schema
        for _ in range(_REFERENCES):
            if not (isinstance(schema, Mapping) and "$ref" in schema):
                break
            definitions = self.whole.get("$defs")
            name = str(schema["$ref"]).removeprefix("#/$defs/")
            schema = definitions.get(name) if isinstance(definitions, Mapping) else None
        if not isinstance(schema, Mapping):
            return _Kind.ANYTHING
        fields, kind = schema.get("properties"), schema.get("type")
        if kind == "object" and isinstance(fields, Mapping) and _is_closed(schema):
            return {name: _Described(field, self.whole) for name, field in fields.items()}
        if kind == "array":
            return _Kind.LIST
        scalar = kind in ("string", "integer", "number", "boolean")
        return _Kind.VALUE if scalar else _Kind.ANYTHING


def _is_closed(schema: Mapping[str, Any]) -> bool:
    return schema.get("additionalProperties") is False and "patternProperties" not in schema


_Shape = Union[_Kind, _Described, Mapping[str, "_Shape"]]  # noqa: UP007  # it names itself

Outputs = Callable[[str, str], Mapping[str, Any] | None]
"""The JSON Schema of what an agent's action gives, where it is known."""

_REFERENCES: Final = 20
"""A schema's references that are followed: they may go in a circle."""

_EVENT: Final[_Shape] = {**dict.fromkeys(EVENT_FIELDS, _Kind.VALUE), "data": _Kind.ANYTHING}
_FAILURE: Final[_Shape] = dict.fromkeys(("kind", "message", "node"), _Kind.VALUE)
_ROOTS: Final[Mapping[str, _Shape]] = {
    "context": _Kind.ANYTHING,
    "event": _EVENT,
    "run": dict.fromkeys(RUN_FIELDS, _Kind.VALUE),
    "failure": _FAILURE,
    "item": _Kind.ANYTHING,
    "index": _Kind.VALUE,
}


def foreseen(plan: Plan, outputs: Outputs = lambda _agent, _action: None) -> list[Problem]:
    """Every such fault, with the path of its field; empty where there is none to be seen."""
    found: list[Problem] = []
    for stage, nodes in (("nodes", plan.spec.nodes), ("onFailure", plan.spec.on_failure)):
        for index, node in enumerate(nodes):
            found += [
                Problem((stage, index, *path), text)
                for path, text in _of_node(plan, plan.nodes[node.id], outputs)
            ]
    for reference in () if plan.output is None else plan.output.references:
        text = _of_handler(plan, reference) or _nowhere(plan, reference, outputs)
        if text:
            found.append(Problem(("output",), text))
    for begun in () if plan.output is None else plan.output.unclosed():
        found.append(Problem(("output",), _unclosed(begun)))
    return found


def _of_node(plan: Plan, node: NodePlan, outputs: Outputs) -> Iterator[tuple[_Path, str]]:
    yield from _faulty_references(plan, node, outputs)
    yield from _faulty_list(plan, node, outputs)
    for path, expression in ((("when",), node.condition), (("waitForEvent", "match"), node.match)):
        if expression is not None and not expression.variables:
            verdict = expression.check({})
            if verdict.reason:
                yield path, verdict.reason
    spec = node.spec
    if spec.delay is not None and spec.delay >= plan.spec.timeout:
        limit, length = duration.text(plan.spec.timeout), duration.text(spec.delay)
        text = f"the run times out after {limit}, before the {length} have passed"
        yield ("delay",), f"{text}: give the workflow a longer timeout"
    if spec.workflow == plan.spec.name and not node.handler and not _may_be_left_out(plan, node):
        text = "every run of this workflow would start another one: give the node a 'when'"
        yield ("workflow",), text


def _faulty_references(plan: Plan, node: NodePlan, outputs: Outputs) -> Iterator[tuple[_Path, str]]:
    undo = None if node.compensation is None else node.compensation.inputs
    templates: tuple[tuple[_Path, Template | None], ...] = (
        (("inputs",), node.inputs),
        (("forEach",), node.for_each),
        (("delayUntil",), node.delay_until),
        (("compensate", "inputs"), undo),
    )
    for path, template in templates:
        for reference in () if template is None else template.references:
            text = _nowhere(plan, reference, outputs)
            if text:
                yield path, text
        for begun in () if template is None else template.unclosed():
            yield path, _unclosed(begun)


def _unclosed(begun: str) -> str:
    return f"'{begun.strip()}' is a template without an end: close it with '}}}}'"


def _faulty_list(plan: Plan, node: NodePlan, outputs: Outputs) -> Iterator[tuple[_Path, str]]:
    spec = node.spec
    if isinstance(spec.for_each, str) and node.for_each is not None:
        text = _no_list(plan, node.for_each, outputs)
        if text:
            yield ("forEach",), text
    elif isinstance(spec.for_each, list) and spec.approval is None:  # who is asked may change it
        for text in _lacking(node.inputs, spec.for_each):
            yield ("inputs",), text


def _may_be_left_out(plan: Plan, node: NodePlan) -> bool:
    """Whether a run can go well without this node: by a condition of it, or of one before it."""
    before = (plan.nodes[name].spec for name in node.ancestors)
    return node.spec.for_each is not None or any(map(_has_condition, (node.spec, *before)))


def _has_condition(spec: NodeSpec) -> bool:
    return spec.when is not None or spec.run_if == "anyFailed"


def _of_handler(plan: Plan, reference: Reference) -> str:
    """Why the output of a run that has succeeded cannot have what is done where it has not."""
    if reference.node is None or not plan.nodes[reference.node].handler:
        return ""
    return (
        f"'{{{{ {reference.text} }}}}' refers to {reference.node!r}, a node of onFailure: a run"
        " that has an output never comes to it"
    )


def _no_list(plan: Plan, template: Template, outputs: Outputs) -> str:
    """Why a text, or what it refers to, is no list."""
    if template.reference is None:
        return "a text is no list: write a list, or one template that gives one"
    shape = _shape(plan, template.reference, outputs)
    if shape in (_Kind.ANYTHING, _Kind.LIST) or isinstance(shape, str):
        return ""
    return f"'{{{{ {template.reference.text} }}}}' gives no list"


def _lacking(inputs: Template, items: list[Any]) -> Iterator[str]:
    """For each reference to a part of the item: the first constant item that has no such part."""
    for reference in inputs.references:
        if reference.path[0] != "item":
            continue
        for number, item in enumerate(items):
            if Template(item).references:
                continue
            try:
                follow(item, reference, 1)
            except TemplateError as error:
                yield f"item {number}: {error}"
                break


def _nowhere(plan: Plan, reference: Reference, outputs: Outputs) -> str:
    shape = _shape(plan, reference, outputs)
    return shape if isinstance(shape, str) else ""


def _shape(plan: Plan, reference: Reference, outputs: Outputs) -> _Shape | str:
    """What the reference gives, as far as that is known; a sentence where it leads nowhere."""
    path = reference.path
    of_node = path[0] == "nodes"
    shape = _part_of_node(plan, path, outputs) if of_node else _ROOTS[path[0]]
    for depth in range(3 if of_node else 1, len(path)):
        shape = shape.opened() if isinstance(shape, _Described) else shape
        step = path[depth]
        before = ".".join(path[:depth])
        nowhere = f"'{{{{ {reference.text} }}}}' points nowhere: {before}"
        if shape is _Kind.LIST and not step.isdigit():
            return f"{nowhere} is a list, which has places, not {step!r}"
        if shape is _Kind.VALUE:
            return f"{nowhere} has no parts"
        if isinstance(shape, Mapping):
            if step not in shape:
                return f"{nowhere} has {', '.join(shape)}, not {step!r}"
            shape = shape[step]
        else:
            shape = _Kind.ANYTHING
    return shape.opened() if isinstance(shape, _Described) else shape


def _part_of_node(plan: Plan, path: tuple[str, ...], outputs: Outputs) -> _Shape:
    if path[2] != "output":
        return _Kind.VALUE if path[2] == "status" else _FAILURE
    spec = plan.nodes[path[1]].spec
    if spec.for_each is not None:
        return _Kind.LIST
    if spec.wait_for_event is not None:
        return _EVENT
    if spec.delay is not None or spec.delay_until is not None:
        return _Kind.VALUE
    if spec.agent is not None and spec.action is not None:
        schema = outputs(spec.agent, spec.action)
        return _Kind.ANYTHING if schema is None else _Described(schema, schema)
    return _Kind.ANYTHING

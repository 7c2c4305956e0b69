"""Whether a workflow can use an action as it does: by the JSON Schema of its inputs, and its risk.

Rules:
- Constant values are held against the schema. What a template makes is known only when the run
  does, and what a reference names only where it is fetched, so a fault that may be one of such is
  none here.
- The schema comes from an agent. One that means nothing, or refers to elsewhere, is passed over:
  nothing is fetched.
- Nobody is asked whether to undo something, so what people have to agree to undoes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from streams.errors import Problem
from streams.payload import reference_in

Schema = Mapping[str, Any]


class KnownAction(NamedTuple):
    """What is known of an action: inputs and output, if it says so, and whether it is risky."""

    inputs: Schema | None = None
    asks_first: bool = False
    """People have to agree before it is done."""
    output: Schema | None = None


def known_actions(described: Iterable[Mapping[str, Any]]) -> dict[str, KnownAction]:
    """The actions of an agent's descriptor, by name."""
    return {
        each["name"]: KnownAction(
            _schema(each, "inputSchema"),
            each.get("risk") == "APPROVAL_REQUIRED",
            _schema(each, "outputSchema"),
        )
        for each in described
    }


def _schema(described: Mapping[str, Any], name: str) -> Schema | None:
    found = described.get(name)
    return found if isinstance(found, dict) else None


_BY_KEYS_ALONE: Final = frozenset({"required", "additionalProperties"})
"""What these say of an object is true whatever its values are."""

_DEPENDS_ON_VALUES: Final = frozenset({"if", "then", "else", "dependentSchemas"})
_TEXT_LIMIT: Final = 200


def use_problems(
    agent: str, action: str, inputs: Mapping[str, Any], known: KnownAction, *, undoes: bool
) -> Iterator[Problem]:
    """The faults of a node that uses the action, or of what `undoes` a node by it."""
    if undoes and known.asks_first:
        text = (
            f"{action!r} of {agent!r} is done only where people agree, and nobody is asked whether"
            " to undo: name an action without that risk"
        )
        yield Problem(("action",), text)
    yield from input_problems(agent, action, inputs, known.inputs or {})


def input_problems(
    agent: str, action: str, inputs: Mapping[str, Any], schema: Schema
) -> Iterator[Problem]:
    """The faults of inputs as they are given; paths begin with `inputs`."""
    try:
        Draft202012Validator.check_schema(schema)
        # A registry of our own: that of the library fetches what it does not know.
        validator = Draft202012Validator(schema, registry=Registry())
        found = [error for error in validator.iter_errors(inputs) if _is_certain(error)]
    except (SchemaError, Unresolvable, RecursionError):
        return
    for error in sorted(found, key=lambda error: [str(part) for part in error.absolute_path]):
        path = ("inputs", *error.absolute_path)
        yield Problem(path, f"{action!r} of {agent!r} does not take these inputs: {_text(error)}")


def _is_certain(error: ValidationError) -> bool:
    if not _is_open(error.instance):
        return True
    if reference_in(error.instance) is not None:
        return False
    return error.validator in _BY_KEYS_ALONE and not _DEPENDS_ON_VALUES & set(error.schema_path)


def _is_open(value: Any) -> bool:
    """Whether the value, or a part of it, is known only later."""
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, Mapping):
        return reference_in(value) is not None or any(map(_is_open, value.values()))
    return isinstance(value, list) and any(map(_is_open, value))


def _text(error: ValidationError) -> str:
    text = error.message
    return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}…"

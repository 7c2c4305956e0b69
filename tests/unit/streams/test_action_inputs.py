"""What can be told of a node's inputs before any run: by the schema of the action."""

from typing import Any

import pytest

from streams.action_inputs import input_problems

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["path"],
    "properties": {
        "path": {"type": "string", "minLength": 3},
        "depth": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "mode": {"anyOf": [{"type": "integer"}, {"enum": ["all"]}]},
    },
}


def found(inputs: dict[str, Any], schema: Any = SCHEMA) -> list[tuple[str, str]]:
    problems = list(input_problems("scanner", "scan", inputs, schema))
    said = "'scan' of 'scanner' does not take these inputs: "
    assert all(problem.message.startswith(said) for problem in problems)
    return [(".".join(map(str, p.path)), p.message.removeprefix(said)) for p in problems]


@pytest.mark.parametrize(
    ("inputs", "where", "what"),
    [
        ({}, "inputs", "'path' is a required property"),
        ({"path": 3}, "inputs.path", "3 is not of type 'string'"),
        ({"path": "/x/y", "tags": ["a", 1]}, "inputs.tags.1", "1 is not of type 'string'"),
        ({"path": "/x/y", "mode": "some"}, "inputs.mode", "not valid under any"),
        # What the keys alone say is certain, whatever the templates make.
        ({"path": "{{ context.p }}", "deep": 1}, "inputs", "'deep' was unexpected"),
        ({"depth": "{{ context.d }}"}, "inputs", "'path' is a required property"),
    ],
)
def test_what_is_wrong_for_certain_is_told(inputs: Any, where: str, what: str) -> None:
    [(path, message)] = found(inputs)
    assert path == where
    assert what in message


@pytest.mark.parametrize(
    "inputs",
    [
        {"path": "/x/y", "depth": 3, "tags": ["a"], "mode": "all"},
        {"path": "{{ context.p }}", "depth": "{{ context.d }}"},
        {"path": "{{ a }}", "mode": "{{ context.mode }}", "tags": ["{{ a }}", "b", "c"]},
    ],
)
def test_what_a_template_makes_is_not_known_yet(inputs: Any) -> None:
    assert found(inputs) == []


def test_what_depends_on_a_value_is_not_certain() -> None:
    schema = {"if": {"properties": {"kind": {"const": "a"}}}, "else": {"required": ["more"]}}
    assert found({"kind": "{{ context.kind }}"}, schema) == []
    assert found({"kind": "b"}, schema) == [("inputs", "'more' is a required property")]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 3},
        {"$ref": "#/$defs/nothing"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$defs": {"x": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"},
    ],
)
def test_a_schema_that_cannot_be_used_refuses_nothing(schema: Any) -> None:
    assert found({"path": 3}, schema) == []


def test_a_long_value_is_cut() -> None:
    [(_, message)] = found({"path": ["x" * 1_000]})
    assert len(message) < 300

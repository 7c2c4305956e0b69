"""docs/workflows.md and the examples belong together."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from streams.plan import parse
from streams.workflow import WorkflowSpec

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "workflows"
GUIDE = (ROOT / "docs" / "workflows.md").read_text()


def test_the_guide_names_every_example_and_no_other() -> None:
    named = set(re.findall(r"\b([a-z]+(?:-[a-z]+)*\.yaml)\b", GUIDE))
    there = {file.name for file in EXAMPLES.glob("*.yaml")}
    assert there - named == {"alert-notification.yaml"}
    assert named <= there


def test_every_example_is_a_workflow_called_as_its_file() -> None:
    for file in EXAMPLES.glob("*.yaml"):
        assert parse(yaml.safe_load(file.read_text())).spec.name == file.stem


CHOSEN_BY_SAYING_NOTHING = {"runIf: allSuccess", "onFailure: fail", "itemFailure: finish"}
NOT_OF_THIS_GUIDE = {"project", "tags"}


def test_every_field_and_every_choice_is_in_an_example() -> None:
    shown = set()
    for file in EXAMPLES.glob("*.yaml"):
        shown |= set(said_in(yaml.safe_load(file.read_text())))
    schema = WorkflowSpec.model_json_schema(by_alias=True)
    there = set()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            there.add(name)
            there |= {f"{name}: {choice}" for choice in field.get("enum", ())}
    assert len(there) > 40
    assert there - shown - NOT_OF_THIS_GUIDE == CHOSEN_BY_SAYING_NOTHING


def said_in(value: Any) -> Iterator[str]:
    """Each field of a definition by its name, and with its value where that is a word."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            if isinstance(inner, str):
                yield f"{name}: {inner}"
            yield from said_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from said_in(inner)

"""docs/workflows.md and the examples belong together."""

import re
from pathlib import Path

import yaml

from streams.plan import parse

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

"""The guide's examples work: every Python block of docs/agents.md is run, and its tests are."""

import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "agents.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)


def names_of_tests() -> list[str]:
    return re.findall(r"^async def (test_\w+)\(", "\n".join(blocks()), flags=re.MULTILINE)


def test_the_guide_has_the_examples_that_are_looked_for() -> None:
    assert len(blocks()) >= 5
    assert len(names_of_tests()) >= 2


@pytest.mark.parametrize("name", names_of_tests())
async def test_an_example(name: str) -> None:
    examples: dict[str, Any] = {"pytest": pytest, "__name__": "examples"}
    for block in blocks():
        exec(compile(block, str(GUIDE), "exec"), examples)
    await examples[name]()


async def test_the_risky_action_is_tested_without_asking() -> None:
    examples: dict[str, Any] = {"__name__": "examples"}
    for block in blocks():
        exec(compile(block, str(GUIDE), "exec"), examples)
    assert (await examples["remove"].test({"path": "/tmp/x"})).files == 0
    assert examples["cleaner"].descriptor()["actions"][0]["risk"] == "APPROVAL_REQUIRED"

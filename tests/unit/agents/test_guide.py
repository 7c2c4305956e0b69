"""The guide's examples work: its Python blocks are files, as their first lines say, and are run."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from agents.testing import run_workflow

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "agents.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


FILES = {found[1]: block for block in blocks(GUIDE) if (found := re.match(r"# (\w+)\.py\n", block))}
TESTS = [
    (file, test)
    for file, block in FILES.items()
    for test in re.findall(r"^async def (test_\w+)\(", block, flags=re.MULTILINE)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a reader keeps the files, from which Python imports."""
    for name, block in FILES.items():
        (tmp_path / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name, None)


def test_every_example_is_a_file_and_there_are_tests() -> None:
    assert len(FILES) == len(blocks(GUIDE)) >= 8
    assert len(TESTS) >= 5


@pytest.mark.parametrize(("file", "test"), TESTS)
@pytest.mark.usefixtures("folder")
async def test_an_example(file: str, test: str) -> None:
    await getattr(import_module(file), test)()


@pytest.mark.usefixtures("folder")
async def test_the_risky_action_is_tested_without_asking() -> None:
    cleaner: Any = import_module("cleaner")
    assert (await cleaner.remove.test({"path": "/tmp/x"})).files == 0
    assert cleaner.cleaner.descriptor()["actions"][0]["risk"] == "APPROVAL_REQUIRED"


async def test_the_agent_and_the_workflow_of_the_readme(folder: Path) -> None:
    (code,), (workflow,) = blocks(README), blocks(README, "yaml")
    (folder / "word_counter.py").write_text(code)
    (folder / "word_count.yaml").write_text(workflow)
    counter = import_module("word_counter").counter
    text = {"text": "to be or not to be"}
    result = await run_workflow(folder / "word_count.yaml", [counter], text)
    assert result.outputs == {"count": {"words": 6}}

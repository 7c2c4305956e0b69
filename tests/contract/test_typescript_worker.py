"""The example worker in TypeScript, as it is read."""

import subprocess
from pathlib import Path

import node
import pytest

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "typescript-worker"


@pytest.mark.parametrize("folder", [EXAMPLE, HERE], ids=lambda folder: folder.name)
def test_its_types_are_right(folder: Path) -> None:
    node.install(EXAMPLE)
    compiler = str(EXAMPLE / "node_modules" / "typescript" / "bin" / "tsc")
    command = [node.NODE, compiler, "-p", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_it_is_short_and_names_no_registry() -> None:
    lines = (EXAMPLE / "worker.ts").read_text().splitlines()
    assert len(lines) < 150
    assert max(map(len, lines)) <= 120
    for lock in (EXAMPLE / "package-lock.json", HERE / "package-lock.json"):
        assert "resolved" not in lock.read_text()

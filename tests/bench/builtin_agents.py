"""What the built-in agents that look at repositories are worth, and what they take.

Recall and precision of the scanners on the folders of tests/fixtures/planted, compared with bandit
alone and with semgrep and our rules alone. (semgrep's own rules are in a registry on the network,
so they are not compared with.) Then files per second and memory of each agent on this repository,
in the sandbox, one after the other.

    python tests/bench/builtin_agents.py [--json]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from agents import Action, Context
from agents.architecture_diagrammer import diagram
from agents.code_reviewer import review
from agents.compliance_checker import check
from agents.patcher import apply
from agents.readable import ReadablePaths
from agents.sandbox import Call, Job, Limits, ProcessSandbox
from agents.sandbox.actions import ContextAttendant, target
from agents.sandbox.actions import check as checked
from agents.security_scanner import scan

ROOT = Path(__file__).parents[2]
PLANTED = ROOT / "tests" / "fixtures" / "planted"
LANGUAGES = ("python", "javascript", "java", "go")

ALONE = """
import json, os, sys
from pathlib import Path
from agents.scanning import patterns, python_code
from agents.scanning.secrets import Secrets, prepared
from agents.repository.source_tree import SourceTree
tree = SourceTree(Path(sys.argv[2]))
os.chdir(tree.root)
tool = {"bandit": python_code, "semgrep": patterns}[sys.argv[1]]
with prepared():
    print(json.dumps([(it.file, it.line, it.type) for it in tool.found(tree, Secrets(tree))]))
"""

Place = tuple[str, int, str]


class Score(NamedTuple):
    """How what was found compares with what is planted."""

    planted: int
    found: int
    right: int

    @property
    def recall(self) -> float:
        return self.right / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    def __add__(self, other: "Score") -> "Score":  # type: ignore[override]  # a sum, not a longer tuple
        return Score(*(one + another for one, another in zip(self, other, strict=True)))


def planted(language: str) -> set[Place]:
    rows = yaml.safe_load((PLANTED / language / "expected.yaml").read_text())
    return {(row["file"], row["line"], row["type"]) for row in rows}


def score(expected: set[Place], found: Iterable[Place]) -> Score:
    """Two findings of a type on one line are one."""
    places = set(found)
    return Score(len(expected), len(places), len(places & expected))


async def ours(language: str, floor: str) -> set[Place]:
    output = await scan.test(
        {"repositoryPath": str(PLANTED / language), "severityFloor": floor, "maxFindings": 2000}
    )
    return {(it.file, it.line, it.type) for it in output.findings}


def alone(tool: str, language: str) -> set[Place]:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tool, str(PLANTED / language)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {(file, line, kind) for file, line, kind in json.loads(done.stdout)}


async def scores() -> dict[str, dict[str, Score]]:
    found: dict[str, dict[str, Score]] = {}
    for language in LANGUAGES:
        expected = planted(language)
        found[language] = {
            "scan": score(expected, await ours(language, "low")),
            "scan, medium and up": score(expected, await ours(language, "medium")),
            "bandit alone": score(expected, alone("bandit", language)),
            "semgrep with our rules": score(expected, alone("semgrep", language)),
        }
    return found


WORK: tuple[tuple[str, Action[Any, Any], dict[str, Any]], ...] = (
    ("security-scanner, secrets", scan, {"scanType": "secrets"}),
    ("security-scanner, sql-injection", scan, {"scanType": "sql-injection"}),
    ("security-scanner, dependencies", scan, {"scanType": "dependencies"}),
    ("security-scanner, all", scan, {"scanType": "all"}),
    ("compliance-checker, all", check, {}),
    ("code-reviewer, all", review, {}),
    ("code-reviewer, of one commit", review, {"baseRevision": "HEAD~1"}),
    ("architecture-diagrammer", diagram, {}),
)


async def speed() -> list[dict[str, Any]]:
    actions = [action for _, action, _ in WORK]
    preload = {module for action in actions for module in action.preload}
    async with ProcessSandbox(dict.fromkeys(checked(actions)), preload=preload) as sandbox:
        rows = [await measured(sandbox, *each) for each in WORK]
    return [*rows, await patched()]


async def measured(
    sandbox: ProcessSandbox, name: str, action: Action[Any, Any], more: dict[str, Any]
) -> dict[str, Any]:
    inputs = action.input.model_validate({"repositoryPath": str(ROOT), **more})
    outcome = await sandbox.run(
        Job(
            work=Call(target=target(action), inputs=inputs.model_dump_json(by_alias=True).encode()),
            limits=Limits(memory=action.memory, wall=600),
            readable=ReadablePaths().of(inputs),
        ),
        ContextAttendant(Context()),
    )
    assert outcome.output is not None, outcome.failure
    output = json.loads(outcome.output)
    names = ("scannedFiles", "checkedFiles", "reviewedFiles")
    files = next(output[each] for each in names if each in output)
    return row(name, files, outcome.wall, outcome.memory)


async def patched() -> dict[str, Any]:
    """A text looked for in every file, in this process: the patcher is not sandboxed."""
    only_once = "commandcenter = " + '"infra.cli:main"'
    change = {"kind": "replace", "find": only_once, "replace": "x", "expectedCount": 1}
    inputs = {
        "patchType": "simple-refactor",
        "target": {"repositoryPath": str(ROOT)},
        "changes": [change],
        "dryRun": True,
    }
    began = time.perf_counter()
    await apply.test(inputs)
    seconds = time.perf_counter() - began
    return row("patcher, a text replaced", tracked(), seconds, None)


def tracked() -> int:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    return len(listed.stdout.splitlines())


def row(name: str, files: int, seconds: float, memory: int | None) -> dict[str, Any]:
    return {
        "work": name,
        "files": files,
        "seconds": round(seconds, 2),
        "files_per_second": round(files / seconds, 1),
        "most_mb": None if memory is None else round(memory / 1e6),
    }


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    as_json = arguments.parse_args().json
    found = await scores()
    measurements = await speed()
    if as_json:
        print(
            json.dumps(
                {
                    "scores": {
                        language: {
                            tool: {
                                **it._asdict(),
                                "recall": round(it.recall, 3),
                                "precision": round(it.precision, 3),
                            }
                            for tool, it in tools.items()
                        }
                        for language, tools in found.items()
                    },
                    "speed": measurements,
                },
                indent=2,
            )
        )
        return
    print(f"{'language':<12}{'tool':<26}{'planted':>8}{'found':>8}{'right':>8}", end="")
    print(f"{'recall':>9}{'precision':>11}")
    totals: dict[str, Score] = {}
    for language, tools in found.items():
        for tool, it in tools.items():
            totals[tool] = totals.get(tool, Score(0, 0, 0)) + it
            print(line(language, tool, it))
    for tool, it in totals.items():
        print(line("all", tool, it))
    print(f"\nOn this repository:\n{'work':<34}{'files':>6}{'s':>8}{'files/s':>9}{'MB':>6}")
    for each in measurements:
        memory = "" if each["most_mb"] is None else each["most_mb"]
        print(
            f"{each['work']:<34}{each['files']:>6}{each['seconds']:>8}"
            f"{each['files_per_second']:>9}{memory:>6}"
        )


def line(language: str, tool: str, it: Score) -> str:
    return (
        f"{language:<12}{tool:<26}{it.planted:>8}{it.found:>8}{it.right:>8}"
        f"{it.recall:>9.0%}{it.precision:>11.0%}"
    )


if __name__ == "__main__":
    asyncio.run(main())

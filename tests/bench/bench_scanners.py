"""What the scanners find of what is planted, and how fast: recall, precision, files per second.

On the folders of tests/fixtures/planted, compared with bandit alone and with semgrep and our rules
alone. (semgrep's own rules are in a registry on the network, so they are not compared with.)

    python tests/bench/bench_scanners.py [--json]
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from agents.compliance_checker import check
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


def memory_mb() -> float:
    """The most that any process used that has ended, of those started here."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


async def speed() -> list[dict[str, Any]]:
    rows = []
    for name, action, inputs in (
        ("security-scanner, secrets", scan, {"scanType": "secrets"}),
        ("security-scanner, sql-injection", scan, {"scanType": "sql-injection"}),
        ("security-scanner, dependencies", scan, {"scanType": "dependencies"}),
        ("security-scanner, all", scan, {"scanType": "all"}),
        ("compliance-checker, all", check, {}),
    ):
        began = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        output = await action.test({"repositoryPath": str(ROOT), **inputs})
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        files = getattr(output, "scanned_files", None) or getattr(output, "checked_files", 0)
        rows.append(
            {
                "work": name,
                "files": files,
                "seconds": round(seconds, 2),
                "cpu_seconds": round(
                    after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2
                ),
                "files_per_second": round(files / seconds, 1),
                "most_mb_so_far": round(memory_mb()),
            }
        )
    return rows


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    as_json = arguments.parse_args().json
    found = await scores()
    measured = await speed()
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
                    "speed": measured,
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
    print(f"\nOn this repository:\n{'work':<34}{'files':>6}{'s':>8}{'CPU s':>8}", end="")
    print(f"{'files/s':>9}{'peak MB':>9}")
    for row in measured:
        print(
            f"{row['work']:<34}{row['files']:>6}{row['seconds']:>8}{row['cpu_seconds']:>8}"
            f"{row['files_per_second']:>9}{row['most_mb_so_far']:>9}"
        )


def line(language: str, tool: str, it: Score) -> str:
    return (
        f"{language:<12}{tool:<26}{it.planted:>8}{it.found:>8}{it.right:>8}"
        f"{it.recall:>9.0%}{it.precision:>11.0%}"
    )


if __name__ == "__main__":
    asyncio.run(main())

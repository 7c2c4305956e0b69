"""The security scanner on code that others wrote and labelled: a checkout of the OWASP Benchmark.

Each of its test cases is a file that is said to have one kind of problem, or only to look like it.
What counts is whether that kind is found in the file. Compared with bandit alone (Python) and with
semgrep and our rules alone. The code is under the GPL and not part of this repository:

    git clone --depth 1 https://github.com/OWASP-Benchmark/BenchmarkJava
    python tests/bench/owasp_benchmark.py BenchmarkJava/src/main/java BenchmarkJava/expected*.csv
"""

import argparse
import csv
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from builtin_agents import ALONE

TYPES: Final = {
    "cmdi": "command-injection",
    "codeinj": "code-injection",
    "crypto": "weak-cryptography",
    "deserialization": "insecure-deserialization",
    "hash": "weak-cryptography",
    "pathtraver": "path-traversal",
    "redirect": "open-redirect",
    "securecookie": "insecure-transport",
    "sqli": "sql-injection",
    "weakrand": "weak-cryptography",
    "xss": "xss",
    "xxe": "xxe",
}
"""What the scanner calls a category; it knows no others (LDAP, XPath, trust boundaries)."""

TOOLS: Final = ("scan", "bandit", "semgrep")


class Case(NamedTuple):
    """A test case."""

    name: str
    category: str
    is_real: bool


class Score(NamedTuple):
    """How many of the real problems were found, and of those that only look like it."""

    real: int
    found: int
    harmless: int
    wrong: int

    def row(self) -> str:
        recall = self.found / self.real if self.real else 1.0
        alarms = self.wrong / self.harmless if self.harmless else 0.0
        right = self.found / (self.found + self.wrong) if self.found + self.wrong else 1.0
        return (
            f"{self.real:>5}{self.found:>6}{self.harmless:>9}{self.wrong:>6}"
            f"{recall:>8.0%}{alarms:>8.0%}{right:>10.0%}"
        )


def cases(expected: Path) -> list[Case]:
    with expected.open(newline="") as stream:
        rows = [row for row in csv.reader(stream) if row and not row[0].startswith("#")]
    return [Case(row[0], row[1], row[2] == "true") for row in rows]


def found(tool: str, folder: Path) -> set[tuple[str, str]]:
    """(test case, type) of what the tool finds."""
    if tool == "scan":
        return {
            it
            for each in ("bandit", "semgrep")
            if each == "semgrep" or any(folder.rglob("*.py"))
            for it in found(each, folder)
        }
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tool, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {(Path(file).stem, kind) for file, _, kind in json.loads(done.stdout)}


def scored(given: Iterable[Case], places: set[tuple[str, str]]) -> Score:
    real = [it for it in given if it.is_real]
    harmless = [it for it in given if not it.is_real]
    hits = [
        [(it.name, TYPES.get(it.category)) in places for it in some] for some in (real, harmless)
    ]
    return Score(len(real), sum(hits[0]), len(harmless), sum(hits[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("expected", type=Path)
    arguments = parser.parse_args()
    everything = cases(arguments.expected)
    by_category = defaultdict(list)
    for case in everything:
        by_category[case.category].append(case)
    for tool in TOOLS:
        if tool == "bandit" and not any(arguments.folder.rglob("*.py")):
            continue
        places = found(tool, arguments.folder.resolve())
        print(f"\n{tool:<16} real found harmless wrong  recall  alarms precision")
        for category, some in sorted(by_category.items()):
            print(f"{category:<16}{scored(some, places).row()}")
        known = [it for it in everything if it.category in TYPES]
        print(f"{'known kinds':<16}{scored(known, places).row()}")
        print(f"{'all':<16}{scored(everything, places).row()}")


if __name__ == "__main__":
    main()

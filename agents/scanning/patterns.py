"""Insecure code in several languages, by semgrep with the rules in `rules/`.

Only the program of the semgrep wheel is run, once for a thousand files of a language. It starts in
a tenth of a second and asks nobody on the network. It gets the rules as JSON: their YAML says what
several rules share once, with anchors, which semgrep does not read.
"""

import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from agents.repository.source_tree import SourceTree
from agents.scanning.found import Found, type_of
from agents.scanning.secrets import Secrets
from streams.errors import AgentError

RULES: Final = Path(__file__).with_name("rules")
INSTALL: Final = "install its program with: pip install --no-deps semgrep"
_LANGUAGES: Final = {
    "python": (".py",),
    "javascript": (".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts"),
    "java": (".java",),
    "go": (".go",),
    "templates": (".html", ".htm", ".jinja", ".jinja2", ".j2"),
}
_AT_ONCE: Final = 1_000
_NAMES_BYTES: Final = 500_000  # what a command may hold is two million on Linux, less elsewhere
_OPTIONS: Final = (
    "--experimental", "--json", "--quiet", "--metrics=off", "--disable-version-check",
    "--no-rewrite-rule-ids", "--no-git-ignore", "--novcs", "--x-ignore-semgrepignore-files",
    "--jobs=2", "--timeout=10", "--max-memory=2000",
)  # fmt: skip


class MissingProgramError(Exception):
    """semgrep is not installed; the text says how to mend that."""


class SemgrepFailedError(AgentError):
    """semgrep ended without an answer; the text is what it said."""


def found(tree: SourceTree, secrets: Secrets, pack: str = "code") -> Iterator[Found]:
    """What the rules of a pack find; files that semgrep cannot parse become warnings of the tree.

    Raises `MissingProgramError` where there is something to look at, and `SemgrepFailedError`.
    """
    for language, suffixes in _LANGUAGES.items():
        rules = RULES / pack / f"{language}.yaml"
        files = [file for file, _ in tree.each_text(lambda it, of=suffixes: it.endswith(of))]  # type: ignore[misc]  # mypy does not infer a lambda's default
        if not (rules.exists() and files):
            continue
        program = _program()
        plain = json.dumps(yaml.safe_load(rules.read_text()))
        for batch in _batches(files):
            answer = _run(program, plain, batch)
            tree.warnings.extend(_warnings(answer["errors"]))
            for result in answer["results"]:
                yield _found(tree, secrets, result)


def _batches(files: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for file in files:
        length = len(file.encode()) + 3
        if batch and (len(batch) == _AT_ONCE or size + length > _NAMES_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += length
    if batch:
        yield batch


def _program() -> Path:
    installed = importlib.util.find_spec("semgrep")
    if installed is not None and installed.origin is not None:
        program = Path(installed.origin).parent / "bin" / "semgrep-core"
        if program.exists():
            return program
    elsewhere = shutil.which("semgrep-core") or shutil.which("osemgrep")
    if elsewhere is None:
        raise MissingProgramError(f"semgrep is not installed; {INSTALL}")
    return Path(elsewhere)


def _run(program: Path, rules: str, files: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="semgrep-") as home:
        config = Path(home) / "rules.json"
        config.write_text(rules)
        # It is called by this name: the program then speaks as the command line does.
        command = ["osemgrep", "scan", *_OPTIONS, f"--config={config}", "--"]
        command += (f"./{file}" for file in files)
        done = subprocess.run(
            command,
            executable=program,
            env={"HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SemgrepFailedError(
            f"semgrep ended with status {done.returncode}: {said[0] if said else 'no message'}"
        ) from None
    return answer


def _warnings(errors: list[dict[str, Any]]) -> Iterator[str]:
    told: set[str] = set()
    for error in errors:
        place = error.get("path") or error.get("rule_id") or "semgrep"
        kind = error.get("type", "error")
        kind = kind[0] if isinstance(kind, list) else kind
        warning = f"{str(place).removeprefix('./')}: semgrep could not read all of it ({kind})"
        if warning not in told:
            told.add(warning)
            yield warning


def _found(tree: SourceTree, secrets: Secrets, result: dict[str, Any]) -> Found:
    file = result["path"].removeprefix("./")
    line = result["start"]["line"]
    about = result["extra"]["metadata"]
    cwe = int(about["cwe"])
    return Found(
        type=about.get("type") or type_of(cwe),
        rule=f"semgrep.{result['check_id']}",
        severity=about["severity"],
        confidence=about["confidence"],
        file=file,
        line=line,
        description=" ".join(result["extra"]["message"].split()),
        code=secrets.shown(file, line),
        cwe=f"CWE-{cwe}",
        identity=" ".join(tree.line(file, line).split()),
        lines=frozenset(range(line, result["end"]["line"] + 1)),
        remediation=about.get("remediation", ""),
        is_strict=about.get("strict", False),
    )

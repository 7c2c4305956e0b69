"""The process that reads the source files for one scan of `agents/security_scanner.py`.

It is started as a script: one JSON line on stdin, `{"path", "scanType"}`, is answered by one on
stdout, `{"findings", "scannedFiles", "skippedFiles", "warnings"}` or `{"error"}`. It ends when
stdin does, so it never outlives a killed worker.

Rules:
- No secret leaves it: a line of code is cut where the first known secret begins, and where that
  place is not known, nothing of the line is shown.
- What a repository says about itself is not trusted: git runs none of its hooks, no symbolic link
  is followed.
"""

import json
import logging
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

MAX_FILE_BYTES: Final = 1_000_000
SKIPPED_FOLDERS: Final = frozenset({
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox",
    ".mypy_cache", ".ruff_cache", ".pytest_cache",
})  # fmt: skip
MAX_WARNINGS: Final = 50
MAX_CODE_LENGTH: Final = 160
MASK: Final = "****"

# A detector that knows its provider is believed; one that goes by names or looks, less.
_GENERIC_DETECTORS: Final = {
    "Secret Keyword": "high",
    "Basic Auth Credentials": "high",
    "JSON Web Token": "medium",
    "Base64 High Entropy String": "medium",
    "Hex High Entropy String": "medium",
}
# A long hexadecimal number on a line with one of these words is a checksum, as in lock files.
_CHECKSUM: Final = re.compile(r"sha-?(1|256|384|512)|md5|checksum|digest|integrity", re.IGNORECASE)
_PASSWORD_TESTS: Final = frozenset({"B105", "B106", "B107"})
_GIT_LIST: Final = (
    "git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
    "ls-files", "-z", "--cached", "--others", "--exclude-standard",
)  # fmt: skip
_CODE: Final = frozenset({
    ".py", ".pyi", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".java", ".go", ".c", ".h", ".cc",
    ".cpp", ".hpp", ".cs", ".rs", ".rb", ".php", ".swift",
})  # fmt: skip


class UnusableFolderError(Exception):
    """The folder cannot be scanned; the text names it and says why."""


class Secret(NamedTuple):
    """A detected secret. `value` must not leave the process."""

    line: int
    detector: str
    value: str


class Source(NamedTuple):
    """A readable text file: its path relative to the folder, with '/', and its lines."""

    file: str
    lines: list[str]

    def shown(self, line: int, secrets: list[Secret]) -> str:
        """Line `line` (from 1) as it may be printed: cut where the first secret begins."""
        if not 1 <= line <= len(self.lines):
            return ""
        text = self.lines[line - 1].strip()
        for value in {secret.value for secret in secrets if secret.line == line}:
            if value not in text:  # a parser changed its spelling, so it cannot be found
                return MASK
        for value in {secret.value for secret in secrets}:
            before, found, _ = text.partition(value)
            if found:
                text = before + MASK
        return text if len(text) <= MAX_CODE_LENGTH else text[: MAX_CODE_LENGTH - 1] + "…"


def scan(path: str, scan_type: str) -> dict[str, Any]:
    """The answer for the folder at `path`. Raises `UnusableFolderError`."""
    root = Path(path).absolute()
    files = _listed(root)
    os.chdir(root)  # both scanners judge by the name they are given: a relative one
    warnings: list[str] = []
    sources: list[Source] = []
    skipped = 0
    for file in files:
        if scan_type == "python" and not file.endswith(".py"):
            continue
        lines = _text_lines(file)
        if lines is None:
            skipped += 1
        else:
            sources.append(Source(file, lines))
    findings: list[dict[str, Any]] = []
    secrets: dict[str, list[Secret]] = {}
    from detect_secrets.settings import transient_settings  # its import is slow: only here

    with transient_settings({"plugins_used": _detectors()}):
        if scan_type != "python":
            for source in sources:
                secrets[source.file] = _secrets(source)
                findings.extend(_secret_findings(source, secrets[source.file]))
        if scan_type != "secrets":
            by_file = {source.file: source for source in sources}
            for issue in _bandit_issues(by_file, warnings):
                source = by_file[issue.fname]
                if source.file not in secrets:  # for redaction alone
                    secrets[source.file] = _secrets(source)
                known = secrets[source.file]
                is_reported = scan_type == "all" and any(it.line == issue.lineno for it in known)
                if not (is_reported and issue.test_id in _PASSWORD_TESTS):
                    findings.append(_bandit_finding(source, issue, known))
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS:] = [f"and {len(warnings) - MAX_WARNINGS} more"]
    return {
        "findings": findings,
        "scannedFiles": len(sources),
        "skippedFiles": skipped,
        "warnings": warnings,
    }


# --- which files ----------------------------------------------------------------------------------


def _listed(root: Path) -> list[str]:
    """The regular files to scan, relative to `root`, sorted."""
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            raise UnusableFolderError(f"{root} is not a folder")
        with os.scandir(root):
            pass
    except OSError as error:
        raise UnusableFolderError(f"{root} cannot be read: {error.strerror}") from error
    listed = _git_files(root)
    # A folder that the repository around it ignores has no files in git's eyes: walk it.
    if listed is None or (not listed and not (root / ".git").exists()):
        listed = list(_walked(root))
    return sorted(file for file in set(listed) if _is_wanted(root, file))


def _git_files(root: Path) -> list[str] | None:
    """What git tracks or would track below `root`; `None` where git cannot say."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            _GIT_LIST, cwd=root, env=environment, capture_output=True, check=False
        )
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        return None
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _walked(root: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        for name in files:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _is_wanted(root: Path, file: str) -> bool:
    if not SKIPPED_FOLDERS.isdisjoint(file.split("/")[:-1]):
        return False
    try:
        mode = os.lstat(root / file).st_mode
    except OSError:
        return False  # tracked by git, but deleted
    return stat.S_ISREG(mode)


def _text_lines(file: str) -> list[str] | None:
    """The lines of a UTF-8 text file; `None` for anything else, or where it is too large."""
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES or b"\0" in data:
            return None
        file.encode()  # a name that is not UTF-8 could not be reported
        return re.split("\r\n|\r|\n", data.decode())
    except (OSError, UnicodeError):
        return None


# --- secrets --------------------------------------------------------------------------------------


def _detectors() -> list[dict[str, str]]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    classes: Iterable[type] = get_mapping_from_secret_type_to_class().values()
    # A public IP address is no secret.
    return [{"name": it.__name__} for it in classes if it.__name__ != "IPPublicDetector"]


def _secrets(source: Source) -> list[Secret]:
    from detect_secrets.core.scan import scan_file

    if not _may_hold_secrets(source):
        return []
    return [
        Secret(found.line_number, found.type, found.secret_value)
        for found in scan_file(source.file)
        if found.secret_value and not _is_checksum(source, found.line_number, found.type)
    ]


def _is_checksum(source: Source, line: int, detector: str) -> bool:
    return (
        "High Entropy" in detector
        and line <= len(source.lines)
        and _CHECKSUM.search(source.lines[line - 1]) is not None
    )


def _may_hold_secrets(source: Source) -> bool:
    """Whether `scan_file` is worth its time, which is three times that of asking directly.

    Only for programming languages: other files it may also parse as configuration.
    """
    from detect_secrets.settings import get_plugins

    if Path(source.file).suffix not in _CODE:
        return True
    plugins = get_plugins()
    return any(
        plugin.analyze_line(filename=source.file, line=line)
        for line in source.lines
        for plugin in plugins
    )


def _secret_findings(source: Source, secrets: list[Secret]) -> Iterator[dict[str, Any]]:
    """One finding for each secret: of several detectors' views of it, the most specific."""
    taken: list[Secret] = []
    for secret in sorted(secrets, key=lambda it: (it.detector in _GENERIC_DETECTORS, it.line, it)):
        if any(
            it.line == secret.line and (it.value in secret.value or secret.value in it.value)
            for it in taken
        ):
            continue
        taken.append(secret)
        yield {
            "type": "secret." + re.sub(r"[^a-z0-9]+", "-", secret.detector.lower()).strip("-"),
            "severity": _GENERIC_DETECTORS.get(secret.detector, "critical"),
            "file": source.file,
            "line": secret.line,
            "description": f"Possible secret in the source: {secret.detector}",
            "code": source.shown(secret.line, secrets),
        }


# --- Python ---------------------------------------------------------------------------------------


def _bandit_issues(sources: dict[str, Source], warnings: list[str]) -> Iterator[Any]:
    from bandit.core.config import BanditConfig
    from bandit.core.manager import BanditManager

    manager = BanditManager(BanditConfig(), "file", quiet=True)
    manager.files_list = [file for file in sources if file.endswith(".py")]
    manager.run_tests()
    warnings.extend(f"{file}: {reason}" for file, reason in manager.get_skipped())
    for issue in manager.get_issue_list():
        if not (issue.test_id == "B101" and _is_test(issue.fname)):
            yield issue


def _is_test(file: str) -> bool:
    """Asserts are what tests are made of."""
    *folders, name = file.split("/")
    return (
        not {"test", "tests"}.isdisjoint(folders)
        or name.startswith("test_")
        or name.endswith("_test.py")
        or name == "conftest.py"
    )


def _bandit_finding(source: Source, issue: Any, secrets: list[Secret]) -> dict[str, Any]:
    description = issue.text
    code = source.shown(issue.lineno, secrets)
    if issue.test_id in _PASSWORD_TESTS:
        # bandit quotes the password in its text, and it may be none of the known secrets.
        description = description.partition(":")[0]
        code = re.split(r"['\"]", code)[0].removesuffix(MASK) + MASK
    return {
        "type": f"python.{issue.test_id}",
        "severity": issue.severity.lower(),
        "file": source.file,
        "line": issue.lineno,
        "description": description,
        "code": code,
    }


# --- the process ----------------------------------------------------------------------------------


def _end_with_stdin() -> None:
    # Not sys.stdin: a daemon thread that holds its lock breaks the interpreter's shutdown.
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Answer the question on stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints does not get into the answer
    logging.disable()  # bandit's complaints come back as warnings, or may quote the code
    with suppress(OSError):
        os.nice(5)  # the worker's loop goes first
    question = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        answer = scan(question["path"], question["scanType"])
    except UnusableFolderError as error:
        answer = {"error": str(error)}
    except ModuleNotFoundError as error:
        answer = {
            "error": f"{error.name} is not installed; install the extra: commandcenter[agents]"
        }
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()

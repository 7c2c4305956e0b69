"""Python judged by ruff: which of its rules, how severe, and how it is run.

The repository's own ruff settings are not read: a review says the same of every repository. `noqa`
in the code is honoured.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from agents.code_reviewer import IssueType, ReviewType
from agents.code_reviewer.remark import Remark
from agents.errors import PermanentError
from agents.finding import Severity
from streams.errors import AgentError

# The longest prefix that fits decides.
_TYPES: Final[tuple[tuple[str, IssueType, Severity], ...]] = (
    # Code from outside is run, or data is trusted: as bandit ranks them.
    *((code, "security", "high") for code in (
        "S102", "S103", "S201", "S202", "S301", "S302", "S306", "S307", "S308", "S323", "S501",
        "S502", "S504", "S505", "S506", "S507", "S508", "S509", "S602", "S604", "S605", "S608",
        "S611", "S612", "S701", "S702", "S704",
    )),
    *((code, "security", "low") for code in ("S101", "S110", "S112", "S311", "S606")),
    ("S", "security", "medium"),
    # A blocking call stops everybody in the loop.
    ("ASYNC", "performance", "high"),
    ("B019", "performance", "medium"),
    ("PERF402", "performance", "low"),
    ("PERF403", "performance", "low"),
    ("PERF", "performance", "medium"),
    ("C4", "performance", "low"),
    ("RUF015", "performance", "low"),
    ("FURB105", "quality", "low"),
    ("PLE", "quality", "high"),
    ("F821", "quality", "high"),
    ("F822", "quality", "high"),
    ("F811", "quality", "medium"),
    ("F4", "quality", "low"),
    ("F5", "quality", "medium"),
    ("F", "quality", "medium"),
    ("E9", "quality", "high"),
    ("E7", "quality", "low"),
    ("B", "quality", "medium"),
    ("BLE", "quality", "medium"),
    ("PLR0913", "quality", "low"),
    ("PLR0915", "quality", "low"),
    ("PLR17", "quality", "low"),
    ("PLW", "quality", "medium"),
    ("SIM", "quality", "low"),
    ("RET", "quality", "low"),
    ("PIE", "quality", "low"),
    ("DTZ", "quality", "low"),
)  # fmt: skip
# What is no remark: a subprocess without a shell is what one should write.
_IGNORED: Final = ("S404", "S603", "S607", "SIM105", "RET505", "B905")
_SETTINGS: Final = (
    "--isolated", "--no-cache", "--exit-zero", "--quiet", "--output-format=json",
    "--target-version=py314", "--config=lint.pylint.max-args=8",
    "--per-file-ignores=**/test_*.py:S,**/*_test.py:S,**/tests/**:S,**/conftest.py:S",
)  # fmt: skip
_CODE: Final = re.compile(r"`[^`]*`")
_TEXT: Final = re.compile(r"""(["'])((?:(?!\1)[^\\]|\\.)*)\1""", re.DOTALL)
_SHORT_TEXT: Final = 8
_CHUNK: Final = 300
_SECONDS: Final = 250
_POLL_SECONDS: Final = 0.5


def judged(
    root: Path,
    files: Sequence[str],
    kind: ReviewType,
    is_cancelled: Callable[[], bool],
    warnings: list[str],
) -> Iterator[Remark]:
    """What ruff remarks on the files; a file that it fails on is added to `warnings`."""
    wanted = {code for code, type_, _ in _TYPES if kind in {"all", type_}}
    root = root.resolve()  # as ruff names its files, whatever links lead there
    command = (
        _program(), "check", *_SETTINGS,
        f"--select={','.join(sorted(wanted))}", f"--ignore={','.join(_IGNORED)}",
    )  # fmt: skip
    # The last is taken first.
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)][::-1]
    while chunks:
        chunk = chunks.pop()
        status, told = _run([*command, "--", *(f"./{it}" for it in chunk)], root, is_cancelled)
        if status == 0:
            remarks = [_remark(root, found) for found in json.loads(told)]
            yield from (it for it in remarks if kind in {"all", it.type} or it.rule == "syntax")
        elif len(chunk) > 1:
            # One file has brought it down: halve until that one is found.
            half = len(chunk) // 2
            chunks += [chunk[half:], chunk[:half]]
        else:
            warnings.append(f"{chunk[0]}: ruff cannot judge it (status {status}: {told})")


def _program() -> str:
    try:
        from ruff import find_ruff_bin

        return str(find_ruff_bin())
    except (ImportError, FileNotFoundError) as error:
        raise PermanentError(
            "ruff is not installed; install the extra: commandcenter[agents]"
        ) from error


def _run(command: list[str], root: Path, is_cancelled: Callable[[], bool]) -> tuple[int, str]:
    """The status, and what it answers or complains of last."""
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        waited = 0.0
        while True:
            try:
                told, complained = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired as error:
                waited += _POLL_SECONDS
                if is_cancelled() or waited >= _SECONDS:
                    process.kill()
                    what = "the review was called off" if waited < _SECONDS else "ruff hangs"
                    raise AgentError(f"{root}: {what}") from error
    if process.returncode == 0:
        return 0, told.decode()
    return process.returncode, complained.decode(errors="replace").strip().rpartition("\n")[2][:200]


def _remark(root: Path, found: dict[str, Any]) -> Remark:
    code = found["code"] or "invalid-syntax"
    file = Path(found["filename"])
    line = found["location"]["row"]
    place = file.relative_to(root).as_posix() if file.is_absolute() else file.as_posix()
    if code in {"invalid-syntax", "E999"}:
        return Remark(
            "quality", "high", place, line, line, f"It is not Python: {found['message']}",
            "Correct the syntax; nothing else was judged in this file.", "syntax",
        )  # fmt: skip
    _, type_, severity = max(
        (each for each in _TYPES if code.startswith(each[0])), key=lambda it: len(it[0])
    )
    fix = _without_texts((found.get("fix") or {}).get("message") or "")
    advice = found.get("url") or f"https://docs.astral.sh/ruff/rules/{found.get('name', code)}"
    suggestion = f"{fix}. " if fix else ""
    return Remark(
        type_, severity, place, line, line, _without_texts(found["message"]),
        f"{suggestion}See {advice}", code,
    )  # fmt: skip


def _without_texts(message: str) -> str:
    """The message without long texts of the code that it quotes: one may be a secret."""
    return _CODE.sub(lambda code: _TEXT.sub(_shortened, code[0]), message)


def _shortened(text: re.Match[str]) -> str:
    return text[0] if len(text[2]) < _SHORT_TEXT else f"{text[1]}…{text[1]}"

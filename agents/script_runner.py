"""The agent `script`: runs a script that the task brings, in the sandbox.

Rules:
- Nobody has read the script, so it runs in the sandbox: no network, no secrets, no file of the
  machine, bounded time, memory and disk. That is why no person has to agree first (`risk` is AUTO):
  what it can do is its output. A workflow asks for approval where the output is acted upon.
- A script that ends with another status than 0 is a result, `exitCode`, unless `check` is set.
- stdout and stderr are cut at `maxOutput`; the script is not stopped for that, unless it writes
  without end.
- A script that fails at a limit of the sandbox fails the step, which names the limit. One that
  copes and ends well has a result, which names it too, where it can be seen.
- The step ends with the script: what that leaves running in the background has a moment to finish
  its output, as `tee` needs it, and is killed.
- Links that the script leaves are not followed when its files are collected.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Final, Literal

from pydantic import AfterValidator, Field

from agents.agent import Agent
from agents.blob import Blob
from agents.context import Context
from agents.errors import PermanentError
from agents.model import Model
from agents.sandbox.errors import LimitError
from agents.sandbox.job import FailureKind, Limits, size
from agents.script_limits import full_file, limit_met, limits_coped_with

MEBIBYTE: Final = 1024 * 1024
MOST_OUTPUT: Final = 4 * MEBIBYTE
MOST_FILES: Final = 64
LARGEST_FILE: Final = 16 * MEBIBYTE
ENDLESS_OUTPUT: Final = Limits().file
_CHUNK: Final = 64 * 1024
_LAST_WORDS: Final = 4 * 1024
_GRACE_S: Final = 1.0

Language = Literal["python", "bash", "node"]

# What interprets it, and the name of the file that it is written to.
_COMMAND: Final[dict[Language, tuple[tuple[str, ...], str]]] = {
    "python": ((sys.executable, "-X", "utf8"), ".script.py"),
    "bash": (("bash",), ".script.sh"),
    "node": (("node",), ".script.cjs"),
}

script = Agent(
    "script",
    description="Runs a script in Python, Bash or JavaScript, in the sandbox.",
    type="SCRIPT",
    version="1.0.0",
    concurrency=8,
)


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or "\0" in path or path.startswith("/") or ".." in parts or path.endswith("/"):
        raise ValueError(f"{path!r} is no path inside the script's folder")
    return path


Path_ = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_inside)]


class RunInput(Model):
    """What to run, on what."""

    language: Language
    script: str = Field(min_length=1, max_length=MEBIBYTE)
    args: list[Annotated[str, Field(max_length=8_192)]] = Field(
        default_factory=list, max_length=100
    )
    stdin: str = Field(default="", max_length=16 * MEBIBYTE)
    files: dict[Path_, str | Blob] = Field(
        default_factory=dict,
        max_length=MOST_FILES,
        description="files for the script, by path in its folder: text, or a blob",
    )
    outputs: list[Path_] = Field(
        default_factory=list,
        max_length=MOST_FILES,
        description="files that the script leaves, by path in its folder; kept as blobs",
    )
    max_output: int = Field(
        default=64 * 1024, ge=0, le=MOST_OUTPUT, description="bytes kept of stdout, and of stderr"
    )
    check: bool = Field(default=False, description="an exit code other than 0 fails the step")


class RunOutput(Model):
    """How it ended, and what it left."""

    exit_code: int = Field(description="negative: the signal that ended it")
    stdout: str
    stderr: str
    truncated: bool = Field(description="whether stdout or stderr is not all of it")
    files: dict[str, Blob] = Field(description="those of `outputs` that are there")
    missing: list[str] = Field(description="those that are not")
    limits_met: list[FailureKind] = Field(
        default_factory=list,
        description="limits of the sandbox that it met and coped with, as far as that can be seen",
    )


@script.action(timeout=300, execution="sandbox", memory="512MB")
def run(inputs: RunInput, context: Context) -> RunOutput:
    """Run a script to its end."""
    command, name = _COMMAND[inputs.language]
    folder = context.workspace
    for path, content in inputs.files.items():
        _write(folder / path, content, context)
    (folder / name).write_text(inputs.script, encoding="utf-8", errors="surrogatepass")
    # A file, as the script need not read it.
    source = folder / ".stdin"
    source.write_bytes(inputs.stdin.encode(errors="replace"))
    try:
        with source.open("rb") as stdin:
            process = subprocess.Popen(
                [*command, name, *_encodable(inputs.args)],
                cwd=folder,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
    except FileNotFoundError as error:
        text = f"this worker runs no scripts in {inputs.language}: {command[0]} is not installed"
        raise PermanentError(text) from error
    stdout, stderr = (
        _Kept(pipe, inputs.max_output, lambda: _kill(process.pid))
        for pipe in (process.stdout, process.stderr)
    )
    code = process.wait()
    _join(stdout, stderr)
    _kill(process.pid)
    # What made itself a session of its own still holds the pipes: the sandbox ends it with the job.
    _join(stdout, stderr)
    full = full_file(folder)
    _judge(code, stdout, stderr, full)
    if inputs.check and code != 0:
        last = stderr.last_words.strip().rpartition("\n")[2] or "nothing on stderr"
        raise PermanentError(f"the script ended with status {code}: {last}")
    files, missing = _collected(folder, inputs.outputs, context)
    return RunOutput(
        exit_code=code,
        stdout=stdout.text,
        stderr=stderr.text,
        truncated=stdout.is_cut or stderr.is_cut,
        files=files,
        missing=missing,
        limits_met=limits_coped_with(stderr.last_words, full) if code == 0 else [],
    )


class _Kept(threading.Thread):
    """The beginning of what comes through a pipe, read to its end so that nobody is held up.

    It closes the pipe itself, as nobody else knows when it is done with it. What has no end is
    read no further, and `stop` is called.
    """

    def __init__(self, pipe: IO[bytes] | None, most: int, stop: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._most = most
        self._stop = stop
        self._written = 0
        self._kept = bytearray()
        self._last = b""
        self.start()

    def run(self) -> None:
        if self._pipe is None:
            return
        with self._pipe:
            while not self.is_endless and (chunk := os.read(self._pipe.fileno(), _CHUNK)):
                self._written += len(chunk)
                self._kept += chunk[: self._most - len(self._kept)]
                self._last = (self._last + chunk)[-_LAST_WORDS:]
        if self.is_endless:
            self._stop()

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    @property
    def last_words(self) -> str:
        return self._last.decode(errors="replace")

    @property
    def is_cut(self) -> bool:
        return self._written > self._most

    @property
    def is_endless(self) -> bool:
        return self._written > ENDLESS_OUTPUT


def _judge(status: int, stdout: _Kept, stderr: _Kept, full: str | None) -> None:
    """Raises `LimitError` for a script that ran into a limit."""
    if stdout.is_endless or stderr.is_endless:
        text = f"the script wrote more than {size(ENDLESS_OUTPUT)} to stdout or stderr"
        raise LimitError("output_limit", text)
    if (met := limit_met(status, stderr.last_words, run.memory, full)) is not None:
        raise met


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):  # it has left nothing
        os.killpg(group, signal.SIGKILL)


def _join(*readers: _Kept) -> None:
    """Let them come to the end of their pipes, but not for longer than the grace each."""
    for each in readers:
        each.join(_GRACE_S)


def _write(path: Path, content: str | Blob, context: Context) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            context.blobs.read(content) if isinstance(content, Blob) else content.encode()
        )
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise PermanentError(f"the file {path.name} stands where a folder has to be") from error


def _collected(
    folder: Path, wanted: list[str], context: Context
) -> tuple[dict[str, Blob], list[str]]:
    """The files that are there as blobs, and the names of those that are not."""
    found: dict[str, Blob] = {}
    missing: list[str] = []
    root = folder.resolve()
    for each in wanted:
        path = folder / each
        if not path.is_file() or path.resolve() != root / each:
            missing.append(each)
            continue
        if path.stat().st_size > LARGEST_FILE:
            raise PermanentError(f"the file {each} has more than {LARGEST_FILE:,} bytes")
        found[each] = context.blobs.write(path.read_bytes(), name=PurePosixPath(each).name[:200])
    return found, missing


def _encodable(args: list[str]) -> list[str]:
    if any("\0" in each for each in args):
        raise PermanentError("an argument holds a null byte, which no program can be given")
    return [each.encode(errors="replace").decode() for each in args]

"""What a sandbox is asked to do, and what it answers. Plain values; no system call is made here.

Rules:
- A job is a program with arguments (`Command`) or a Python function with JSON inputs (`Call`).
- It may read its workspace, the folders in `readable` and the machine's programs; it may write to
  its workspace and a private temporary folder alone; it has no network unless `network` says so.
- What it does wrong is data: `Outcome.failure`. Only a sandbox that does not work raises.
"""

from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct, field

MEGABYTE: Final = 1024 * 1024


def size(bytes_: int) -> str:
    """A number of bytes in words, in the unit that it was given in: 512 MB, 256 MiB."""
    unit, name = (MEGABYTE, "MiB") if bytes_ % MEGABYTE == 0 else (1_000_000, "MB")
    return f"{bytes_ / unit:,.0f} {name}"


FailureKind = Literal[
    "out_of_memory",
    "time_limit",
    "cpu_limit",
    "output_limit",
    "process_limit",
    "file_limit",
    "disk_limit",
    "open_files_limit",
    "cancelled",
    "killed",
    "agent_error",
    "invalid_input",
    "invalid_output",
    "not_started",
]

FINAL: Final = frozenset({
    "out_of_memory", "cpu_limit", "output_limit", "process_limit", "file_limit", "disk_limit",
    "open_files_limit", "cancelled", "invalid_input", "invalid_output", "not_started",
})  # fmt: skip
"""Kinds that another attempt does not cure."""


class Limits(Struct, frozen=True, kw_only=True):
    """What one job may use up, all its processes together unless said otherwise.

    `memory` (bytes) counts the interpreter and what it has imported. `cpu` (seconds), `file` (bytes
    of the largest file) and `open_files` are for each process. `processes` counts threads too.
    `disk` is what workspace and temporary folder may hold, each file 4 KiB at least; `output` what
    may be written to stdout and stderr, `result` what a call may return (bytes). `wall` is in
    seconds; after it, and when the job is told to stop, it has `grace` seconds to end before it is
    killed (None: until `wall`).
    """

    memory: int = 512 * MEGABYTE
    cpu: int = 300
    file: int = 256 * MEGABYTE
    disk: int = 1024 * MEGABYTE
    open_files: int = 256
    processes: int = 128
    wall: float = 300.0
    grace: float | None = 5.0
    output: int = 4 * MEGABYTE
    result: int = 64 * MEGABYTE


class Command(Struct, frozen=True, kw_only=True, tag="command"):
    """A program, found by the sandbox's PATH, with its arguments, run in the workspace."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    environment: dict[str, str] = {}


class Call(Struct, frozen=True, kw_only=True, tag="call"):
    """A Python function at `package.module:attribute`, called with `inputs`, a JSON object.

    An `agents.Action` validates inputs and output as always; any other function is given the
    decoded object and returns what is JSON. `context` are fields of the `Context` it sees.
    """

    target: str
    inputs: bytes = b"{}"
    context: dict[str, Any] = {}


class Job(Struct, frozen=True, kw_only=True):
    """One thing to do. `workspace`: one that `Sandbox.workspace` made; None: a fresh one."""

    work: Command | Call
    limits: Limits = field(default_factory=Limits)
    readable: tuple[Path, ...] = ()
    workspace: Path | None = None
    network: bool = False


class Problem(Struct, frozen=True, kw_only=True):
    """Why a job has no result. `error` names the exception's class where one was raised."""

    kind: FailureKind
    message: str
    retryable: bool = True
    error: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a job ended.

    `status` is the exit status of a command (negative: the signal that ended it); `output` is the
    JSON that a call gave. A command that ends with another status than 0 has no `failure`: what a
    status means is known to whoever asked. `memory` is the most that was seen in use, in bytes.
    """

    status: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    output: bytes | None = None
    failure: Problem | None = None
    wall: float = 0.0
    memory: int = 0

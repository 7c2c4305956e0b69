"""Git, run on a repository that nobody vouches for.

Rules:
- What a repository says about itself is not trusted: none of its hooks or programs is run. That is
  why it may belong to another user than this process.
- Git asks nobody anything, and loads nothing over the network.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agents.errors import PermanentError
from streams.errors import AgentError

_SECONDS: Final = 120
_UNTRUSTED: Final = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_OF_ANYBODY: Final = ("-c", "safe.directory=*")
_QUIET: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}


def environment() -> dict[str, str]:
    """What git is told: nothing of the worker's own git settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | _QUIET


def asked(folder: Path, *arguments: str) -> str:
    """What git answers about a folder; empty where it has no answer."""
    done = run_git(arguments, folder, environment())
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def run_git(
    arguments: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str],
    data: bytes = b"",
    *,
    of_anybody: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """One git command, with no hook, no prompt and no network.

    `of_anybody`: the repository may belong to another user.
    """
    owners = _OF_ANYBODY if of_anybody else ()
    try:
        return subprocess.run(
            ("git", *_UNTRUSTED, *owners, *arguments),  # noqa: S607 -- the git that the worker's PATH names
            cwd=folder,
            env=dict(environment),
            input=data,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except FileNotFoundError as error:
        raise PermanentError("git is not installed where this worker runs") from error
    except subprocess.TimeoutExpired as error:
        raise AgentError(f"{folder}: git {arguments[0]} did not end within {_SECONDS} s") from error


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git says, on one line."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = "; ".join(line.removeprefix("error: ").removeprefix("fatal: ") for line in lines[:5])
    return said or f"git ended with status {done.returncode}"

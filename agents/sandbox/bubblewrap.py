"""bubblewrap (`bwrap`): namespaces for the process that forks, where it is installed and works.

The whole machine is read-only in it but the folder of the sandboxes; there is no network, no
process of others and no shared memory. What a single job may read Landlock says; where the kernel
has no Landlock, each job has a bubblewrap of its own that shows it nothing else.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

# What root keeps for the forking process: to become other users, to read as root does, to see what
# its jobs use, and to end them. None of it is left to a job but the right to read.
_CAPABILITIES: Final = (
    "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_KILL",
)  # fmt: skip
_PROBE_S: Final = 10


def wrapped(
    program: str,
    argv: Iterable[str],
    *,
    writable: Iterable[Path],
    network: bool,
    view: Iterable[Path] | None = None,
) -> list[str]:
    """The command line that runs `argv`. `view`: all that can be read; None: the whole machine."""
    line = [program, "--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid"]
    line += ["--unshare-uts"]
    if not network:
        line.append("--unshare-net")
    if os.geteuid() == 0:
        for each in _CAPABILITIES:
            line += ["--cap-add", each]
    if view is None:
        line += ["--ro-bind", "/", "/"]
    else:
        for path in sorted(view):
            line += ["--ro-bind-try", str(path), str(path)]
    line += ["--dev", "/dev", "--proc", "/proc"]
    for path in writable:
        line += ["--bind", str(path), str(path)]
    return [*line, "--", *argv]


@cache
def usable() -> tuple[str | None, str]:
    """The program, or None and why it cannot be used here."""
    program = shutil.which("bwrap")
    if program is None:
        return None, "bubblewrap (bwrap) is not installed"
    try:
        tried = subprocess.run(
            wrapped(program, ["true"], writable=(), network=False),
            capture_output=True,
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"bubblewrap does not work here: {error}"
    if tried.returncode != 0:
        reason = tried.stderr.decode(errors="replace").strip() or f"status {tried.returncode}"
        return None, f"bubblewrap does not work here: {reason}"
    return program, ""

"""The leash: runs one command that must not outlive the process which started it.

Run as a script by `owned_process.py`: `python -I -S leash.py <owner pid> <command> …`. It holds the
read end of a pipe as its standard input; only the owner holds the write end, so however the owner
ends (SIGKILL included) the kernel closes it, and the leash kills the command's process group.
Should the leash itself be killed, Linux kills the command (`PR_SET_PDEATHSIG`; sound here, because
this process has one thread, while a thread of the owner may end before the owner does).

SIGTERM and SIGINT are handed on. The exit status is the command's, 128 + n if signal n ended it.
Only the standard library, and little of it: this process stays for as long as the command runs.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
from typing import Final

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PR_SET_PDEATHSIG: Final = 1
_OWNER_CHECK_S: Final = 2.0
_CANNOT_RUN: Final = 127


def _become(command: list[str], leash: int) -> None:
    """In the forked child: own group, tied to the leash, then the command."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != leash:  # it died before the line above took effect
            os._exit(_CANNOT_RUN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    signal.set_wakeup_fd(-1)
    for handled in _HANDLED:
        signal.signal(handled, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    os._exit(_CANNOT_RUN)


def main(owner: int, command: list[str]) -> int:
    """Run `command` until it ends or the owner does, and return its exit status."""
    wakeups, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for handled in _HANDLED:
        signal.signal(handled, lambda *_: None)  # the wake-up pipe carries the number

    leash = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, leash)
    # Child and parent both make the group: whoever comes first, it is there before it is killed.
    with contextlib.suppress(PermissionError, ProcessLookupError):  # it runs the command or ended
        os.setpgid(child, child)

    while True:
        # The time-out is for a write end that a fork of the owner keeps open.
        readable, _, _ = select.select([0, wakeups], [], [], _OWNER_CHECK_S)
        if 0 in readable or os.getppid() != owner:
            _kill_group(child)
            os.waitpid(child, 0)
            return 128 + signal.SIGKILL
        if wakeups in readable:
            for number in os.read(wakeups, 64):
                if number != signal.SIGCHLD:
                    os.kill(child, number)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _kill_group(child)  # what the command left behind
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _kill_group(child: int) -> None:
    # Nobody is left; or (macOS) nobody but the child, which ended and was not waited for.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

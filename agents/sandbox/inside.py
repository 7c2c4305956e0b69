"""The first process of a job: it gives up its rights, then becomes the command or makes the call.

Rules:
- Nothing of the job is looked at before the rights are gone.
- What it says to the worker goes through one socket, as messages of `wire`; what the job prints
  goes elsewhere.
- SIGTERM does not end a call: the action is told by its `Context`, and what it started is sent the
  signal too.
"""

import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from agents.sandbox import confinement
from agents.sandbox.calling import Line, answer, log_over
from agents.sandbox.job import Call, Command
from agents.sandbox.wire import Begin, Order, Raised, frame, to_job

_DEVICES: Final = tuple(
    Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom", "tty")
)
_NOT_STARTED: Final = 125
_NICE: Final = 5


def enter(order: Order, channel: socket.socket, out: int, err: int, keeper: int) -> NoReturn:
    """Confine this process, then do the job. Never returns."""
    status = _NOT_STARTED
    try:
        _arrange(order, channel, out, err)
        _confine(order, keeper)
        begin = to_job(channel)
        if isinstance(begin, Begin):
            status = _do(begin.work, order, channel)
    except BaseException as error:  # noqa: BLE001 -- whatever it is, the worker has to hear of it
        _complain(channel, f"the sandbox could not begin: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _arrange(order: Order, channel: socket.socket, out: int, err: int) -> None:
    """Descriptors, signals, environment and folder, as a program expects them."""
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 65_536)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    with suppress(OSError):
        os.nice(_NICE)  # the worker's loop goes first
    os.environ.clear()
    os.environ.update(order.environment)
    tempfile.tempdir = None
    os.chdir(order.workspace)


def _confine(order: Order, keeper: int) -> None:
    others = 0
    if order.user is None and not confinement.own_user_namespace():
        others = _threads_of(os.getuid())
    confinement.limit(order.limits, others)
    if order.user is not None:
        confinement.become(order.user, reads_as_root=order.landlock or order.exact_view)
    if order.landlock:
        own = (order.workspace, order.temporary)
        confinement.restrict_files((*order.readable, Path("/proc")), own, _DEVICES)
    confinement.forbid_new_privileges()
    # After the change of the user, which would undo it.
    confinement.die_with_parent(keeper, signal.SIGKILL)
    if confinement.SECCOMP:
        confinement.filter_calls(sockets=order.network)


def _threads_of(user: int) -> int:
    """How many threads the user runs, which the limit on processes counts too."""
    count = 0
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and path.stat().st_uid == user:
                count += len(list((path / "task").iterdir()))
        except OSError:
            continue  # it has ended
    return count


def _do(work: Command | Call, order: Order, channel: socket.socket) -> int:
    if isinstance(work, Command):
        _become_program(work, channel)
        return _NOT_STARTED
    signal.signal(signal.SIGTERM, lambda *_: None)  # not ignored: what it starts would be deaf too
    line = Line(channel)
    log_over(line)
    status = answer(work, line, order.workspace)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it
            stream.flush()
    return status


def _become_program(command: Command, channel: socket.socket) -> None:
    if command.stdin:
        with tempfile.TemporaryFile() as stream:
            stream.write(command.stdin)
            stream.flush()
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            os.dup2(stream.fileno(), 0)
    os.environ.update(command.environment)
    try:
        os.execvp(command.argv[0], command.argv)  # noqa: S606 -- the job, without a shell
    except (OSError, ValueError) as error:
        _complain(channel, f"{command.argv[0]!r} cannot be run: {_text(error)}")


def _complain(channel: socket.socket, text: str) -> None:
    try:
        channel.sendall(frame(Raised(kind="not_started", message=text, retryable=False)))
    except OSError:
        os.write(2, text.encode())


def _text(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)

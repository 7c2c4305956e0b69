"""The keeper of one job: starts it confined, watches what it uses, ends it, says how it ended.

It is forked by `zygote`, holds no secret, and takes nothing from the job but its exit.

Rules:
- When it says `Ended`, every process of the job is gone: it adopts the job's orphans, so all of
  them are its descendants whatever they do, and it stops them all before it kills them.
- It ends the job when the worker is gone.
- The limits that the kernel does not keep for a whole job are looked at again and again: memory,
  processes, disk. So is the CPU time of each process, as one that does not heed the kernel's signal
  would end without a reason. Looking costs a thirtieth of one core at most.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

from agents.sandbox import confinement
from agents.sandbox.job import FailureKind, size
from agents.sandbox.wire import Ended, Order, encode

TERMINATE: Final = b"T"
KILL: Final = b"K"
STARTED: Final = b"S"

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_SHORTEST_WAIT_S: Final = 0.02
_MOMENT_S: Final = 0.001
_DISK_EVERY_S: Final = 0.5
_LEAST_OF_A_FILE: Final = 4096
"""Bytes that a file counts on disk: empty ones use up the machine's inodes."""


class _Process(NamedTuple):
    pid: int
    threads: int
    resident: int
    cpu: float
    """Seconds, without its children's."""


def keep(
    order: Order,
    control: socket.socket,
    start: Callable[[], NoReturn],
    let_go: Callable[[], None],
) -> NoReturn:
    """Run `start` in a child, and see it through to its end. Never returns.

    `let_go` closes what belongs to the child alone.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    confinement.adopt_orphans()
    with suppress(OSError):
        control.sendall(STARTED)
    child = os.fork()
    if child == 0:
        control.close()
        start()
    let_go()
    with suppress(OSError):  # the worker is gone: nobody to tell
        control.sendall(encode(_Watch(order, control, child).until_the_end()))
    os._exit(0)


class _Watch:
    def __init__(self, order: Order, control: socket.socket, child: int) -> None:
        self._order = order
        self._limits = order.limits
        self._control = control
        self._child = child
        self._memory = 0
        self._verdict: tuple[FailureKind | None, str] = (None, "")
        self._kill_at = float("inf")
        self._disk_at = time.monotonic() + _DISK_EVERY_S

    def until_the_end(self) -> Ended:
        status = self._wait()
        self._kill_all()
        kind, message = self._verdict
        return Ended(status=status, kind=kind, message=message, memory=self._memory)

    def _wait(self) -> int:
        """Until the child has ended by itself, or has to be killed; its status."""
        ends = time.monotonic() + self._limits.wall
        wait = _SHORTEST_WAIT_S
        poll = select.poll()
        handle = os.pidfd_open(self._child)
        poll.register(handle, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            now = time.monotonic()
            until = min(ends, self._kill_at)
            if now >= self._kill_at:
                break
            if now >= ends:
                self._judge("time_limit", f"it did not end within {self._limits.wall:g} s")
                self._terminate(now)
                ends = float("inf")
                continue
            ready = {each for each, _ in poll.poll(max(0.0, min(wait, until - now)) * 1000)}
            if handle in ready:
                break
            if self._control.fileno() in ready and not self._obey():
                break
            began = time.monotonic()
            if self._is_over():
                break
            wait = max(_SHORTEST_WAIT_S, 30 * (time.monotonic() - began))
        os.close(handle)
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)  # a zombie does not mind
        _, state, used = os.wait4(self._child, 0)
        self._memory = max(self._memory, used.ru_maxrss * 1024)
        return os.waitstatus_to_exitcode(state)

    def _obey(self) -> bool:
        """Do as the worker says; False: kill now."""
        said = self._control.recv(16)
        if TERMINATE in said:
            self._terminate(time.monotonic())
        return bool(said) and KILL not in said

    def _terminate(self, now: float) -> None:
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        if self._limits.grace is not None:
            self._kill_at = min(self._kill_at, now + self._limits.grace)
        elif self._verdict[0] == "time_limit":
            self._kill_at = now

    def _judge(self, kind: FailureKind, message: str) -> None:
        if self._verdict[0] is None:
            self._verdict = (kind, message)

    def _is_over(self) -> bool:
        """Whether a limit is passed."""
        limits = self._limits
        processes = list(self._processes())
        threads = sum(each.threads for each in processes)
        if threads > limits.processes:
            text = f"it had more than {limits.processes} processes and threads at once"
            self._judge("process_limit", text)
            return True
        if (
            max((each.cpu for each in processes), default=0.0)
            > limits.cpu + confinement.CPU_GRACE_S
        ):
            text = f"a process of it used more than {limits.cpu} s of CPU time, and did not end"
            self._judge("cpu_limit", text)
            return True
        resident = sum(each.resident for each in processes)
        if resident > limits.memory:
            # What several processes share was counted for each of them.
            resident = sum(map(_proportional, processes))
        self._memory = max(self._memory, resident)
        if resident > limits.memory:
            self._judge("out_of_memory", f"it used more than {size(limits.memory)} of memory")
            return True
        if (now := time.monotonic()) >= self._disk_at:
            used = _disk_used(str(self._order.workspace), str(self._order.temporary))
            after = time.monotonic()
            self._disk_at = after + max(_DISK_EVERY_S, 30 * (after - now))
            if used > limits.disk:
                text = f"it wrote more than {size(limits.disk)} to its workspace"
                self._judge("disk_limit", text)
                return True
        return False

    def _kill_all(self) -> None:
        """Every descendant: all are stopped first, so that none makes more of itself meanwhile.

        One that a look at the table has missed, because its parent ended during the look, is this
        process's child since then: so it goes on until there is no child.
        """
        with suppress(ChildProcessError):
            while True:
                stopped: set[int] = set()
                while new := {each.pid for each in self._processes()} - stopped:
                    for pid in new:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGSTOP)
                    stopped |= new
                for pid in stopped:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(_MOMENT_S)

    def _processes(self) -> Iterator[_Process]:
        """The descendants, from one look at the table of processes.

        Those that have ended count until their parents take notice, as they do for the kernel's
        limit. Orphans are this process's to take notice of.
        """
        keeper = os.getpid()
        children: dict[int, list[_Process]] = {}
        over: set[int] = set()
        for name in os.listdir("/proc"):  # noqa: PTH208 -- thousands of names, many times a second
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:  # noqa: PTH123 -- as above
                    fields = stream.read().rpartition(b") ")[2].split()
            except OSError:
                continue  # it has ended
            process = _Process(
                pid=int(name),
                threads=int(fields[17]),
                resident=int(fields[21]) * _PAGE,
                cpu=(int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND,
            )
            parent = int(fields[1])
            children.setdefault(parent, []).append(process)
            # A first thread that has ended is a zombie too, while others of its process live.
            is_over = fields[0] in b"ZX" and process.threads <= 1
            if is_over and parent == keeper and process.pid != self._child:
                over.add(process.pid)
        for pid in over:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        # Through those that are over as well: they had children when these were looked at.
        waiting = [keeper]
        while waiting:
            for process in children.get(waiting.pop(), ()):
                waiting.append(process.pid)
                if process.pid not in over:
                    yield process


def _proportional(process: _Process) -> int:
    """Memory of the process, with what it shares divided among the sharers."""
    try:
        with open(f"/proc/{process.pid}/smaps_rollup", "rb") as stream:  # noqa: PTH123 -- hot
            for line in stream:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except PermissionError:
        return process.resident
    except OSError:
        pass
    return 0


def _disk_used(*folders: str) -> int:
    used = 0
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        blocks = entry.stat(follow_symlinks=False).st_blocks
                        used += max(_LEAST_OF_A_FILE, blocks * 512)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
        except OSError:
            continue  # removed meanwhile, or its name has become too long to be opened
    return used

"""The backend `inline`: no sandbox at all, for code that is trusted as the worker itself is.

Calls are made in a thread of the worker, commands in processes of its user. Time, output and the
size of a result are bounded, as everywhere; nothing else is. A thread cannot be killed: a call that
runs over its time is given up.
"""

import asyncio
import os
import signal
import socket
import threading
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

from agents.sandbox import calling
from agents.sandbox.attending import Line, closed, see_through
from agents.sandbox.environment import environment
from agents.sandbox.in_folders import InFolders
from agents.sandbox.job import Call, Command, Job, Outcome, Problem
from agents.sandbox.sandbox import Attendant, Guarantees
from agents.sandbox.wire import Begin, Ended, to_job


class InlineSandbox(InFolders):
    """Does jobs unconfined."""

    name = "inline"

    def __init__(self, *, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.guarantees = Guarantees(
            why_not=("jobs are not confined at all: the sandbox is switched off (inline)",)
        )

    async def run(
        self, job: Job, attendant: Attendant | None = None, stop: asyncio.Event | None = None
    ) -> Outcome:
        """Do the job, as `agents.sandbox.sandbox.Sandbox` says, but for what confines it."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self._folders.one())
            workspace = self._workspace_of(job, folder)
            if isinstance(job.work, Command):
                try:
                    process = await _started(job.work, workspace, folder / "tmp")
                except (OSError, ValueError) as error:
                    reason = error.strerror if isinstance(error, OSError) else str(error)
                    text = f"{job.work.argv[0]!r} cannot be run: {reason}"
                    problem = Problem(kind="not_started", message=text, retryable=False)
                    return Outcome(failure=problem, wall=time.monotonic() - began)
                return await see_through(job, _Process(process), attendant, stop, began)
            running = await _Thread.start(workspace)
            if running.line is not None:
                stack.push_async_callback(closed, running.line[1])
            return await see_through(job, running, attendant, stop, began)


async def _started(
    command: Command, workspace: Path, temporary: Path
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *command.argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=workspace,
        env={**environment(temporary), **command.environment},
        start_new_session=True,
    )
    if process.stdin is not None:
        process.stdin.write(command.stdin)
        process.stdin.close()
    return process


class _Process:
    """A command, with a process group of its own."""

    keeps_time = False
    line: Line | None = None

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdout = process.stdout
        self.stderr = process.stderr

    async def ended(self) -> Ended:
        """Its status; what is left of its group is killed."""
        status = await self._process.wait()
        self.kill()
        return Ended(status=status)

    def terminate(self) -> None:
        """SIGTERM to the group."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the group."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class _Thread:
    """A call in a thread."""

    keeps_time = False
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None

    def __init__(self, line: Line) -> None:
        self.line: Line | None = line
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, workspace: Path) -> Self:
        """Start the thread; it waits for what to do."""
        ours, theirs = socket.socketpair()
        made = cls(await asyncio.open_unix_connection(sock=ours))
        loop = asyncio.get_running_loop()

        def call() -> None:
            status = 1
            with theirs:
                begin = to_job(theirs)
                if isinstance(begin, Begin) and isinstance(begin.work, Call):
                    status = calling.answer(begin.work, calling.Line(theirs), workspace)
                with suppress(OSError):  # a thread still reads, and close alone does not wake it
                    theirs.shutdown(socket.SHUT_RDWR)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(made._end, status)

        threading.Thread(target=call, name="inline sandbox", daemon=True).start()
        return made

    async def ended(self) -> Ended:
        """When the call has ended or is given up."""
        return Ended(status=await self._over)

    def terminate(self) -> None:
        """The context has been told."""

    def kill(self) -> None:
        """Give it up."""
        self._end(-signal.SIGKILL)

    def _end(self, status: int) -> None:
        if not self._over.done():
            self._over.set_result(status)

"""The worker's side of the process that forks (`zygote`): starts it, hands it orders, ends it."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Self

import msgspec
import structlog

from agents.sandbox.attending import Line, closed
from agents.sandbox.errors import SandboxError
from agents.sandbox.keeper import KILL, STARTED, TERMINATE
from agents.sandbox.wire import Ended, Order, Ready, encode, endings, readies
from agents.sandbox.zygote import ORDER_LIMIT

_ENDED_LIMIT: Final = 65_536
_GONE: Final = Ended(
    status=-9, kind="killed", message="the process that keeps the sandbox was killed"
)
_START_S: Final = 60.0
_END_S: Final = 5.0
_BOOT: Final = "from agents.sandbox.zygote import main; main()"

_log = structlog.get_logger("agents.sandbox")


class ForkingGoneError(Exception):
    """The process has ended, and takes no order."""


class Forking:
    """One such process."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._sending = asyncio.Lock()
        self.ready = Ready(faults={}, threads=1, memory=0)

    @classmethod
    async def start(
        cls,
        modules: Iterable[str],
        environment: Mapping[str, str],
        wrap: Sequence[str] = (),
        preload: Iterable[str] = (),
    ) -> Self:
        """Start one, with `wrap` before its command line. Raises `SandboxError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            # Started by the loop's thread, which lives as long as the worker: bubblewrap ends with
            # the thread that started it.
            process = await asyncio.create_subprocess_exec(
                *wrap, sys.executable, "-X", "utf8", "-P", "-c", _BOOT,
                str(theirs.fileno()), *modules, "--", *preload,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise SandboxError(f"the sandbox cannot be started: {error}") from error
        finally:
            theirs.close()
        made = cls(process, ours)
        try:
            await made._begin()
        except BaseException:
            await made.close()
            raise
        return made

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_START_S):
                said = await loop.sock_recv(self._line, ORDER_LIMIT)
            self.ready = readies.decode(said)
        except (TimeoutError, OSError, msgspec.MsgspecError) as error:
            raise SandboxError(
                "the sandbox's process did not come up; its stderr says why"
            ) from error
        if self.ready.threads > 1:
            _log.warning(
                "a module starts threads when it is imported: what they hold is not there in a"
                " sandbox",
                threads=self.ready.threads,
            )
        for module, fault in self.ready.faults.items():
            _log.warning("a module cannot be imported in the sandbox", module=module, fault=fault)

    @property
    def pid(self) -> int:
        """Its process id, bubblewrap's where that is around it."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it takes orders, as far as is known."""
        return self._process.returncode is None

    async def send(self, order: Order, descriptors: Sequence[int]) -> None:
        """Have a job's keeper forked. Raises `ForkingGoneError`, or `SandboxError`."""
        message = encode(order)
        if len(message) > ORDER_LIMIT:
            raise SandboxError(f"the order of a job has {len(message):,} bytes: too many folders")
        async with self._sending:  # a loop tells one only that a socket takes more
            while True:
                try:
                    socket.send_fds(self._line, [message], descriptors)
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    raise ForkingGoneError from error
                else:
                    return

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._line, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._line)

    async def close(self) -> None:
        """Have it end, with all that it runs."""
        self._line.close()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class Forked:
    """A job as its keeper has it."""

    keeps_time = True

    def __init__(
        self,
        control: socket.socket,
        line: Line,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self._control = control
        self.line: Line | None = line
        self.stdout: asyncio.StreamReader | None = stdout
        self.stderr: asyncio.StreamReader | None = stderr

    async def ended(self) -> Ended:
        """What the keeper says at the end."""
        try:
            said = await asyncio.get_running_loop().sock_recv(self._control, _ENDED_LIMIT)
        except OSError:
            said = b""
        return endings.decode(said) if said else _GONE

    def terminate(self) -> None:
        """SIGTERM to all of it, and SIGKILL after the grace."""
        self._command(TERMINATE)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._command(KILL)

    def _command(self, what: bytes) -> None:
        with suppress(OSError):  # it has ended
            self._control.send(what)


@asynccontextmanager
async def forked(forking: Forking, order: Order) -> AsyncIterator[Forked]:
    """The job, begun. Raises `ForkingGoneError`."""
    async with AsyncExitStack() as stack:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel, job_channel = socket.socketpair()
        (out, job_out), (err, job_err) = os.pipe(), os.pipe()
        stack.callback(control.close)
        control.setblocking(False)
        try:
            handed = (theirs.fileno(), job_channel.fileno(), job_out, job_err)
            await forking.send(order, handed)
            theirs.close()
            # It may have died with the order unread.
            if await asyncio.get_running_loop().sock_recv(control, 1) != STARTED:
                raise ForkingGoneError  # noqa: TRY301 -- as `send` does
        except BaseException:
            channel.close()
            os.close(out)
            os.close(err)
            raise
        finally:
            theirs.close()
            job_channel.close()
            os.close(job_out)
            os.close(job_err)
        stdout, stderr = await _readable(out, stack), await _readable(err, stack)
        line = await asyncio.open_unix_connection(sock=channel)
        stack.push_async_callback(closed, line[1])
        yield Forked(control, line, stdout, stderr)


async def _readable(descriptor: int, stack: AsyncExitStack) -> asyncio.StreamReader:
    """The pipe as a stream, closed with the stack."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    stack.callback(transport.close)
    return stream

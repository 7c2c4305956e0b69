"""A child process that never outlives us, however we end (see `leash.py`), with its whole group."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

PIPE: Final = subprocess.PIPE
STDOUT: Final = subprocess.STDOUT
KILLED: Final = 128 + signal.SIGKILL
"""The exit status of a command that was killed."""

_LEASH: Final = Path(__file__).with_name("leash.py")


class OwnedProcess:
    """One running command.

    Its standard input is empty. `pid` is the leash's; the command is its only child.
    """

    def __init__(self, process: asyncio.subprocess.Process, leash: int) -> None:
        self._process = process
        self._leash: int | None = leash

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start `command` (program and arguments, no shell) in a session of its own.

        Args:
            command: Looked up in PATH; if it cannot be run the exit status is 127.
            env: Its whole environment; None means ours.
            stdout: As in `subprocess`: inherited, `PIPE` or a file.
            stderr: As `stdout`, or `STDOUT`: together with it.
            pass_fds: Descriptors that the command inherits under the same numbers.
        """
        watched, leash = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_LEASH),
                str(os.getpid()),
                *command,
                stdin=watched,
                stdout=stdout,
                stderr=stderr,
                env=env,
                pass_fds=pass_fds,
                start_new_session=True,  # Ctrl-C is ours to hand on, in order
            )
        except BaseException:
            os.close(leash)
            raise
        finally:
            os.close(watched)
        return cls(process, leash)

    @property
    def pid(self) -> int:
        """The process id of the leash."""
        return self._process.pid

    @property
    def stdout(self) -> asyncio.StreamReader:
        """The command's output, if it was started with `stdout=PIPE`."""
        if self._process.stdout is None:
            raise ValueError("this process was started without stdout=PIPE")
        return self._process.stdout

    @property
    def returncode(self) -> int | None:
        """As `wait` returns it, or None while the command runs."""
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code  # the leash itself was killed

    async def wait(self) -> int:
        """Wait for the command to end: its exit status, 128 + n if signal n ended it."""
        code = await self._process.wait()
        self._let_go()
        return code if code >= 0 else 128 - code

    async def stop(self, within_s: float) -> int:
        """Ask the command to end (SIGTERM), kill its group after `within_s` seconds, and wait."""
        if self.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(within_s):
                    return await self.wait()
            except TimeoutError:
                self.kill()
        return await self.wait()

    def kill(self) -> None:
        """Kill the command and its group at once; `wait` still has to be awaited."""
        self._let_go()

    def _let_go(self) -> None:
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        await self.wait()


def exit_text(code: int) -> str:
    """How a command ended, in words: `exit code 1`, `killed by SIGKILL`."""
    if code > 128:
        try:
            return f"killed by {signal.Signals(code - 128).name}"
        except ValueError:
            pass  # a program's own large exit code
    return f"exit code {code}"

"""Runs a list of child processes as one: started together, stopped in reverse order.

- A child that ends before it was ever ready has a fault that a restart would not mend (it has said
  which): everything is stopped.
- After that a child that ends is started again, after a pause that doubles up to
  `RESTART_PAUSE_MAX_S`; everything is stopped after `RESTARTS` in a row. A child that ran for
  `STEADY_AFTER_S` begins a new row.
- No child outlives this process, even if it is killed (`owned_process.py`).
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from infra.owned_process import KILLED, OwnedProcess, exit_text
from infra.readiness import READY_FD
from streams.errors import OperatorError

RESTARTS: Final = 8
RESTART_PAUSE_S: Final = 0.2
RESTART_PAUSE_MAX_S: Final = 10.0
STEADY_AFTER_S: Final = 30.0

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """One child: what to run, and how long it may take to be ready and to stop, in seconds.

    The child calls `infra.readiness.announce_ready` once it serves. `env` is added to ours. What it
    writes to its standard output and error is appended to the file `output`, or goes where ours do.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None
    ready_within_s: float = 60.0
    stop_within_s: float = 15.0


class Stop:
    """The wish to end: `wanted` in order; `urgent` (asked a second time) at once."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.urgent = asyncio.Event()

    def ask(self) -> None:
        """Ask for an orderly end; again, for an immediate one."""
        if self.wanted.is_set():
            self.urgent.set()
        self.wanted.set()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT, SIGTERM and SIGHUP ask the given `Stop`; main thread only."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def supervise(
    children: Sequence[ChildSpec],
    stop: Stop,
    *,
    say: Callable[[str], None],
    on_ready: Callable[[], None] = lambda: None,
    beside: Sequence[Callable[[], Coroutine[Any, Any, object]]] = (),
) -> None:
    """Run the children until `stop` is asked, and then stop them, the last of the list first.

    Args:
        children: Started together, in this order.
        stop: Ends everything.
        say: Told each event that a person should know (a crash, a restart), one sentence each.
        on_ready: Called once, when every child is ready for the first time.
        beside: What else must keep running (`LocalKafka.keep_running`); cancelled at the end, and
            its failure ends everything.

    Raises:
        OperatorError: A child never got ready, or crashed too often; the others are stopped.
    """
    running = [_Child(spec, say) for spec in children]
    try:
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[object]] = []
            tasks += [group.create_task(child.keep_running()) for child in running]
            tasks += [group.create_task(start()) for start in beside]
            tasks.append(group.create_task(_when_ready(running, on_ready)))
            await stop.wanted.wait()
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first failure cancelled the others
    finally:
        for child in reversed(running):
            await child.stop(stop.urgent)


async def _when_ready(children: Sequence["_Child"], on_ready: Callable[[], None]) -> None:
    for child in children:
        await child.ready.wait()
    on_ready()


class _Child:
    """One child process and its restarts."""

    def __init__(self, spec: ChildSpec, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._say = say
        self._process: OwnedProcess | None = None
        self.ready = asyncio.Event()

    async def keep_running(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            how = await self._run_once()
            if not self.ready.is_set():
                raise OperatorError(f"{self._spec.name} did not start ({how}).")
            failures = 1 if loop.time() - began >= STEADY_AFTER_S else failures + 1
            if failures > RESTARTS:
                raise OperatorError(f"{self._spec.name} ended {failures} times in a row ({how}).")
            pause = min(RESTART_PAUSE_S * 2 ** (failures - 1), RESTART_PAUSE_MAX_S)
            self._say(f"{self._spec.name} ended ({how}); starting it again in {pause:.1f} s.")
            await asyncio.sleep(pause)

    async def stop(self, urgent: asyncio.Event) -> None:
        """Stop in order within the spec's deadline, or at once when that becomes urgent."""
        if self._process is None or self._process.returncode is not None:
            return
        ending = asyncio.create_task(self._process.stop(self._spec.stop_within_s))
        hurry = asyncio.create_task(urgent.wait())
        await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            self._process.kill()
        hurry.cancel()
        if await ending == KILLED and not urgent.is_set():
            self._say(
                f"{self._spec.name} did not stop within {self._spec.stop_within_s:.0f} s "
                "and was killed."
            )

    async def _run_once(self) -> str:
        """Start the child and wait for its end: how it ended, in words."""
        heard, told = os.pipe()
        try:
            try:
                with _opened(self._spec.output) as output:
                    self._process = await OwnedProcess.start(
                        self._spec.command,
                        env={**os.environ, **self._spec.env, READY_FD: str(told)},
                        stdout=output,
                        stderr=output,
                        pass_fds=(told,),
                    )
            finally:
                os.close(told)
            try:
                async with asyncio.timeout(self._spec.ready_within_s):
                    is_ready = await _has_byte(heard)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
                return f"not ready within {self._spec.ready_within_s:.0f} s"
        finally:
            os.close(heard)
        if is_ready:
            self.ready.set()
        return exit_text(await self._process.wait())


def _opened(path: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    return nullcontext() if path is None else path.open("ab", buffering=0)


async def _has_byte(pipe: int) -> bool:
    """Wait for the first byte in `pipe`; False if all its writers closed it instead."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(pipe, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(pipe)
    return os.read(pipe, 1) != b""

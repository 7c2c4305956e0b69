"""Threads for sync actions: a bounded number at once, none waited for.

A thread cannot be stopped from outside. A call that outlives its time limit is abandoned: its
result is dropped, its place goes to the next call, and it is counted in `abandoned` until it ends.
Once as many are abandoned as may run, calls are refused: the worker is sick and has to be
restarted. The threads are daemons, so a hung one cannot hold up the worker's exit; a pool from
`concurrent.futures` would, and a hung call would occupy its place in it for ever.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, TypeVar

import structlog

from agents.time_limit import OverTimeError
from streams.errors import AgentError

T = TypeVar("T")

DEFAULT_LIMIT: Final = 32

_log = structlog.get_logger("agents.threads")


class Threads:
    """At most `limit` calls at once, and at most `limit` abandoned ones besides.

    Belongs to one event loop. A thread is started when a call finds none idle, and kept for the
    next one until `close`.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.running = 0
        self.abandoned = 0
        self._places = asyncio.Semaphore(limit)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0
        self._idle = 0

    async def within(
        self,
        seconds: float,
        name: str,
        work: Callable[[], T],
        begins: Callable[[], None] = lambda: None,
    ) -> T:
        """Call `work` in a thread called `name`, and wait for it for at most `seconds`.

        Waiting for a free place is not counted; `begins` is called when there is one. Raises
        `OverTimeError`, `AgentError` when too many threads are hung, or what `work` raises.
        """
        async with self._places:
            if self.abandoned >= self.limit:
                raise AgentError(
                    f"{self.abandoned} threads of sync actions hang beyond their time limits; "
                    "restart this worker and look for the cause in its log"
                )
            self.running += 1
            begins()
            try:
                outcome = await self._outcome(seconds, name, work)
            finally:
                self.running -= 1
        return outcome()

    def close(self) -> None:
        """Let idle threads end now, and busy ones after their call."""
        for _ in range(self._started):
            self._calls.put(None)
        self._started = self._idle = 0

    async def _outcome(self, seconds: float, name: str, work: Callable[[], T]) -> Callable[[], T]:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[Callable[[], T]] = loop.create_future()
        context = contextvars.copy_context()

        def finish(outcome: Callable[[], T]) -> None:
            self._idle += 1
            if finished.cancelled():
                self.abandoned -= 1
            else:
                finished.set_result(outcome)

        def call() -> None:
            threading.current_thread().name = name
            outcome = context.run(_outcome_of, work)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, outcome)

        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._serve, daemon=True).start()
            self._started += 1
        self._calls.put(call)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await finished
        except TimeoutError as error:
            raise OverTimeError from error
        finally:
            if finished.cancelled():
                self.abandoned += 1
                _log.warning("thread abandoned", thread=name, abandoned=self.abandoned)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _outcome_of(work: Callable[[], T]) -> Callable[[], T]:
    """What happened, as a function that makes it happen again in the caller."""
    try:
        result = work()
    except BaseException as raised:  # noqa: BLE001 -- raised again where the call is awaited
        error = raised

        def fail() -> T:
            raise error

        return fail
    return lambda: result

"""A worker's actors: what works in it for as long as it lives, each by its name; and their owner.

Rules:
- An actor that ends with an error is logged, counted, and ends the worker in order. Whoever watches
  over the process starts it again, and all work resumes where the state and the commits say.
- Nothing is restarted in place: it would go on behind what it had in hand.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

import structlog
from prometheus_client import Counter

_log = structlog.get_logger(__name__)
_failures = Counter("commandcenter_actor_failures_total", "Actors that failed.", ["actor"])


class Actors:
    """Owns the tasks of actors, and hears of the failures of those that others run."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run an actor until it ends or `stop`; its end without an error is nobody's concern."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def failed(self, name: str, error: BaseException) -> None:
        """Take in that an actor has failed."""
        _failures.labels(name).inc()
        if self._failure.done():  # often because of the first one
            _log.error("another actor failed", actor=name, exc_info=error)
            return
        _log.error("an actor failed; the worker ends by it", actor=name, exc_info=error)
        self._failure.set_exception(error)
        self._failure.exception()  # it is logged: nobody need ask for it

    async def failure(self) -> NoReturn:
        """Wait until one of them has failed, and raise why; the first counts."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Cancel those that are left, and wait for their ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # each was looked at when it ended

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(task.get_name(), error)

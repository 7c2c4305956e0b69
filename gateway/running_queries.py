"""Queries under way: a client can stop its own by id, and does so by going away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from aiohttp import web

from sinks.guest_sql import QueryError

T = TypeVar("T")
_CANCELLED: Final = 394
_LOOK_EVERY_S: Final = 1.0


class RunningQueries:
    """What runs, by id; of two with the same id the later one."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def run(self, request: web.Request, query_id: str, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives, unless somebody stops it or the client goes away meanwhile.

        Raises:
            QueryError: It was stopped.
        """
        task = asyncio.create_task(work)
        self._tasks[query_id] = task
        try:
            while not (await asyncio.wait([task], timeout=_LOOK_EVERY_S))[0]:
                if request.transport is None:  # it waits for no answer, others wait for its place
                    task.cancel()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            if self._tasks.get(query_id) is task:
                del self._tasks[query_id]
        if task.cancelled():
            raise QueryError("Query was cancelled.", _CANCELLED)
        return task.result()

    async def stop(self, query_id: str) -> bool:
        """Stop it, and return when it has ended; whether there was one."""
        task = self._tasks.get(query_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True


QUERIES: Final = web.AppKey("running queries", RunningQueries)

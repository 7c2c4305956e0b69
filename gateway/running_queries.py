"""Queries under way by the ids that their clients gave them, so that a client can stop its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from aiohttp import web

from sinks.guest_sql import QueryError

T = TypeVar("T")
_CANCELLED: Final = 394


class RunningQueries:
    """What runs, by id; of two with the same id the later one."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def run(self, query_id: str, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives, unless somebody stops it meanwhile.

        Raises:
            QueryError: It was stopped.
        """
        task = asyncio.create_task(work)
        self._tasks[query_id] = task
        try:
            return await task
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is not None and asking.cancelling():
                raise  # not the query alone: the gateway ends
            raise QueryError("Query was cancelled.", _CANCELLED) from None
        finally:
            if self._tasks.get(query_id) is task:
                del self._tasks[query_id]

    async def stop(self, query_id: str) -> bool:
        """Stop it, and return when it has ended; whether there was one."""
        task = self._tasks.get(query_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True


QUERIES: Final = web.AppKey("running queries", RunningQueries)

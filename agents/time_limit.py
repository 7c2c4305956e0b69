"""A time limit on a coroutine that costs nothing where the coroutine never waits.

Most small actions finish in their first step. That step is taken by hand, without a task or a
timer; only what is left after the first wait gets the limit. It all happens in the caller's task,
so an `asyncio.timeout` or `TaskGroup` inside the coroutine works as usual.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

# How long a coroutine may take to clean up after it was cancelled, in seconds.
GRACE_S: Final = 5.0


class OverTimeError(Exception):
    """The work did not finish in its time (a `TimeoutError` of its own is another matter)."""


def _not_told(_hard: asyncio.Timeout | None) -> None:
    """Nobody wants to know."""


async def within(
    seconds: float,
    work: Coroutine[Any, Any, T],
    *,
    grace: float = GRACE_S,
    bound_by: Callable[[asyncio.Timeout | None], None] = _not_told,
) -> T:
    """Await `work` for at most `seconds`.

    After that it is cancelled as asyncio does; if it has not ended `grace` seconds later it is
    closed by force, so that work which swallows its cancellation cannot stay for ever. `bound_by`
    is given the time-out that does so, to bring it forward, and None once that is over. Raises
    `OverTimeError`. Work that blocks the loop instead of awaiting cannot be stopped by anybody.
    """
    try:
        waiting_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    hard = asyncio.timeout(seconds + grace)
    soft = asyncio.timeout(seconds)
    try:
        async with hard, soft:
            bound_by(hard)
            rest: T = await _Rest(work, waiting_for, hard)
            return rest
    except Exception as error:
        if soft.expired():
            raise OverTimeError from error
        raise
    finally:
        bound_by(None)


class _Rest:
    """What remains of a coroutine after its first step, as an awaitable."""

    __slots__ = ("_hard", "_waiting_for", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, Any], waiting_for: object, hard: asyncio.Timeout
    ) -> None:
        self._work = work
        self._waiting_for = waiting_for
        self._hard = hard

    def __await__(self) -> Generator[Any, Any, Any]:
        work = self._work
        waiting_for = self._waiting_for
        while True:
            try:
                sent = yield waiting_for
            except BaseException as thrown:
                if self._hard.expired():
                    with suppress(RuntimeError):  # "coroutine ignored GeneratorExit"
                        work.close()
                    raise
                step = partial(work.throw, thrown)
            else:
                step = partial(work.send, sent)
            try:
                waiting_for = step()
            except StopIteration as done:
                return done.value

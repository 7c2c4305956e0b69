"""An asyncio loop that somebody else drives, one round at a time, by a clock that is given."""

import asyncio
from collections.abc import Callable
from typing import Any


class _NoSockets:
    """A selector of nothing: there are no sockets, and nobody waits."""

    def select(self, _timeout: float | None) -> list[Any]:
        return []


class HandDrivenLoop(asyncio.BaseEventLoop):
    """What is ready is done when `step` says so, and in the order in which it became ready.

    Args:
        clock: seconds; timers go by it, and nobody sleeps.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _NoSockets()
        self.troubles: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._clock()

    def step(self) -> None:
        """One round: what is ready now, and timers that are due."""
        self.call_soon(self.stop)
        self.run_forever()

    @property
    def next_due(self) -> float | None:
        """When there is something to do: now, at a time of the clock, or never (None)."""
        if self._ready:  # type: ignore[attr-defined]  # as the next: of asyncio's own loops
            return self._clock()
        timers = self._scheduled  # type: ignore[attr-defined]  # as above
        return min((timer.when() for timer in timers if not timer.cancelled()), default=None)

    def abandon(self) -> None:
        """End as a process does that is killed: nothing more is done."""
        if self.is_closed():
            return
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own, too
            coroutine: Any = task.get_coro()
            coroutine.close()
        self.close()

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.troubles.append(f"{context['message']}: {context.get('exception')!r}")

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits who would have to be woken."""

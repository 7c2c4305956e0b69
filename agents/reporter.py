"""Says how an attempt goes on: `Progress` records for the run, while the work is under way.

Rules:
- Where the task asks for reports, one is due when the work begins, and then a heartbeat every third
  of the time that the run waits for one. A heartbeat repeats the newest progress.
- An async action is called when the first report is on the log: one that blocks the loop says
  nothing any more.
- Progress that the action tells is sent at most once a second; the newest wins. Heartbeats that are
  due more often carry it sooner.
- After `end` nothing is said.
- A task that neither asks for reports nor tells progress costs no timer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from agents.signals import Signals
from streams.messages import Progress, Task

SPACING_S: Final = 1.0
_BEATS: Final = 3
_SHORTEST_S: Final = 0.01
_LONG_AGO: Final = float("-inf")

Say = Callable[[Task, Progress], None]
"""Takes a record to be sent, instead of an earlier one of the task that has not been sent."""


UntilTold = Callable[[Task], Awaitable[bool]]
"""Waits until all that was said is on the log; whether the task may still begin here."""


def nobody(_task: Task, _progress: Progress) -> None:
    """Nobody is told."""


async def at_once(_task: Task) -> bool:
    """What is said is told."""
    return True


class Reporter:
    """Speaks for one attempt. Belongs to the loop that it was made in."""

    __slots__ = (
        "_beat",
        "_due",
        "_loop",
        "_open",
        "_said_at",
        "_say",
        "_spacing",
        "_task",
        "_timer",
        "_worker",
        "signals",
    )

    def __init__(self, task: Task, say: Say, worker: str) -> None:
        beat = task.heartbeat_ms / 1000 / _BEATS if task.report else 0.0
        self._beat = max(beat, _SHORTEST_S) if beat else 0.0
        self._spacing = min(SPACING_S, self._beat) if beat else SPACING_S
        self._task = task
        self._say = say
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._said_at = _LONG_AGO
        self._open = True
        self._due = False
        self.signals = Signals(self._told)

    def begin(self) -> None:
        """The work begins; it is said once."""
        if self._task.report and self._said_at == _LONG_AGO:
            self._speak()

    def end(self) -> None:
        """The work has ended: say nothing more."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _told(self) -> None:
        """There is progress; called in any thread, the loop is woken once for what comes of it."""
        if self._open and not self._due:
            self._due = True
            with suppress(RuntimeError):  # the loop is closed: nobody is told any more
                self._loop.call_soon_threadsafe(self._plan)

    def _plan(self) -> None:
        wait = self._said_at + self._spacing - self._loop.time()
        if wait > 0:
            self._after(wait)
        else:
            self._speak()

    def _after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._speak) if self._open else None

    def _speak(self) -> None:
        if not self._open:
            return
        self._due = False  # first: what is told from here on is due again
        self._said_at = self._loop.time()
        percent, message = self.signals.progress
        task = self._task
        self._say(
            task,
            Progress(
                run=task.run,
                node=task.node,
                attempt=task.attempt,
                item=task.item,
                worker=self._worker,
                percent=percent,
                message=message,
            ),
        )
        if self._beat:
            self._after(self._beat)

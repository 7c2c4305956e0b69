"""A task in the hands of a worker, from when it was read to its result.

An order to end it is passed on to the action at once. Who has not ended after the order's grace is
cancelled as asyncio does, or, in a thread, given up; an async action then has a moment to clean up
before it is closed by force.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from agents.context import Context
from agents.reporter import Reporter, Say, UntilTold
from agents.signals import Signals
from streams.messages import Task, TaskCancellation


class RevokedError(Exception):
    """Another worker has got the task, before the work on it began here: that one does it."""


class Attempt:
    """One task in hand. What only some tasks need is made when it is needed: most are small.

    Args:
        task: what is to be done.
        say: takes its progress records.
        until_told: waits until they are on the log.
        worker: the name of this worker, for these records.
        grace: seconds that an async action has to clean up in, once it is cancelled.
        clock_ns: nanoseconds; any origin will do.
    """

    __slots__ = (
        "_began_ns",
        "_clock_ns",
        "_end_timer",
        "_grace",
        "_hard",
        "_reporter",
        "_say",
        "_until_told",
        "_work",
        "_worker",
        "context",
        "executed_by",
        "task",
        "worked_ns",
    )

    def __init__(
        self,
        task: Task,
        say: Say,
        until_told: UntilTold,
        worker: str,
        grace: float,
        clock_ns: Callable[[], int],
    ) -> None:
        self.task = task
        self.executed_by: asyncio.Task[None] | None = None
        """What executes it; where this is not said, whoever is current when it begins."""
        self.worked_ns: int | None = None
        """How long the action was at work; None while it has not been."""
        self._began_ns = 0
        self._clock_ns = clock_ns
        self.context: Context | None = None
        """What the action was given, where it takes one."""
        self._say = say
        self._until_told = until_told
        self._worker = worker
        self._grace = grace
        self._reporter: Reporter | None = None
        self._work: asyncio.Task[Any] | None = None
        self._hard: asyncio.Timeout | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    @property
    def signals(self) -> Signals:
        """What the action tells, and is told."""
        return self._speaker().signals

    @property
    def cancelled(self) -> str | None:
        """Why it is to end; None while it is not."""
        return None if self._reporter is None else self._reporter.signals.reason

    @property
    def has_its_turn(self) -> bool:
        """Whether it is being executed; until then it waits."""
        return self._work is not None

    def _speaker(self) -> Reporter:
        if self._reporter is None:
            self._reporter = Reporter(self.task, self._say, self._worker)
        return self._reporter

    def begin(self) -> None:
        """Its turn has come: its asyncio task executes it."""
        self._work = self.executed_by or asyncio.current_task()

    async def announce(self) -> None:
        """Say that the work begins, where the task asks for that, and wait until it is told.

        Raises:
            RevokedError: Meanwhile the task went to another worker.
        """
        if self.task.report:
            self._speaker().begin()
            if not await self._until_told(self.task):
                raise RevokedError(self.task.id)

    def begin_work(self) -> None:
        """The action is called now; waiting for its turn is over, which costs nothing."""
        self._began_ns = self._clock_ns()
        self.worked_ns = 0
        if self.task.report:
            self._speaker().begin()

    def end_work(self) -> None:
        """The action is over, or given up."""
        if self.worked_ns is not None:
            self.worked_ns = self._clock_ns() - self._began_ns

    def bound_by(self, hard: asyncio.Timeout | None) -> None:
        """Hear of the time-out that closes the action by force, while there is one."""
        self._hard = hard

    def cancel(self, order: TaskCancellation) -> None:
        """Pass the order on, and see to it that it is obeyed; the strictest of several counts."""
        self.signals.cancel(order.reason)
        loop = asyncio.get_running_loop()
        grace = order.grace_ms / 1000
        if self._end_timer is not None:
            if self._end_timer.when() <= loop.time() + grace:
                return
            self._end_timer.cancel()
        self._end_timer = loop.call_later(grace, self.give_up)

    def give_up(self) -> None:
        """End the work now, if it has not ended."""
        if self._work is not None:
            self._work.cancel()
            self.hasten()

    def hasten(self) -> None:
        """The work has been cancelled: close it by force if it is not soon over."""
        if self._hard is None or self._hard.expired():
            return
        ends = asyncio.get_running_loop().time() + self._grace
        when = self._hard.when()
        if when is None or when > ends:
            self._hard.reschedule(ends)

    def end(self) -> None:
        """There is a result, or there will be none: nothing more is said or done."""
        if self._reporter is not None:
            self._reporter.end()
        if self._end_timer is not None:
            self._end_timer.cancel()

"""What an action may know about the task it works on, tell of it, and be told."""

import asyncio

from msgspec import Struct, field
from structlog import get_logger
from structlog.typing import FilteringBoundLogger

from agents.signals import Signals


class Context(Struct, frozen=True, kw_only=True):
    """One attempt at one node of a run.

    `task_id` names the attempt: hand it to outside systems as the idempotency key (the same task
    may be executed again after a crash). `attempt` counts from 1, `started_at` is in milliseconds
    since the epoch, `traceparent` is the W3C header to pass on. The defaults are what
    `Action.test` uses; a test reads `signals.progress` and calls `signals.cancel`.
    """

    task_id: str = "test"
    run_id: str = "test"
    project: str = "default"
    workflow: str = "test"
    node: str = "test"
    attempt: int = 1
    item: int | None = None
    agent: str = "test"
    action: str = "test"
    started_at: int = 0
    traceparent: str | None = None
    signals: Signals = field(default_factory=Signals)

    async def progress(self, percent: float | None = None, message: str = "") -> None:
        """Say how far the work is, in percent, and what is being done.

        People see it live. It may be called as often as one likes: the newest is sent, at most
        once a second.
        """
        self.signals.tell(percent, message)
        await asyncio.sleep(0)  # on its way, if it is its time

    def report_progress(self, percent: float | None = None, message: str = "") -> None:
        """The same from a sync action; it returns at once."""
        self.signals.tell(percent, message)

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the result is not wanted any more: an async action tidies up and ends.

        Who has not ended within the grace that the workflow gives is cancelled.
        """
        return self.signals.cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether the result is not wanted any more: a sync action looks at it now and then.

        Who has not ended within the grace that the workflow gives is given up.
        """
        return self.signals.is_cancelled

    @property
    def logger(self) -> FilteringBoundLogger:
        """A structured logger that says which task it speaks of."""
        logger: FilteringBoundLogger = get_logger(f"agents.{self.agent}")
        return logger.bind(
            action=self.action,
            task=self.task_id,
            run=self.run_id,
            node=self.node,
            attempt=self.attempt,
        )

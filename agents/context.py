"""What an action may know about the task it works on."""

from msgspec import Struct
from structlog import get_logger
from structlog.typing import FilteringBoundLogger


class Context(Struct, frozen=True, kw_only=True):
    """One attempt at one node of a run.

    `task_id` names the attempt: hand it to outside systems as the idempotency key (the same task
    may be executed again after a crash). `attempt` counts from 1, `started_at` is in milliseconds
    since the epoch, `traceparent` is the W3C header to pass on. The defaults are what
    `Action.test` uses.
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

"""What an action may know about the task it works on, tell of it, and be told."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import structlog
from msgspec import Struct, field
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from agents.blob import Blobs, MemoryBlobs
from agents.cost import Costs
from agents.secrets import Secrets
from agents.signals import Signals
from agents.workspace import Workspace
from streams.records import Failure


class Colleague(Protocol):
    """Another action of the same worker, as who calls it sees it."""

    agent: str
    name: str
    description: str
    input_schema: dict[str, Any]


class Colleagues(Protocol):
    """The other actions of the same worker (`agents.colleagues`)."""

    def find(self, agent: str, action: str) -> Colleague:
        """An action that may be called. Raises `PermanentError`, which says why not."""
        ...

    async def call(
        self,
        caller: "Context",
        agent: str,
        action: str,
        inputs: bytes,
        *,
        secrets: Iterable[str] = (),
        number: int = 1,
    ) -> bytes | Failure:
        """The JSON that the action gives for these JSON inputs, or why there is none.

        `number` tells calls apart that are otherwise equal. Raises `PermanentError` as `find` does.
        """
        ...


class Context(Struct, frozen=True, kw_only=True):
    """One attempt at one node of a run.

    `task_id` names the attempt: hand it to outside systems as the idempotency key (the same task
    may be executed again after a crash). `attempt` counts from 1, `started_at` is in milliseconds
    since the epoch, `traceparent` is the W3C header to pass on. `secrets["NAME"]` gives a secret,
    `cost.record(…)` takes what the work costs beside time, `blobs` keeps files for others.

    The defaults are what `Action.test` uses. A test gives `secrets=Secrets({"NAME": "…"})`, reads
    `signals.progress` and `cost.entries`, and calls `signals.cancel`.
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
    cost: Costs = field(default_factory=Costs)
    secrets: Secrets = field(default_factory=Secrets)
    blobs: Blobs = field(default_factory=MemoryBlobs)
    folder: Workspace = field(default_factory=Workspace)
    colleagues: Colleagues | None = None
    """Other actions of the same worker; None in the sandbox, and where there are none."""

    @property
    def idempotency_key(self) -> str:
        """Names the attempt, for outside systems: the same whenever this very task comes again."""
        return self.task_id

    @property
    def workspace(self) -> Path:
        """A fresh folder that is only this attempt's, removed after it."""
        return self.folder.path

    @property
    def trace_headers(self) -> dict[str, str]:
        """The HTTP headers that let a called system join the trace."""
        return {} if self.traceparent is None else {"traceparent": self.traceparent}

    async def progress(self, percent: float | None = None, message: str = "") -> None:
        """Say how far the work is, in percent, and what is being done.

        People see it live. It may be called as often as one likes: the newest is sent, at most
        once a second.
        """
        self.signals.tell(percent, self.secrets.hide(message))
        await asyncio.sleep(0)  # on its way, if it is its time

    def report_progress(self, percent: float | None = None, message: str = "") -> None:
        """The same from a sync action; it returns at once."""
        self.signals.tell(percent, self.secrets.hide(message))

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
        """A structured logger that says which task it speaks of, and no secret of the task."""
        logger: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[self._without_secrets, *structlog.get_config()["processors"]],
            logger_factory_args=(f"agents.{self.agent}",),
        )
        return logger.bind(
            action=self.action,
            task=self.task_id,
            run=self.run_id,
            node=self.node,
            attempt=self.attempt,
        )

    def _without_secrets(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        if not self.secrets.asked:
            return event
        told = structlog.processors.format_exc_info(logger, name, event)
        return {key: self._hidden(value) for key, value in told.items()}

    def _hidden(self, value: object) -> object:
        """The value; its text, cut, where a secret stands in that."""
        text = value if isinstance(value, str) else repr(value)
        hidden = self.secrets.hide(text)
        return value if hidden == text else hidden

"""The sandbox as its users see it: one interface, three backends.

`process` confines with what the kernel offers, `docker` with a container engine, `inline` not at
all. All pass the tests of `tests/integration/test_sandbox.py`; what a backend cannot keep on this
machine it says in `guarantees`.
"""

from asyncio import Event
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct

from agents.sandbox.job import Job, Outcome


class Guarantees(Struct, frozen=True, kw_only=True):
    """What a job cannot do, on this machine. `why_not` says what is missing, one sentence each."""

    reads_only_what_it_may: bool = False
    writes_only_to_its_workspace: bool = False
    no_network: bool = False
    no_other_process: bool = False
    memory: bool = False
    processes: bool = False
    everything_ends: bool = False
    why_not: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.why_not


class Attendant(Protocol):
    """Who attends to a job at work. What it hears comes from code that is not trusted."""

    def told(self, kind: str, body: Any) -> None:
        """The job tells something. Raises `ValueError` for what makes no sense."""

    async def asked(self, kind: str, body: Any) -> Any:
        """The job asks something. Raises `CommandCenterError` with the text it is answered."""


class Sandbox(Protocol):
    """Does jobs. Belongs to one event loop; used as an asynchronous context manager."""

    name: str
    guarantees: Guarantees

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def folder(self) -> Path:
        """Where the folders of the jobs are, while it is open."""

    def workspace(self) -> AbstractAsyncContextManager[Path]:
        """A folder for the workspace of jobs, for whoever wants what they leave there.

        A job may have left links in it that lead anywhere: do not follow them.
        """

    async def run(
        self, job: Job, attendant: "Attendant | None" = None, stop: Event | None = None
    ) -> Outcome:
        """Do the job.

        When `stop` is set, the job is told to end (SIGTERM, and `Context.cancelled`), and killed
        after `limits.grace`. Whoever cancels this call kills the job at once. In each case every
        process of the job is gone when this returns or raises.

        Raises:
            SandboxError: the sandbox itself does not work; the text says what to do.
        """

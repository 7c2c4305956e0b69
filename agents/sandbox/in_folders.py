"""What every backend does the same way: it is open while the folders of its jobs are there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from agents.sandbox.errors import SandboxError
from agents.sandbox.folders import Folders
from agents.sandbox.job import Job


class InFolders:
    """The part of a backend that keeps folders; `folder`: where, if not with temporary files."""

    def __init__(self, folder: Path | None) -> None:
        self._folders = Folders(folder)

    async def _open(self) -> None:
        """What a backend needs besides. Raises `SandboxError`."""

    async def _close(self) -> None:
        """The end of that."""

    async def __aenter__(self) -> Self:
        self._folders.make()
        try:
            await self._open()
        except BaseException:
            await self._folders.remove()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()
        await self._folders.remove()

    @property
    def folder(self) -> Path:
        """Where the folders of the jobs are."""
        return self._folders.root

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Path]:
        """A folder for the workspace of jobs, removed after it."""
        async with self._folders.one() as folder:
            yield folder / "work"

    def _workspace_of(self, job: Job, folder: Path) -> Path:
        """The workspace of a job whose folder this is."""
        if job.workspace is None:
            return folder / "work"
        if not job.workspace.is_relative_to(self._folders.root):
            raise SandboxError(
                f"{job.workspace} is no workspace of this sandbox; make one with its workspace()"
            )
        return job.workspace

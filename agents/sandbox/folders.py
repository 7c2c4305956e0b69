"""The folders of one sandbox: for each job `work`, its workspace, and `tmp`, its temporary folder.

What a job leaves is removed by `rm`, whatever it is: trees too deep for a Python function, folders
without permissions.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

_PREFIX: Final = "commandcenter-sandbox-"
_PARTS: Final = ("work", "tmp")
_log = structlog.get_logger("agents.sandbox")


class Folders:
    """Folders below one that is made by `make`; `parent`: where."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self.root = Path("/nonexistent")

    def make(self) -> None:
        """Make the folder of all, and remove those of workers that were killed."""
        parent = (self._parent or Path(tempfile.gettempdir())).resolve()
        for old in parent.glob(f"{_PREFIX}*"):
            process = old.name.removeprefix(_PREFIX).partition("-")[0]
            if process.isdigit() and not Path("/proc", process).exists() and _is_ours(old):
                shutil.rmtree(old, ignore_errors=True)
        self.root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
        self.root.chmod(0o711)  # jobs of another user pass through

    def home(self) -> Path:
        """Where libraries put what they keep when they are imported before there is a job."""
        home = self.root / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        return home

    async def remove(self) -> None:
        """Remove everything."""
        await _remove(self.root)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Path]:
        """The folder of one job, removed after it."""
        folder = self._fresh()
        try:
            yield folder
        finally:
            if not _removed_if_empty(folder):  # most jobs leave nothing
                await _remove(folder)

    def _fresh(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.root))
        folder.chmod(0o711)
        for name in _PARTS:
            (folder / name).mkdir(mode=0o700)
        return folder


def _removed_if_empty(folder: Path) -> bool:
    try:
        for name in _PARTS:
            (folder / name).rmdir()
        folder.rmdir()
    except OSError:
        return False
    return True


def give(user: int, *folders: Path) -> None:
    """Make the user the owner of these folders and of what is in them. No link is followed."""
    for folder in folders:
        os.lchown(folder, user, user)
        for place, subfolders, files in os.walk(folder):
            for name in (*subfolders, *files):
                os.lchown(Path(place, name), user, user)


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    return status.st_uid == os.geteuid()


async def _remove(folder: Path) -> None:
    for line in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        process = await asyncio.create_subprocess_exec(
            *line, "--", str(folder), stderr=asyncio.subprocess.DEVNULL
        )
        if await process.wait() == 0 and line[0] == "rm":
            return
    _log.warning("a workspace is left behind", path=str(folder))

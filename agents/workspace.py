"""A private folder for one attempt, made when it is first asked for and removed after it."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

_PREFIX: Final = "commandcenter-"
_log = structlog.get_logger(__name__)


class Workspace:
    """The folder of one attempt. Who forgets it has it removed all the same."""

    __slots__ = ("__weakref__", "_path", "_remove", "_root")

    def __init__(self, root: Path | None = None) -> None:
        """`root`: where to make it; by default where temporary files go."""
        self._root = root
        self._path: Path | None = None
        self._remove: weakref.finalize[[Path], Workspace] | None = None

    @property
    def path(self) -> Path:
        """The folder, which nobody but this user can look into."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._root))
            self._remove = weakref.finalize(self, _removed, self._path)
        return self._path

    @property
    def is_made(self) -> bool:
        """Whether the folder is there, to be removed."""
        return self._remove is not None and self._remove.alive

    def remove(self) -> None:
        """Remove it with all that is in it; it may take a while. Harmless twice."""
        if self._remove is not None:
            self._remove()

    def __repr__(self) -> str:
        return f"Workspace({self._path})"


def _removed(path: Path) -> None:
    try:
        shutil.rmtree(path, onerror=_opened)
    except OSError as error:
        _log.warning("a workspace is left behind", path=str(path), why=str(error))


def _opened(again: Callable[..., Any], name: str, _: object) -> None:
    """What is in a folder without write permission: grant it, and try again once."""
    for path in (Path(name).parent, Path(name)):
        if not path.is_symlink():
            path.chmod(0o700)
    again(name)

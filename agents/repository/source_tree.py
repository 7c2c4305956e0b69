"""The files of one repository: which there are, and their text.

Rules:
- What a repository says about itself is not trusted: git runs none of its hooks, no symbolic link
  is followed, neither as a file nor on the way to one, and only regular files are opened.
- A file that cannot be read is counted in `skipped`, a folder is told in `warnings`; only for the
  root it is an error.
"""

import fnmatch
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from agents.errors import PermanentError
from agents.repository.git import environment, run_git
from streams.errors import AgentError

MAX_FILE_BYTES: Final = 1_000_000
MAX_LOCK_BYTES: Final = 32_000_000  # lock files are big, and their formats are known
SKIPPED_FOLDERS: Final = frozenset({
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox",
    ".mypy_cache", ".ruff_cache", ".pytest_cache",
})  # fmt: skip
_KEPT_TEXTS: Final = 64
_SHUT: Final = re.compile(r"could not open directory '(.+?)/?': (.+)")
_GIT_LIST: Final = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")

_Tell = Callable[[str, str], None]
"""Takes the name of a folder, and why it cannot be read."""


class SourceTree:
    """The regular files below `root`, by their path relative to it, with '/', sorted.

    In a git repository only what git does not ignore. `paths` keeps some: files, folders, or
    patterns as of `fnmatch`.

    Raises `PermanentError` where the folder cannot be read, or `paths` name nothing in it.
    """

    def __init__(self, root: Path, paths: Iterable[str] = ()) -> None:
        self.root = root.absolute()
        self.warnings: list[str] = []
        self._texts: OrderedDict[str, list[str] | None] = OrderedDict()
        self.skipped: set[str] = set()
        self.read: set[str] = set()
        self.files = _listed(self.root, self._cannot_look)
        wanted = [_checked(path) for path in paths]
        if wanted:
            self.files = self._chosen(wanted)

    def _cannot_look(self, folder: str, why: str) -> None:
        self.warnings.append(f"{folder}: the folder cannot be read: {why}")

    def _chosen(self, wanted: list[str]) -> list[str]:
        chosen: set[str] = set()
        for path in wanted:
            matching = [file for file in self.files if _is_in(file, path)]
            if not matching:
                self.warnings.append(f"paths: nothing to scan is at {path!r}")
            chosen.update(matching)
        if not chosen:
            raise PermanentError(
                f"{self.root}: paths name no file in it that could be scanned "
                f"({', '.join(map(repr, wanted[:5]))}); they are relative to the folder"
            )
        return sorted(chosen)

    def lines(self, file: str) -> list[str] | None:
        """The lines of a UTF-8 text file; `None` for anything else, or where it is too large."""
        if file in self._texts:
            self._texts.move_to_end(file)
            return self._texts[file]
        text = self.text(file, MAX_FILE_BYTES)
        found = None if text is None else re.split("\r\n|\r|\n", text)
        self._texts[file] = found
        if len(self._texts) > _KEPT_TEXTS:
            self._texts.popitem(last=False)
        return found

    def text(self, file: str, limit: int = MAX_LOCK_BYTES) -> str | None:
        """The text of a UTF-8 file of at most `limit` bytes; `None` for anything else."""
        try:
            file.encode()  # a name that is not UTF-8 could not be reported
            content = read_regular(self.root / file, limit)
            text = None if content is None or b"\0" in content else content.decode()
        except (OSError, UnicodeError):
            text = None
        (self.skipped if text is None else self.read).add(file)
        return text

    def each_text(self, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, list[str]]]:
        """Every file that is wanted and is text, with its lines."""
        for file in self.files:
            if is_wanted(file):
                lines = self.lines(file)
                if lines is not None:
                    yield file, lines

    def line(self, file: str, number: int) -> str:
        """Line `number` (from 1) without the blanks around it; empty where there is none."""
        lines = self.lines(file) or []
        return lines[number - 1].strip() if 1 <= number <= len(lines) else ""


def read_regular(path: Path, limit: int) -> bytes | None:
    """The content of a regular file, no symbolic link; `None` where it is none or is larger.

    Raises `OSError` where it cannot be read.
    """
    # Without blocking: opening a pipe would wait for who writes it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = stream.read(limit + 1)
    return None if len(content) > limit else content


def _checked(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise PermanentError(
            f"paths: {path!r} leads out of the repository; write it relative to it, without '..'"
        )
    return str(pure)


def _is_in(file: str, path: str) -> bool:
    return path == "." or file == path or file.startswith(path + "/") or fnmatch.fnmatch(file, path)


def _listed(root: Path, cannot_look: _Tell) -> list[str]:
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            raise PermanentError(f"{root} is not a folder")
        with os.scandir(root):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PermanentError(f"{root} cannot be read: {reason}") from error
    listed = _git_files(root, cannot_look)
    # A folder that the repository around it ignores has no files in git's eyes: walk it.
    if listed is None or (not listed and not (root / ".git").exists()):
        listed = list(_walked(root, cannot_look))
    is_within = _Within(root)
    return sorted(file for file in set(listed) if _is_wanted(root, file) and is_within(file))


def _git_files(root: Path, cannot_look: _Tell) -> list[str] | None:
    """What git tracks or would track below `root`; `None` where git cannot say."""
    try:
        done = run_git(_GIT_LIST, root, environment())
    except AgentError:
        return None
    if done.returncode != 0:
        return None
    for folder, why in _SHUT.findall(done.stderr.decode(errors="replace")):
        cannot_look(folder, why)
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _walked(root: Path, cannot_look: _Tell) -> Iterator[str]:
    def told(error: OSError) -> None:
        cannot_look(Path(error.filename).relative_to(root).as_posix(), error.strerror or "")

    for folder, subfolders, files in os.walk(root, onerror=told):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        for name in files:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _is_wanted(root: Path, file: str) -> bool:
    if not SKIPPED_FOLDERS.isdisjoint(file.split("/")[:-1]):
        return False
    try:
        mode = os.lstat(root / file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False  # tracked by git, but deleted
    except OSError:
        return True  # it is counted as one that cannot be read
    return stat.S_ISREG(mode)


class _Within:
    """Whether a file is reached without a symbolic link, which could lead out of the tree."""

    def __init__(self, root: Path) -> None:
        self._real = os.path.realpath(root)
        self._folders: dict[str, bool] = {}

    def __call__(self, file: str) -> bool:
        folder = file.rpartition("/")[0]
        if folder not in self._folders:
            expected = os.path.join(self._real, folder) if folder else self._real  # noqa: PTH118 -- compared as text with realpath
            self._folders[folder] = os.path.realpath(expected) == expected
        return self._folders[folder]

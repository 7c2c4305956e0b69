"""A git repository that is read, and at the end perhaps given one new branch.

Rules:
- The user's checkout is not touched: not the work tree, not the index, not HEAD, no branch of
  theirs. The work tree is not read either, so no symbolic link is ever followed.
- Everything is worked out in a quarantine: a bare repository in a temporary folder that borrows
  the objects of the real one. Only when all is well the new objects are handed over, and then the
  branch is made. Whatever fails before that leaves nothing behind.
- The same inputs on the same commit give the same commit id: its author and its dates are derived.
- What a repository says about itself is not trusted: none of its hooks or filters is run.
"""

import hashlib
import os
import posixpath
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from agents.errors import PermanentError
from agents.repository.git import complaint, environment, run_git

Action = Literal["created", "modified", "deleted"]

MAX_FILE_BYTES: Final = 5_000_000
AUTHOR: Final = "CommandCenter"
EMAIL: Final = "commandcenter@localhost"

_FILE: Final = 0o100644
_SYMLINK: Final = 0o120000
_SUBMODULE: Final = 0o160000
# The form of a diff does not depend on anybody's settings.
_DIFF: Final = (
    "diff-tree", "-r", "-p", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
    "--full-index", "--binary", "--unified=3", "--inter-hunk-context=0",
    "--diff-algorithm=myers", "--no-indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
_HUNK: Final = re.compile(rb"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
_FILE_HEAD: Final = re.compile(rb"^diff --git ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit."""

    mode: int
    object: str

    @property
    def is_regular(self) -> bool:
        """Whether it is a file with content: no symbolic link, no submodule."""
        return self.mode not in {_SYMLINK, _SUBMODULE}


@dataclass(frozen=True, slots=True)
class FileChange:
    """What has become of one file. `diff` is its part of the whole diff."""

    file: str
    action: Action
    lines_changed: int
    diff: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Two trees compared: per file, as one unified diff, and as the diff that takes it back."""

    changes: tuple[FileChange, ...]
    rollback: str


class Repository:
    """A repository with its quarantine; made by `opened`."""

    def __init__(self, folder: Path, objects: Path, object_format: str, quarantine: Path) -> None:
        self.folder = folder
        self._quarantine = quarantine
        self._format = object_format
        self._environment = environment()
        self._alone = self._environment | {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_DIR": str(quarantine),
            "GIT_INDEX_FILE": str(quarantine / "index"),
        }
        self._within(
            "init", "--quiet", "--bare", f"--object-format={object_format}", str(quarantine)
        )
        borrowed = quarantine / "objects" / "info" / "alternates"
        borrowed.write_bytes(os.fsencode(objects) + b"\n")

    # --- reading ----------------------------------------------------------------------------------

    def commit(self, revision: str) -> str:
        """The id of the commit that `revision` names. Raises `PermanentError`."""
        done = self._run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
        )
        if done.returncode != 0:
            is_empty = self._run("rev-list", "--all", "--max-count=1").stdout.strip() == b""
            what = "commit yet" if is_empty else f"commit {revision!r}"
            raise PermanentError(f"the repository {self.folder} has no {what}")
        return done.stdout.decode().strip()

    def branch(self, name: str) -> tuple[str, str, str] | None:
        """The commit, its first parent and its message; `None` where there is no such branch."""
        done = self._run("rev-parse", "--verify", "--quiet", f"refs/heads/{name}^{{commit}}")
        if done.returncode != 0:
            return None
        commit = done.stdout.decode().strip()
        told = self._within("show", "--no-patch", "--format=%P%n%B", commit)
        parents, _, message = told.decode(errors="replace").partition("\n")
        return commit, parents.partition(" ")[0], message.strip()

    def is_branch_name(self, name: str) -> bool:
        """Whether git takes `name` for a branch."""
        return self._run("check-ref-format", f"refs/heads/{name}").returncode == 0

    def tree(self, commit: str) -> str:
        """The id of a commit's tree."""
        return self._within("rev-parse", f"{commit}^{{tree}}").decode().strip()

    def changed_lines(self, old: Entry | None, content: bytes) -> frozenset[int] | None:
        """Which lines of `content` are new compared with a file; `None` for all of them.

        A line that only ends in another way has not changed.
        """
        if old is None or not old.is_regular:
            return None
        new = self._within("hash-object", "-w", "--stdin", data=content).decode().strip()
        told = self._within(
            "diff", "--text", "--no-color", "--no-ext-diff", "--no-textconv", "--unified=0",
            "--inter-hunk-context=0", "--ignore-cr-at-eol", old.object, new,
        )  # fmt: skip
        lines: set[int] = set()
        for hunk in _HUNK.finditer(told):
            first, count = int(hunk[1]), int(hunk[2] or 1)
            lines.update(range(first, first + count))
        return frozenset(lines)

    def is_same(self, old: Entry | None, content: bytes) -> bool:
        """Whether a file has this content, to the byte."""
        if old is None:
            return False
        hashed = hashlib.new(self._format, b"blob %d\0" % len(content), usedforsecurity=False)
        hashed.update(content)
        return hashed.hexdigest() == old.object

    def entries(self, tree: str) -> dict[str, Entry]:
        """Every file of a tree, by its path."""
        listed = self._within("ls-tree", "-r", "-z", "--full-tree", tree)
        entries: dict[str, Entry] = {}
        for line in filter(None, listed.split(b"\0")):
            about, _, path = line.partition(b"\t")
            mode, _, name = about.split(b" ")
            entries[_text(path)] = Entry(int(mode, 8), name.decode())
        return entries

    def content(self, entry: Entry) -> bytes:
        """A file's content. Raises `PermanentError` where it is over `MAX_FILE_BYTES`."""
        size = int(self._within("cat-file", "-s", entry.object))
        if size > MAX_FILE_BYTES:
            raise PermanentError(
                f"a file of {size:,} bytes is too large to be edited; "
                f"the limit is {MAX_FILE_BYTES:,}"
            )
        return self._within("cat-file", "blob", entry.object)

    def contents(self, entries: Mapping[str, Entry]) -> Iterator[tuple[str, bytes]]:
        """The content of many regular files, without those over `MAX_FILE_BYTES`."""
        wanted = {path: entry.object for path, entry in entries.items() if entry.is_regular}
        sizes = self._within(
            "cat-file",
            "--batch-check=%(objectsize)",
            data="".join(f"{name}\n" for name in wanted.values()).encode(),
        )
        small = [
            (path, name)
            for (path, name), size in zip(wanted.items(), sizes.split(b"\n"), strict=False)
            if size.isdigit() and int(size) <= MAX_FILE_BYTES
        ]
        told = self._within(
            "cat-file", "--batch", data="".join(f"{name}\n" for _, name in small).encode()
        )
        at = 0
        for path, _ in small:
            end = told.index(b"\n", at)
            size = int(told[at:end].rpartition(b" ")[2])
            yield path, told[end + 1 : end + 1 + size]
            at = end + 1 + size + 1

    # --- making a tree ----------------------------------------------------------------------------

    def edited(self, tree: str, edits: Mapping[str, bytes], entries: Mapping[str, Entry]) -> str:
        """The tree with other content in some of its files."""
        lines = []
        for path, content in edits.items():
            name = self._within("hash-object", "-w", "--stdin", data=content).decode().strip()
            mode = entries[path].mode if path in entries else _FILE
            lines.append(f"{mode:o} {name}\t".encode() + _bytes(path) + b"\0")
        self._within("read-tree", tree)
        self._within("update-index", "-z", "--index-info", data=b"".join(lines))
        return self._within("write-tree", "--missing-ok").decode().strip()

    def patched(self, tree: str, diff: bytes) -> str:
        """The tree with a unified diff applied. Raises `PermanentError` where it does not apply."""
        self._within("read-tree", tree)
        done = self._run(
            "apply", "--cached", "--whitespace=nowarn", "-", data=diff, within=self._alone
        )
        if done.returncode != 0:
            text = f"the patch does not apply: {complaint(done)}"
            if not any(line.startswith(b" ") for line in diff.splitlines()):
                text += " (it has no lines of context, and git takes none without: diff -U3)"
            raise PermanentError(text)
        changed = self._within("write-tree", "--missing-ok").decode().strip()
        self._check_links(tree, changed)
        return changed

    def _check_links(self, before: str, after: str) -> None:
        was = self.entries(before)
        for path, entry in self.entries(after).items():
            if was.get(path) == entry:
                continue
            if entry.mode == _SUBMODULE:
                raise PermanentError(f"the patch changes the submodule {path!r}; that is refused")
            if entry.mode == _SYMLINK:
                goal = _text(self.content(entry))
                where = posixpath.normpath(posixpath.join(posixpath.dirname(path), goal))
                if goal.startswith("/") or where.split("/")[0] in {"..", ".git"}:
                    raise PermanentError(
                        f"the patch makes {path!r} a symbolic link to {goal!r}, "
                        "out of the repository; that is refused"
                    )

    # --- telling what has changed -----------------------------------------------------------------

    def difference(self, before: str, after: str) -> Difference:
        """What the change from one tree to another is."""
        self._show_as_binary(before, after)
        kinds = self._within(
            "diff-tree", "-r", "-z", "--no-renames", "--name-status", before, after
        ).split(b"\0")
        counts = self._within(
            "diff-tree", "-r", "-z", "--no-renames", "--numstat", before, after
        ).split(b"\0")
        parts = _split(self._within(*_DIFF, before, after))
        changes = []
        for kind, path, count, part in zip(kinds[::2], kinds[1::2], counts, parts, strict=False):
            added, removed, _ = count.split(b"\t", 2)
            changes.append(
                FileChange(
                    file=_shown(path),
                    action=_ACTIONS.get(kind, "modified"),
                    lines_changed=sum(int(it) for it in (added, removed) if it.isdigit()),
                    diff=part.decode(),
                )
            )
        return Difference(tuple(changes), self._within(*_DIFF, after, before).decode())

    def _show_as_binary(self, before: str, after: str) -> None:
        """Have text that is not UTF-8 told as git tells binary files: a diff here is JSON text."""
        was, now = self.entries(before), self.entries(after)
        changed = {path for path in was.keys() | now.keys() if was.get(path) != now.get(path)}
        lines = []
        for path in sorted(changed):
            for entry in filter(None, (was.get(path), now.get(path))):
                if entry.mode == _SUBMODULE or _is_text(
                    self._within("cat-file", "blob", entry.object)
                ):
                    continue
                lines.append(_attribute_pattern(path) + b" -diff\n")
                break
        attributes = self._quarantine / "info" / "attributes"
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_bytes(b"".join(lines))

    # --- keeping it -------------------------------------------------------------------------------

    def committed(self, tree: str, parent: str, message: str) -> str:
        """The commit, still in the quarantine. Its dates are those of its parent."""
        date = self._within("show", "--no-patch", "--format=%ct", parent).decode().strip()
        identity = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", AUTHOR), ("EMAIL", EMAIL), ("DATE", f"@{date} +0000"))
        }
        return self._checked(
            self._run(
                "-c", "commit.gpgSign=false", "-c", "i18n.commitEncoding=UTF-8",
                "commit-tree", tree, "-p", parent,
                data=message.encode(errors="replace"), within=self._alone | identity,
            )
        ).decode().strip()  # fmt: skip

    def keep(self, branch: str, commit: str) -> None:
        """Hand over the new objects, then make the branch. Raises `PermanentError`."""
        name = f"refs/heads/{branch}"
        # Tried first, on the objects where they are: git locks the branch as if it made it, and
        # lets go. What is handed over for a branch that cannot be made would be left behind.
        quarantined = self._quarantine / "objects"
        self._make_branch(name, commit, "abort", GIT_ALTERNATE_OBJECT_DIRECTORIES=str(quarantined))
        folders = (it for it in quarantined.iterdir() if len(it.name) == 2)
        names = [folder.name + it.name for folder in folders for it in folder.iterdir()]
        if names:
            listed = "".join(f"{it}\n" for it in names).encode()
            pack = self._within("pack-objects", "--quiet", "--stdout", data=listed)
            stored = self._run("unpack-objects", "-q", data=pack)
            if stored.returncode != 0:
                raise PermanentError(
                    f"{self.folder}: the new commit cannot be stored: {complaint(stored)}"
                )
        self._make_branch(name, commit, "commit")

    def _make_branch(self, name: str, commit: str, end: str, **more: str) -> None:
        """A transaction that ends as it is told. The branch must not exist."""
        steps = f"start\ncreate {name} {commit}\nprepare\n{end}\n"
        command = ("update-ref", "--stdin")
        done = run_git(command, self.folder, self._environment | more, steps.encode())
        if done.returncode != 0:
            branch = name.removeprefix("refs/heads/")
            raise PermanentError(
                f"{self.folder}: the branch {branch} cannot be made: {complaint(done)}"
            )

    # --- git --------------------------------------------------------------------------------------

    def _within(self, *arguments: str, data: bytes = b"") -> bytes:
        """A git command in the quarantine, which has to succeed."""
        return self._checked(self._run(*arguments, data=data, within=self._alone))

    def _run(
        self, *arguments: str, data: bytes = b"", within: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """A git command; in the real repository unless `within` says otherwise."""
        folder = self.folder if within is None else self._quarantine
        return run_git(arguments, folder, within or self._environment, data)

    def _checked(self, done: subprocess.CompletedProcess[bytes]) -> bytes:
        if done.returncode != 0:
            raise PermanentError(f"{self.folder}: git could not go on: {complaint(done)}")
        return done.stdout


_ACTIONS: Final[Mapping[bytes, Action]] = {b"A": "created", b"D": "deleted"}


@contextmanager
def opened(path: str, *, to_write: bool = False) -> Iterator[Repository]:
    """The repository whose top folder (or bare folder) is `path`.

    `to_write`: it has to belong to this user, or to be named in git's `safe.directory`; else what
    is written there would be out of its owner's hands. Raises `PermanentError`.
    """
    folder = Path(path).absolute()
    try:
        if not folder.is_dir():
            raise PermanentError(
                f"{folder} is {'not a folder' if folder.exists() else 'not there'}"
            )
        os.scandir(folder).close()
    except OSError as error:
        raise PermanentError(f"{folder} cannot be read: {error.strerror}") from error
    quiet = environment()
    asked = ("rev-parse", "--is-bare-repository", "--absolute-git-dir", "--show-object-format")
    done = run_git(asked, folder, quiet, of_anybody=not to_write)
    if done.returncode != 0:
        raise PermanentError(
            f"{folder} is not a git repository that can be used: {complaint(done)}"
        )
    bare, top, object_format = os.fsdecode(done.stdout).strip().split("\n")
    if bare == "false":
        done = run_git(("rev-parse", "--show-toplevel"), folder, quiet)
        top = os.fsdecode(done.stdout).strip() or str(Path(top).parent)
    if Path(top).resolve() != folder.resolve():
        raise PermanentError(f"{folder} is inside a git repository; give its top folder, {top}")
    place = ("rev-parse", "--path-format=absolute", "--git-path", "objects")
    objects = Path(os.fsdecode(run_git(place, folder, quiet).stdout).rstrip("\n"))
    with TemporaryDirectory(prefix="commandcenter-git-") as quarantine:
        yield Repository(folder, objects, object_format, Path(quarantine))


def _split(diff: bytes) -> list[bytes]:
    """A diff by files. A line of content never begins like a head: it has one more character."""
    heads = [found.start() for found in _FILE_HEAD.finditer(diff)]
    ends = [*heads[1:], len(diff)]
    return [diff[start:end] for start, end in zip(heads, ends, strict=False)]


def _attribute_pattern(path: str) -> bytes:
    """The pattern of git's attributes that means exactly this path."""
    pattern = re.sub(rb"([\\*?\[])", rb"\\\1", _bytes(path))
    return b'"/' + b"".join(_quoted(byte) for byte in pattern) + b'"'


def _quoted(byte: int) -> bytes:
    if byte in b'"\\':
        return b"\\" + bytes([byte])
    return bytes([byte]) if 0x20 <= byte < 0x7F else b"\\%03o" % byte


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _shown(path: bytes) -> str:
    """A path as it can be told: JSON has no bytes that are not UTF-8."""
    return path.decode("utf-8", "backslashreplace")

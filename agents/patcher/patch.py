"""From an order to a branch: the steps of one patch."""

import hashlib
import json
import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Final

from agents.errors import PermanentError
from agents.patcher import config_update, dependency_update, refactoring
from agents.patcher.order import (
    ConfigUpdate,
    DependencyUpdate,
    FileDiff,
    Order,
    PatchInput,
    PatchOutput,
    Rename,
    SecurityPatch,
    SimpleRefactor,
)
from agents.repository.history import Difference, Entry, Repository, opened

_BRANCHES: Final = "commandcenter"
_MAX_REFACTORED_BYTES: Final = 200_000_000


def made(inputs: PatchInput, task: str) -> PatchOutput:
    """Make the patch. Raises `PermanentError` where it does not fit."""
    order = inputs.root
    with opened(order.target.repository_path, to_write=True) as repository:
        branch = _branch(repository, task)
        digest = hashlib.sha256(json.dumps(inputs.inputs, sort_keys=True).encode()).hexdigest()
        trailers = f"CommandCenter-Task: {task}\nCommandCenter-Inputs: {digest}"
        existing = repository.branch(branch)
        if existing is not None and not existing[2].endswith(trailers):
            raise PermanentError(
                f"{repository.folder} has a branch {branch} that this task did not make; "
                "rename or delete it"
            )
        # A task that is executed again starts from where it started.
        base = existing[1] if existing else repository.commit(order.target.revision)
        before = repository.tree(base)
        after = _patched(repository, before, order)
        difference = repository.difference(before, after)
        summary = _summary(order, difference)
        commit = None
        if difference.changes and not order.dry_run:
            commit = repository.committed(after, base, f"{summary}\n\n{trailers}\n")
            if existing is None:
                repository.keep(branch, commit)
            elif existing[0] != commit:
                raise PermanentError(
                    f"{repository.folder} has a branch {branch} that somebody has changed since "
                    "this task made it; rename or delete it"
                )
    return PatchOutput(
        applied=commit is not None,
        changes=tuple(
            FileDiff(
                file=each.file,
                action=each.action,
                lines_changed=each.lines_changed,
                diff=each.diff,
            )
            for each in difference.changes
        ),
        summary=summary,
        rollback=difference.rollback,
        branch=branch if commit else None,
        commit=commit,
        base=base,
    )


def _branch(repository: Repository, task: str) -> str:
    """The task's branch; task ids that git would not take are spelled another way."""
    name = f"{_BRANCHES}/{task}"
    if repository.is_branch_name(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_/-]|(?<=/)/", "-", task).strip("/-")
    return f"{_BRANCHES}/{plain}-{hashlib.sha256(task.encode()).hexdigest()[:8]}"


# --- the four kinds -------------------------------------------------------------------------------


def _patched(repository: Repository, tree: str, order: Order) -> str:
    """The tree after the patch."""
    if isinstance(order, SecurityPatch):
        # A patch that was pasted has often lost the end of its last line.
        return repository.patched(tree, order.changes.diff.removesuffix("\n").encode() + b"\n")
    entries = repository.entries(tree)
    if isinstance(order, DependencyUpdate):
        file = order.target.manifest
        content = _content(repository, entries, file)
        edits = {file: dependency_update.update(file, content, order.changes)}
    elif isinstance(order, ConfigUpdate):
        file = order.target.file
        content = _content(repository, entries, file)
        edits = {file: config_update.update(file, content, order.changes)}
    else:
        edits = _refactored(repository, entries, order)
    return repository.edited(tree, edits, entries)


def _content(repository: Repository, entries: Mapping[str, Entry], file: str) -> bytes:
    entry = entries.get(file)
    if entry is None:
        raise PermanentError(f"{repository.folder} has no file {file} in that commit")
    if not entry.is_regular:
        raise PermanentError(f"{file} is a symbolic link or a submodule; name the file itself")
    try:
        return repository.content(entry)
    except PermanentError as error:
        raise PermanentError(f"{file}: {error}") from error


def _refactored(
    repository: Repository, entries: Mapping[str, Entry], order: SimpleRefactor
) -> dict[str, bytes]:
    patterns = [re.compile(_translated(pattern)) for pattern in order.target.paths]
    wanted = {
        path: entry
        for path, entry in entries.items()
        if not patterns or any(pattern.fullmatch(path) for pattern in patterns)
    }
    contents: dict[str, bytes] = {}
    total = 0
    for path, content in repository.contents(wanted):
        total += len(content)
        if total > _MAX_REFACTORED_BYTES:
            raise PermanentError(
                f"the files to refactor have more than {_MAX_REFACTORED_BYTES:,} bytes; "
                "narrow them with target.paths"
            )
        if b"\0" not in content:
            contents[path] = content
    edits: dict[str, bytes] = {}
    for change in order.changes:
        if isinstance(change, Rename):
            python = {path: it for path, it in contents.items() if path.endswith((".py", ".pyi"))}
            changed = refactoring.renamed(python, change)
        else:
            changed = refactoring.replaced(contents, change)
        contents |= changed
        edits |= changed
    return edits


def _translated(pattern: str) -> str:
    """A pattern as a regular expression: `**/` also stands for no folder at all."""
    return "|".join(translate(it) for it in {pattern, pattern.replace("**/", "")})


# --- words ----------------------------------------------------------------------------------------


def _summary(order: Order, difference: Difference) -> str:
    if not difference.changes:
        return "Nothing to change: the repository is already as the patch would make it."
    files = len(difference.changes)
    lines = sum(change.lines_changed for change in difference.changes)
    what = _what(order)
    return f"{what} ({files} {_plural('file', files)}, {lines} {_plural('line', lines)} changed)"


def _what(order: Order) -> str:
    if isinstance(order, DependencyUpdate):
        named = [f"{it.package} {it.version}" for it in order.changes]
        return f"Update {_listed(named)} in {order.target.manifest}"
    if isinstance(order, ConfigUpdate):
        named = [".".join(map(str, it.path)) for it in order.changes]
        return f"Change {_listed(named)} in {order.target.file}"
    if isinstance(order, SimpleRefactor):
        named = [
            f"rename {it.symbol} to {it.to}" if isinstance(it, Rename) else "replace a text"
            for it in order.changes
        ]
        return f"Refactor: {_listed(named)}"
    return "Apply a security patch"


def _listed(names: list[str], most: int = 3) -> str:
    shown = [" ".join(name.split())[:100] for name in names[:most]]
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join(shown + more)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"

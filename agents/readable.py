"""Files and folders of the machine that an action may use, named by its inputs.

    repository_path: Annotated[str, Readable()]

An input so marked is the absolute path of a file or folder, and no action is called with one that
the worker does not give out. In the sandbox nothing else can be read, and what it holds is
read-only. A URL is passed over, and so is an empty text, and a path where there is nothing: the
action says so better. Of a git worktree the repository that it belongs to may be read as well.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, get_args

from pydantic import BaseModel, RootModel

from streams.errors import AgentError

# Where machines and people keep what is nobody's source code.
_PRIVATE: Final = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/lib", "/var/log")
_LONGEST_LINK: Final = 8_192
_PRIVATE_AT_HOME: Final = (".aws", ".config", ".docker", ".gnupg", ".kube", ".netrc", ".ssh")


class Readable:
    """Marks an input: what this path names may be used, if the worker gives it out.

    `or_within`: it may also be relative, to something else that may be read.
    """

    def __init__(self, *, or_within: bool = False) -> None:
        self.or_within = or_within


class UnreadableError(AgentError):
    """The path is none that an action is given. The text says why."""


class ReadablePaths:
    """Which paths may be given at all.

    Args:
        within: only what is below one of these; empty: anything that is not private. One that is
            itself in a private place of the machine makes an exception there.
        private: folders of the worker itself, which nothing is given of, nor what holds them.
        always: what may be read wherever it is.
    """

    def __init__(
        self,
        within: Iterable[Path] = (),
        private: Iterable[Path] = (),
        always: Iterable[Path] = (),
    ) -> None:
        self._always = tuple(each.resolve() for each in always)
        self._within = tuple(each.resolve() for each in within)
        home = [Path.home() / name for name in _PRIVATE_AT_HOME]
        self._of_the_machine = tuple(each.resolve() for each in (*map(Path, _PRIVATE), *home))
        self._own = tuple(each.resolve() for each in private)

    def of(self, inputs: BaseModel) -> tuple[Path, ...]:
        """What these inputs name, with links resolved. Raises `UnreadableError`."""
        found = (self.checked(name, text) for name, text in _marked(inputs))
        return tuple(path for paths in found for path in paths)

    def checked(self, name: str, text: str) -> tuple[Path, ...]:
        """What the path that `name` gives leads to. Raises `UnreadableError`."""
        path = self._checked(name, text)
        if path is None:
            return ()
        git = _repository_of_worktree(path)
        return (path,) if git is None else (path, *self.checked(f"{name} (its worktree)", git))

    def _checked(self, name: str, text: str) -> Path | None:
        if not text or "://" in text:
            return None
        path = Path(text)
        if "\0" in text or not path.is_absolute():
            raise UnreadableError(f"{name}: {text!r} is no absolute path")
        if ".." in path.parts:
            raise UnreadableError(f"{name}: {text!r} has '..' in it; name the folder itself")
        try:
            found = path.resolve(strict=True)
        except (OSError, RuntimeError):  # nothing there, or links in a circle
            return None
        if any(found.is_relative_to(each) for each in self._always):
            return found
        if self._is_private(found):
            raise UnreadableError(f"{name}: {text!r} leads to {found}, which holds private files")
        if self._within and not any(found.is_relative_to(each) for each in self._within):
            allowed = ", ".join(map(str, self._within))
            raise UnreadableError(f"{name}: {text!r} leads to {found}; only {allowed} may be read")
        return found

    def _is_private(self, found: Path) -> bool:
        named = [each for each in self._within if found.is_relative_to(each)]
        private = (
            *self._own,
            *(
                place
                for place in self._of_the_machine
                if not any(each.is_relative_to(place) for each in named)
            ),
        )
        return any(found.is_relative_to(each) or each.is_relative_to(found) for each in private)


class _Field(NamedTuple):
    """A field that paths may be in: where it stands, and its mark, if it has one."""

    name: str
    place: str
    mark: Readable | None


@cache
def _fields(model: type[BaseModel]) -> tuple[_Field, ...]:
    """The fields that are marked, wherever in their type, or that hold models."""
    found = []
    for name, field in model.model_fields.items():
        parts = [*field.metadata, *_parts(field.annotation)]
        mark = next((it for it in parts if isinstance(it, Readable)), None)
        if mark or any(isinstance(it, type) and issubclass(it, BaseModel) for it in parts):
            place = "" if issubclass(model, RootModel) else f".{field.alias or name}"
            found.append(_Field(name, place, mark))
    return tuple(found)


def _parts(annotation: object) -> Iterator[object]:
    yield annotation
    for each in get_args(annotation):
        yield from _parts(each)


def _marked(inputs: BaseModel, at: str = "") -> Iterator[tuple[str, str]]:
    """What is marked in the inputs and in the models within them, by its place."""
    for name, place, mark in _fields(type(inputs)):
        for each in _each(getattr(inputs, name)):
            if isinstance(each, BaseModel):
                yield from _marked(each, at + place)
            elif (
                mark is not None
                and isinstance(each, str | os.PathLike)
                and (Path(each).is_absolute() or not mark.or_within)
            ):
                yield (at + place).removeprefix("."), os.fspath(each)


def _each(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _each(each)
    else:
        yield value


def _repository_of_worktree(folder: Path) -> str | None:
    """The git folder that a worktree belongs to, where that one says so too.

    What stands in `.git` is the repository's own word: by itself it could name anybody's.
    """
    link = folder / ".git"
    try:
        if link.is_symlink() or not link.is_file() or link.stat().st_size > _LONGEST_LINK:
            return None
        registered = Path(link.read_text().removeprefix("gitdir:").strip())
        if Path((registered / "gitdir").read_text().strip()) != link:
            return None
        return str((registered / (registered / "commondir").read_text().strip()).resolve())
    except (OSError, ValueError):
        return None

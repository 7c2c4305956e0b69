"""Folders that an action in a sandbox may read, named by its inputs.

    repository_path: Annotated[str, Readable()]

An input so marked is the absolute path of a file or folder; what it holds is read-only in the
sandbox. A URL is passed over, and so is a path where there is nothing: the action says so better.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from streams.errors import AgentError

# Where machines and people keep what is nobody's source code.
_PRIVATE: Final = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/lib", "/var/log")
_PRIVATE_AT_HOME: Final = (".aws", ".config", ".docker", ".gnupg", ".kube", ".netrc", ".ssh")


class Readable:
    """Marks an input: what this path names may be read in a sandbox."""


class UnreadableError(AgentError):
    """The path is none that a sandbox is given. The text says why."""


class ReadablePaths:
    """Which paths may be given at all.

    Args:
        within: only what is below one of these; empty: anything that is not private.
        private: folders of the worker itself, which nothing is given of, nor what holds them.
    """

    def __init__(self, within: Iterable[Path] = (), private: Iterable[Path] = ()) -> None:
        self._within = tuple(each.resolve() for each in within)
        home = [Path.home() / name for name in _PRIVATE_AT_HOME]
        self._private = tuple(each.resolve() for each in (*map(Path, _PRIVATE), *home, *private))

    def of(self, inputs: BaseModel) -> tuple[Path, ...]:
        """What these inputs name, with links resolved. Raises `UnreadableError`."""
        return tuple(
            path
            for name, text in _marked(inputs)
            if (path := self._checked(name, text)) is not None
        )

    def _checked(self, name: str, text: str) -> Path | None:
        if "://" in text:
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
        if any(found.is_relative_to(each) or each.is_relative_to(found) for each in self._private):
            raise UnreadableError(f"{name}: {text!r} leads to {found}, which holds private files")
        if self._within and not any(found.is_relative_to(each) for each in self._within):
            allowed = ", ".join(map(str, self._within))
            raise UnreadableError(f"{name}: {text!r} leads to {found}; only {allowed} may be read")
        return found


def _marked(inputs: BaseModel) -> Iterator[tuple[str, str]]:
    for name, field in type(inputs).model_fields.items():
        if any(isinstance(each, Readable) for each in field.metadata):
            value = getattr(inputs, name)
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, str | os.PathLike):
                    yield field.alias or name, os.fspath(each)

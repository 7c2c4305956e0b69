"""A package that a repository uses, as its manifests and lock files say."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

Ecosystem = Literal["PyPI", "npm", "Go", "Maven"]
_Kind = TypeVar("_Kind", str, list[Any], dict[str, Any])

PURL_TYPES: Final[dict[Ecosystem, str]] = {
    "PyPI": "pypi",
    "npm": "npm",
    "Go": "golang",
    "Maven": "maven",
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """`version` is the one that is used, or, unless `pinned`, the oldest that may be.

    It is empty where nothing says it. `licence` is as the file says it, empty where it does not.
    """

    ecosystem: Ecosystem
    name: str
    version: str
    file: str
    line: int
    pinned: bool = True
    licence: str = ""

    @property
    def key(self) -> tuple[Ecosystem, str]:
        """What an advisory or a policy calls it."""
        return (self.ecosystem, self.name)

    @property
    def known_version(self) -> str:
        """The one that is used; empty where nothing says it, as a range does not."""
        return self.version if self.pinned else ""


@dataclass(frozen=True)
class UnreadLine:
    """A line that is not what its file is made of. Its text is not told: a secret may be in it."""

    line: int
    reason: str


class UnreadableManifestError(Exception):
    """The file is not what its name says; the text says where it is not."""


def whole(content: object) -> dict[str, Any]:
    """A file's content, which is one object. Raises `UnreadableManifestError` where it is none."""
    if not isinstance(content, dict):
        raise UnreadableManifestError(f"no object: {type(content).__name__}")
    return content


_KINDS: Final = {str: "text", list: "list", dict: "table"}


def held(
    value: object, kind: type[_Kind], line: int, what: str
) -> Generator[UnreadLine, None, _Kind]:
    """What `yield from` of it gives: the value, or an empty one where it is of another kind.

    That is told: `what` stands in `line` of the file.
    """
    if isinstance(value, kind):
        return value
    yield UnreadLine(line, f"{what} is no {_KINDS[kind]}: {type(value).__name__}")
    return kind()


Parser = Callable[[str, str], Iterator[Package | UnreadLine]]


class Places:
    """Finds the line of a text in a file, each next one further down where there are several."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._last: dict[str, int] = {}

    def of(self, *needles: str) -> int:
        """The line, from 1, of the first needle that is there after its last place; else 1."""
        for needle in needles:
            start = self._last.get(needle, 0)
            for number in range(start, len(self._lines)):
                if needle in self._lines[number]:
                    self._last[needle] = number + 1
                    return number + 1
            if start:
                return start
        return 1

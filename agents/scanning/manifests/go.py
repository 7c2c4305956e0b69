"""Go: go.mod. Go takes exactly the versions that it names, so it is the lock file as well."""

import re
from collections.abc import Iterator
from typing import Final

from univers.versions import GolangVersion

from agents.scanning.package import Package, UnreadLine

_MODULE: Final = re.compile(r"[\w.~/-]+", re.ASCII)
_FOLDER: Final = re.compile(r"\.\.?(/|\\|$)|/|[a-zA-Z]:[/\\]")
_OTHERS: Final = frozenset(
    {"module", "go", "toolchain", "godebug", "exclude", "retract", "tool", "ignore"}
)


def go_mod(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """The modules that are required; one that is replaced by another is that other one."""
    required: dict[str, tuple[str, int]] = {}
    replaced: dict[tuple[str, ...], tuple[str, str]] = {}  # by name, or by name and version
    for number, directive, words in _statements(text):
        match directive, words:
            case "require", [name, version] if _is_module(name, version):
                required[name] = (version, number)
            case "replace", [*old, "=>", name, version] if len(old) < 3 and _is_module(
                name, version
            ):
                replaced[tuple(old)] = (name, version)
            case "replace", [*old, "=>", path] if len(old) < 3 and _FOLDER.match(path):
                replaced[tuple(old)] = ("", "")  # nobody has an advisory for it
            case "require" | "replace", _:
                yield UnreadLine(number, f"not as {directive} is written")
            case _ if directive not in _OTHERS:
                yield UnreadLine(number, "no directive of go.mod")
    for name, (version, number) in required.items():
        other = replaced.get((name, version)) or replaced.get((name,))
        used, used_version = other or (name, version)
        if used:
            yield Package(
                ecosystem="Go",
                name=used,
                version=used_version.removesuffix("+incompatible").removeprefix("v"),
                file=file,
                line=number,
            )


def _statements(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Line, directive and what follows it, each line of a block with the block's directive."""
    block = ""
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("//")[0].replace("(", " ( ").replace(")", " ) ")
        match [word.strip('"`') for word in code.split()]:
            case []:
                continue
            case [")"] if block:
                block = ""
            case [name, "("] if not block:
                block = name
            case words if block:
                yield number, block, words
            case [name, *words]:
                yield number, name, words


def _is_module(name: str, version: str) -> bool:
    is_version = version.startswith("v") and GolangVersion.is_valid(version)  # type: ignore[no-untyped-call]  # univers has few types
    return _MODULE.fullmatch(name) is not None and bool(is_version)

"""Go: go.mod. Go takes exactly the versions that it names, so it is the lock file as well."""

import re
from collections.abc import Iterator
from typing import Final

from univers.versions import GolangVersion

from agents.scanning.package import Package, UnreadLine

_MODULE: Final = re.compile(r"[\w.~/-]+", re.ASCII)
_OTHERS: Final = frozenset(
    {"module", "go", "toolchain", "godebug", "exclude", "retract", "tool", "ignore"}
)


def go_mod(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """The modules that are required; one that is replaced by another is that other one."""
    required: dict[str, tuple[str, int]] = {}
    replaced: dict[str, tuple[str, str]] = {}
    block = ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("//")[0].split()
        if not words:
            continue
        if words == [")"]:
            block = ""
            continue
        if words[-1] == "(":
            block = words[0]
            continue
        directive, words = (block, words) if block else (words[0], words[1:])
        match directive, words:
            case "require", [name, version] if _is_module(name, version):
                required[name] = (version, number)
            case "replace", [name, *_, "=>", other, version] if _is_module(other, version):
                replaced[name] = (other, version)
            case "replace", [name, *_, "=>", _]:
                replaced[name] = ("", "")  # a folder: nobody has an advisory for it
            case "require" | "replace", _:
                yield UnreadLine(number, f"not as {directive} is written")
            case _ if directive not in _OTHERS:
                yield UnreadLine(number, "no directive of go.mod")
    for name, (version, number) in required.items():
        used, used_version = replaced.get(name, (name, version))
        if used:
            yield Package(
                ecosystem="Go",
                name=used,
                version=used_version.removesuffix("+incompatible").removeprefix("v"),
                file=file,
                line=number,
            )


def _is_module(name: str, version: str) -> bool:
    is_version = GolangVersion.is_valid(version)  # type: ignore[no-untyped-call]  # univers has few types
    return _MODULE.fullmatch(name) is not None and bool(is_version)

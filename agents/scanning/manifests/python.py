"""Python: requirements files, pyproject.toml, and the lock files of uv, poetry, pdm and pipenv."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from agents.scanning.package import Package, Places, UnreadableManifestError, UnreadLine, whole

_OPTIONS: Final = re.compile(r"\s+(--\S+.*|#.*)$")

# A URL, a path or an archive, which pip takes as well.
_PLACE: Final = re.compile(r"\w[\w+.-]*:|\.|[^\s=<>!~;]*[/\\]|\S+\.(whl|zip|tgz|tar\.\w+)\b")


def requirements(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """A file for `pip install -r`. Options, URLs and other files that it names are passed over."""
    logical, began = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if not logical:
            began = number
        logical += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        stated = _OPTIONS.sub("", logical.strip())
        logical = ""
        if stated and not stated.startswith(("#", "-")):
            yield from _required(file, began, stated)


def pyproject(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """The dependencies of PEP 621 and the groups of PEP 735."""
    content = _toml(text)
    project = _table(content.get("project"))
    places = Places(text)
    stated = [*_strings(project.get("dependencies"))]
    for group in _table(project.get("optional-dependencies")).values():
        stated += _strings(group)
    for group in _table(content.get("dependency-groups")).values():
        stated += _strings(group)
    for each in stated:
        yield from _required(file, places.of(f'"{each}"', f"'{each}'", each), each)


def toml_lock(file: str, text: str) -> Iterator[Package]:
    """uv.lock, poetry.lock, pdm.lock, and pylock.toml of PEP 751."""
    content = _toml(text)
    places = Places(text)
    for each in [*_list(content.get("package")), *_list(content.get("packages"))]:
        package = _table(each)
        name, version = package.get("name"), package.get("version")
        if not (isinstance(name, str) and isinstance(version, str)):
            continue
        source = _table(package.get("source"))
        if "editable" in source or "virtual" in source:
            continue  # the project itself
        line = places.of(f'name = "{name}"')
        yield _package(file, line, name, version, pinned=True)


def pipfile_lock(file: str, text: str) -> Iterator[Package]:
    """Pipfile.lock."""
    try:
        content = whole(json.loads(text))
    except ValueError as error:
        raise UnreadableManifestError(f"no JSON: {error}") from error
    places = Places(text)
    for group in ("default", "develop"):
        for name, package in _table(content.get(group)).items():
            version = str(_table(package).get("version", "")).removeprefix("==")
            if version:
                yield _package(file, places.of(f'"{name}":'), name, version, pinned=True)


def _required(file: str, line: int, stated: str) -> Iterator[Package | UnreadLine]:
    try:
        requirement = Requirement(stated)
    except InvalidRequirement:
        if not _PLACE.match(stated):
            yield UnreadLine(line, "no requirement of Python")
        return
    version, pinned = _oldest(requirement.specifier)
    yield _package(file, line, requirement.name, version, pinned=pinned)


def _oldest(specifiers: SpecifierSet) -> tuple[str, bool]:
    """The oldest version that may be, and whether it is the only one."""
    lower: list[Version] = []
    for each in specifiers:
        try:
            if each.operator in ("==", "===") and not each.version.endswith(".*"):
                return each.version, True
            if each.operator in (">=", "~=", "=="):
                lower.append(Version(each.version.removesuffix(".*")))
        except InvalidVersion:
            continue
    return (str(max(lower)), False) if lower else ("", False)


def _package(file: str, line: int, name: str, version: str, *, pinned: bool) -> Package:
    return Package(
        ecosystem="PyPI",
        name=canonicalize_name(name),
        version=version,
        file=file,
        line=line,
        pinned=pinned,
    )


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnreadableManifestError(f"no TOML: {error}") from error


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> Iterable[str]:
    return (each for each in _list(value) if isinstance(each, str))

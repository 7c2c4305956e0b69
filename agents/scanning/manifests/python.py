"""Python: requirements files, pyproject.toml, and the lock files of uv, poetry, pdm and pipenv."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from agents.scanning.package import (
    Package,
    Places,
    UnreadableManifestError,
    UnreadLine,
    held,
    whole,
)

_OPTIONS: Final = re.compile(r"\s+(--\S+.*|#.*)$")
_OPTION: Final = re.compile(r"--?[a-zA-Z]")
_COMMENT: Final = re.compile(r"(^|\s)#")

# A URL, a path or an archive, which pip takes as well.
_PLACE: Final = re.compile(r"\w[\w+.-]*:|\.|[^\s=<>!~;]*[/\\]|\S+\.(whl|zip|tgz|tar\.\w+)\b")


def requirements(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """A file for `pip install -r`. Options, URLs and other files that it names are passed over.

    As pip has it, a line of its own that is a comment does not go on, whatever it ends in, but a
    comment behind something does, and takes in what follows.
    """
    logical, began = "", 1
    for number, line in enumerate([*text.splitlines(), ""], 1):  # the last ends what goes on
        is_comment = line.lstrip().startswith("#")
        if not logical:
            began = number
        elif line.strip() and not is_comment and _COMMENT.search(logical):
            yield UnreadLine(number, "the comment before it ends in a backslash and takes it in")
        logical += f" {line}" if is_comment else line.removesuffix("\\")
        if line.endswith("\\") and not is_comment:
            continue
        stated = _OPTIONS.sub("", logical.strip())
        logical = ""
        if stated and not stated.startswith("#") and not _OPTION.match(stated):
            yield from _required(file, began, stated)


def pyproject(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """The dependencies of PEP 621 and the groups of PEP 735."""
    content = _toml(text)
    places = Places(text)
    line = places.of("[project]", "project")
    project = yield from held(content.get("project", {}), dict, line, "project")
    stated = [("dependencies", project.get("dependencies", []))]
    for parent, key in ((project, "optional-dependencies"), (content, "dependency-groups")):
        groups = yield from held(parent.get(key, {}), dict, places.of(key), key)
        stated += [(name, group) for name, group in groups.items()]
    for name, group in stated:
        line = places.of(f"{name} =", name)
        for each in (yield from held(group, list, line, "a list of dependencies")):
            if isinstance(each, dict) and "include-group" in each:
                continue  # of what is listed as well
            needles = (f'"{each}"', f"'{each}'", str(each))
            requirement = yield from held(each, str, line, "a dependency")
            if requirement:
                yield from _required(file, places.of(*needles), requirement)


def toml_lock(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """uv.lock, poetry.lock, pdm.lock, and pylock.toml of PEP 751."""
    content = _toml(text)
    places = Places(text)
    for key in ("package", "packages"):
        for each in (yield from held(content.get(key, []), list, places.of(key), key)):
            line = places.of(f"[[{key}]]")
            package = yield from held(each, dict, line, "a package")
            source = package.get("source", {})
            is_own = isinstance(source, dict) and {"editable", "virtual"} & source.keys()
            if not package or is_own:
                continue
            name = package.get("name")
            if not isinstance(name, str):
                yield UnreadLine(line, "a package without a name")
                continue
            line = places.of(f'name = "{name}"')
            version = yield from held(package.get("version", ""), str, line, "a version")
            if version:
                yield _package(file, line, name, version, pinned=True)


def pipfile_lock(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """Pipfile.lock."""
    try:
        content = whole(json.loads(text))
    except ValueError as error:
        raise UnreadableManifestError(f"no JSON: {error}") from error
    places = Places(text)
    for key in ("default", "develop"):
        group = yield from held(content.get(key, {}), dict, places.of(f'"{key}"'), key)
        for name, entry in group.items():
            line = places.of(f'"{name}":')
            package = yield from held(entry, dict, line, "a package")
            version = yield from held(package.get("version", ""), str, line, "a version")
            if version:
                yield _package(file, line, name, version.removeprefix("=="), pinned=True)


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

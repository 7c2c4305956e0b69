"""JavaScript: package.json, and the lock files of npm, pnpm and yarn."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from univers.version_range import InvalidVersionRange, NpmVersionRange
from univers.versions import InvalidVersion

from agents.scanning.package import (
    Package,
    Places,
    UnreadableManifestError,
    UnreadLine,
    held,
    whole,
)
from agents.yaml_aliases import make_too_large

_EXACT: Final = re.compile(r"[v=]?\d+\.\d+\.\d+(-[\w.-]+)?(\+[\w.-]+)?")
_GROUPS: Final = ("dependencies", "devDependencies", "optionalDependencies")
_YARN_ENTRY: Final = re.compile(r'^"?(?P<name>@?[^@"\s]+)@.*:$')
_YARN_OTHER: Final = re.compile(r"(?!__metadata:)[^\s#]")
_YARN_VERSION: Final = re.compile(r'^  version:? "?(?P<version>[^"\s]+)"?$')


def package_json(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """What a project asks for: mostly ranges."""
    content = _json(text)
    places = Places(text)
    for key in _GROUPS:
        group = yield from held(content.get(key, {}), dict, places.of(f'"{key}"'), key)
        for name, wanted in group.items():
            line = places.of(f'"{name}": "{wanted}"', f'"{name}"')
            if not isinstance(wanted, str):
                yield from held(wanted, str, line, "a version")
                continue
            version, pinned = _oldest(wanted)
            yield _package(file, line, name, version, pinned=pinned)


def package_lock(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """package-lock.json and npm-shrinkwrap.json of every version."""
    content = _json(text)
    places = Places(text)
    packages = yield from held(content.get("packages", {}), dict, 1, "packages")
    for path, each in packages.items():
        line = places.of(f'"{path}"')
        package = yield from held(each, dict, line, "a package")
        if "node_modules/" not in path or package.get("link"):
            continue  # the project itself, or a part of it
        name = package.get("name") or path.rpartition("node_modules/")[2]
        if not isinstance(name, str):
            yield UnreadLine(line, "a package without a name")
            continue
        version = yield from held(package.get("version", ""), str, line, "a version")
        if version:
            licence = _licence(package.get("license"))
            yield _package(file, line, name, version, pinned=True, licence=licence)
    if not packages:
        yield from _first_format(file, places, content)


def _first_format(
    file: str, places: Places, content: dict[str, Any]
) -> Iterator[Package | UnreadLine]:
    left, line = [content], 1
    while left:
        inner = left.pop(0).get("dependencies", {})
        for name, each in (yield from held(inner, dict, line, "dependencies")).items():
            line = places.of(f'"{name}": {{', f'"{name}"')
            package = yield from held(each, dict, line, "a package")
            version = yield from held(package.get("version", ""), str, line, "a version")
            if _EXACT.fullmatch(version):
                yield _package(file, line, name, version, pinned=True)
            left.append(package)


def pnpm_lock(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """pnpm-lock.yaml; its keys are name@version, of older ones /name/version."""
    if make_too_large(text):
        raise UnreadableManifestError("its aliases make it too large")
    try:
        content = whole(yaml.load(text, Loader=_LOADER))  # noqa: S506 -- a safe loader, in C
    except yaml.YAMLError as error:
        raise UnreadableManifestError(f"no YAML: {' '.join(str(error).split())}") from error
    places = Places(text)
    line = places.of("packages:")
    for key in (yield from held(content.get("packages", {}), dict, line, "packages")):
        plain = str(key).partition("(")[0].removeprefix("/")
        name, at, version = plain.rpartition("@")
        if not (at and name):
            name, _, version = plain.rpartition("/")
        if name and _EXACT.fullmatch(version):
            yield _package(file, places.of(str(key)), name, version, pinned=True)


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def yarn_lock(file: str, text: str) -> Iterator[Package | UnreadLine]:
    """yarn.lock: an unindented line names a package, an indented one its version."""
    name, line = "", 0
    for number, each in enumerate(text.splitlines(), 1):
        if entry := _YARN_ENTRY.match(each):
            name, line = entry["name"], number
        elif _YARN_OTHER.match(each):
            yield UnreadLine(number, "no entry of yarn.lock")
        elif name and (version := _YARN_VERSION.match(each)):
            if _EXACT.fullmatch(version["version"]):
                yield _package(file, line, name, version["version"], pinned=True)
            name = ""


def _oldest(wanted: str) -> tuple[str, bool]:
    """The oldest version that may be, and whether it is the only one; empty where unknown."""
    if _EXACT.fullmatch(wanted):
        return wanted.lstrip("v="), True
    try:
        constraints = NpmVersionRange.from_native(wanted).constraints  # type: ignore[no-untyped-call]  # univers has few types
        lower = [it.version for it in constraints if it.comparator in (">=", "=", ">")]
    except (InvalidVersion, InvalidVersionRange, ValueError, AttributeError, TypeError):
        return "", False  # a tag, a URL, or a range that univers does not know
    return (str(min(lower)), False) if lower else ("", False)


def _licence(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("type")
    return value if isinstance(value, str) else ""


def _package(
    file: str, line: int, name: str, version: str, *, pinned: bool, licence: str = ""
) -> Package:
    return Package(
        ecosystem="npm",
        name=name,
        version=version,
        file=file,
        line=line,
        pinned=pinned,
        licence=licence,
    )


def _json(text: str) -> dict[str, Any]:
    try:
        return whole(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UnreadableManifestError(f"no JSON: {error}") from error

"""A dependency's version in a manifest is changed; the rest of the file stays as it is."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any, Final

from agents.errors import PermanentError
from agents.patcher import specifier
from agents.patcher.order import DependencyChange

_NAME_AND_EXTRAS: Final = re.compile(r"\s*[A-Za-z0-9._-]+\s*(\[[^\]]*\])?\s*")
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_NPM_SECTIONS: Final = (
    "dependencies", "devDependencies", "optionalDependencies", "peerDependencies",
)  # fmt: skip
_GO_VERSION: Final = re.compile(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+incompatible)?")
_GO_REQUIRE: Final = re.compile(
    r"(?P<head>\s*(?:require\s+)?)(?P<module>[^\s()]+)(?P<space>\s+)(?P<version>v[^\s/]+)"
    r"(?P<tail>\s*(//.*)?)"
)
_MAVEN_VERSION: Final = re.compile(r"[0-9A-Za-z][\w.+~-]*", re.ASCII)
_MAVEN_RANGE: Final = re.compile(r"(?!.*\[\])[\[(](, |[\w.+~,\[\]()-])+", re.ASCII)


def update(manifest: str, content: bytes, changes: Sequence[DependencyChange]) -> bytes:
    """The manifest with the new versions. Raises `PermanentError`."""
    name = PurePosixPath(manifest).name
    edit = next((it for pattern, it in _MANIFESTS if fnmatch(name, pattern)), None)
    if edit is None:
        known = ", ".join(pattern for pattern, _ in _MANIFESTS)
        raise PermanentError(f"{manifest}: this kind of manifest is not known; known are {known}")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise PermanentError(f"{manifest} is not UTF-8 text: {error.reason}") from error
    for change in changes:
        try:
            text = edit(text, change)
        except PermanentError as error:
            raise PermanentError(f"{manifest}: {change.package}: {error}") from error
        except RecursionError as error:
            raise PermanentError(f"{manifest} is nested too deep") from error
    return text.encode()


def _absent() -> PermanentError:
    return PermanentError("the manifest does not name this dependency")


# --- Python ---------------------------------------------------------------------------------------


def _requirements(text: str, change: DependencyChange) -> str:
    lines = re.split(r"(?<=\n)", text)
    is_found = False
    for number, rest in _begun(lines):
        line = lines[number]
        code = _COMMENT.sub("", line.rstrip("\r\n"))
        stated = code.removesuffix("\\").split(" --")[0]
        # Behind a comment that goes on there is only more of the comment.
        rest = _COMMENT.sub("", rest) if code.endswith("\\") else ""
        more = rest.split(" --")[0]
        if _requirement(stated + more, change) is None:
            continue
        is_found = True
        if "--hash" in code + rest:
            raise PermanentError(
                "it is pinned with hashes, which only the package's files can tell; "
                "compile the file anew with the tool that made it"
            )
        changed = _requirement(stated, change)
        if changed is None or more.lstrip()[:1] not in ("", ";"):
            raise PermanentError(f"it stands on several lines, from {number + 1}; edit it by hand")
        lines[number] = line.replace(stated, changed, 1)
    if not is_found:
        raise _absent()
    return "".join(lines)


def _begun(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Where something begins, and what it goes on with after a backslash, as pip reads it.

    A line that is a comment does not go on, whatever it ends in.
    """
    start, rest, goes_on = 0, "", False
    for number, line in enumerate(lines):
        plain = line.rstrip("\r\n")
        if goes_on:
            rest += " " + plain.removesuffix("\\")
        else:
            start, rest = number, ""
        goes_on = plain.endswith("\\") and not plain.lstrip().startswith("#")
        if not goes_on:
            yield start, rest
    if goes_on:
        yield start, rest


def _requirement(text: str, change: DependencyChange) -> str | None:
    """A requirement of PEP 508 with the new version; `None` where it is about something else."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        found = Requirement(text.strip())
    except InvalidRequirement:
        return None
    if canonicalize_name(found.name) != canonicalize_name(change.package):
        return None
    if found.url is not None:
        raise PermanentError(f"it comes from {found.url}; it is left alone")
    head = _NAME_AND_EXTRAS.match(text)
    start = head.end() if head is not None else 0
    rest, semicolon, marker = text[start:].partition(";")
    stripped = rest.rstrip()
    space = rest[len(stripped) :]
    changed = text[:start] + specifier.python(stripped, change.version) + space + semicolon + marker
    try:
        Requirement(changed.strip())
    except InvalidRequirement as error:
        raise PermanentError(f"{changed.strip()!r} would be no requirement: {error}") from error
    return changed


def _pyproject(text: str, change: DependencyChange) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from agents.patcher.toml_text import put

    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise PermanentError(f"it is not TOML: {error}") from error
    is_found = False
    for listed in _requirement_lists(document):
        for number, item in enumerate(listed):
            changed = _requirement(item, change) if isinstance(item, str) else None
            if changed is not None:
                is_found = True
                if changed != item:
                    put(listed, number, changed)
    for table in _poetry_tables(document):
        is_found = _poetry(table, change) or is_found
    if not is_found:
        raise _absent()
    return tomlkit.dumps(document)


def _requirement_lists(document: Any) -> Iterator[Any]:
    project = document.get("project", {})
    yield project.get("dependencies", [])
    yield from project.get("optional-dependencies", {}).values()
    yield from document.get("dependency-groups", {}).values()
    yield document.get("build-system", {}).get("requires", [])


def _poetry_tables(document: Any) -> Iterator[Any]:
    poetry = document.get("tool", {}).get("poetry", {})
    yield poetry.get("dependencies", {})
    yield poetry.get("dev-dependencies", {})
    for group in poetry.get("group", {}).values():
        yield group.get("dependencies", {})


def _poetry(table: Any, change: DependencyChange) -> bool:
    from packaging.utils import canonicalize_name

    from agents.patcher.toml_text import put

    is_found = False
    for name, value in table.items():
        if canonicalize_name(name) != canonicalize_name(change.package):
            continue
        if isinstance(value, str):
            put(table, name, specifier.poetry(value, change.version))
        elif isinstance(value, Mapping) and isinstance(value.get("version"), str):
            put(table[name], "version", specifier.poetry(value["version"], change.version))
        else:
            raise PermanentError("it has no version here; it is left alone")
        is_found = True
    return is_found


# --- npm ------------------------------------------------------------------------------------------


def _package_json(text: str, change: DependencyChange) -> str:
    from agents.patcher.json_text import JsonText

    JsonText(text.encode())
    data = json.loads(text)
    is_found = False
    for section in _NPM_SECTIONS:
        listed = data.get(section) if isinstance(data, dict) else None
        old = listed.get(change.package) if isinstance(listed, dict) else None
        if isinstance(old, str):
            is_found = True
            new = specifier.npm(old, change.version)
            text = JsonText(text.encode()).changed((section, change.package), new).decode()
    if not is_found:
        raise _absent()
    return text


# --- Go -------------------------------------------------------------------------------------------


def _go_mod(text: str, change: DependencyChange) -> str:
    if _GO_VERSION.fullmatch(change.version) is None:
        raise PermanentError(f"{change.version!r} is no version of Go; write it as v1.2.3")
    lines = text.split("\n")
    block = ""
    is_found = False
    for number, line in enumerate(lines):
        words = line.split("//")[0].split()
        if words[1:2] == ["("]:
            block = words[0]
            continue
        if words == [")"]:
            block = ""
            continue
        directive = block or (words[0] if words else "")
        named = words[0 if block else 1 :][:1]
        if named != [change.package]:
            continue
        if directive == "replace":
            raise PermanentError(
                "a replace directive stands for it, so another version would change nothing"
            )
        required = _GO_REQUIRE.fullmatch(line.rstrip("\r"))
        if directive == "require" and required is not None:
            is_found = True
            lines[number] = (
                required["head"] + change.package + required["space"] + change.version
                + required["tail"] + line[len(line.rstrip("\r")) :]
            )  # fmt: skip
    if not is_found:
        raise _absent()
    return "\n".join(lines)


# --- Maven ----------------------------------------------------------------------------------------


def _pom(text: str, change: DependencyChange) -> str:
    from agents.patcher.pom import PomText

    group, colon, artifact = change.package.partition(":")
    if not (group and colon and artifact):
        raise PermanentError("name it as groupId:artifactId")
    if not (_MAVEN_VERSION.fullmatch(change.version) or _is_maven_range(change.version)):
        raise PermanentError(f"{change.version!r} is no version and no range of Maven")
    return PomText(text).changed(group, artifact, change.version)


def _is_maven_range(text: str) -> bool:
    from univers.version_range import MavenVersionRange

    if _MAVEN_RANGE.fullmatch(text) is None:
        return False
    try:
        found = MavenVersionRange.from_native(text)  # type: ignore[no-untyped-call]  # univers has few types
    except ValueError:
        return False
    return bool(found.constraints)


_Edit = Callable[[str, DependencyChange], str]
_MANIFESTS: Final[tuple[tuple[str, _Edit], ...]] = (
    ("pyproject.toml", _pyproject),
    ("package.json", _package_json),
    ("go.mod", _go_mod),
    ("pom.xml", _pom),
    ("*requirements*.txt", _requirements),
    ("*requirements*.in", _requirements),
    ("constraints*.txt", _requirements),
)

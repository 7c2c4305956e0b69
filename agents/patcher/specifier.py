"""A requirement of Python or npm with another version: the operator stays."""

import re
from typing import Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from agents.errors import PermanentError

_CLAUSE: Final = re.compile(r"(?P<operator>===|==|~=|>=)(?P<space>\s*)(?P<version>[^\s,;]+)")
_NPM_VERSION: Final = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_NPM_RANGE: Final = re.compile(r"[\^~<>=v\d\sxX*|.+a-zA-Z-]+")
_NPM_PREFIXED: Final = re.compile(rf"(?P<operator>[\^~]|>=|=|)(?P<space>\s*){_NPM_VERSION.pattern}")


def python(old: str, version: str) -> str:
    """The specifier `old` (perhaps empty) with a new version. Raises `PermanentError`."""
    if not _is_python_version(version):
        try:
            SpecifierSet(version)
        except InvalidSpecifier as error:
            raise PermanentError(f"{version!r} is no version and no specifier of Python") from error
        return version
    if not old.strip():
        return f"=={version}"
    clause = _CLAUSE.fullmatch(old.strip())
    if clause is None:
        raise PermanentError(
            f"{old.strip()!r} is not a single ==, ~= or >=, so {version} could mean several "
            "things; give the whole specifier, such as '>=2,<3'"
        )
    return old.replace(clause[0], f"{clause['operator']}{clause['space']}{version}")


def poetry(old: str, version: str) -> str:
    """The same for Poetry, which has `^1.2` and `~1.2` besides."""
    if old[:1] in {"^", "~"} and old[:2] != "~=" and _is_python_version(version):
        return old[0] + version if "," not in old else python(old, version)
    if _is_python_version(old) and _is_python_version(version):
        return version
    return version if version[:1] in {"^", "~", "*"} else python(old, version)


def npm(old: str, version: str) -> str:
    """The range `old` with a new version. Raises `PermanentError`."""
    if ":" in old or "/" in old:
        raise PermanentError(f"{old!r} is no version range of npm's registry; it is left alone")
    if _NPM_VERSION.fullmatch(version) is None:
        if _NPM_RANGE.fullmatch(version) is None:
            raise PermanentError(f"{version!r} is no version and no range of npm")
        return version
    range_ = _NPM_PREFIXED.fullmatch(old.strip())
    if range_ is None:
        raise PermanentError(
            f"{old!r} is not a single version, ^, ~ or >=, so {version} could mean several "
            "things; give the whole range, such as '>=2 <3'"
        )
    return f"{range_['operator']}{range_['space']}{version}"


def _is_python_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True

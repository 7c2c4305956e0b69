"""The packages that a repository uses, from its manifests and lock files.

Where a folder has a lock file, or a folder above it, a manifest in it says nothing more: the lock
file has the versions that are used. Requirements files stand for themselves where they pin.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Final, NamedTuple

from agents.repository.source_tree import SourceTree
from agents.scanning.manifests import go, maven, npm, python
from agents.scanning.package import Ecosystem, Package, Parser, UnreadableManifestError, UnreadLine


class _Kind(NamedTuple):
    pattern: str
    parser: Parser
    ecosystem: Ecosystem
    is_lock: bool


_KINDS: Final = (
    _Kind("uv.lock", python.toml_lock, "PyPI", True),
    _Kind("poetry.lock", python.toml_lock, "PyPI", True),
    _Kind("pdm.lock", python.toml_lock, "PyPI", True),
    _Kind("pylock*.toml", python.toml_lock, "PyPI", True),
    _Kind("Pipfile.lock", python.pipfile_lock, "PyPI", True),
    _Kind("requirements*.lock", python.requirements, "PyPI", True),
    _Kind("requirements*.txt", python.requirements, "PyPI", False),
    _Kind("constraints*.txt", python.requirements, "PyPI", False),
    _Kind("requirements*.in", python.requirements, "PyPI", False),
    _Kind("pyproject.toml", python.pyproject, "PyPI", False),
    _Kind("package-lock.json", npm.package_lock, "npm", True),
    _Kind("npm-shrinkwrap.json", npm.package_lock, "npm", True),
    _Kind("pnpm-lock.yaml", npm.pnpm_lock, "npm", True),
    _Kind("yarn.lock", npm.yarn_lock, "npm", True),
    _Kind("package.json", npm.package_json, "npm", False),
    _Kind("go.mod", go.go_mod, "Go", True),
    _Kind("pom.xml", maven.pom, "Maven", True),
)

_TOLD_LINES: Final = 10  # of one file, so that it leaves room for the warnings of others


def packages(tree: SourceTree) -> Iterator[Package]:
    """Every package once for each file that names it, a file's in the order of its lines.

    A file that cannot be read as what it is becomes a warning of the tree, as does a line of it.
    """
    kinds = [(file, kind) for file in tree.files if (kind := _kind(file)) is not None]
    locked = {(kind.ecosystem, _folder(file)) for file, kind in kinds if kind.is_lock}
    for file, kind in kinds:
        is_shadowed = not kind.is_lock and any(
            (kind.ecosystem, folder) in locked for folder in _upwards(_folder(file))
        )
        if is_shadowed and kind.parser is not python.requirements:
            continue
        text = tree.text(file)
        if text is None:
            tree.warnings.append(f"{file}: not read as a manifest: no text, or too large")
            continue
        try:
            entries = list(kind.parser(file, text))
        except (UnreadableManifestError, RecursionError, ValueError) as error:
            # Parsers of others raise these as well: of what is nested deep, of odd dates.
            tree.warnings.append(f"{file}: not read as a manifest: {error}")
            continue
        found = [it for it in entries if isinstance(it, Package)]
        unread = [it for it in entries if isinstance(it, UnreadLine)]
        unread += [
            UnreadLine(it.line, "a package without a name") for it in found if not _is_named(it)
        ]
        tree.warnings += [f"{file}:{it.line}: not read: {it.reason}" for it in unread[:_TOLD_LINES]]
        if len(unread) > _TOLD_LINES:
            tree.warnings.append(f"{file}: {len(unread) - _TOLD_LINES} more lines were not read")
        yield from {
            (it.key, it.version, it.pinned): it
            for it in found
            if (it.pinned or not is_shadowed) and _is_named(it)
        }.values()


def _is_named(package: Package) -> bool:
    return not package.name.endswith(("/", ":")) and package.name != ""


def _kind(file: str) -> _Kind | None:
    name = file.rpartition("/")[2]
    if fnmatch(file, "*requirements/*.txt") or fnmatch(file, "requirements/*.txt"):
        name = "requirements.txt"
    return next((kind for kind in _KINDS if fnmatch(name, kind.pattern)), None)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _upwards(folder: str) -> Iterator[str]:
    yield folder
    while folder:
        folder = _folder(folder)
        yield folder

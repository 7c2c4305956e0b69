"""Known vulnerabilities of packages, in the Open Source Vulnerability format (osv.dev/schema).

A database is a folder or a zip file of JSON files, as the OSV project publishes them for each
ecosystem. Nothing is asked on the network. Versions are compared as each ecosystem does.
"""

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError
from packaging.utils import canonicalize_name
from univers.versions import (
    GolangVersion,
    InvalidVersion,
    MavenVersion,
    PypiVersion,
    SemverVersion,
    Version,
)

from agents.errors import PermanentError
from agents.finding import Severity
from agents.scanning.package import Ecosystem, Package

SAMPLE: Final = Path(__file__).with_name("advisories")

_VERSIONS: Final[dict[Ecosystem, type[Version]]] = {
    "PyPI": PypiVersion,
    "npm": SemverVersion,
    "Go": GolangVersion,
    "Maven": MavenVersion,
}
_SEVERITIES: Final[dict[str, Severity]] = {
    "CRITICAL": "critical",
    "HIGH": "high",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "LOW": "low",
    "NONE": "low",
}
_SCORES: Final = {"CVSS_V2": CVSS2, "CVSS_V3": CVSS3, "CVSS_V4": CVSS4}
_MAX_ENTRY_BYTES: Final = 8_000_000

Key = tuple[Ecosystem, str]


class Advisory:
    """One advisory about one package."""

    def __init__(self, entry: dict[str, Any], affected: list[dict[str, Any]]) -> None:
        self.id: str = entry["id"]
        self.aliases: list[str] = [str(it) for it in entry.get("aliases") or ()]
        self.summary: str = " ".join(str(entry.get("summary") or "a known vulnerability").split())
        self.severity: Severity = _severity(entry)
        specific = entry.get("database_specific") or {}
        self.cwe: str = next((str(it) for it in specific.get("cwe_ids") or ()), "CWE-1395")
        self._affected = affected

    def concerns(self, package: Package) -> bool:
        """Whether the package's version is vulnerable. Raises `InvalidVersion`."""
        version = _VERSIONS[package.ecosystem](package.version)
        return any(
            package.version in (each.get("versions") or ())
            or any(_is_within(version, it) for it in each.get("ranges") or ())
            for each in self._affected
        )

    def fixed_in(self, package: Package) -> str:
        """The oldest version after the package's that mends it; empty where none is known."""
        kind = _VERSIONS[package.ecosystem]
        fixes = [
            kind(event["fixed"])
            for each in self._affected
            for one in each.get("ranges") or ()
            if one.get("type") != "GIT"
            for event in one.get("events") or ()
            if "fixed" in event
        ]
        later = [fix for fix in fixes if fix > kind(package.version)]
        return str(min(later)) if later else ""


class Advisories:
    """The advisories of a database that are about the given packages.

    Raises `PermanentError` where there is no database at `path`.
    """

    def __init__(self, path: Path, packages: Iterable[Package]) -> None:
        wanted: AbstractSet[Key] = {package.key for package in packages}
        self.warnings: list[str] = []
        self.entries = 0
        self._by_package: defaultdict[Key, list[Advisory]] = defaultdict(list)
        for name, content in _contents(path):
            try:
                entry = json.loads(content)
                self._take(entry, wanted)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.warnings.append(f"advisory {name}: not in OSV's format: {error!r}")

    def _take(self, entry: dict[str, Any], wanted: AbstractSet[Key]) -> None:
        self.entries += 1
        if entry.get("withdrawn"):
            return
        about: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
        for affected in entry.get("affected") or ():
            package = affected.get("package") or {}
            key = _key(str(package.get("ecosystem", "")), str(package.get("name", "")))
            if key is not None and key in wanted:
                about[key].append(affected)
        for key, affected_ones in about.items():
            self._by_package[key].append(Advisory(entry, affected_ones))

    def about(self, package: Package) -> Iterator[Advisory]:
        """The advisories that concern the package's version, each problem once.

        A version that the ecosystem does not know is told in `warnings`.
        """
        known: set[str] = set()
        for advisory in self._by_package.get(package.key, ()):
            try:
                concerned = advisory.concerns(package)
            except (InvalidVersion, ValueError, TypeError) as error:
                self.warnings.append(
                    f"{package.file}:{package.line}: {package.name} {package.version} "
                    f"cannot be compared with {advisory.id}: {error}"
                )
                continue
            # Two databases name the same problem differently, and tell so.
            names = {advisory.id, *advisory.aliases}
            if concerned and known.isdisjoint(names):
                known |= names
                yield advisory


def _is_within(version: Version, one: dict[str, Any]) -> bool:
    """Whether a version is in a range, as the format's description evaluates it."""
    if one.get("type") == "GIT":
        return False
    kind = type(version)
    events: list[tuple[Version | None, str]] = []
    for event in one.get("events") or ():
        for what, at in event.items():
            if what in ("introduced", "fixed", "last_affected"):
                events.append((None if at == "0" else kind(at), what))
    first = [what for at, what in events if at is None]
    later = sorted(((at, what) for at, what in events if at is not None), key=lambda it: it[0])
    vulnerable = "introduced" in first
    for at, what in later:
        if what == "introduced" and version >= at:
            vulnerable = True
        elif (what == "fixed" and version >= at) or (what == "last_affected" and version > at):
            vulnerable = False
    return vulnerable


def _key(ecosystem: str, name: str) -> Key | None:
    plain = ecosystem.partition(":")[0]
    for known in _VERSIONS:
        if plain == known:
            return (known, canonicalize_name(name) if known == "PyPI" else name)
    return None


def _severity(entry: dict[str, Any]) -> Severity:
    said = str((entry.get("database_specific") or {}).get("severity", "")).upper()
    if said in _SEVERITIES:
        return _SEVERITIES[said]
    for score in reversed(entry.get("severity") or ()):
        try:
            rated = _SCORES[score["type"]](score["score"])
        except (KeyError, CVSSError):
            continue
        words = rated.severities() if hasattr(rated, "severities") else [rated.severity]
        return _SEVERITIES.get(str(words[0]).upper(), "medium")
    return "medium"


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                yield file.name, file.read_bytes()
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    # What claims to be larger is no advisory, and could fill the memory.
                    if entry.filename.endswith(".json") and entry.file_size <= _MAX_ENTRY_BYTES:
                        yield entry.filename, archive.read(entry)
        else:
            raise PermanentError(
                f"advisories: {path} is neither a folder nor a zip file of OSV's JSON files"
            )
    except (OSError, zipfile.BadZipFile) as error:
        raise PermanentError(f"advisories: {path} cannot be read: {error}") from error

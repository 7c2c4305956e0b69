"""The published workflow definitions: a view of the compacted `workflows` topic.

Rules:
- Versions of a (project, name) are immutable. Where two publishers wrote the same version, the
  first record is the version; the other publisher sees that and takes the next number.
- A retirement ends a workflow for new runs up to its version. Runs in progress keep their plan, and
  a version published afterwards starts runs again.
- New runs take the latest version.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw

from streams import pattern
from streams.errors import DefinitionError
from streams.plan import Plan, parse
from streams.records import FORMAT, Value

_CACHED_TYPES: Final = 10_000


class Definition(Value, tag_field="type", tag="definition", frozen=True, kw_only=True):
    """One version of a workflow. The first record of a (project, name, version) is the one."""

    project: str
    name: str
    version: int
    digest: str
    published_at: int
    definition: Raw
    v: Literal[1] = FORMAT


class Retirement(Value, tag_field="type", tag="retirement", frozen=True, kw_only=True):
    """Versions up to `version` start no new runs; runs in progress stay on theirs."""

    project: str
    name: str
    version: int
    retired_at: int
    v: Literal[1] = FORMAT


CatalogRecord = Definition | Retirement


class Published:
    """One version of a workflow. Its plan is made when it is first asked for."""

    __slots__ = ("_fault", "_plan", "record")

    def __init__(self, record: Definition) -> None:
        self.record = record
        self._plan: Plan | None = None
        self._fault: DefinitionError | None = None

    @property
    def plan(self) -> Plan:
        """The plan; `DefinitionError` where this release refuses what an older one accepted."""
        if self._fault is not None:
            raise self._fault
        if self._plan is None:
            try:
                self._plan = parse(_definition(self.record))
            except DefinitionError as error:
                self._fault = error
                raise
        return self._plan


class Match(NamedTuple):
    """A workflow that an event type starts: its version and plan (`trigger.filter` unchecked)."""

    name: str
    version: int
    plan: Plan


class Catalog:
    """All versions of all workflows, kept current by `apply`."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], dict[int, Published]] = {}
        self._retired: dict[tuple[str, str], int] = {}
        self._matches: dict[tuple[str, str], list[Match]] = {}
        self._awaited: dict[tuple[str, str], bool] = {}

    def apply(self, record: CatalogRecord) -> None:
        """Take in the next record of the topic."""
        key = (record.project, record.name)
        if isinstance(record, Retirement):
            self._retired[key] = max(record.version, self._retired.get(key, 0))
        else:
            self._versions.setdefault(key, {}).setdefault(record.version, Published(record))
        self._matches.clear()
        self._awaited.clear()

    def get(self, project: str, name: str, version: int) -> Plan | None:
        """The plan of a version, retired or not; None where the version is unknown.

        Raises:
            DefinitionError: The version is there, but this release cannot read it.
        """
        published = self.version(project, name, version)
        return None if published is None else published.plan

    def version(self, project: str, name: str, version: int) -> Published | None:
        """One version, retired or not."""
        return self._versions.get((project, name), {}).get(version)

    def latest(self, project: str, name: str) -> Published | None:
        """The highest version, retired or not."""
        versions = self._versions.get((project, name))
        return versions[max(versions)] if versions else None

    def active(self, project: str, name: str) -> Published | None:
        """The version that new runs take; None if there is none or the workflow is retired."""
        latest = self.latest(project, name)
        if latest is None or latest.record.version <= self._retired.get((project, name), 0):
            return None
        return latest

    def versions(self, project: str, name: str) -> list[Published]:
        """Every version of a workflow, the newest first."""
        versions = self._versions.get((project, name), {})
        return [versions[number] for number in sorted(versions, reverse=True)]

    def workflows(self, project: str | None = None) -> Iterator[Published]:
        """The active version of every workflow, by project and name."""
        for key in sorted(self._versions):
            active = self.active(*key) if project in (None, key[0]) else None
            if active is not None:
                yield active

    def matching(self, project: str, event_type: str) -> list[Match]:
        """The workflows of the project that an event of this type may start, by name."""
        key = (project, event_type)
        found = self._matches.get(key)
        if found is None:
            found = list(self._find(project, event_type))
            if len(self._matches) >= _CACHED_TYPES:  # types may be made up by whoever sends events
                self._matches.clear()
            self._matches[key] = found
        return found

    def is_awaited(self, project: str, event_type: str) -> bool:
        """Whether a run of some version, old ones too, may wait for an event of this type."""
        key = (project, event_type)
        found = self._awaited.get(key)
        if found is None:
            if len(self._awaited) >= _CACHED_TYPES:
                self._awaited.clear()
            found = self._awaited[key] = any(
                pattern.matches(wanted, event_type)
                for (owner, _), versions in self._versions.items()
                if owner == project
                for published in versions.values()
                for wanted in _awaited(published)
            )
        return found

    def _find(self, project: str, event_type: str) -> Iterator[Match]:
        for active in self.workflows(project):
            try:
                plan = active.plan
            except DefinitionError:
                continue  # listed with its fault by `workflows`; it can start nothing
            wanted = plan.spec.trigger.event
            if wanted is not None and pattern.matches(wanted, event_type):
                yield Match(active.record.name, active.record.version, plan)


def _awaited(published: Published) -> frozenset[str]:
    try:
        return published.plan.awaited
    except DefinitionError:
        return frozenset()


def record_key(record: CatalogRecord, attempt: str) -> bytes:
    """The record's key on the topic.

    `attempt` names the writing and is never used again: compaction keeps the last record of a key
    where the catalog needs the first of a version, so no two records may share a key.
    """
    if isinstance(record, Retirement):
        return f"{record.project}/{record.name}@{record.version}#retired.{attempt}".encode()
    return f"{record.project}/{record.name}@{record.version}#{record.digest}.{attempt}".encode()


def _definition(record: Definition) -> Any:
    value = msgspec.json.decode(record.definition)
    if not isinstance(value, dict):
        raise DefinitionError(f"workflow {record.name!r}: the definition is not an object")
    return value

"""The schema: numbered SQL files, applied in order at the start of whoever opens the store.

Rules:
- `schema_versions` says which files were applied, and with which text. A start applies the first
  file that is new or changed and all after it; where there is none it only asks.
- Every statement may be run again. So a start that was killed is made good by the next one, and two
  processes that start at once do the same work twice, which harms nothing: where they meet in the
  same statement, the one that is refused tries again.
- Forward only: tables that a newer release has changed are refused, never guessed at.
"""

import asyncio
import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

from sinks.store import Store
from streams.errors import OperatorError

FIRST: Final = 0
"""Number of the file that makes `schema_versions`."""

_ATTEMPTS: Final = 6
_AGAIN_S: Final = 0.2


class Migration(NamedTuple):
    """One file of the schema."""

    number: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        """Changes when the text does."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """What it does, in order."""
        return [part.strip() for part in self.text.split(";\n") if part.strip()]


def migrations() -> list[Migration]:
    """Every file of the schema, in order."""
    folder = files("sinks") / "sql" / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [
        Migration(int(name.split("_")[0]), name, (folder / name).read_text(encoding="utf-8"))
        for name in names
    ]


def statements() -> list[str]:
    """Every statement of the schema, in order."""
    return [statement for migration in migrations() for statement in migration.statements]


async def apply(store: Store) -> None:
    """Bring the store's tables and views up to this version's.

    Raises:
        OperatorError: The store is away or refuses, or a newer release has written it.
    """
    first, *others = migrations()
    for statement in first.statements:
        await _insist(store, statement)
    applied = await _applied(store)
    newest = max(applied, default=FIRST)
    if newest > max(migration.number for migration in others):
        raise OperatorError(
            f"{store.description} was written by a newer release of CommandCenter (schema {newest},"
            f" this one knows {others[-1].number}). Start that release; or give this one an empty "
            "store: it records the history from the log again."
        )
    for migration in _due(others, applied):
        for statement in migration.statements:
            await _insist(store, statement)
        await store.insert(
            "schema_versions",
            {
                "number": [migration.number],
                "name": [migration.name],
                "digest": [migration.digest],
                "applied_at": [await _now(store)],
            },
        )


def _due(known: list[Migration], applied: dict[int, str]) -> list[Migration]:
    for place, migration in enumerate(known):
        if applied.get(migration.number) != migration.digest:
            return known[place:]
    return []


async def _applied(store: Store) -> dict[int, str]:
    answer = await store.query("SELECT number, digest FROM schema_versions FINAL")
    return {row[0]: row[1] for row in answer.rows}


async def _now(store: Store) -> int:
    """The store's clock: the one that all who apply the schema have in common."""
    return int((await store.query("SELECT toUnixTimestamp64Milli(now64(3))")).rows[0][0])


async def _insist(store: Store, statement: str) -> None:
    """Run it; what another process is changing at the same moment is tried again."""
    for attempt in range(_ATTEMPTS):
        try:
            await store.command(statement)
        except OperatorError:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(_AGAIN_S * 2**attempt)
        else:
            return

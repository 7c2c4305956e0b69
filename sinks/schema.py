"""The schema: numbered SQL files, applied in order at every start, each of them idempotent."""

from importlib.resources import files

from sinks.store import Store


def statements() -> list[str]:
    """Every statement of the schema, in order."""
    folder = files("sinks") / "sql" / "schema"
    found = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            parts = file.read_text(encoding="utf-8").split(";\n")
            found += [part.strip() for part in parts if part.strip()]
    return found


async def apply(store: Store) -> None:
    """Bring the store's tables and views up to this version's.

    Raises:
        OperatorError: The store is away or refuses.
    """
    for statement in statements():
        await store.command(statement)

"""The named queries: `sinks/sql/queries/<name>.sql`, each with a comment saying who asks it."""

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """The text of a named query."""
    return (files("sinks") / "sql" / "queries" / f"{name}.sql").read_text(encoding="utf-8")

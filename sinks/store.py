"""The store as its users see it: one small interface over chDB and a ClickHouse server.

Rules:
- Nothing here blocks the loop: the engine's blocking calls run in threads, a bounded number of them
  (two writers, some readers, some guests).
- What the engine refuses because of the statement or its parameters is a `CallerError`; what an
  operator has to mend (server away, disk full, folder owned by another process) an `OperatorError`.
- Times are aware datetimes in UTC on the way out, integers (ms since the epoch) on the way in.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

Parameters = Mapping[str, Any]
Columns = Mapping[str, Sequence[Any]]


class Rows(NamedTuple):
    """The answer to a query."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]

    def dicts(self) -> list[dict[str, Any]]:
        """Every row by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Limits(NamedTuple):
    """What a guest's query may take; more is a `CallerError` that says so."""

    seconds: float = 30.0
    rows: int = 10_000
    memory_bytes: int = 1024 * 1024 * 1024
    answer_bytes: int = 256 * 1024 * 1024


DEFAULT_LIMITS: Final = Limits()


class Store(Protocol):
    """ClickHouse, embedded or served. Made by `sinks.clickhouse.open_store`."""

    @property
    def description(self) -> str:
        """Where it is, for people; without a password."""
        ...

    async def command(self, sql: str, parameters: Parameters | None = None) -> None:
        """Run one statement that answers nothing: DDL, or an INSERT of what is in the store."""
        ...

    async def insert(self, table: str, columns: Columns, *, token: str = "") -> None:
        """Insert rows, given by column, as one atomic block.

        Args:
            table: A table of the schema.
            columns: A sequence of values for each column, all of one length.
            token: Names the block: a second one of the same name changes nothing, where the table
                keeps a deduplication window.
        """
        ...

    async def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask one of our own queries; parameters stand in it as `{name:Type}`."""
        ...

    async def query_readonly(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask a guest's query: one SELECT over the public tables, read-only and within limits."""
        ...

    async def export_readonly(
        self, sql: str, parameters: Parameters | None = None, *, output_format: str
    ) -> bytes:
        """Ask as `query_readonly` does; the answer in one of ClickHouse's output formats."""
        ...

    async def ping(self) -> None:
        """Return if the store answers.

        Raises:
            OperatorError: It does not.
        """
        ...

    async def close(self) -> None:
        """Wait for what is under way, then let go of the engine. Harmless twice."""
        ...

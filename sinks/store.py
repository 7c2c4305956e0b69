"""The store as its users see it: one small interface over chDB and a ClickHouse server.

Rules:
- Nothing here blocks the loop: the engine's blocking calls run in threads, a bounded number of them
  (two writers, some readers, some guests).
- What the engine refuses because of the statement or its parameters is a `CallerError`; what an
  operator has to mend (server away, disk full, folder owned by another process) an `OperatorError`.
- A guest's query whose task is cancelled is stopped in the engine.
- Times are aware datetimes in UTC on the way out, integers (ms since the epoch) on the way in.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

_MIB: Final = 1024 * 1024

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
    """What the store, and of that a guest's query, may take.

    More than a guest may take is a `CallerError` that says so.

    Attributes:
        engine_bytes: Memory of the embedded engine, for all that it does and keeps. A server has
            its own setting.
        seconds: Of a guest's query.
        memory_bytes: Memory of a guest's query; `sinks.clickhouse.GUESTS` of them run at once.
        rows: Of a guest's answer that is made here, row by row.
        answer_bytes: Of such an answer; here it takes some times as much memory.
        export_rows: Of a guest's answer that the engine writes into a file.
        export_bytes: Of such an answer, before it is written down as text.
    """

    engine_bytes: int = 1024 * _MIB
    seconds: float = 30.0
    memory_bytes: int = 384 * _MIB
    rows: int = 10_000
    answer_bytes: int = 32 * _MIB
    export_rows: int = 1_000_000
    export_bytes: int = 256 * _MIB

    @classmethod
    def within(cls, engine_bytes: int) -> Self:
        """The limits of an engine of this size: two guests at once leave a quarter to the rest."""
        return cls(engine_bytes=engine_bytes, memory_bytes=engine_bytes * 3 // 8)


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
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        output_format: str,
        file: Path,
        rows: int = 0,
    ) -> None:
        """Ask as `query_readonly` does; the answer becomes a file.

        Nothing of it is held in memory here, and it is whole when the call returns.

        Args:
            sql: One SELECT.
            parameters: For `{name:Type}` in it.
            output_format: One of ClickHouse's.
            file: A new file, for the answer.
            rows: So many rows, the first ones, are enough; 0: all.
        """
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

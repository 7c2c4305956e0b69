"""What a guest may know of the schema: the public tables and their columns, and no more.

SQL clients ask DESCRIBE, SHOW and ClickHouse's system tables before they ask anything else. They
are answered by questions of our own: a system table stands for a subquery that shows the public
tables alone, so that a client's own text runs as it is, and the engine's tables stay closed.
"""
# ruff: noqa: S608  # what is put together are constants, and names that are on a list

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlglot import Token, TokenType

from streams.errors import CallerError

PUBLIC_TABLES: Final = frozenset(
    {
        "events", "runs", "agent_runs", "approvals", "costs", "run_costs", "workflow_tags",
        "workflows", "agents",
        "runs_per_minute", "runs_per_day", "steps_per_minute", "steps_per_day",
        "costs_per_minute", "costs_per_day", "events_per_minute", "events_per_day", "positions",
    }
)  # fmt: skip

_NAMES: Final = ", ".join(f"'{name}'" for name in sorted(PUBLIC_TABLES))
_OURS: Final = f"database = currentDatabase() AND {{}} IN ({_NAMES})"
_COMMENT: Final = "History of runs: what happened, how long it took, what it cost"
_TABLES: Final = (
    "SELECT database, name, toUUID('00000000-0000-0000-0000-000000000000') AS uuid, engine,"
    " toUInt8(0) AS is_temporary, '' AS engine_full, '' AS create_table_query, '' AS as_select,"
    " '' AS partition_key, '' AS sorting_key, '' AS primary_key, '' AS sampling_key,"
    " '' AS storage_policy, [''] AS data_paths, '' AS metadata_path,"
    " toDateTime(0, 'UTC') AS metadata_modification_time,"
    " CAST(NULL AS Nullable(UInt64)) AS total_rows, CAST(NULL AS Nullable(UInt64)) AS total_bytes,"
    " CAST([] AS Array(String)) AS dependencies_database,"
    " CAST([] AS Array(String)) AS dependencies_table, comment"
    f" FROM system.tables WHERE {_OURS.format('name')}"
)
_COLUMNS: Final = (
    "SELECT database, table, name, type, position, default_kind, default_expression,"
    " CAST(NULL AS Nullable(UInt64)) AS data_compressed_bytes,"
    " CAST(NULL AS Nullable(UInt64)) AS data_uncompressed_bytes, comment,"
    " toUInt8(0) AS is_in_partition_key, toUInt8(0) AS is_in_sorting_key,"
    " toUInt8(0) AS is_in_primary_key, toUInt8(0) AS is_in_sampling_key,"
    " '' AS compression_codec, character_octet_length, numeric_precision, numeric_precision_radix,"
    " numeric_scale, datetime_precision"
    f" FROM system.columns WHERE {_OURS.format('table')}"
)
_DATABASES: Final = (
    "SELECT currentDatabase() AS name, 'Atomic' AS engine, '' AS data_path, '' AS metadata_path,"
    f" toUUID('00000000-0000-0000-0000-000000000000') AS uuid, 'Atomic' AS engine_full,"
    f" '{_COMMENT}' AS comment"
)
# A guest cannot change a setting, so there is none to know of.
_SETTINGS: Final = (
    "SELECT '' AS name, '' AS value, toUInt8(0) AS changed, '' AS description,"
    " CAST(NULL AS Nullable(String)) AS min, CAST(NULL AS Nullable(String)) AS max,"
    " toUInt8(1) AS readonly, '' AS type, '' AS default, '' AS alias_for WHERE 0"
)

# What is behind the public tables stays behind them.
_PARTS: Final = (
    "SELECT '' AS database, '' AS table, '' AS name, '' AS partition, '' AS engine,"
    " toUInt8(1) AS active, toUInt64(0) AS rows, toUInt64(0) AS bytes,"
    " toUInt64(0) AS bytes_on_disk, toDateTime(0, 'UTC') AS modification_time,"
    " toDate(0) AS min_date, toDate(0) AS max_date WHERE 0"
)

SYSTEM_TABLES: Final = {
    "system.databases": _DATABASES,
    "system.tables": _TABLES,
    "system.columns": _COLUMNS,
    "system.settings": _SETTINGS,
    "system.parts": _PARTS,
    "system.table_engines": "SELECT 'View' AS name",
    "system.one": "SELECT toUInt8(0) AS dummy",
    # The engine's vocabulary, which clients offer while one types.
    "system.functions": (
        "SELECT name, is_aggregate, case_insensitive, alias_to, origin, description, syntax,"
        " arguments, parameters, returned_value, examples, introduced_in, categories"
        " FROM system.functions WHERE origin = 'System'"
    ),
    "system.data_type_families": (
        "SELECT name, case_insensitive, alias_to FROM system.data_type_families"
    ),
    "system.keywords": "SELECT keyword FROM system.keywords",
    # Of all of them hardly one can be used here.
    "system.table_functions": "SELECT '' AS name WHERE 0",
}
"""Each system table that clients ask, with the subquery that stands for it."""


_NOTHING: Final = "SELECT 1 WHERE 0"


class Name(NamedTuple):
    """A table as a guest names it; `database` is empty where the name has none."""

    database: str
    table: str


def statement(tokens: Sequence[Token], database: str) -> str | None:
    """The SELECT that answers DESCRIBE, SHOW, EXISTS, USE or SET; None where it is none of them.

    Raises:
        CallerError: It is one of them, but not of a form that is answered, or names another table.
    """
    words = [("" if t.token_type is TokenType.IDENTIFIER else t.text.upper()) for t in tokens]
    match words:
        case ["DESCRIBE" | "DESC", "TABLE", *rest] if rest:
            return _describe(_name(tokens[2:], database))
        case ["DESCRIBE" | "DESC", *rest] if rest:
            return _describe(_name(tokens[1:], database))
        case ["SHOW", *_] if shown := _show(words, tokens, database):
            return shown
        case ["USE", _]:
            if tokens[1].text != database:
                raise CallerError(f"There is no database {tokens[1].text!r}, only {database!r}.")
            return _NOTHING
        case ["SET", "READONLY", "=", "1" | "2"]:  # so it is
            return _NOTHING
        case ["EXISTS", kind, *rest] if rest and kind in ("DATABASE", "TABLE", "VIEW"):
            return _exists(kind, tokens[2:], database)
        case ["SHOW" | "DESCRIBE" | "DESC" | "EXISTS", *_]:
            raise CallerError(
                "Of its kind only DESCRIBE name, SHOW TABLES, SHOW DATABASES, SHOW CREATE TABLE"
                " name and EXISTS TABLE name can be asked here."
            )
        case _:
            return None


def _show(words: Sequence[str], tokens: Sequence[Token], database: str) -> str | None:
    match words[1:]:
        case ["DATABASES" | "SCHEMAS", *_]:
            return f"SELECT name FROM ({_DATABASES}) WHERE {_like(tokens[2:], 'DATABASES')}"
        case ["FULL", "TEMPORARY", "TABLES", *_]:
            return f"SELECT name, engine FROM ({_TABLES}) WHERE 0"
        case ["FULL", "TABLES", *_]:
            return _show_tables("name, engine", tokens[3:], database)
        case ["TABLES", *_]:
            return _show_tables("name", tokens[2:], database)
        case ["CREATE", "TABLE" | "VIEW", *rest] if rest:
            return _show_create(_name(tokens[3:], database))
        case _:
            return None


def _describe(name: Name) -> str:
    return (
        "SELECT name, type, default_kind AS default_type, default_expression, comment,"
        " '' AS codec_expression, '' AS ttl_expression"
        f" FROM ({_COLUMNS}) WHERE table = '{name.table}' ORDER BY position"
    )


def _show_tables(columns: str, rest: Sequence[Token], database: str) -> str:
    here = 1
    if len(rest) > 1 and rest[0].text.upper() in ("FROM", "IN"):
        here = int(rest[1].text == database)
        rest = rest[2:]
    condition = f"{here} AND {_like(rest, 'TABLES')}"
    return f"SELECT {columns} FROM ({_TABLES}) WHERE {condition} ORDER BY name"


def _like(rest: Sequence[Token], kind: str) -> str:
    """The condition that the end of SHOW says: LIKE or ILIKE and a text, or nothing."""
    match rest:
        case []:
            return "1"
        case [like, text] if like.text.upper() in ("LIKE", "ILIKE") and _is_text(text):
            pattern = text.text.replace("\\", "\\\\").replace("'", "\\'")
            return f"name {like.text.upper()} '{pattern}'"
        case _:
            raise CallerError(f"SHOW {kind} can be given LIKE and a text; TABLES FROM a database.")


def _show_create(name: Name) -> str:
    return (
        f"SELECT concat('CREATE TABLE {name.table}\\n(\\n    ', arrayStringConcat(arrayMap(c ->"
        " concat(c.2, ' ', c.3, ' COMMENT ', toString(c.4)), arraySort(groupArray((position, name,"
        " type, concat('\\'', replaceAll(comment, '\\'', '\\'\\''), '\\'')))))"
        f", ',\\n    '), '\\n)') AS statement FROM ({_COLUMNS}) WHERE table = '{name.table}'"
    )


def _exists(kind: str, rest: Sequence[Token], database: str) -> str:
    if kind == "DATABASE":
        found = [token.text for token in rest] == [database]
    else:
        try:
            found = bool(_name(rest, database))
        except CallerError:
            found = False
    return f"SELECT toUInt8({int(found)}) AS result"


def _name(tokens: Sequence[Token], database: str) -> Name:
    """The public table that the tokens name, and nothing behind it."""
    texts = [token.text for token in tokens]
    match texts:
        case [table]:
            found = Name("", table)
        case [given, ".", table]:
            found = Name(given, table)
        case _:
            raise CallerError("The name of one table has to follow, and nothing else.")
    if found.table not in PUBLIC_TABLES or found.database not in ("", database):
        raise CallerError(f"There is no table {''.join(texts)!r} to ask. {TABLES}")
    return found


def _is_text(token: Token) -> bool:
    return token.token_type is TokenType.STRING


TABLES: Final = f"Tables: {', '.join(sorted(PUBLIC_TABLES))}."

"""Grafana's ad hoc filters: `SETTINGS additional_table_filters = {'table': 'condition'}`.

The engine would take the conditions as they are, so it never gets the setting. What it means is
written into the query instead, as a subquery for each such table, and checked like the rest of it.
"""
# ruff: noqa: S608  # what is put together is checked afterwards, as a whole

from collections.abc import Sequence
from typing import Final

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from sinks.guest_catalogue import PUBLIC_TABLES

_SETTING: Final = "additional_table_filters"
_NOT_IN_STAR: Final = {"events": ", trace_id"}


def applied(sql: str) -> str:
    """The text without such a setting at its end, and with what it says; else as it is."""
    try:
        tokens = sqlglot.tokenize(sql, dialect="clickhouse")
        places = [n for n, token in enumerate(tokens) if token.token_type is TokenType.SETTINGS]
        if not places or (conditions := _conditions(tokens[places[-1] + 1 :])) is None:
            return sql
        asked = sql[: tokens[places[-1]].start]
        return _filtered(asked, sqlglot.parse_one(asked, dialect="clickhouse"), conditions)
    except (SqlglotError, RecursionError):
        return sql  # who checks it says what is wrong with it


def _conditions(tokens: Sequence[Token]) -> dict[str, str] | None:
    """Conditions by table, where this is the setting and nothing else."""
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    match tokens:
        case [name, equals, opened, *pairs, closed] if (
            name.text.lower() == _SETTING
            and equals.token_type is TokenType.EQ
            and opened.token_type is TokenType.L_BRACE
            and closed.token_type is TokenType.R_BRACE
        ):
            pass
        case _:
            return None
    found = {}
    for n in range(0, len(pairs), 4):
        match pairs[n : n + 4]:
            case [table, colon, condition, *comma] if (
                table.token_type is TokenType.STRING
                and colon.token_type is TokenType.COLON
                and condition.token_type is TokenType.STRING
                and all(each.token_type is TokenType.COMMA for each in comma)
            ):
                found[table.text] = condition.text
            case _:
                return None
    return found


def _filtered(sql: str, statement: exp.Expr, conditions: dict[str, str]) -> str:
    named = {cte.alias for cte in statement.find_all(exp.CTE)}
    places = []
    for table in statement.find_all(exp.Table):
        name = table.name
        if name not in PUBLIC_TABLES or (not table.db and name in named):
            continue
        condition = conditions.get(f"{table.db or 'default'}.{name}", conditions.get(name))
        if condition is not None:
            first = table.args.get("db") or table.this
            places.append((first.meta["start"], table.this.meta["end"] + 1, table, condition))
    for start, end, table, condition in sorted(places, key=lambda place: place[0], reverse=True):
        columns = "*" + _NOT_IN_STAR.get(table.name, "")
        alias = "" if table.alias else f" AS {table.name}"
        inner = f"(SELECT {columns} FROM {sql[start:end]} WHERE (\n{condition}\n)){alias}"
        sql = sql[:start] + inner + sql[end:]
    return sql

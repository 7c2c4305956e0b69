"""What a guest may ask: one SELECT over the public tables, and nothing that reaches outside them.

This is the first of two gates: the engine runs what passes here read-only and within limits. A
statement that cannot be understood is refused, never guessed at.
"""

import re
from collections.abc import Iterator
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from streams.errors import CallerError

PUBLIC_TABLES: Final = frozenset(
    {
        "events", "runs", "agent_runs", "approvals", "costs", "run_costs", "workflow_tags",
        "workflows", "agents",
        "runs_per_minute", "runs_per_day", "steps_per_minute", "steps_per_day",
        "costs_per_minute", "costs_per_day", "events_per_minute", "events_per_day", "positions",
    }
)  # fmt: skip
PUBLIC_TABLE_FUNCTIONS: Final = frozenset({"numbers", "generateseries", "generate_series"})

# Scalar functions that read files, other tables, the configuration, or only burn time.
_REFUSED_FUNCTIONS: Final = re.compile(
    r"file|dictget.*|dicthas|dictisin|joinget.*|sleep.*|getsetting.*|getserverport|getmacro"
    r"|getserversetting|getmergetreesetting|catboost.*|hasthreadfuzzer|filesystem.*|showcertificate"
    r"|current(user|roles|profiles|databases|schemas)|user|initial.*|enabled.*|default(roles|profiles)"
    r"|hostname|fqdn|fullhostname|displayname|serveruuid|tcpport|buildid|addressto.*|demangle|ai.*"
)
# The engine ends a comment at the first `*/`; a reader that nests comments would see another text.
_NESTED_COMMENT: Final = re.compile(r"/\*(?:(?!\*/).)*/\*", re.DOTALL)
_BEGINNINGS: Final = frozenset({"SELECT", "WITH", "FROM", "("})
_CLAUSES: Final = {
    "settings": "SETTINGS cannot be given here.",
    "format": "FORMAT cannot be given in the query: ask for the format beside it.",
    "into": "INTO cannot be used here: the answer comes back to you.",
}


def check(sql: str) -> str:
    """The statement to run: the guest's own text, without a closing semicolon.

    Raises:
        CallerError: It is not one SELECT over the public tables; the text says what is in the way.
    """
    if _NESTED_COMMENT.search(sql):
        raise CallerError("The query has a comment inside a comment: remove one of them.")
    try:
        statements = _parsed(sql)
    except SqlglotError as error:
        raise CallerError(f"The query cannot be understood: {_where(error)}.") from error
    except RecursionError as error:
        raise CallerError("The query is nested too deeply.") from error
    if len(statements) != 1:
        raise CallerError(f"Only one statement can be asked at a time, not {len(statements)}.")
    for problem in _problems(statements[0]):
        raise CallerError(problem)
    return sql.strip().rstrip(";").rstrip()


def _parsed(sql: str) -> list[exp.Expr]:
    tokens = sqlglot.tokenize(sql, dialect="clickhouse")
    # Looked at first: for other statements the parser logs a warning and goes on.
    if not tokens or tokens[0].text.upper() not in _BEGINNINGS:
        raise CallerError("Only SELECT can be asked here; the query begins with something else.")
    return [one for one in sqlglot.parse(sql, dialect="clickhouse") if one is not None]


def _problems(statement: exp.Expr) -> Iterator[str]:
    if not isinstance(statement, exp.Query):
        yield "Only SELECT can be asked here."
    named = {cte.alias for cte in statement.find_all(exp.CTE)}
    for node in statement.walk():
        match node:
            case exp.Table():
                yield from _table_problems(node, named)
            case exp.In() if isinstance(node.args.get("field"), exp.Column):
                yield from _set_problems(node.args["field"], named)
            case exp.Placeholder() | exp.Parameter() if _is_identifier(node):
                yield "A parameter cannot stand for a name (Identifier), only for a value."
            case exp.Func():
                yield from _function_problems(node)
            case exp.Query():
                yield from (text for clause, text in _CLAUSES.items() if node.args.get(clause))
            case exp.Command() | exp.DDL() | exp.DML():
                yield "Only SELECT can be asked here."
            case _:
                pass


def _function_problems(function: exp.Func) -> Iterator[str]:
    name = function.name if isinstance(function, exp.Anonymous) else function.sql_name()
    if _REFUSED_FUNCTIONS.fullmatch(name.lower()):
        yield f"The function {name} cannot be used here."


def _table_problems(table: exp.Table, named: set[str]) -> Iterator[str]:
    if isinstance(table.this, exp.Placeholder):
        return  # told as the parameter that it is
    if not isinstance(table.this, exp.Identifier):
        function = table.this.name if isinstance(table.this, exp.Anonymous) else str(table.this)
        if function.lower() not in PUBLIC_TABLE_FUNCTIONS:
            yield f"{function} cannot be used as a table here. {_PUBLIC}"
    else:
        yield from _name_problems(table.catalog, table.db, table.name, named)


def _set_problems(column: exp.Column, named: set[str]) -> Iterator[str]:
    """`x IN name` reads a table when the name is no column: the parser cannot tell them apart."""
    yield from _name_problems(column.db, column.table, column.name, named)


def _name_problems(catalog: str, database: str, name: str, named: set[str]) -> Iterator[str]:
    if not database and (name in PUBLIC_TABLES or name in named):
        return
    full = ".".join(part for part in (catalog, database, name) if part)
    yield f"There is no table {full!r} to ask. {_PUBLIC}"


_PUBLIC: Final = f"Tables: {', '.join(sorted(PUBLIC_TABLES))}."


def _is_identifier(node: exp.Expr) -> bool:
    return "identifier" in str(node.args.get("kind") or "").lower() or isinstance(
        node.parent, exp.Table
    )


def _where(error: SqlglotError) -> str:
    faults = getattr(error, "errors", None)
    if not faults:
        return "its text cannot be split into words"
    fault = faults[0]
    text = fault["description"].split(" but got <")[0].rstrip(".")
    return f"{text} at line {fault['line']}, column {fault['col']}"

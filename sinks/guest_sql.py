"""What a guest may ask: one SELECT over the public tables, and nothing that reaches outside them.

This is the first of two gates: the engine runs what passes here read-only and within limits. A
statement that cannot be understood is refused, never guessed at. Tables and functions are held
against lists of what is allowed. What clients ask about the schema (DESCRIBE, SHOW, some system
tables) is answered from `guest_catalogue`.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from sinks import guest_catalogue, guest_words
from sinks.guest_catalogue import PUBLIC_TABLES, SYSTEM_TABLES
from streams.errors import CallerError

# ClickHouse has nested comments since some version; the parser ends one at the first `*/`.
_NESTED_COMMENT: Final = re.compile(r"/\*(?:(?!\*/).)*/\*", re.DOTALL)
_BEGINNINGS: Final = frozenset({"SELECT", "WITH", "FROM", "("})
_CLAUSES: Final = {
    "settings": "SETTINGS cannot be given here.",
    "format": "FORMAT cannot be given in the query: ask for the format beside it.",
    "into": "INTO cannot be used here: the answer comes back to you.",
}
_NAME: Final = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_TABLE_NAME: Final = re.compile(r"[\w -]{1,64}")
# Each of their names is asked for in the store.
_MOST_TABLES: Final = 100
_SHOW_FORMAT: Final = re.compile(r"\sFORMAT\s+(\w+)[\s;]*$", re.IGNORECASE)
# The engine's own limit. To understand a longer text would take seconds, to be refused there.
_LONGEST: Final = 262_144
_SYNTAX: Final = 62
_ACCESS: Final = 497


class QueryError(CallerError):
    """A guest's query is refused or fails; `code` is ClickHouse's for it."""

    def __init__(self, message: str, code: int = _ACCESS) -> None:
        super().__init__(message)
        self.code = code


class Checked(NamedTuple):
    """A statement to run.

    Attributes:
        sql: Its text.
        tables: Tables that it asks and defines by itself (WITH). Where a definition does not reach,
            the engine takes its own table of that name: there must be none.
        functions: Functions likewise, in lower case. The engine would also take one of the text for
            its own where it is not called by name: `=` is `equals`, in our subqueries, too.
    """

    sql: str
    tables: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()


class Escaped:
    """A parameter's value as ClickHouse's HTTP interface has it: escaped as in a TSV file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def bound(sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters for a checked text.

    Each has its `{name:Type}` there, with the brace that closes it, wherever it stands: what the
    client looks for as well. Otherwise it would put them into the text by itself, where nothing is
    checked any more.

    Raises:
        QueryError: One has no place in the text.
    """
    for name in parameters:
        if not _NAME.fullmatch(name) or not re.search(rf"\{{{name}:[A-Za-z][^}}]*\}}", sql):
            raise QueryError(
                f"The parameter {name!r} has no place in the query: write {{{name}:String}} there,"
                " or leave it out.",
                _SYNTAX,
            )
    return dict(parameters)


def check(sql: str, database: str = "default") -> Checked:
    """The statement to run: the guest's own text, without a closing semicolon.

    Where it asks a system table, the subquery that stands for that is put in its place.

    Args:
        sql: The guest's text.
        database: The database that the public tables are in; their names may begin with it.

    Raises:
        QueryError: It is not one SELECT over the public tables; the text says what is in the way.
    """
    try:
        return _checked(sql, database)
    except QueryError:
        raise
    except SqlglotError as error:
        text = f"The query cannot be understood: {_where(error)}."
        raise QueryError(text, _SYNTAX) from error
    except RecursionError as error:
        raise QueryError("The query is nested too deeply.", _SYNTAX) from error
    except CallerError as error:
        raise QueryError(str(error)) from error


def refuse_taken(names: Sequence[str]) -> None:
    """Refuse a text that defines names which the engine has.

    Raises:
        QueryError: There are some.
    """
    if names:
        raise QueryError(f"The name {names[0]} is taken: give what WITH defines another one.")


def split_format(sql: str) -> tuple[str, str]:
    """A text as clients send it, and the format that its end asks for; empty if it asks for none.

    Raises:
        QueryError: The text cannot be split into words.
    """
    tokens = _tokens(sql)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if tokens and tokens[0].token_type is TokenType.SHOW:  # its rest is one piece of text
        found = _SHOW_FORMAT.search(sql)
        return (sql[: found.start()], found[1]) if found else (sql, "")
    if len(tokens) > 2 and tokens[-2].text.upper() == "FORMAT":
        word, name = tokens[-2:]
        if word.token_type is not TokenType.STRING and re.fullmatch(r"[A-Za-z0-9]+", name.text):
            return sql[: word.start], name.text
    return sql, ""


def without_settings(sql: str, harmless: Collection[str]) -> str:
    """The text without the SETTINGS at its end, where each of them may be ignored.

    Raises:
        QueryError: The text cannot be split into words.
    """
    tokens = _tokens(sql)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    places = [n for n, token in enumerate(tokens) if token.token_type is TokenType.SETTINGS]
    if not places or places[-1] == 0:
        return sql
    given = tokens[places[-1] + 1 :]
    values = (TokenType.NUMBER, TokenType.STRING)
    for n in range(0, len(given), 4):
        match given[n : n + 4]:
            case [name, equals, value, *comma] if (
                name.text.lower() in harmless
                and equals.token_type is TokenType.EQ
                and value.token_type in values
                and all(each.token_type is TokenType.COMMA for each in comma)
            ):
                continue
            case _:
                return sql
    return sql[: tokens[places[-1]].start]


def _tokens(sql: str) -> list[Token]:
    if len(sql.encode(errors="replace")) > _LONGEST:
        raise QueryError(f"The query has more than {_LONGEST:,} bytes.", _SYNTAX)
    try:
        return sqlglot.tokenize(sql, dialect="clickhouse")
    except SqlglotError as error:
        text = f"The query cannot be understood: {_where(error)}."
        raise QueryError(text, _SYNTAX) from error


def _checked(sql: str, database: str) -> Checked:
    if _NESTED_COMMENT.search(sql):
        raise QueryError("The query has a comment inside a comment: remove one of them.")
    tokens = _tokens(sql)
    text, words = sql, tuple(tokens)
    if len(tokens) > 1 and tokens[0].token_type is TokenType.SHOW:  # its rest is one piece of text
        tokens = [tokens[0], *sqlglot.tokenize(tokens[1].text, dialect="clickhouse")]
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        sql = sql[: tokens.pop().start]  # and without a comment behind it
    if (own := guest_catalogue.statement(tokens, database)) is not None:
        return Checked(own)
    # Looked at first: for other statements the parser logs a warning and goes on.
    if not tokens or tokens[0].text.upper() not in _BEGINNINGS:
        raise QueryError("Only SELECT can be asked here; the query begins with something else.")
    for problem in guest_words.unlike(text, words):
        raise QueryError(problem)
    statements = [one for one in sqlglot.parse(sql, dialect="clickhouse") if one is not None]
    if len(statements) != 1:
        raise QueryError(f"Only one statement can be asked at a time, not {len(statements)}.")
    statement = statements[0]
    named = {cte.alias for cte in statement.find_all(exp.CTE)}
    for problem in _problems(statement, tokens, named, database):
        raise QueryError(problem)
    tables = frozenset(one.name for one in _asked(statement) if one.name in named - PUBLIC_TABLES)
    for problem in _definition_problems(tables):
        raise QueryError(problem)
    return Checked(
        _with_catalogue(sql, statement).strip(),
        tables,
        guest_words.called(tokens, named)
        | (_lambdas(statement) if guest_words.defines_lambdas(tokens) else frozenset()),
    )


def _with_catalogue(sql: str, statement: exp.Expr) -> str:
    """The text with a subquery in the place of each system table, and its columns named by it."""
    places = []
    known: dict[str, str] = {}
    for table in statement.find_all(exp.Table):
        name = f"{table.db}.{table.name}".lower()
        if stands_for := SYSTEM_TABLES.get(name):
            alias = "" if table.alias else f" AS {table.name}"
            known.setdefault(name, _plain_name(table.alias or table.name))
            places.append((*_span(table.args["db"], table.this), f"({stands_for}){alias}"))
    # `system.tables.name` is valid even where the table has an alias.
    places += [
        (*_span(column.args["db"], column.args["table"]), f"`{called}`")
        for column in statement.find_all(exp.Column)
        if (called := known.get(f"{column.db}.{column.table}".lower()))
    ]
    for start, end, text in sorted(places, reverse=True):
        sql = sql[:start] + text + sql[end:]
    return sql


def _plain_name(name: str) -> str:
    """The name, which goes into the text: quotes in it could end it there, and say anything."""
    if not _NAME.fullmatch(name):
        raise QueryError(f"A system table cannot be called {name[:50]!r} here: letters, digits, _.")
    return name


def _span(first: exp.Expr, last: exp.Expr) -> tuple[int, int]:
    return first.meta["start"], last.meta["end"] + 1


def _problems(
    statement: exp.Expr, tokens: Sequence[Token], named: set[str], database: str
) -> Iterator[str]:
    if not isinstance(statement, exp.Query):
        yield "Only SELECT can be asked here."
    for node in statement.walk():
        match node:
            case exp.Table():
                yield from _table_problems(node, named, database)
            case exp.Placeholder() | exp.Parameter() if _is_identifier(node):
                yield "A parameter cannot stand for a name (Identifier), only for a value."
            case exp.Select() if not node.expressions:
                yield "SELECT has nothing to select."
            case exp.Query():
                yield from (text for clause, text in _CLAUSES.items() if node.args.get(clause))
            case exp.Command() | exp.DDL() | exp.DML():
                yield "Only SELECT can be asked here."
            case _:
                pass
    for name in _sets(statement):
        yield from _name_problems(name, named, database)
    yield from guest_words.problems(tokens, named)


def _table_problems(table: exp.Table, named: set[str], database: str) -> Iterator[str]:
    if isinstance(table.this, exp.Placeholder):
        return  # told as the parameter that it is
    if not isinstance(table.this, exp.Identifier):
        function = table.this.name if isinstance(table.this, exp.Anonymous) else str(table.this)
        if function.lower() not in guest_words.TABLE_FUNCTIONS:
            yield f"{function} cannot be used as a table here. {guest_catalogue.TABLES}"
    elif table.catalog or f"{table.db}.{table.name}".lower() not in SYSTEM_TABLES:
        yield from _name_problems(_Name(table.catalog, table.db, table.name), named, database)


class _Name(NamedTuple):
    catalog: str
    db: str
    name: str


def _asked(statement: exp.Expr) -> Iterator[_Name]:
    """Every name that may be a table's."""
    for table in statement.find_all(exp.Table):
        yield _Name(table.catalog, table.db, table.name)
    yield from _sets(statement)


def _set_of(node: exp.In) -> _Name | None:
    """The name that something is looked for in.

    `x IN name`, or in any parentheses, reads a table when the name is no column: the parser cannot
    tell them apart.
    """
    among = [node.args["field"]] if node.args.get("field") else node.expressions
    return _plain_column(among[0]) if len(among) == 1 else None


def _plain_column(found: exp.Expr) -> _Name | None:
    while isinstance(found, exp.Paren | exp.Alias):
        found = found.this
    return _Name(found.db, found.table, found.name) if isinstance(found, exp.Column) else None


def _sets(statement: exp.Expr) -> Iterator[_Name]:
    """The names that something is looked for in, and what the text says they are other names of."""
    others: dict[str, list[_Name]] = {}
    found: list[_Name] = []
    for node in statement.walk():
        match node:
            case exp.In() if (name := _set_of(node)) is not None:
                found.append(name)
            case exp.Alias() | exp.CTE() if (name := _plain_column(node.this)) is not None:
                others.setdefault(node.alias, []).append(name)
            case _:
                pass
    while found:
        yield (name := found.pop())
        if not name.db:
            found += others.pop(name.name, [])


def _lambdas(statement: exp.Expr) -> frozenset[str]:
    """The names that functions of the text may have, in lower case; other names of these, too.

    To the parser some of them are JSON operators, with more operators around them.
    """
    found: list[str] = []
    others: dict[str, list[str]] = {}
    for node in statement.find_all(exp.Alias, exp.CTE):
        if node.find(exp.Lambda, exp.JSONExtract):
            found.append(node.alias)
        elif (meant := _plain_column(node.this)) is not None:
            others.setdefault(meant.name, []).append(node.alias)
    names: set[str] = set()
    while found:
        names.add(name := found.pop())
        found += others.pop(name, [])
    return frozenset(name.lower() for name in names)


def _name_problems(asked: _Name, named: set[str], database: str) -> Iterator[str]:
    catalog, db, name = asked
    if not catalog and (
        (db in ("", database) and name in PUBLIC_TABLES) or (not db and name in named)
    ):
        return
    full = ".".join(part for part in asked if part)
    yield f"There is no table {full!r} to ask. {guest_catalogue.TABLES}"


def _definition_problems(tables: Collection[str]) -> Iterator[str]:
    """What is in the way of tables that a text defines: the engine takes other names for paths."""
    if len(tables) > _MOST_TABLES:
        yield f"WITH can define {_MOST_TABLES} tables at most, not {len(tables)}."
    for name in tables:
        if not _TABLE_NAME.fullmatch(name):
            yield f"A table cannot be called {name[:50]!r} here: letters, digits, _, - and blanks."


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

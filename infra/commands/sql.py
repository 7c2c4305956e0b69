"""`commandcenter sql`: read-only questions about the history."""

import sys
from typing import Annotated

import typer

from infra.commands import output
from infra.commands.options import AsJson, Url, ask
from streams.errors import CallerError


def sql(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One SELECT in ClickHouse's SQL; - is stdin.")
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Fills {NAME:Type} in the query."),
    ] = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Ask the history with SQL: tables: runs, agent_runs, events, approvals, costs, run_costs."""
    parameters = dict(_pair(each) for each in parameter or ())
    asked = sys.stdin.read() if query == "-" else query
    body = {"query": asked, "parameters": parameters}
    answer = ask(url, lambda client: client.post("/api/sql", body)).value
    if as_json:
        output.print_json(answer["rows"])
        return
    columns = answer["columns"]
    rows = [[row[name] for name in columns] for row in answer["rows"]]
    output.print_table(columns, rows, "No rows.")


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise CallerError(f"--param {given!r} is not NAME=VALUE")
    return name, value

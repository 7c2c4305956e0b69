"""`commandcenter sql`: read-only questions about the history."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from infra.commands import output
from infra.commands.options import AsJson, Url, ask
from streams.errors import CallerError

_FORMATS: Final = ("CSVWithNames", "Parquet", "ArrowStream")


def sql(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One SELECT in ClickHouse's SQL; - is stdin.")
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Fills {NAME:Type} in the query."),
    ] = None,
    at_least: Annotated[
        str,
        typer.Option(
            "--at-least", metavar="WATERMARK|RUN", help="Wait until this much is recorded."
        ),
    ] = "",
    output_file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the answer goes.")
    ] = None,
    url: Url = "",
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer in CSV, with a heading.")] = False,
    as_parquet: Annotated[
        bool, typer.Option("--parquet", help="Answer in Parquet; needs --output or a pipe.")
    ] = False,
    as_arrow: Annotated[
        bool, typer.Option("--arrow", help="Answer as an Arrow stream, as for --parquet.")
    ] = False,
) -> None:
    """Ask the history with SQL; tables: runs, agent_runs, events, approvals, costs, run_costs."""
    parameters = dict(_pair(each) for each in parameter or ())
    asked = sys.stdin.read() if query == "-" else query
    body = {"query": asked, "parameters": parameters}
    waits = {"atLeast": at_least} if at_least else {}
    formats = [
        name for name, given in zip(_FORMATS, (as_csv, as_parquet, as_arrow), strict=True) if given
    ]
    if len(formats) + as_json > 1:
        raise CallerError("Choose one of --json, --csv, --parquet and --arrow.")
    if formats:
        _write(url, {**body, "format": formats[0]}, waits, output_file)
        return
    if output_file is not None:
        raise CallerError("--output goes with --csv, --parquet or --arrow.")
    answer = ask(url, lambda client: client.post("/api/sql", body, headers=None, **waits)).value
    if as_json:
        output.print_json(answer["rows"])
        return
    columns = answer["columns"]
    rows = [[row[name] for name in columns] for row in answer["rows"]]
    output.print_table(columns, rows, "No rows.")


def _write(
    url: str, body: Mapping[str, object], query: Mapping[str, str], file: Path | None
) -> None:
    if file is None and body["format"] != "CSVWithNames" and sys.stdout.isatty():
        raise CallerError("The answer is no text: give it a file with --output, or a pipe.")
    content = ask(url, lambda client: client.post_for_bytes("/api/sql", body, **query))
    if file is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise CallerError(f"{file} cannot be written: {error}") from error


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise CallerError(f"--param {given!r} is not NAME=VALUE")
    return name, value

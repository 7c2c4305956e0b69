"""`commandcenter dead-letters …`: what could not be processed."""

from typing import Annotated

import typer

from infra.commands import output
from infra.commands.options import AsJson, Url, ask

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Dead letters: list.")


@app.callback()
def dead_letters() -> None:
    """Dead letters: list."""


@app.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """The newest records that could not be processed, with where they stood and why."""
    answer = ask(url, lambda client: client.get("/api/dead-letters", limit=limit))
    if as_json:
        output.print_json(answer)
        return
    output.print_table(
        ("WHEN", "TOPIC", "PARTITION", "OFFSET", "ERROR", "REASON"),
        [
            (
                output.moment(letter["at"]),
                letter["topic"],
                letter["partition"],
                letter["offset"],
                letter["error"],
                letter["reason"],
            )
            for letter in answer["deadLetters"]
        ],
        "No dead letters.",
    )

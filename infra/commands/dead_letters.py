"""`commandcenter dead-letters …`: what could not be processed, sent back or set aside."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.commands import output
from infra.commands.group import Group
from infra.commands.options import AsJson, By, Url, ask, user
from streams.errors import CallerError, CommandCenterError, OperatorError

if TYPE_CHECKING:
    from gateway.client import GatewayClient

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Dead letters: list, show, replay, purge.",
)

Topic = Annotated[
    str | None, typer.Option("--topic", metavar="NAME", help="Only what is from this topic.")
]
Error = Annotated[
    str | None, typer.Option("--error", metavar="CLASS", help="Only this class of errors.")
]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Letters, as `list` names them.")]

_PAGE = 200
_TIMES = ("at", "closedAt")


@app.callback()
def dead_letters() -> None:
    """Dead letters: list, show, replay, purge."""


@app.command("list")
def list_dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="How many.")] = 20,
    topic: Topic = None,
    error: Error = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="OPEN, REPLAYED or PURGED.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only since then, as 2030-01-31T12:00Z.")
    ] = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """The newest records that could not be processed, with where they stood and why."""
    wanted = {"topic": topic, "error": error, "state": state, "since": since}
    answer = ask(url, lambda client: client.get("/api/dead-letters", limit=limit, **wanted))
    if as_json:
        output.print_json(answer)
        return
    output.print_list(
        ("ID", "WHEN", "STATE", "SOURCE", "ATTEMPTS", "ERROR", "REASON"),
        [
            (
                letter["id"],
                output.recently(letter["at"]),
                letter["state"],
                f"{letter['topic']}/{letter['partition']}/{letter['offset']}",
                letter["attempts"],
                letter["error"],
                letter["reason"],
            )
            for letter in answer["deadLetters"]
        ],
        "No dead letters.",
    )


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` names it.")],
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """A dead letter with the original record; --json has all of a long one."""
    from gateway.client import path

    letter = ask(url, lambda client: client.get(path("dead-letters", letter_id)))
    if as_json:
        output.print_json(letter)
        return
    value = letter.pop("value")
    if letter["valueText"] is None and value is not None:
        letter["value"] = value  # no text: in base64
    width = max(map(len, letter))
    for name, shown in letter.items():
        if name in _TIMES:
            shown = output.moment(shown)
        if shown not in (None, "", {}):
            print(f"{name:<{width}}  {output.short(output.text(shown))}")


@app.command()
def replay(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Letters, as `list` names them.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All open ones, narrowed by --topic and --error.")
    ] = False,
    topic: Topic = None,
    error: Error = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was replayed or purged before.")
    ] = False,
    by: By = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Send originals back to where they came from; 1 if one of them is refused."""
    if everything == bool(ids):
        raise CallerError("say which letters: their ids, or --all")
    if not everything and (topic or error):
        raise CallerError("--topic and --error narrow --all; ids say it all already")
    who = by or user()

    async def work(client: "GatewayClient") -> list[dict[str, Any]]:
        from gateway.client import path

        chosen = ids or await _open_ids(client, topic, error)

        async def one(letter: str) -> Any:
            body = {"again": again, "requestedBy": who}
            return (await client.post(path("dead-letters", letter, "replay"), body)).value

        return await _each(chosen, one)

    _report(ask(url, work), as_json, lambda done: f"replayed to {done['replayedTo']}")


@app.command()
def purge(
    ids: Ids,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why they need no more attention.")
    ],
    by: By = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Set letters aside, with a reason; 1 if one of them is refused."""
    if not reason.strip():
        raise CallerError("--reason is empty: say why the letters need no more attention")
    who = by or user()

    async def work(client: "GatewayClient") -> list[dict[str, Any]]:
        from gateway.client import path

        async def one(letter: str) -> Any:
            body = {"reason": reason, "purgedBy": who}
            return (await client.post(path("dead-letters", letter, "purge"), body)).value

        return await _each(ids, one)

    _report(ask(url, work), as_json, lambda _done: "purged")


async def _open_ids(client: "GatewayClient", topic: str | None, error: str | None) -> list[str]:
    """Every open letter, the oldest first; named before any is replayed: some may come back."""
    wanted = {"state": "OPEN", "topic": topic, "error": error}
    found = await client.whole("/api/dead-letters", "deadLetters", limit=_PAGE, **wanted)
    return [letter["id"] for letter in found["deadLetters"]][::-1]


async def _each(ids: Iterable[str], work: Callable[[str], Awaitable[Any]]) -> list[dict[str, Any]]:
    """Do it for each letter; one that is refused does not stop the others."""
    results = []
    for letter in ids:
        try:
            results.append({"id": letter, "done": True, "letter": await work(letter)})
        except OperatorError:
            raise
        except CommandCenterError as error:
            results.append({"id": letter, "done": False, "error": str(error)})
    return results


def _report(
    results: Sequence[dict[str, Any]], as_json: bool, said: Callable[[dict[str, Any]], str]
) -> None:
    if as_json:
        output.print_json(results)
    else:
        for result in results:
            text = said(result["letter"]) if result["done"] else f"refused: {result['error']}"
            print(f"{result['id']}\t{output.text(text)}")
        if not results:
            print("No open dead letters.")
    if not all(result["done"] for result in results):
        raise typer.Exit(1)

"""Options that several commands have, and what they resolve to."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from streams.errors import CallerError, OperatorError

if TYPE_CHECKING:
    from gateway.client import GatewayClient
    from infra.settings import Settings

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="COMMANDCENTER_URL",
        metavar="URL",
        help="Where the gateway is.",
        show_default="http://127.0.0.1:8080",
    ),
]
By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="NAME",
        help="Who says so; it is kept with the run.",
        show_default="who is logged in here",
    ),
]
Project = Annotated[str, typer.Option("--project", metavar="NAME", help="The project.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where data is kept.", show_default="COMMANDCENTER_DATA"
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data", metavar="JSON|@FILE", help="JSON, or @ and the name of a file (@- is stdin)."
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until the runs have ended; 1 if one is no SUCCESS.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.", min=0.001)
]


def ask(url: str, work: "Callable[[GatewayClient], Awaitable[T]]") -> T:
    """Do `work` with a client of the gateway at `url` (empty: where the settings say)."""
    import asyncio

    from gateway.client import GatewayClient

    async def session() -> T:
        async with GatewayClient(url or _default_url()) as client:
            return await work(client)

    return asyncio.run(session())


def settings(**flags: object) -> "Settings":
    """The settings with the given flags over the environment; `CallerError` if they are wrong."""
    from infra.settings import Settings

    try:
        return Settings.load(**flags)
    except OperatorError as error:
        raise CallerError(str(error)) from error


def json_value(given: str, option: str = "--data") -> Any:
    """The value of an option that takes JSON or a file's name; `CallerError` if it is none."""
    where = option
    if given.startswith("@"):
        where = given[1:]
        try:
            given = typer.get_text_stream("stdin").read() if where == "-" else _content(where)
        except (OSError, UnicodeDecodeError) as error:
            raise CallerError(f"{where} cannot be read: {error}") from error
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise CallerError(f"{where} is not valid JSON: {error}") from error


def _content(name: str) -> str:
    return Path(name).expanduser().read_text(encoding="utf-8")


def _default_url() -> str:
    # Only this much of the settings: loading them takes longer than the request.
    host = os.environ.get("COMMANDCENTER_HOST") or "127.0.0.1"
    port = os.environ.get("COMMANDCENTER_PORT") or "8080"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def user() -> str:
    """Who is logged in here."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise CallerError("say who you are: --by NAME") from error

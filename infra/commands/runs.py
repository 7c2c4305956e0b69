"""`commandcenter runs …`: lists, one run and its items, watching runs live."""

import sys
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.commands import output
from infra.commands.group import Group
from infra.commands.options import AsJson, Url, ask

if TYPE_CHECKING:
    from gateway.client import GatewayClient

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Runs: look at them, and act on them.",
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Workflow = Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this workflow.")]
Status = Annotated[str | None, typer.Option(metavar="STATUS", help="Only runs in this status.")]
InProject = Annotated[
    str | None, typer.Option("--project", metavar="NAME", help="Only runs of this project.")
]

_WATCHED_ROWS: Final = 20
_REFRESHES_PER_S: Final = 8
_LAST_CHARACTERS: Final = 60
_WIDE: Final = 110
_SHORT_ID: Final = 8
_PAGE: Final = 200


@app.command("list")
def list_runs(
    workflow: Workflow = None,
    status: Status = None,
    project: InProject = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """The newest runs first."""
    answer = ask(
        url,
        lambda client: client.get(
            "/api/runs", workflow=workflow, status=status, project=project, limit=limit
        ),
    )
    if as_json:
        output.print_json(answer)
        return
    output.print_list(
        ("RUN", "WORKFLOW", "STATUS", "STARTED", "DURATION", "TRIGGER", "ERROR"),
        [
            (
                run["id"],
                f"{run['workflow']} v{run['version']}",
                run["status"] + (" (paused)" if run.get("paused") else ""),
                output.recently(run.get("startedAt")),
                output.duration(run.get("durationMs")),
                run["trigger"]["type"],
                (run.get("error") or {}).get("message"),
            )
            for run in answer["runs"]
        ],
        "No runs.",
    )


@app.command()
def show(run: RunId, url: Url = "", as_json: AsJson = False) -> None:
    """One run with its steps."""
    from gateway.client import path

    detail = ask(url, lambda client: client.whole(path("runs", run), "steps"))
    if as_json:
        output.print_json(detail)
        return
    from infra.commands.run_text import print_run

    print_run(detail)


@app.command()
def watch(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One run, until it has ended.")
    ] = None,
    workflow: Workflow = None,
    status: Status = None,
    project: InProject = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Watch runs as they change: until Ctrl-C, or, with RUN, until that run has ended.

    A table on a terminal; in a pipe a line for each event, with --json a decision of the log. With
    RUN the exit code is 0 if the run is a SUCCESS, else 1.
    """
    given = {"run": run, "workflow": workflow, "status": status, "project": project}
    wanted = {name: value for name, value in given.items() if value is not None}
    if as_json:
        viewer: _Viewer = _JsonLines()
    elif sys.stdout.isatty():
        viewer = _LiveTable()
    else:
        viewer = _Lines()
    ended = ask(url, lambda client: _watch(client, wanted, viewer))
    if ended is not None and ended != "SUCCESS":
        raise typer.Exit(1)


@app.command()
def items(
    run: RunId,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node with forEach.")],
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only items in this status.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """The items of a node, in their order."""
    answer = ask(url, lambda client: _items(client, run, node, status, limit))
    if as_json:
        output.print_json(answer)
        return
    from infra.commands.run_text import counts, remark
    from infra.commands.sentences import payload_text

    output.print_table(
        ("ITEM", "STATUS", "ATTEMPTS", "DURATION", "VALUE", "OUTPUT", "REMARK"),
        [
            (
                item["index"],
                item["status"],
                item["attempts"],
                output.duration(item.get("durationMs")),
                _cut(payload_text(item.get("item"))),
                _cut(payload_text(item.get("output"))),
                remark(item),
            )
            for item in answer["items"]
        ],
        "No such items.",
    )
    if sys.stdout.isatty():
        print(counts(answer["counts"]) + ("; --limit shows more" if answer["next"] else ""))


async def _items(
    client: "GatewayClient", run: str, node: str, status: str | None, limit: int
) -> dict[str, Any]:
    """As many items as are wanted, of as many pages as that takes."""
    from gateway.client import path

    found: dict[str, Any] = {"next": None}
    shown: list[Any] = []
    while True:
        found = await client.get(
            path("runs", run, "nodes", node, "items"),
            status=status,
            limit=min(_PAGE, limit - len(shown)),
            cursor=found["next"],
        )
        shown += found["items"]
        if found["next"] is None or len(shown) >= limit:
            return {**found, "items": shown}


def _cut(text: str) -> str:
    return text if len(text) <= _LAST_CHARACTERS else f"{text[:_LAST_CHARACTERS]}…"


async def _watch(
    client: "GatewayClient", wanted: Mapping[str, str], viewer: "_Viewer"
) -> str | None:
    """Show what the stream tells. The status in which the one run ended, if one is watched."""
    from infra.commands.following import ENDED

    with viewer:
        async with aclosing(client.follow(wanted)) as frames:
            async for frame in frames:
                viewer.take(frame)
                if "run" in wanted and (status := _status_in(frame)) in ENDED:
                    return status
    return None


def _status_in(frame: Mapping[str, Any]) -> str:
    if decisions := frame.get("decisions"):
        return str(decisions[-1]["status"])
    return str((frame.get("run") or {}).get("status", ""))


class _Viewer:
    """Shows frames of the stream; a context manager."""

    def __enter__(self) -> None:
        """Begin to show."""

    def __exit__(self, *error: object) -> None:
        """End."""

    def take(self, frame: Mapping[str, Any]) -> None:
        """Show one frame."""


class _JsonLines(_Viewer):
    """Every frame of runs as it comes: snapshots' runs and decisions, one JSON object a line."""

    def take(self, frame: Mapping[str, Any]) -> None:
        for run in _runs_of(frame):
            output.print_json_line(run)
        for decision in frame.get("decisions", ()):
            output.print_json_line(decision)


class _Lines(_Viewer):
    """A line for each event."""

    def take(self, frame: Mapping[str, Any]) -> None:
        from infra.commands.following import lines_of

        for run in _runs_of(frame):
            print(f"{run['id']}  {run['workflow']}  {run['status']}", flush=True)
        for decision in frame.get("decisions", ()):
            for line in lines_of(decision):
                print(line, flush=True)


class _LiveTable(_Viewer):
    """The newest runs as they stand."""

    def __init__(self) -> None:
        from rich.live import Live

        self._rows: dict[str, Any] = {}
        self._live = Live(get_renderable=self._table, refresh_per_second=_REFRESHES_PER_S)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def take(self, frame: Mapping[str, Any]) -> None:
        from infra.commands.following import RunRow, row_of

        for run in reversed(_runs_of(frame)):
            self._rows[run["id"]] = row_of(run)
        for decision in frame.get("decisions", ()):
            run = decision["run"]
            # Those that change last are last in the mapping, and first on the screen.
            row = self._rows.pop(run, None) or RunRow(run)
            row.apply(decision)
            self._rows[run] = row
        while len(self._rows) > _WATCHED_ROWS:
            del self._rows[next(iter(self._rows))]

    def _table(self) -> Any:
        from time import time

        now = round(time() * 1_000)
        wide = self._live.console.width >= _WIDE
        rows = []
        for row in reversed(self._rows.values()):
            spent = (row.finished_at or now) - row.started_at if row.started_at else None
            run = row.id if wide else row.id[:_SHORT_ID]
            last = output.text(row.doing)[:_LAST_CHARACTERS]
            rows.append((run, row.workflow, row.status, row.progress, output.duration(spent), last))
        return output.table(("RUN", "WORKFLOW", "STATUS", "STEPS", "DURATION", "LAST"), rows)


def _runs_of(frame: Mapping[str, Any]) -> list[Any]:
    """The runs of a snapshot, newest first."""
    one = frame.get("run")
    return [one] if one else list(frame.get("runs", ()))

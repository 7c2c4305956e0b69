"""`commandcenter trigger`: publish an event; `workflow trigger` starts one workflow by its name."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from infra.commands import output
from infra.commands.options import AsJson, Data, Project, Timeout, Url, Wait, ask, json_value
from streams.errors import CallerError

if TYPE_CHECKING:
    from gateway.client import GatewayClient


def trigger(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type: repo.push")],
    data: Data = "{}",
    source: Annotated[str, typer.Option(metavar="URI", help="Who says so.")] = "commandcenter/cli",
    id_: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The same source and id start nothing twice."),
    ] = None,
    subject: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is about.")] = None,
    project: Project = "default",
    wait: Wait = False,
    timeout: Timeout = 600,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Publish an event (CloudEvents 1.0); workflows whose trigger matches it start a run."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": id_ or str(uuid4()),
        "source": source,
        "type": type_,
        "project": project,
        "datacontenttype": "application/json",
        "data": json_value(data),
    }
    if subject is not None:
        event["subject"] = subject
    if not wait:
        accepted = ask(url, lambda client: publish(client, event))
        if as_json:
            output.print_json(accepted)
        else:
            print(f"Published {event['type']} {event['id']} from {source}.")
        return
    report(ask(url, lambda client: _publish_and_wait(client, event, timeout)), as_json)


def report(runs: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print runs that were waited for; the exit code is 1 if one is no SUCCESS."""
    if as_json:
        output.print_json({"runs": runs})
    else:
        from infra.commands.run_text import print_run

        for number, run in enumerate(runs):
            if number:
                print()
            print_run(run)
    if any(run["status"] != "SUCCESS" for run in runs):
        raise typer.Exit(1)


async def publish(client: "GatewayClient", event: dict[str, Any]) -> Any:
    """Hand an event to the gateway: the answer once Kafka has it."""
    headers = {"Content-Type": "application/cloudevents+json"}
    return (await client.post("/api/events", event, headers=headers)).value


async def runs_started_by(client: "GatewayClient", event: dict[str, Any]) -> list[str]:
    """The ids of the runs that an event starts, known before they are: ids are derived."""
    from streams import pattern
    from streams.ids import run_id

    project = event["project"]
    known = await client.whole("/api/workflows", "workflows", project=project)
    return [
        run_id(project, workflow["name"], event["source"], event["id"])
        for workflow in known["workflows"]
        if workflow["event"] is not None
        and pattern.matches(workflow["event"], event["type"])
        and _meets(workflow["filter"], event)
    ]


async def _publish_and_wait(
    client: "GatewayClient", event: dict[str, Any], timeout_s: float
) -> list[dict[str, Any]]:
    runs = await runs_started_by(client, event)
    if not runs:
        await publish(client, event)
        raise CallerError(
            f"The event is published, but no workflow in project {event['project']!r} has a "
            f"trigger that matches it: see `commandcenter workflow list`."
        )
    return await start_and_wait(client, runs, lambda: publish(client, event), timeout_s)


async def start_and_wait(
    client: "GatewayClient", runs: Sequence[str], start: Any, timeout_s: float
) -> list[dict[str, Any]]:
    """The details of the runs that `start` starts, once they have ended.

    Raises:
        WaitedTooLongError: They have not ended in time.
    """
    from infra.commands.following import lines_of, recorded, until_ended

    def tell(decision: dict[str, Any]) -> None:
        for line in lines_of(decision):
            print(line, file=sys.stderr, flush=True)

    await until_ended(client, runs, start, timeout_s=timeout_s, on_decision=tell)
    return [await recorded(client, run) for run in runs]


def _meets(filter_: str | None, event: dict[str, Any]) -> bool:
    """Whether the event meets a trigger's filter, as the router will see it."""
    if filter_ is None:
        return True
    from streams.expression import compiled

    seen = {name: event.get(name) for name in ("id", "source", "type", "subject", "time", "data")}
    return compiled(filter_).check({"event": seen}).matched

"""`commandcenter workflow …`: publish definitions, look at them, check files, start by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from infra.commands import output
from infra.commands.group import Group
from infra.commands.options import (
    AsJson,
    Data,
    Project,
    Timeout,
    Url,
    Wait,
    ask,
    json_value,
    settings,
)
from streams.errors import (
    CallerError,
    CommandCenterError,
    DefinitionError,
    OperatorError,
    TooLargeError,
)

if TYPE_CHECKING:
    from gateway.client import GatewayClient
    from streams.action_inputs import KnownAction
    from streams.workflow_file import Document, Fault

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Workflows: apply, diff, list, show, trigger, validate.",
)

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="YAML or JSON, or folders of such files.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]

_SUFFIXES = (".yaml", ".yml", ".json")
_QUICKLY_S = 2.0


@app.command()
def apply(files: Files, url: Url = "", as_json: AsJson = False) -> None:
    """Publish workflows: each becomes a new version, unless it is the latest already.

    Nothing is published if anything is wrong in one of the files.
    """
    documents, faults = _read(files)
    for document in documents:
        faults += document.check()
    _refuse(faults, as_json)
    published = ask(url, lambda client: publish(client, documents))
    if as_json:
        output.print_json(published)
        return
    for each in published:
        what = "published" if each["created"] else "unchanged"
        print(f"{each['name']} v{each['version']} {what}")


@app.command()
def validate(
    files: Files,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            "--agents", metavar="MODULE:VARIABLE", help="Agents of your own that may be used."
        ),
    ] = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Check workflow files, with line numbers; nothing has to run.

    Known are the built-in agents, those of --agents, and those that a running CommandCenter knows.
    How big a definition may be is as COMMANDCENTER_DEFINITION_LIMIT, _NODES_LIMIT and
    _FAN_OUT_LIMIT say here.
    """
    from streams.definition_limits import DefinitionLimits

    documents, faults = _read(files)
    actions = _known_actions(agents or (), url)
    here = settings()
    limits = DefinitionLimits(here.definition_limit, here.nodes_limit, here.fan_out_limit)
    for document in documents:
        faults += document.check(actions, limits)
    _refuse(faults, as_json)
    if as_json:
        output.print_json({"valid": True, "faults": []})
    else:
        for document in documents:
            print(f"{document.file}: {document.name} is valid")


@app.command("list")
def list_workflows(
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help="Only of this project.")
    ] = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """The workflows that new runs start of."""
    answer = ask(url, lambda client: client.whole("/api/workflows", "workflows", project=project))
    if as_json:
        output.print_json(answer)
        return
    output.print_list(
        ("WORKFLOW", "VERSION", "TRIGGER", "FILTER", "NODES", "PUBLISHED", "DESCRIPTION"),
        [
            (
                workflow["name"],
                workflow["version"],
                workflow["event"] or "by name only",
                workflow["filter"],
                workflow["nodes"],
                output.recently(workflow["publishedAt"]),
                workflow.get("problem") or workflow["description"],
            )
            for workflow in answer["workflows"]
        ],
        "No workflows. Publish one: commandcenter workflow apply FILE",
    )


@app.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="Not the latest.")] = None,
    project: Project = "default",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """A workflow's definition, as YAML."""
    from gateway.client import path

    answer = ask(
        url,
        lambda client: client.whole(
            path("workflows", name), "versions", project=project, version=version
        ),
    )
    if as_json:
        output.print_json(answer)
        return
    from gateway.version_diff import text

    state = "active" if answer["active"] else "starts no new runs"
    print(f"# {name} v{answer['version']}, {state}; versions: ", end="")
    print(", ".join(str(each["version"]) for each in answer["versions"]))
    print(text(answer["definition"]), end="")


@app.command()
def diff(
    name: Name,
    old: Annotated[
        int | None,
        typer.Option("--from", metavar="VERSION", min=1, help="Not the one before the newer one."),
    ] = None,
    new: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", min=1, help="Not the latest.")
    ] = None,
    project: Project = "default",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """What changed between two versions of a workflow, by default the last two."""
    from gateway.client import path

    wanted = {"project": project, "from": old, "to": new}
    answer = ask(url, lambda client: client.get(path("workflows", name, "diff"), **wanted))
    if as_json:
        output.print_json(answer)
    elif not answer["diff"]:
        print(f"{name} v{answer['from']} and v{answer['to']} are the same.")
    else:
        output.print_diff(answer["diff"])


@app.command()
def trigger(
    name: Name,
    data: Data = "{}",
    key: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The same id starts nothing twice."),
    ] = None,
    project: Project = "default",
    wait: Wait = False,
    timeout: Timeout = 600,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Start a run of a workflow by its name; --data is its context."""
    context = json_value(data)
    if not isinstance(context, dict):
        raise CallerError("--data must be a JSON object: it is the run's context")
    key = key or str(uuid4())
    if wait:
        from infra.commands.trigger import report

        report(
            ask(url, lambda client: _run_to_its_end(client, project, name, context, key, timeout)),
            as_json,
        )
        return
    accepted = ask(url, lambda client: _start(client, project, name, context, key))
    if as_json:
        output.print_json(accepted)
    else:
        print(f"Run {accepted['workflowRunId']} is {accepted['status']}.")


async def publish(client: "GatewayClient", documents: Sequence["Document"]) -> list[dict[str, Any]]:
    """Publish definitions in order, once all of them have been found to be right.

    Raises:
        WorkflowFileError: What is refused, with its lines; nothing is published.
    """
    from streams.workflow_file import WorkflowFileError

    faults: list[Fault] = []
    for document in documents:
        try:
            await client.post("/api/workflows", document.definition, check="true")
        except DefinitionError as error:
            if not error.problems:
                raise
            faults += document.faults(error.problems)
        except TooLargeError as error:
            raise TooLargeError(f"{document.file}: {error}") from error
    if faults:
        raise WorkflowFileError(faults)
    return [
        (await client.post("/api/workflows", document.definition)).value for document in documents
    ]


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files, and those of the folders by name; `CallerError` for a folder without any."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES)
            if not inside:
                raise CallerError(f"{path} has no files that end in {', '.join(_SUFFIXES)}")
            found += inside
        else:
            found.append(path)
    return found


def _read(paths: Sequence[Path]) -> tuple[list["Document"], list["Fault"]]:
    """The definitions of all files, and the faults of those that cannot be read as such."""
    from streams.workflow_file import WorkflowFileError, read

    documents: list[Document] = []
    faults: list[Fault] = []
    for path in files_in(paths):
        try:
            documents += read(path)
        except WorkflowFileError as error:
            faults += error.faults
    return documents, faults


def _refuse(faults: "Sequence[Fault]", as_json: bool) -> None:
    from streams.workflow_file import WorkflowFileError

    if not faults:
        return
    if as_json:
        output.print_json(
            {
                "valid": False,
                "faults": [
                    {
                        "file": fault.file,
                        "line": fault.place.line,
                        "column": fault.place.column,
                        "message": fault.message,
                    }
                    for fault in faults
                ],
            }
        )
        raise typer.Exit(2)
    raise WorkflowFileError(faults)


def _known_actions(own: Sequence[str], url: str) -> "dict[str, dict[str, KnownAction]]":
    """Agent → what is known of its actions.

    Those that are built in, of the command line, and of a gateway if one answers.
    """
    import asyncio

    from agents.registry import builtin
    from infra.agent_references import load_agents
    from streams.action_inputs import known_actions

    known = {
        agent.name: known_actions(action.descriptor() for action in agent.actions.values())
        for agent in (*builtin(), *load_agents(own))
    }

    async def asked(client: "GatewayClient") -> Any:
        async with asyncio.timeout(_QUICKLY_S):
            return await client.whole("/api/agents", "agents")

    try:
        answer = ask(url, asked)
    except (OperatorError, TimeoutError):
        return known  # none runs: that is no fault of the file
    except CommandCenterError as error:
        typer.echo(f"The agents of the running CommandCenter are left out: {error}", err=True)
        return known
    for agent in answer["agents"]:
        told = agent["descriptor"].get("actions", ())
        known.setdefault(agent["name"], {}).update(known_actions(told))
    return known


async def _start(
    client: "GatewayClient", project: str, name: str, context: dict[str, Any], key: str
) -> Any:
    from gateway.client import path

    address = path("workflows", name, "trigger")
    headers = {"Idempotency-Key": key}
    return (await client.post(address, context, headers=headers, project=project)).value


async def _run_to_its_end(
    client: "GatewayClient",
    project: str,
    name: str,
    context: dict[str, Any],
    key: str,
    timeout_s: float,
) -> list[dict[str, Any]]:
    from infra.commands.trigger import start_and_wait

    # Starting first is safe: a stream begins with a snapshot of what has happened already.
    run = (await _start(client, project, name, context, key))["workflowRunId"]

    async def started() -> None:
        pass

    return await start_and_wait(client, [run], started, timeout_s)

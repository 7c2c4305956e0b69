"""The command line, put together.

Exit codes:

- 0: done;
- 1: what was asked for failed: a run that is no SUCCESS, a check of `doctor` or `verify`;
- 2: wrong usage or bad input: an option, a file, a workflow, a query;
- 3: something that is needed is out of reach or in the way: the gateway, Kafka, a port, a folder;
- 130: ended by Ctrl-C (typer's doing).

Commands import what they need when they run, so that the quick ones are quick.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Final

import typer

from infra.commands import (
    agents,
    approvals,
    costs,
    dead_letters,
    demo,
    doctor,
    orders,
    processes,
    rebuild,
    runs,
    sql,
    trigger,
    verify,
    workflow,
)
from infra.commands.group import Group
from streams.errors import (
    AgentError,
    CallerError,
    CommandCenterError,
    DefinitionError,
    OperatorError,
)

FAILED: Final = 1
BAD_INPUT: Final = 2
OUT_OF_REACH: Final = 3

app = typer.Typer(
    name="commandcenter",
    cls=Group,
    help="An event-driven orchestrator for software and AI agents, on a log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help comes in half the time
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"CommandCenter {version('commandcenter')}")  # noqa: T201  # the command line prints
        raise typer.Exit


@app.callback()
def commandcenter(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """An event-driven orchestrator for software and AI agents, on a log."""


app.command()(processes.up)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(verify.verify)
app.command()(rebuild.rebuild)
app.command()(processes.worker)
app.command()(processes.gateway)
app.command()(processes.recorder)
app.command()(trigger.trigger)
app.add_typer(workflow.app, name="workflow")
app.add_typer(runs.app, name="runs")
runs.app.command()(orders.approve)
runs.app.command()(orders.reject)
runs.app.command()(orders.cancel)
runs.app.command()(orders.pause)
runs.app.command()(orders.resume)
runs.app.command()(orders.retry)
runs.app.command()(orders.rerun)
app.add_typer(approvals.app, name="approvals")
app.command()(sql.sql)
app.add_typer(costs.app, name="costs")
app.add_typer(agents.app, name="agents")
app.add_typer(dead_letters.app, name="dead-letters")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (this process's by default) and end with its exit code."""
    try:
        app(arguments)
    except CommandCenterError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  # the command line prints
        sys.exit(_exit_code(error))


def _exit_code(error: CommandCenterError) -> int:
    if isinstance(error, (CallerError, DefinitionError, AgentError)):
        return BAD_INPUT
    return OUT_OF_REACH if isinstance(error, OperatorError) else FAILED

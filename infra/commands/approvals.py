"""`commandcenter approvals …`: what people are asked."""

from enum import StrEnum
from typing import Annotated

import typer

from infra.commands import output
from infra.commands.group import Group
from infra.commands.options import AsJson, Url, ask
from infra.commands.sentences import payload_text

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, cls=Group, help="Approvals: what people are asked."
)


class State(StrEnum):
    """Which approvals."""

    PENDING = "pending"
    DECIDED = "decided"
    ALL = "all"


@app.callback()
def approvals() -> None:
    """Approvals: list. `runs approve` and `runs reject` answer them."""


@app.command("list")
def list_approvals(
    status: Annotated[State, typer.Option(help="Which.")] = State.PENDING,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of runs of this workflow.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help="Only of this project.")
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only of this run.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """What people are asked, the newest first."""
    state = None if status is State.ALL else status.value
    answer = ask(
        url,
        lambda client: client.get(
            "/api/approvals",
            status=state,
            workflow=workflow,
            project=project,
            run=run,
            limit=limit,
        ),
    )
    if as_json:
        output.print_json(answer)
        return
    output.print_table(
        ("RUN", "NODE", "WORKFLOW", "STATUS", "ROLES", "MISSING", "DEADLINE", "ANSWERS", "INPUTS"),
        [
            (
                approval["run"],
                approval["id"].partition(":")[2],
                approval["workflow"],
                approval["status"],
                ", ".join(approval["roles"]),
                f"{approval['missing']} of {approval['needed']}",
                output.moment(approval["deadline"]),
                "; ".join(_answer(each) for each in approval["answers"]),
                payload_text(approval["inputs"]),
            )
            for approval in answer["approvals"]
        ],
        "Nobody is asked." if status is State.PENDING else "No approvals.",
    )


def _answer(answer: dict[str, str]) -> str:
    what = "yes" if answer["approved"] else "no"
    notes = f": {answer['notes']}" if answer["notes"] else ""
    return f"{answer['by'] or 'deadline'} {what}{notes}"

"""`commandcenter costs …`: what was spent on what, budgets, and an export for FinOps tools."""

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from infra.commands import output
from infra.commands.group import Group
from infra.commands.options import AsJson, Project, Url, ask
from streams.errors import CallerError

app = typer.Typer(
    rich_markup_mode=None,
    cls=Group,
    help="Costs: sums by workflow, agent, model, day, tag, …; budgets; export.",
)
budget = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, cls=Group, help="Budgets: list, set, remove."
)
app.add_typer(budget, name="budget")

From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME", help="2026-11-01, UTC.", show_default="beginning of the month"
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="Until before then.", show_default="end of today"),
]
InProject = Annotated[
    str | None, typer.Option("--project", metavar="NAME", help="Only of this project.")
]
OfWorkflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Only of this workflow.")
]
OfRun = Annotated[str | None, typer.Option("--run", metavar="ID", help="Only of this run.")]
OfAgent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Only of this agent.")]
OfModel = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Only of this language model.")
]
OfKind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only compute, tokens or api.")
]
WithTag = Annotated[
    str | None, typer.Option("--tag", metavar="TAG", help="Only of workflows with this tag.")
]
BudgetName = Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.")]

_AMOUNTS: Final = ("compute", "tokens", "api", "amount")
_GROUPING: Final = "groupBy"


@app.callback(invoke_without_command=True)
def costs(
    context: typer.Context,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="NAME,…",
            help="Any of month, day, project, workflow, version, run, node, agent, kind, source,"
            " model, tag.",
        ),
    ] = "workflow",
    begin: From = None,
    end: To = None,
    project: InProject = None,
    workflow: OfWorkflow = None,
    run: OfRun = None,
    agent: OfAgent = None,
    model: OfModel = None,
    kind: OfKind = None,
    tag: WithTag = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many groups.")] = 1_000,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """What costs add up to, exactly, in each currency: this month, by workflow, if unsaid."""
    if context.invoked_subcommand is not None:
        return
    wanted = {
        _GROUPING: by,
        **_filter(begin, end, project, workflow, run, agent, model, kind, tag),
        "limit": str(limit),
    }
    answer = ask(url, lambda client: client.get("/api/costs", **wanted))
    if as_json:
        output.print_json(answer)
        return
    names = answer["groupBy"]
    rows = [
        (*(_shown(group["key"][name]) for name in names), group["currency"], *_amounts(group))
        for group in answer["groups"]
    ]
    if sys.stdout.isatty() or not names:  # a pipe gets rows of one kind
        rows += [
            (*_total(len(names)), total["currency"], *_amounts(total)) for total in answer["totals"]
        ]
    columns = (*(name.upper() for name in names), "CURRENCY", "COMPUTE", "TOKENS", "API", "AMOUNT")
    output.print_table(columns, rows, "Nothing was spent.")
    if answer["more"]:
        typer.echo(f"There are more than {limit} groups; the totals include them.", err=True)
    if "tag" in names and sys.stdout.isatty() and rows:
        typer.echo("What has several tags counts for each of them, in the totals once.", err=True)


@app.command()
def export(
    begin: From = None,
    end: To = None,
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to.", show_default="stdout"),
    ] = None,
    project: InProject = None,
    workflow: OfWorkflow = None,
    run: OfRun = None,
    agent: OfAgent = None,
    model: OfModel = None,
    kind: OfKind = None,
    tag: WithTag = None,
    url: Url = "",
) -> None:
    """Every single cost as CSV in the columns of FOCUS 1.2 (docs/costs.md lists them)."""
    wanted = _filter(begin, end, project, workflow, run, agent, model, kind, tag)

    def load(target: BinaryIO) -> None:
        ask(url, lambda client: client.download("/api/costs/export", target.write, **wanted))

    if file is None:
        load(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    # A file of that name is either whole or not there.
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as target:
            load(target)
        part.replace(file)
    except OSError as error:
        raise CallerError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    typer.echo(f"{file}: {file.stat().st_size:,} bytes", err=True)


@budget.command("list")
def list_budgets(project: InProject = None, url: Url = "", as_json: AsJson = False) -> None:
    """Every budget, with what this month has cost so far and what it will come to."""
    answer = ask(url, lambda client: client.whole("/api/budgets", "budgets", project=project))
    if as_json:
        output.print_json(answer)
        return
    _print_budgets(answer["budgets"])


@budget.command("set")
def set_budget(
    name: BudgetName,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Of a month, as 250.00.")],
    currency: Annotated[str, typer.Option("--currency", metavar="CODE", help="ISO 4217.")] = "USD",
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Of this workflow.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Of workflows with this tag.")
    ] = None,
    project: Project = "default",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Set or replace a budget: of a workflow, of a tag, or of the project if neither is said."""
    from gateway.client import path

    body = {"amount": amount, "currency": currency, "workflow": workflow, "tag": tag}
    answer = ask(url, lambda client: client.put(path("budgets", name), body, project=project)).value
    if as_json:
        output.print_json(answer)
        return
    _print_budgets([answer])


@budget.command("remove")
def remove_budget(
    name: BudgetName, project: Project = "default", url: Url = "", as_json: AsJson = False
) -> None:
    """Take a budget away."""
    from gateway.client import path

    answer = ask(url, lambda client: client.delete(path("budgets", name), project=project)).value
    if as_json:
        output.print_json(answer)
        return
    print(f"Budget {answer['name']} is removed.")


def _filter(
    begin: str | None,
    end: str | None,
    project: str | None,
    workflow: str | None,
    run: str | None,
    agent: str | None,
    model: str | None,
    kind: str | None,
    tag: str | None,
) -> dict[str, str | None]:
    return {
        "from": begin,
        "to": end,
        "project": project,
        "workflow": workflow,
        "run": run,
        "agent": agent,
        "model": model,
        "kind": kind,
        "tag": tag,
    }


def _print_budgets(budgets: Sequence[Mapping[str, Any]]) -> None:
    output.print_table(
        ("BUDGET", "OF", "MONTH", "BUDGETED", "SPENT", "USED", "FORECAST", "CURRENCY", "STATE"),
        [
            (
                each["name"],
                _of(each),
                each["month"],
                each["amount"],
                each["monthToDate"],
                f"{each['usedPercent']} %",
                _estimate(each["forecast"]),
                each["currency"],
                each["state"],
            )
            for each in budgets
        ],
        "No budgets. Set one: commandcenter costs budget set NAME AMOUNT --workflow NAME",
    )


def _estimate(amount: str) -> str:
    """In cents, and less than one as it is: it is no less than what was spent."""
    return amount if Decimal(amount) < 1 else f"{Decimal(amount):.2f}"


def _of(each: Mapping[str, Any]) -> str:
    if each["workflow"] is not None:
        return f"workflow {each['workflow']}"
    return f"tag {each['tag']}" if each["tag"] is not None else f"project {each['project']}"


def _amounts(sums: Mapping[str, Any]) -> list[str]:
    return [sums[name] for name in _AMOUNTS]


def _total(width: int) -> tuple[str, ...]:
    return ("in all", *[""] * (width - 1)) if width else ()


def _shown(value: object) -> str:
    return "-" if value == "" else str(value)

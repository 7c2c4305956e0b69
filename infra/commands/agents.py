"""`commandcenter agents …`: who can be asked to do what."""

import typer

from infra.commands import output
from infra.commands.options import AsJson, Url, ask

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Agents: list.")


@app.callback()
def agents() -> None:
    """Agents: list."""


@app.command("list")
def list_agents(url: Url = "", as_json: AsJson = False) -> None:
    """The agents that workers serve, with their actions; in JSON also the actions' schemas."""
    answer = ask(url, lambda client: client.get("/api/agents"))
    if as_json:
        output.print_json(answer)
        return
    output.print_table(
        ("AGENT", "VERSION", "ACTIONS", "DESCRIPTION", "WORKER"),
        [
            (
                agent["name"],
                agent["version"],
                ", ".join(action["name"] for action in agent["descriptor"].get("actions", ())),
                agent["descriptor"].get("description"),
                agent["worker"],
            )
            for agent in answer["agents"]
        ],
        "No agents: no worker has run yet.",
    )

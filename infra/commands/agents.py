"""`commandcenter agents …`: who can be asked to do what."""

from collections.abc import Mapping
from typing import Any

import typer

from infra.commands import output
from infra.commands.group import Group
from infra.commands.options import AsJson, Url, ask

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Agents: who can be asked to do what.",
)


@app.callback()
def agents() -> None:
    """Agents: who can be asked to do what."""


@app.command("list")
def list_agents(url: Url = "", as_json: AsJson = False) -> None:
    """The agents, their actions, and how many workers serve them; in JSON with the schemas."""
    answer = ask(url, lambda client: client.whole("/api/agents", "agents"))
    if as_json:
        output.print_json(answer)
        return
    output.print_list(
        ("AGENT", "VERSION", "WORKERS", "IN HAND", "ACTIONS", "DESCRIPTION"),
        [
            (
                agent["name"],
                _versions(agent),
                len(agent["workers"]) or "none",
                f"{agent['inHand']} of {agent['capacity']}" if agent["alive"] else "",
                ", ".join(action["name"] for action in agent["descriptor"].get("actions", ())),
                agent["descriptor"].get("description"),
            )
            for agent in answer["agents"]
        ],
        "No agents: no worker has run yet.",
    )


def _versions(agent: Mapping[str, Any]) -> str:
    """Those that are served; else the one that was."""
    served = sorted({worker["version"] for worker in agent["workers"]})
    return ", ".join(served) or str(agent["version"])

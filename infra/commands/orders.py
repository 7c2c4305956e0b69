"""`commandcenter runs …`, orders: cancel, pause, resume, retry, rerun, approve, reject."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from infra.commands import output
from infra.commands.options import AsJson, By, Timeout, Url, Wait, ask, json_value, user
from streams.errors import CallerError

if TYPE_CHECKING:
    from gateway.client import GatewayClient

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the run.")]
Node = Annotated[
    str | None,
    typer.Argument(metavar="NODE", help="The node that waits (NODE.3: its item 3), if several do."),
]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help="A role of whoever decides; may come repeatedly."),
]
Key = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="The same id starts nothing twice.")
]


def cancel(
    run: RunId,
    reason: Reason = "cancelled on the command line",
    force: Annotated[
        bool, typer.Option("--force", help="At once: no time to end, nothing is undone any more.")
    ] = False,
    by: By = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Stop a run: agents at work are told and have the workflow's grace to end."""
    body = {"reason": reason, "force": force, "requestedBy": by or user()}
    answer = _post(url, body, "runs", run, "cancel")
    _say(answer, as_json, f"Run {run} is being cancelled (it was {answer['status']}).")


def pause(
    run: RunId, reason: Reason = "", by: By = "", url: Url = "", as_json: AsJson = False
) -> None:
    """Begin nothing more in a run until it is resumed; what is under way goes on."""
    body = {"reason": reason, "requestedBy": by or user()}
    _say(_post(url, body, "runs", run, "pause"), as_json, f"Run {run} is being paused.")


def resume(run: RunId, by: By = "", url: Url = "", as_json: AsJson = False) -> None:
    """Let a paused run go on."""
    body = {"requestedBy": by or user()}
    _say(_post(url, body, "runs", run, "resume"), as_json, f"Run {run} goes on.")


def retry(
    run: RunId,
    whole: Annotated[bool, typer.Option("--whole", help="Do everything again.")] = False,
    compensation: Annotated[
        bool, typer.Option("--compensation", help="Undo what the run could not undo.")
    ] = False,
    key: Key = None,
    by: By = "",
    wait: Wait = False,
    timeout: Timeout = 600,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Repeat a run that has ended, as a new one: what succeeded is not done again."""
    if whole and compensation:
        raise CallerError("--whole and --compensation do not go together")
    mode = "whole" if whole else "compensation" if compensation else "failed"
    body = {"mode": mode, "requestedBy": by or user()}
    accepted = _post(url, body, "runs", run, "retry", key=key)
    _say_repeated(accepted, url, as_json=as_json, wait_s=timeout if wait else None)


def rerun(
    run: RunId,
    node: Annotated[
        str, typer.Option("--from", metavar="NODE", help="This node, and all that depends on it.")
    ],
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="JSON|@FILE",
            help="Inputs for NODE instead of those that the workflow makes.",
        ),
    ] = None,
    key: Key = None,
    by: By = "",
    wait: Wait = False,
    timeout: Timeout = 600,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Repeat a run that has ended from a node on, as a new run, also with other inputs."""
    body: dict[str, Any] = {"from": node, "requestedBy": by or user()}
    if inputs is not None:
        body["inputs"] = {node: json_value(inputs, "--inputs")}
    accepted = _post(url, body, "runs", run, "rerun", key=key)
    _say_repeated(accepted, url, as_json=as_json, wait_s=timeout if wait else None)


def approve(
    run: RunId,
    node: Node = None,
    notes: Annotated[str, typer.Option(metavar="TEXT", help="What is to be said.")] = "",
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="JSON|@FILE", help="Inputs instead of those asked about."),
    ] = None,
    role: Roles = None,
    by: By = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Agree to what a run asks."""
    body: dict[str, Any] = {"decision": "approve", "notes": notes}
    if inputs is not None:
        body["inputs"] = json_value(inputs, "--inputs")
    _decide(run, node, {**body, "roles": role or [], "respondedBy": by or user()}, url, as_json)


def reject(
    run: RunId,
    notes: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is needed.")],
    node: Node = None,
    role: Roles = None,
    by: By = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Refuse what a run asks."""
    body = {"decision": "reject", "notes": notes, "roles": role or []}
    _decide(run, node, {**body, "respondedBy": by or user()}, url, as_json)


def _decide(run: str, node: str | None, body: Mapping[str, Any], url: str, as_json: bool) -> None:
    async def work(client: "GatewayClient") -> Any:
        from gateway.client import path

        name = f"{run}:{node}" if node else await _the_one(client, run)
        return (await client.post(path("approvals", name, "decision"), body)).value

    answer = ask(url, work)
    what = "approved" if answer["decision"] == "approve" else "rejected"
    node = answer["approval"].partition(":")[2]
    _say(answer, as_json, f"{node} of run {run} is {what} by {body['respondedBy']}.")


async def _the_one(client: "GatewayClient", run: str) -> str:
    """The one approval that a run waits for."""
    from gateway.client import path

    detail = await client.get(path("runs", run))
    waiting = detail["waitingFor"]
    if not waiting:
        raise CallerError(f"run {run} waits for no approval")
    if len(waiting) > 1:
        names = ", ".join(name.partition(":")[2] for name in waiting)
        names += ", …" if detail.get("moreWaiting") else ""
        raise CallerError(f"run {run} waits for several approvals; say which: {names}")
    return str(waiting[0])


def _post(url: str, body: Any, *parts: str, key: str | None = None) -> Any:
    from gateway.client import path

    # A key of its own by default: the client may send again what it got no answer to.
    headers = {"Idempotency-Key": key or str(uuid4())}
    return ask(url, lambda client: client.post(path(*parts), body, headers=headers)).value


def _say(answer: Any, as_json: bool, text: str) -> None:
    if as_json:
        output.print_json(answer)
    else:
        print(text)


def _say_repeated(
    answer: Mapping[str, Any], url: str, *, as_json: bool, wait_s: float | None
) -> None:
    """Which run repeats the one; or, once it has ended, what became of it."""
    from infra.commands.trigger import report, start_and_wait

    run, text = answer["workflowRunId"], _repeated(answer)
    if wait_s is None:
        _say(answer, as_json, text)
        return
    typer.echo(text, err=True)

    async def started() -> None:
        """It is: the stream tells all of it, however late it is asked."""

    report(ask(url, lambda client: start_and_wait(client, [run], started, wait_s)), as_json)


def _repeated(answer: Mapping[str, Any]) -> str:
    """Which run does what again, or has done it before."""
    run, old, reused = answer["workflowRunId"], answer["originRun"], answer["reused"]
    undoes = answer["kind"] == "compensation"
    if answer["status"] == "PENDING":
        if undoes:
            return f"Run {run} undoes what run {old} could not undo."
        results = "1 result is" if reused == 1 else f"{reused:,} results are"
        return f"Run {run} repeats run {old}" + (f"; {results} taken over." if reused else ".")
    again = f" What it could not undo: commandcenter runs retry {run} --compensation"
    failed = undoes and answer["status"] not in ("RUNNING", "WAITING_APPROVAL", "SUCCESS")
    return f"That is run {run} already; it is {answer['status']}." + (again if failed else "")

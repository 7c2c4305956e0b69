"""A run as people read it in a terminal: its head, its steps, and what it waits for."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from infra.commands import output
from infra.commands.sentences import payload_text

Json = Mapping[str, Any]

_COUNTS: Final = ("succeeded", "failed", "running", "waiting", "retrying", "cancelled", "pending")
_OPEN: Final = ("RUNNING", "WAITING_APPROVAL", "RETRYING")
_COSTS: Final = ("compute", "tokens", "api")
_KINDS: Final = {"delay": "sleep", "waitForEvent": "wait for an event"}


def print_run(detail: Json) -> None:
    """A run and its steps for people."""
    for name, value in _head(detail):
        print(f"{name:<10}{value}")
    print()
    output.print_table(*step_table(detail), "No steps.")
    for line in _approvals(detail):
        print(line)


def step_table(detail: Json) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """The steps of a run as columns and rows."""
    rows: list[tuple[object, ...]] = [
        (
            step["id"],
            action(step),
            step["status"],
            step.get("attempts"),
            output.duration(step.get("durationMs")),
            ", ".join(_amount(total) for total in step.get("cost", ())),
            remark(step),
        )
        for step in detail["steps"]
    ]
    return ("STEP", "ACTION", "STATUS", "ATTEMPTS", "DURATION", "COST", "REMARK"), rows


def action(step: Json) -> str:
    """What a step does."""
    kind = step.get("kind", "agent")
    if kind == "workflow":
        return f"run of {step.get('workflow') or 'a workflow'}"
    if kind in _KINDS:
        return _KINDS[kind]
    return f"{step.get('agent') or '?'} {step.get('action') or ''}".strip()


def remark(step: Json) -> str:
    """What is to be known of a step or item besides its status."""
    return "; ".join(_remarks(step))


def counts(items: Json) -> str:
    """How many items stand where: `3 of 10 succeeded, 2 running`."""
    found = [f"{items[name]:,} {name}" for name in _COUNTS if items.get(name)]
    return f"{items['total']:,} items: {', '.join(found) or 'none'}"


def money(total: Json) -> str:
    """What something cost: `0.0312 USD (compute 0.0012, tokens 0.03)`."""
    kinds = [f"{kind} {total[kind]}" for kind in _COSTS if total.get(kind, "0") != "0"]
    return f"{_amount(total)} ({', '.join(kinds)})" if kinds else _amount(total)


def _amount(total: Json) -> str:
    return f"{total['amount']} {total['currency']}"


def _head(detail: Json) -> Iterator[tuple[str, str]]:
    trigger = detail["trigger"]
    about = f" about {output.text(trigger['subject'])}" if trigger.get("subject") else ""
    source = output.text(trigger["source"])
    yield "Run", detail["id"]
    yield "Workflow", f"{detail['workflow']} v{detail['version']}"
    yield "Status", "".join(_status(detail))
    yield "Trigger", f"{output.text(trigger['type'])} from {source}{about}"
    if origin := detail.get("origin"):
        by = f", wanted by {output.text(origin['requestedBy'])}" if origin["requestedBy"] else ""
        yield "Repeats", f"run {origin['run']} ({origin['kind']}{by})"
    if parent := detail.get("parent"):
        yield "Step of", f"run {parent['run']}, {_place(parent)}"
    yield "Started", output.moment(detail.get("startedAt")) or "not yet"
    waited = detail.get("waitedMs") or 0
    spent = output.duration(detail.get("durationMs")) or "goes on"
    yield "Duration", spent + (f", {output.duration(waited)} of it for approval" if waited else "")
    if cost := detail.get("cost"):
        yield "Cost", ", ".join(map(money, cost))
    if error := detail.get("error"):
        yield "Error", f"{error['kind']}: {output.text(error['message'])}"
    if lost := detail.get("uncompensated"):
        again = f"commandcenter runs retry {detail['id']} --compensation"
        yield "To undo", f"{', '.join(lost)}: {again}"
    if (value := detail.get("output")) is not None:
        yield "Output", output.short(payload_text(value))


def _status(detail: Json) -> Iterator[str]:
    yield detail["status"]
    if (pause := detail.get("pause")) and not detail.get("finishedAt"):
        yield f", paused since {output.moment(pause['at'])}"
        yield f" by {output.text(pause['requestedBy'])}" if pause["requestedBy"] else ""
        yield f" ({output.text(pause['reason'])})" if pause["reason"] else ""
    if ending := detail.get("ending"):
        yield f", {ending['stage']}, then {ending['outcome']}"
        yield f" ({output.text(ending['reason'])})" if ending["reason"] else ""


def _remarks(step: Json) -> Iterator[str]:
    if step.get("reusedFrom"):
        yield f"result of run {step['reusedFrom']}"
    if step.get("items"):
        yield counts(step["items"])
    error = step.get("error") or {}
    if step.get("child") and not error:
        yield f"run {step['child']['run']}"
    if step["status"] in _OPEN:
        yield from _under_way(step)
    if (approval := step.get("approval")) and approval["status"] != "PENDING":
        yield from _decided(approval)
    if step.get("edited"):
        yield "inputs given by hand"
    if message := error.get("message") or step.get("reason"):
        yield output.text(message)
    if step.get("tolerated"):
        yield "tolerated"
    if step.get("handler"):
        yield "failure handler"
    if undone := step.get("compensation"):
        yield from _undone(undone)
        if step.get("unserved") and step["status"] not in _OPEN:
            yield output.text(step["unserved"])


def _under_way(step: Json) -> Iterator[str]:
    if step.get("unserved"):
        yield output.text(step["unserved"])
    if step.get("stopping"):
        yield "told to end"
    if step.get("sleepingUntil"):
        yield f"until {output.moment(step['sleepingUntil'])}"
    if awaited := step.get("awaiting"):
        yield f"waits for {awaited['event']} until {output.moment(awaited['deadline'])}"
    if progress := step.get("progress"):
        percent = progress.get("percent")
        parts = [
            "" if percent is None else output.percent(percent),
            output.text(progress["message"]),
        ]
        yield " ".join(part for part in parts if part) or "at work"
    if step["status"] == "RETRYING" and step.get("retryAt"):
        yield f"again at {output.moment(step['retryAt'])}"


def _decided(approval: Json) -> Iterator[str]:
    for answer in approval["answers"]:
        if answer["approved"]:  # that somebody rejected it is the step's error
            edited = ", inputs edited" if answer.get("inputs") is not None else ""
            yield f"approved by {output.text(answer['by']) or 'deadline'}{edited}"


def _undone(step: Json) -> Iterator[str]:
    how = {"SUCCESS": "undone", "FAILED": "could not be undone", "CANCELLED": "not undone"}
    error = (step.get("error") or {}).get("message")
    said = how.get(step["status"], "is being undone")
    yield f"{said}: {output.text(error)}" if error else said


def _approvals(detail: Json) -> Iterator[str]:
    """What people are asked, and how they answer."""
    for step in detail["steps"]:
        approval = step.get("approval")
        if approval is not None and approval["status"] == "PENDING":
            yield ""
            yield from approval_lines(approval)
    named = {(step.get("approval") or {}).get("id") for step in detail["steps"]}
    items = [name for name in detail.get("waitingFor", ()) if name not in named]
    if items:
        yield ""
        number = f"more than {len(items)}" if detail.get("moreWaiting") else f"{len(items)}"
        see = f"commandcenter approvals list --run {detail['id']}"
        yield f"Items wait for approval, {number} of them: see `{see}`"


def approval_lines(approval: Json) -> Iterator[str]:
    """An approval that waits, and how it is answered."""
    missing, needed = approval["missing"], approval["needed"]
    roles = approval["roles"]
    who = f" with the role {' or '.join(roles)}" if roles else ""
    more = f"{missing} of {needed} people" if needed > 1 else "somebody"
    asks = "Its agent asks" if approval["cause"] == "agent" else "The workflow asks"
    yield f"{_place(approval)} waits. {asks} for approval by {more}{who};"
    yield f"  else {approval['onDeadline']} at {output.moment(approval['deadline'])}"
    for answer in approval["answers"]:
        notes = f": {output.text(answer['notes'])}" if answer["notes"] else ""
        yield f"  {output.text(answer['by'])} approved{notes}"
    yield f"  inputs: {output.short(payload_text(approval['inputs']))}"
    role = f" --role {roles[0]}" if roles else ""
    yield f"  commandcenter runs approve {approval['run']} {_place(approval)}{role}"


def _place(place: Json) -> str:
    """A node, or an item of one, as `runs approve` takes it."""
    item = place.get("item")
    return str(place["node"]) if item is None else f"{place['node']}.{item}"

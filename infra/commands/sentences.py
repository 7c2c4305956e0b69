"""Events of runs as sentences, for people who watch."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from infra.commands.output import clock, date, duration, percent, text

Event = Mapping[str, Any]


def sentence(event: Event) -> str:
    """What happened, in one line."""
    write = _SENTENCES.get(event["type"])
    if write is None:  # of a release that knows more
        return f"{event['type']} {subject(event)}".rstrip()
    return write(event)


def subject(event: Event) -> str:
    """The node that an event is about, with its item, or what undoes one."""
    node = str(event.get("node", ""))
    if node.endswith(".compensate"):
        return f"undoing {node.removesuffix('.compensate')}"
    item = event.get("item")
    return node if item is None else f"{node}[{item}]"


def payload_text(value: Any) -> str:
    """A payload on one line; one that travels by reference says how big it is."""
    if isinstance(value, dict) and set(value) == {"$blob", "size"}:
        return f"{value['size']:,} bytes, payload {value['$blob']}"
    return text(value)


def _started(event: Event) -> str:
    trigger = event["trigger"]
    said = f"run started by {text(trigger['type'])} from {text(trigger['source'])}"
    if origin := event.get("origin"):
        said += f", as the {origin['kind']} of run {origin['run']}{_by(origin)}"
    if parent := event.get("parent"):
        said += f", as step {parent['node']} of run {parent['run']}"
    return said


def _dispatched(event: Event) -> str:
    again = f" (attempt {event['attempt']})" if event["attempt"] > 1 else ""
    return f"{subject(event)} → {event['agent']} {event['action']}{again}"


def _begun(event: Event) -> str:
    by = f" by {event['worker']}" if event.get("worker") else ""
    return f"{subject(event)} was begun{by}"


def _progressed(event: Event) -> str:
    done = "" if event.get("percent") is None else percent(event["percent"])
    said = ": ".join(part for part in (done, text(event.get("message", ""))) if part)
    return f"{subject(event)} goes on" + (f": {said}" if said else "")


def _asked(event: Event) -> str:
    roles = " or ".join(event.get("roles", ()))
    who = f"somebody with the role {roles}" if roles else "somebody"
    if event["needed"] > 1:
        who = f"{event['needed']} people" + (f" with the role {roles}" if roles else "")
    asks = "its agent asks" if event["cause"] == "agent" else "it needs"
    return (
        f"{subject(event)} waits: {asks} for approval by {who}, else"
        f" {event['onDeadline']} at {date(event['deadline'])}"
    )


def _approved(event: Event) -> str:
    by = text(event["by"]) or "its deadline"
    missing = f", {event['missing']} more needed" if event["missing"] else ""
    edited = " with other inputs" if "inputs" in event else ""
    return f"{subject(event)} was approved by {by}{edited}{missing}{_notes(event)}"


def _rejected(event: Event) -> str:
    return f"{subject(event)} was rejected by {text(event['by']) or 'somebody'}{_notes(event)}"


def _succeeded(event: Event) -> str:
    spent = event["finishedAt"] - event["startedAt"]
    return f"{subject(event)} succeeded" + (f" in {duration(spent)}" if spent else "")


def _failed(event: Event) -> str:
    tolerated = " (tolerated)" if event.get("tolerated") else ""
    return f"{subject(event)} failed{tolerated}: {_why(event)}"


def _ending(event: Event) -> str:
    what = {
        "stopping": "agents at work are told to end",
        "compensating": f"undoing {', '.join(event.get('undo', ()))}",
        "handling": "the failure handler runs",
    }.get(event["stage"], event["stage"])
    return f"run is going to be {event['outcome']}{_by(event)}: {what}"


def _not_undone(event: Event) -> str:
    names = event.get("uncompensated", ())
    return f"; not undone: {', '.join(names)}" if names else ""


def _why(event: Event) -> str:
    failure = event["failure"]
    return f"{failure['kind']}: {text(failure['message'])}"


def _by(said: Mapping[str, Any]) -> str:
    return f" by {text(said['requestedBy'])}" if said.get("requestedBy") else ""


def _notes(event: Event) -> str:
    return f": {text(event['notes'])}" if event.get("notes") else ""


def _because(event: Event) -> str:
    return f": {text(event['reason'])}" if event.get("reason") else ""


_SENTENCES: Final[Mapping[str, Callable[[Event], str]]] = {
    "run.started": _started,
    "run.paused": lambda e: f"run was paused{_by(e)}{_because(e)}",
    "run.resumed": lambda e: f"run goes on{_by(e)}",
    "run.ending": _ending,
    "run.succeeded": lambda _: "run succeeded",
    "run.failed": lambda e: f"run failed: {_why(e)}{_not_undone(e)}",
    "run.timedOut": lambda e: f"run timed out: {_why(e)}{_not_undone(e)}",
    "run.cancelled": lambda e: f"run was cancelled{_by(e)}{_because(e)}{_not_undone(e)}",
    "node.reused": lambda e: f"{subject(e)} keeps its result of run {e['run']}",
    "node.edited": lambda e: f"{subject(e)} gets other inputs",
    "node.dispatched": _dispatched,
    "node.started": _begun,
    "node.progressed": _progressed,
    "node.approvalRequested": _asked,
    "node.approved": _approved,
    "node.rejected": _rejected,
    "node.sleeping": lambda e: f"{subject(e)} sleeps until {date(e['until'])}",
    "node.awaiting": lambda e: (
        f"{subject(e)} waits for the event {e['event']}, until {date(e['deadline'])}"
    ),
    "node.fannedOut": lambda e: f"{subject(e)} has {e['count']:,} items",
    "node.runRequested": lambda e: f"{subject(e)} → run {e['run']} of {e['workflow']}",
    "node.succeeded": _succeeded,
    "node.retrying": lambda e: (
        f"{subject(e)} failed and is tried again at {clock(e['retryAt'])}: {_why(e)}"
    ),
    "node.failed": _failed,
    "node.skipped": lambda e: f"{subject(e)} was skipped{_because(e)}",
    "node.stopping": lambda e: f"{subject(e)} was told to end by {clock(e['deadline'])}",
    "node.cancelled": lambda e: f"{subject(e)} was cancelled",
    "node.charged": lambda e: f"attempt {e['attempt']} of {subject(e)} has told what it cost",
}

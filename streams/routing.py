"""Which workflows an event starts, besides that its type fits: one answer for router and ledger."""

from typing import Final, NamedTuple

from streams.ending import FINISHED_TYPE, finished_source
from streams.expression import event_values
from streams.plan import Plan
from streams.trigger import IncomingEvent

OWN_TYPES: Final = "commandcenter."
"""What the types of events begin with that the system makes; nobody outside may send such."""

REQUESTED_TYPE: Final = "commandcenter.run.requested"
"""The type of the event by which a node starts a run of another workflow."""

CALLED_OFF_TYPE: Final = "commandcenter.run.calledOff"
"""The type of the event that cancels such a run: it takes the same way, so it cannot overtake."""


class Verdict(NamedTuple):
    """Whether the event starts the workflow; `reason` says why its filter could not be told."""

    starts: bool
    reason: str = ""


def judge(workflow: str, plan: Plan, event: IncomingEvent) -> Verdict:
    """Whether the event, whose type fits, starts the workflow.

    A workflow is not started by the end of its own runs: that would never end. Nor is it by that of
    others, where its pattern begins with a wildcard and so does not mean the system's own events:
    two workflows that take any event would start each other until that is too deep.
    """
    trigger = event.trigger
    if trigger.type.startswith(OWN_TYPES) and (plan.spec.trigger.event or "")[:1] in ("*", ">"):
        return Verdict(False)
    if trigger.type == FINISHED_TYPE and trigger.source == finished_source(workflow):
        return Verdict(False)
    if plan.filter is None:
        return Verdict(True)
    told = plan.filter.check({"event": event_values(trigger)})
    return Verdict(told.matched, told.reason)

"""Which events start a workflow besides that their type fits."""

import pytest
from msgspec import Raw

from streams.ending import FINISHED_TYPE, finished_source
from streams.plan import parse
from streams.records import Trigger
from streams.routing import judge
from streams.trigger import IncomingEvent


@pytest.mark.parametrize(
    ("wanted", "starts"),
    [("commandcenter.>", True), ("commandcenter.run.*", True), (">", False), ("*.run.>", False)],
)
def test_a_wildcard_in_the_first_place_does_not_mean_the_ends_of_runs(
    wanted: str, starts: bool
) -> None:
    nodes = [{"id": "n", "delay": "1s"}]
    plan = parse({"name": "any", "trigger": {"event": wanted}, "nodes": nodes})
    end = Trigger(id="r", source=finished_source("order"), type=FINISHED_TYPE)
    push = Trigger(id="r", source="/ci", type="repo.run.push")
    assert judge("any", plan, IncomingEvent(end)).starts is starts
    assert judge("any", plan, IncomingEvent(push)).starts


@pytest.mark.parametrize(("ended", "starts"), [("order", True), ("follower", False)])
def test_no_workflow_is_started_by_the_end_of_its_own_runs(ended: str, starts: bool) -> None:
    trigger = {"event": FINISHED_TYPE, "filter": "event.data.status == 'FAILED'"}
    plan = parse({"name": "follower", "trigger": trigger, "nodes": [{"id": "n", "delay": "1s"}]})
    data = Raw(b'{"status":"FAILED"}')
    end = Trigger(id="r", source=finished_source(ended), type=FINISHED_TYPE, data=data)
    assert judge("follower", plan, IncomingEvent(end)).starts is starts

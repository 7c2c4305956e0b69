"""Runs that are steps of others: asked for, and called off again, through the router."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw
from routed_batch import routed_batch

from streams import codec, topics
from streams.catalog import Catalog, Definition
from streams.messages import Cancel, Result, RunRequest, Start
from streams.orchestrator import _called_off, _requested
from streams.outbox import Parcel
from streams.records import Parent, RunStatus
from streams.router import Router
from streams.run import DEFAULT_LIMITS
from streams.run_state import RunHead
from streams.trigger import IncomingEvent

CHILD = Definition(
    project="default", name="child", version=4, digest="", published_at=0,
    definition=Raw(b'{"name":"child","nodes":[{"id":"a","delay":"1s"}]}'),
)  # fmt: skip
REQUEST = RunRequest(
    run="c1", project="default", workflow="child", parent=Parent(run="p1", node="n", attempt=2),
    depth=1, inputs=Raw(b'{"x":1.50}'),
)  # fmt: skip
HEAD = RunHead(
    run="p1", project="default", workflow="w", version=1, status=RunStatus.RUNNING, seq=1,
    started_at=0, deadline=9, open=1,
)  # fmt: skip
CANCEL = Cancel(run="c1", reason="enough", by_parent=True)


class Routing:
    """A router, and what it sends to inboxes. `late` is published when it catches up."""

    def __init__(self, *late: Definition) -> None:
        self.catalog = Catalog()
        self.late = late
        self.sent: list[Any] = []
        self.router = Router(self, 1, self.catalog, self._catch_up, None, DEFAULT_LIMITS)  # type: ignore[arg-type]  # what it uses of an outbox

    async def _catch_up(self) -> None:
        for definition in self.late:
            self.catalog.apply(definition)

    async def deliver(self, parcel: Parcel) -> None:
        for (topic, _), records in parcel.partitions():
            assert topic == topics.INBOX
            self.sent += [codec.messages.decode(value) for _, value, _ in records]

    async def hear(self, *events: IncomingEvent) -> list[Any]:
        await self.router.process([routed_batch(*events)])
        return self.sent


async def test_a_run_is_started_at_the_version_that_is_active_now() -> None:
    routing = Routing()
    routing.catalog.apply(CHILD)
    (start,) = await routing.hear(_requested(REQUEST))
    assert isinstance(start, Start)
    assert (start.run, start.version, start.parent) == ("c1", 4, REQUEST.parent)
    assert msgspec.json.decode(start.trigger.data) == {"x": 1.5}


async def test_a_workflow_published_a_moment_before_is_found() -> None:
    """The catalog may be behind: nothing is refused before it has caught up."""
    (start,) = await Routing(CHILD).hear(_requested(REQUEST))
    assert isinstance(start, Start)


async def test_a_node_that_asks_for_a_workflow_that_is_not_there_is_told() -> None:
    (result,) = await Routing().hear(_requested(REQUEST))
    assert isinstance(result, Result)
    assert (result.run, result.node, result.attempt) == ("p1", "n", 2)
    assert result.failure is not None
    assert (result.failure.kind, result.failure.retryable) == ("unknown_workflow", False)


@pytest.mark.parametrize("late", [(), (CHILD,)])
async def test_a_run_is_never_called_off_before_it_is_started(late: tuple[Definition]) -> None:
    routing = Routing(*late)
    if not late:
        routing.catalog.apply(CHILD)
    start, cancel = await routing.hear(_requested(REQUEST), _called_off(CANCEL, HEAD))
    assert isinstance(start, Start)
    assert cancel == CANCEL

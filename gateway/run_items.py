"""A page of the items of a fan-out, told from the events of these items alone.

Of the others it is counted by their last events how many stand where: a page costs the same
whatever else has happened in the run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from gateway.reads import ItemQuery, LastEvent, Reads
from gateway.run_detail import EventRow, decoded
from gateway.run_nodes import RunNodes
from gateway.run_views import ItemCounts, ItemView
from streams.errors import NotFoundError
from streams.events import NodeFannedOut
from streams.plan import Plan
from streams.records import NodeStatus

_STATUS: Final[Mapping[str, NodeStatus]] = {
    "": NodeStatus.PENDING,
    "node.dispatched": NodeStatus.RUNNING,
    "node.runRequested": NodeStatus.RUNNING,
    "node.started": NodeStatus.RUNNING,
    "node.progressed": NodeStatus.RUNNING,
    "node.stopping": NodeStatus.RUNNING,
    "node.approvalRequested": NodeStatus.WAITING_APPROVAL,
    "node.approved": NodeStatus.WAITING_APPROVAL,
    "node.rejected": NodeStatus.WAITING_APPROVAL,
    "node.retrying": NodeStatus.RETRYING,
    "node.reused": NodeStatus.SUCCESS,
    "node.succeeded": NodeStatus.SUCCESS,
    "node.failed": NodeStatus.FAILED,
    "node.cancelled": NodeStatus.CANCELLED,
}
"""What an item is by its last event; '': there is none."""


def events_that_mean(status: NodeStatus) -> tuple[str, ...]:
    """The last events of items in this status."""
    return tuple(name for name, means in _STATUS.items() if means is status)


class ItemPage(NamedTuple):
    """Items, how many there are by status, and the place of the next one that was asked for."""

    items: list[ItemView]
    counts: ItemCounts
    next: int | None


async def page_of_items(
    reads: Reads,
    last: EventRow | None,
    plan: Plan | None,
    node: str,
    *,
    run: str,
    status: NodeStatus | None,
    start: int,
    limit: int,
) -> ItemPage:
    """Up to `limit` items of a node from a place on, as they stood after the run's event `last`.

    Raises:
        NotFoundError: The node has no items.
    """
    rows = () if last is None else await reads.fan_outs(run)
    fan_outs = {
        event.node: (row, event) for row, event in decoded(rows) if isinstance(event, NodeFannedOut)
    }
    if last is None or node not in fan_outs:
        known = ", ".join(sorted(fan_outs))
        raise NotFoundError(f"node {node!r} of run {run} has no items (with items: {known or '-'})")
    row, fan_out = fan_outs[node]
    left = max(0, fan_out.count - start)
    if status is None:
        found: Sequence[int] = range(start, start + min(left, limit + 1))
    else:
        types = events_that_mean(status)
        found = await reads.items(ItemQuery(run, node, last.seq, types, start, left, limit + 1))
    counts = counts_of(fan_out.count, await reads.item_counts(run, last.seq, node))
    wanted = found[:limit]
    nodes = RunNodes(run, row.workflow, row.project, plan)
    events = await reads.item_events(run, node, last.seq, wanted) if wanted else ()
    for each, event in decoded([row, *events]):
        nodes.apply(event, each.at)
    return ItemPage(
        list(nodes.items(node, wanted)), counts, found[limit] if len(found) > limit else None
    )


def counts_of(total: int, lasts: Iterable[LastEvent]) -> ItemCounts:
    """The items of a node by status, told from their last events."""
    lasts = list(lasts)
    found: Counter[NodeStatus] = Counter()
    for last in lasts:
        found[_STATUS[last.type]] += last.items
    return ItemCounts(
        total=total,
        pending=total - sum(found.values()),
        running=found[NodeStatus.RUNNING],
        waiting=found[NodeStatus.WAITING_APPROVAL],
        retrying=found[NodeStatus.RETRYING],
        succeeded=found[NodeStatus.SUCCESS],
        reused=sum(last.items for last in lasts if last.reused),
        failed=found[NodeStatus.FAILED],
        cancelled=found[NodeStatus.CANCELLED],
    )

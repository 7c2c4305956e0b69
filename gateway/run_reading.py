"""A run with its nodes, read from the store: a small one by its events, a large one without most.

What is read of a large one follows its nodes and attempts, and not what else has happened: of a
fan-out the store counts how many items stand where, and what they cost; single items are read where
the answer shows them. All of it is up to one event of the run, so that its parts agree.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.reads import ItemQuery, LastEvent, Reads
from gateway.run_detail import SHOWN_WAITING, EventRow, ItemsTold, Told, decoded, tell_all
from gateway.run_items import counts_of, events_that_mean
from gateway.run_nodes import COMPOSED_ITEMS
from gateway.run_views import ItemCounts
from streams.events import Event, NodeFannedOut, NodeSucceeded
from streams.plan import Plan
from streams.records import NodeStatus

Item = tuple[str, int]
"""An item of a node."""

SMALL: Final = 500
"""Events that are read at once: one query, where a large run takes some."""

_MANY_EVENTS: Final = 1_000
_WAITING: Final = events_that_mean(NodeStatus.WAITING_APPROVAL)


async def first_events(reads: Reads, run: str) -> Sequence[EventRow]:
    """The run's first events: all of them, or more than `SMALL`."""
    return await reads.run_events_page(run, 0, SMALL + 1)


async def tell_run(
    reads: Reads,
    first: Sequence[EventRow],
    plan: Plan | None,
    watermark: Mapping[int, int],
    asked: Sequence[Item] = (),
) -> Told:
    """The run of these `first_events`, of which there are some, as it stands.

    Args:
        reads: Asked for the rest.
        first: Of the run.
        plan: Its version, where this release can read it.
        watermark: How far the history was read.
        asked: Items that are asked about.

    Raises:
        UnreadableRecordError: An event is not of a known kind.
    """
    if len(first) <= SMALL:
        return tell_all(first, plan, watermark)
    [last] = await reads.newest_run_events(first[0].run, None, 1)
    return await read_run(reads, last, plan, watermark, asked)


async def read_run(
    reads: Reads,
    last: EventRow,
    plan: Plan | None,
    watermark: Mapping[int, int],
    asked: Sequence[Item] = (),
) -> Told:
    """A large run as it stood after its event `last`; the rest as for `tell_run`."""
    rows = await reads.run_story(last.run, last.seq)
    fan_outs: dict[str, int] = {}
    succeeded: set[str] = set()
    if any(row.type == "node.fannedOut" for row in rows):
        for _, event in decoded(rows):
            _note(event, fan_outs, succeeded)
    items = None
    if fan_outs:
        small = [
            node for node in fan_outs if node in succeeded and fan_outs[node] <= COMPOSED_ITEMS
        ]
        items = await _items(reads, last, fan_outs, small, asked)
    if len(rows) < _MANY_EVENTS:
        return tell_all(rows, plan, watermark, last, items)
    # In a thread, so that others are served meanwhile.
    return await asyncio.to_thread(tell_all, rows, plan, watermark, last, items)


def _note(event: Event, fan_outs: dict[str, int], succeeded: set[str]) -> None:
    match event:
        case NodeFannedOut():
            fan_outs[event.node] = event.count
        case NodeSucceeded():
            succeeded.add(event.node)
        case _:
            pass


async def _items(
    reads: Reads,
    last: EventRow,
    fan_outs: Mapping[str, int],
    small: Sequence[str],
    asked: Sequence[Item],
) -> ItemsTold:
    run, until = last.run, last.seq
    lasts, costs = await asyncio.gather(reads.item_counts(run, until), reads.item_costs(run, until))
    counts = {node: _counted(node, fan_outs[node], lasts) for node in fan_outs}
    rows = list(await reads.item_outputs(run, until, small)) if small else []
    shown: dict[str, list[int]] = {}
    for node, item in asked:
        shown.setdefault(node, []).append(item)
    left = SHOWN_WAITING + 1  # which says whether there are more
    for node, count in counts.items():
        if count.waiting and left:
            query = ItemQuery(run, node, until, _WAITING, 0, count.total, left)
            waiting = await reads.items(query)
            left -= len(waiting)
            shown[node] = sorted({*shown.get(node, ()), *waiting})
    for node, places in shown.items():
        rows += await reads.item_events(run, node, until, places)
    return ItemsTold(counts, costs, rows)


def _counted(node: str, total: int, lasts: Iterable[LastEvent]) -> ItemCounts:
    return counts_of(total, (last for last in lasts if last.node == node))

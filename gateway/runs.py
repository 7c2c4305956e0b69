"""Runs: lists, one run with its nodes and items, its events, attempts and payloads."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from gateway.agents_view import AgentsView
from gateway.paging import page_from, place, place_text, position
from gateway.problem import ConflictError
from gateway.reads import EventQuery, RunQuery, milliseconds
from gateway.requests import JSON, MAX_PAGE, answer, choice, page_size
from gateway.run_costs import CostSum, RunCost
from gateway.run_detail import EventRow, Told, tell_accepted
from gateway.run_items import page_of_items
from gateway.run_reading import Item, first_events, tell_run
from gateway.run_views import (
    AgentRunList,
    CostList,
    ItemList,
    NodeView,
    RunDetail,
    RunList,
)
from gateway.services import AGENTS, CATALOG, READS, SERVICES, STARTS
from gateway.subscription import Filter
from gateway.views import EventList, EventView
from gateway.watermark import AT_LEAST, reached
from streams.blob_store import MissingContentError
from streams.errors import CallerError, DefinitionError, NotFoundError
from streams.payload import Reference
from streams.plan import Plan
from streams.records import NodeStatus, RunStatus

RECORDED_WITHIN_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.05
_SNAPSHOT_RUNS: Final = 100
_SEQ_LIMIT: Final = 2**32
OCTETS: Final = "application/octet-stream"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Order(StrEnum):
    """In which order events come."""

    OLDEST = "oldest"
    NEWEST = "newest"


async def list_runs(request: web.Request) -> web.Response:
    """Runs, newest first, a page at a time; `workflow`, `status` and `project` narrow."""
    return await _page_of_runs(request, request.query.get("workflow", ""))


async def list_workflow_runs(request: web.Request) -> web.Response:
    """The runs of one workflow, as `/api/runs` gives them."""
    return await _page_of_runs(request, request.match_info["name"])


async def get_run(request: web.Request) -> web.Response:
    """A run with its nodes: status, attempts, durations, outputs and errors.

    The nodes come a page at a time; the rest is of the run as it stands.
    """
    limit, start = page_size(request, MAX_PAGE), position(request)
    return answer(_page_of_steps(await detail(request, request.match_info["id"]), start, limit))


async def list_run_events(request: web.Request) -> web.Response:
    """What was decided about a run, a page at a time: oldest first, or `order=newest` first."""
    run = request.match_info["id"]
    limit = page_size(request, MAX_PAGE)
    newest = choice(request, "order", Order) is Order.NEWEST
    start = place(request, int)
    if start is not None and not 0 <= start < _SEQ_LIMIT:
        raise CallerError("cursor is not one that a page gave as its next")
    reads = request.app[READS]
    watermark = await reads.watermark()
    if await _known_last(request, run) is None:
        rows: Sequence[EventRow] = ()
    elif newest:
        rows = await reads.newest_run_events(run, start, limit + 1)
    else:
        rows = await reads.run_events_page(run, start or 0, limit + 1)
    following = None
    if len(rows) > limit:  # where the first one of the next page stands: from or before it
        following = place_text(rows[limit].seq + 1 if newest else rows[limit].seq)
    return answer(
        EventList(
            events=[event_view(row) for row in rows[:limit]],
            next=following,
            watermark=dict(watermark),
        )
    )


async def list_agent_runs(request: web.Request) -> web.Response:
    """The attempts at nodes of a run, in the order of their dispatch, a page at a time."""
    run = request.match_info["id"]
    limit = page_size(request, MAX_PAGE)
    after = place(request, tuple[int, str, int, int])
    reads = request.app[READS]
    watermark = await reads.watermark()
    await _known_last(request, run)
    found = await reads.agent_runs(run, after, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    following = None
    if last is not None:
        item = -1 if last.item is None else last.item
        following = (milliseconds(last.dispatched_at), last.node, item, last.attempt)
    return answer(
        AgentRunList(
            agent_runs=list(found[:limit]),
            next=None if following is None else place_text(following),
            watermark=dict(watermark),
        )
    )


async def list_costs(request: web.Request) -> web.Response:
    """Everything that a run is charged, an entry for each attempt and each thing it used.

    The entries come a page at a time; the totals are of all.
    """
    run = request.match_info["id"]
    limit = page_size(request, MAX_PAGE)
    after = place(request, tuple[int, int])
    if after is not None and not all(0 <= number < _SEQ_LIMIT for number in after):
        raise CallerError("cursor is not one that a page gave as its next")
    reads = request.app[READS]
    watermark = await reads.watermark()
    last = await _known_last(request, run)
    total = CostSum()
    costs: Sequence[RunCost] = ()
    if last is not None:  # both up to one event, so that they agree while more is charged
        sums, costs = await asyncio.gather(
            reads.run_cost_sums(run, last.seq), reads.run_costs(run, last.seq, after, limit + 1)
        )
        for each in sums:
            total.count(*each)
    page = costs[:limit]
    return answer(
        CostList(
            totals=total.totals(),
            costs=[cost.view for cost in page],
            next=place_text((page[-1].seq, page[-1].entry)) if len(costs) > limit else None,
            watermark=dict(watermark),
        )
    )


async def list_items(request: web.Request) -> web.Response:
    """The items of a node with forEach, in their order; `status` narrows."""
    run, node = request.match_info["id"], request.match_info["node"]
    limit = page_size(request)
    status = choice(request, "status", NodeStatus)
    start = max(0, place(request, int) or 0)
    reads = request.app[READS]
    watermark = await reads.watermark()
    last = await _known_last(request, run)
    plan = None if last is None else plan_of(request.app, last)
    page = await page_of_items(
        reads, last, plan, node, run=run, status=status, start=start, limit=limit
    )
    return answer(
        ItemList(
            node=node,
            counts=page.counts,
            items=page.items,
            next=None if page.next is None else place_text(page.next),
            watermark=dict(watermark),
        )
    )


async def get_payload(request: web.Request) -> web.Response:
    """The content of a payload that a run's events refer to as `{"$blob": digest, "size": …}`.

    That of a blob of an output, `{"blob": digest, "size": …, …}`, too, as bytes of any kind.
    """
    run, digest = request.match_info["id"], request.match_info["digest"]
    await _known_last(request, run)
    is_digest = _DIGEST.fullmatch(digest) is not None
    rows = await request.app[READS].events_naming(run, digest) if is_digest else ()
    found = _reference_in(rows, digest)
    if found is None:
        raise NotFoundError(f"the events of run {run} refer to no payload {digest[:80]!r}")
    reference, content_type = found
    try:
        content = await request.app[SERVICES].blobs.get(rows[0].project, reference)
    except MissingContentError as error:
        raise NotFoundError(str(error)) from error
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(body=content, content_type=content_type, headers=headers)


async def list_events(request: web.Request) -> web.Response:
    """Events of the log, newest first; `type`, `workflow` and `project` narrow."""
    limit = page_size(request)
    reads = request.app[READS]
    watermark = await reads.watermark()
    rows = await reads.events(
        EventQuery(
            project=request.query.get("project", ""),
            workflow=request.query.get("workflow", ""),
            type=request.query.get("type", ""),
            before=place(request, tuple[int, str, int]),
            limit=limit + 1,
        )
    )
    last = rows[limit - 1] if len(rows) > limit else None
    return answer(
        EventList(
            events=[event_view(row) for row in rows[:limit]],
            next=None if last is None else place_text((milliseconds(last.at), last.run, last.seq)),
            watermark=dict(watermark),
        )
    )


class Snapshot(NamedTuple):
    """What a stream begins with, how far it has read, and which runs it shows up to where."""

    content: dict[str, Any]
    watermark: Mapping[int, int]
    shown: dict[str, int]


async def snapshot(app: web.Application, wanted: Filter) -> Snapshot:
    """The newest runs that the filter wants, or the one run with its nodes.

    The watermark is read first: what is recorded meanwhile shows in the snapshot and is left out of
    the stream by its sequence number.
    """
    reads = app[READS]
    watermark = await reads.watermark()
    if wanted.run is not None:
        rows = await first_events(reads, wanted.run)
        if not rows:
            return Snapshot({"run": None}, watermark, {})
        run = _page_of_steps((await _tell(app, rows, watermark)).detail, 0, MAX_PAGE)
        return Snapshot({"run": run}, watermark, {run.id: run.seq + 1})
    runs = await reads.runs(
        RunQuery(
            project=wanted.project or "",
            workflow=wanted.workflow or "",
            status=wanted.status,
            limit=_SNAPSHOT_RUNS,
        )
    )
    return Snapshot({"runs": runs}, watermark, {run.id: run.seq + 1 for run in runs})


async def detail(request: web.Request, run: str) -> RunDetail:
    """The run as it stands; `NotFoundError` where nobody has heard of it."""
    return (await known_run(request, run)).detail


async def known_run(request: web.Request, run: str, *asked: Item) -> Told:
    """As `detail`, with its nodes, and the items that are asked about."""
    reads = request.app[READS]
    watermark = await reads.watermark()
    rows = await _recorded(request, run, lambda: first_events(reads, run))
    if rows:
        return await _tell(request.app, rows, watermark, asked)
    accepted = request.app[STARTS].get(run)
    if accepted is None:
        raise _unknown(run)
    start = accepted.start
    plan = _plan(request.app, start.project, start.workflow, start.version)
    return tell_accepted(accepted, plan, watermark)


def told_plan(told: Told) -> Plan:
    """The plan of the run's version; `ConflictError` where this release cannot read that."""
    if told.plan is None:
        run = told.detail
        raise ConflictError(
            f"version {run.version} of workflow {run.workflow!r} cannot be read by this release"
        )
    return told.plan


async def told_so_far(request: web.Request, run: str, *asked: Item) -> Told:
    """As `known_run`, with all that the streams of this gateway have told of it."""
    await all_told_is_recorded(request.app)
    return await known_run(request, run, *asked)


async def all_told_is_recorded(app: web.Application) -> None:
    """Wait, not for long, until the store has what the streams of this gateway have told.

    Who answers what a stream has just shown must not be told that it has not happened.
    """
    seen = app[SERVICES].tail.ends()
    end = app[SERVICES].clock() + RECORDED_WITHIN_S
    while app[SERVICES].clock() < end:
        recorded = await app[READS].watermark()
        if all(recorded.get(partition, 0) >= offset for partition, offset in seen.items()):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)  # the store tells nobody when it has recorded


def plan_of(app: web.Application, row: EventRow) -> Plan | None:
    """The plan that a run is pinned to, where this gateway can read it."""
    return _plan(app, row.project, row.workflow, row.version)


def event_view(row: EventRow) -> EventView:
    """An event as answers show it."""
    return EventView(
        id=f"{row.run}/{row.seq}",
        run=row.run,
        project=row.project,
        workflow=row.workflow,
        seq=row.seq,
        type=row.type,
        at=row.at,
        status=RunStatus(row.status),
        event=msgspec.Raw(row.payload),
    )


def _page_of_steps(run: RunDetail, start: int, limit: int) -> RunDetail:
    page = page_from(run.steps, start, limit)
    return msgspec.structs.replace(run, steps=page.entries, next=page.next)


async def _page_of_runs(request: web.Request, workflow: str) -> web.Response:
    limit = page_size(request)
    reads = request.app[READS]
    seen = await reached(request, request.query.get(AT_LEAST))
    runs = await reads.runs(
        RunQuery(
            project=request.query.get("project", ""),
            workflow=workflow,
            status=choice(request, "status", RunStatus),
            before=place(request, tuple[int, str]),
            limit=limit + 1,
        )
    )
    last = runs[limit - 1] if len(runs) > limit else None
    return answer(
        RunList(
            runs=list(runs[:limit]),
            next=None if last is None else place_text((milliseconds(last.started_at), last.id)),
            watermark=dict(seen),
        )
    )


async def _tell(
    app: web.Application,
    first: Sequence[EventRow],
    watermark: Mapping[int, int],
    asked: Sequence[Item] = (),
) -> Told:
    """The run of these first events; what waits for a worker that is not there says so."""
    told = await tell_run(app[READS], first, plan_of(app, first[0]), watermark, asked)
    steps = [_with_unserved(app[AGENTS], step) for step in told.detail.steps]
    return told._replace(detail=msgspec.structs.replace(told.detail, steps=steps))


def _with_unserved(agents: AgentsView, step: NodeView) -> NodeView:
    undone = step.compensation
    for each in (step, undone):
        if each is not None and each.status is NodeStatus.RUNNING and each.agent is not None:
            why = agents.unserved(each.agent)
            return msgspec.structs.replace(step, unserved=why) if why else step
    return step


async def _known_last(request: web.Request, run: str) -> EventRow | None:
    """The run's last event; None where it has not begun, `NotFoundError` for an unknown run."""
    reads = request.app[READS]
    rows = await _recorded(request, run, lambda: reads.newest_run_events(run, None, 1))
    if not rows and request.app[STARTS].get(run) is None:
        raise _unknown(run)
    return rows[0] if rows else None


async def _recorded(
    request: web.Request, run: str, read: Callable[[], Awaitable[Sequence[EventRow]]]
) -> list[EventRow]:
    """What `read` gives of the run's events.

    A run that is known to exist is waited for until it is recorded.
    """
    app = request.app
    end = app[SERVICES].clock() + RECORDED_WITHIN_S
    while True:
        rows = await read()
        known = app[SERVICES].tail.saw(run) or app[STARTS].get(run) is not None
        if rows or not known or app[SERVICES].clock() >= end:
            return list(rows)
        await asyncio.sleep(_LOOK_AGAIN_S)  # the store tells nobody when it has recorded


def _plan(app: web.Application, project: str, workflow: str, version: int) -> Plan | None:
    try:
        return app[CATALOG].catalog.get(project, workflow, version)
    except DefinitionError:
        return None  # the run's events say what it did; its pending nodes stay unnamed


def _unknown(run: str) -> NotFoundError:
    return NotFoundError(f"there is no run {run!r}")


def _reference_in(rows: Sequence[EventRow], digest: str) -> tuple[Reference, str] | None:
    """The reference with this digest in the run's events, and the type of what it names.

    A blob's media type is what an agent says: no browser is to act by it.
    """
    pattern = re.compile(rb'"(\$?)blob":"%s","size":(\d{1,12})[,}]' % digest.encode())
    for row in rows:
        if found := pattern.search(row.payload):
            return Reference(digest, int(found[2])), JSON if found[1] else OCTETS
    return None

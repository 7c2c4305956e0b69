"""Runs: lists, one run with its nodes, its events and attempts, cancelling."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from gateway.problem import ConflictError
from gateway.reads import EventQuery, RunQuery, milliseconds
from gateway.requests import answer, choice, json_object, page_size
from gateway.run_detail import EventRow, tell, tell_accepted
from gateway.services import CATALOG, READS, SERVICES, STARTS, WRITER
from gateway.subscription import Filter
from gateway.views import (
    AgentRunList,
    CancelAccepted,
    EventList,
    EventView,
    RunDetail,
    RunList,
)
from streams import codec
from streams.errors import CallerError, DefinitionError, NotFoundError
from streams.lifecycle import TERMINAL
from streams.plan import Plan
from streams.records import Cancel, RunStatus
from streams.topics import INBOX

RECORDED_WITHIN_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.05
_SNAPSHOT_RUNS: Final = 100
_TEXT_LIMIT: Final = 1_000


async def list_runs(request: web.Request) -> web.Response:
    """Runs, newest first, a page at a time; `workflow`, `status` and `project` narrow."""
    return await _page_of_runs(request, request.query.get("workflow", ""))


async def list_workflow_runs(request: web.Request) -> web.Response:
    """The runs of one workflow, as `/api/runs` gives them."""
    return await _page_of_runs(request, request.match_info["name"])


async def get_run(request: web.Request) -> web.Response:
    """A run with its nodes: status, attempts, durations, outputs and errors."""
    return answer(await detail(request, request.match_info["id"]))


async def list_run_events(request: web.Request) -> web.Response:
    """Everything that was decided about a run, oldest first."""
    run = request.match_info["id"]
    reads = request.app[READS]
    watermark = await reads.watermark()
    rows = await _known_rows(request, run)
    return answer(
        EventList(events=[event_view(row) for row in rows], next=None, watermark=dict(watermark))
    )


async def list_agent_runs(request: web.Request) -> web.Response:
    """Every attempt at a node of a run."""
    run = request.match_info["id"]
    reads = request.app[READS]
    watermark = await reads.watermark()
    await _known_rows(request, run)
    found = await reads.agent_runs(run)
    return answer(AgentRunList(agent_runs=list(found), watermark=dict(watermark)))


async def cancel_run(request: web.Request) -> web.Response:
    """Stop a run; what is under way may still finish, but its result is ignored."""
    run = request.match_info["id"]
    given = await json_object(request)
    unknown = sorted(set(given) - {"reason", "requestedBy"})
    if unknown:
        raise CallerError(f"unknown field {unknown[0]!r} (there are: reason, requestedBy)")
    reason, requested_by = (
        _short_text(given, "reason", "cancelled by request"),
        _short_text(given, "requestedBy", ""),
    )
    status = (await detail(request, run)).status
    if status in TERMINAL:
        raise ConflictError(f"run {run} has ended already: {status}")
    cancel = Cancel(run=run, reason=reason, requested_by=requested_by)
    await request.app[WRITER].write(INBOX, run, codec.encode(cancel))
    return answer(CancelAccepted(workflow_run_id=run, status=status), 202)


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
            before=_read_cursor(request, tuple[int, str, int]),
            limit=limit + 1,
        )
    )
    last = rows[limit - 1] if len(rows) > limit else None
    return answer(
        EventList(
            events=[event_view(row) for row in rows[:limit]],
            next=None
            if last is None
            else _write_cursor((milliseconds(last.at), last.run, last.seq)),
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
        rows = await reads.run_events(wanted.run)
        if not rows:
            return Snapshot({"run": None}, watermark, {})
        run = tell(rows, plan_of(app, rows[0]), watermark)
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
    watermark = await request.app[READS].watermark()
    rows = await _recorded(request, run)
    if rows:
        return tell(rows, plan_of(request.app, rows[0]), watermark)
    accepted = request.app[STARTS].get(run)
    if accepted is None:
        raise _unknown(run)
    start = accepted.start
    plan = _plan(request.app, start.project, start.workflow, start.version)
    return tell_accepted(accepted, plan, watermark)


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


async def _page_of_runs(request: web.Request, workflow: str) -> web.Response:
    limit = page_size(request)
    reads = request.app[READS]
    watermark = await reads.watermark()
    runs = await reads.runs(
        RunQuery(
            project=request.query.get("project", ""),
            workflow=workflow,
            status=choice(request, "status", RunStatus),
            before=_read_cursor(request, tuple[int, str]),
            limit=limit + 1,
        )
    )
    last = runs[limit - 1] if len(runs) > limit else None
    return answer(
        RunList(
            runs=list(runs[:limit]),
            next=None if last is None else _write_cursor((milliseconds(last.started_at), last.id)),
            watermark=dict(watermark),
        )
    )


async def _known_rows(request: web.Request, run: str) -> list[EventRow]:
    """The run's events, of which there may be none yet; `NotFoundError` for an unknown run."""
    rows = await _recorded(request, run)
    if not rows and request.app[STARTS].get(run) is None:
        raise _unknown(run)
    return rows


async def _recorded(request: web.Request, run: str) -> list[EventRow]:
    """The run's events. A run that is known to exist is waited for until it is recorded."""
    app = request.app
    end = app[SERVICES].clock() + RECORDED_WITHIN_S
    while True:
        rows = await app[READS].run_events(run)
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


def _short_text(given: dict[str, Any], name: str, usual: str) -> str:
    value = given.get(name, usual)
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT:
        raise CallerError(f"{name!r} must be text of at most {_TEXT_LIMIT} characters")
    return value


def _write_cursor(place: Any) -> str:
    return urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def _read_cursor(request: web.Request, kind: Any) -> Any:
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        place = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, RecursionError) as error:
        raise CallerError("cursor is not one that a page gave as its next") from error
    return place

"""Orders to a run that goes on: cancel, pause, resume."""

from typing import Any, Final

from aiohttp import web

from gateway.problem import ConflictError
from gateway.requests import answer, fields, flag, json_object, short_text
from gateway.run_views import ControlAccepted, RunDetail
from gateway.runs import told_so_far
from gateway.services import WRITER
from streams import codec
from streams.lifecycle import TERMINAL
from streams.messages import Cancel, Pause, Resume, RunMessage
from streams.records import RunStatus
from streams.topics import INBOX

_SAID_BY: Final = ("reason", "requestedBy")


async def cancel_run(request: web.Request) -> web.Response:
    """Stop a run: agents at work are told, and have the workflow's `cancelGrace` to end.

    `force` ends it at once; what is not undone yet stays so. Without it a second cancel changes
    nothing.
    """
    run = request.match_info["id"]
    given = await _given(request, *_SAID_BY, "force")
    order = Cancel(
        run=run,
        reason=short_text(given, "reason", "cancelled by request"),
        requested_by=short_text(given, "requestedBy", ""),
        force=flag(given, "force"),
    )
    found = await _going_on(request, run)
    if found.ending is not None and not order.force:
        if found.ending.outcome is RunStatus.CANCELLED:
            return _accepted(found)  # it is being cancelled: the same, asked again
        raise ConflictError(
            f"run {run} is ending already ({found.ending.stage}, then {found.ending.outcome}):"
            " cancel it by force to end it at once"
        )
    return await _order(request, order, found)


async def pause_run(request: web.Request) -> web.Response:
    """Begin nothing more until the run is resumed; what is under way goes on."""
    run = request.match_info["id"]
    given = await _given(request, *_SAID_BY)
    order = Pause(
        run=run,
        reason=short_text(given, "reason", ""),
        requested_by=short_text(given, "requestedBy", ""),
    )
    found = await _going_on(request, run)
    if found.paused:
        raise ConflictError(f"run {run} is paused already")
    if found.ending is not None:
        raise ConflictError(f"run {run} is ending ({found.ending.stage}): it cannot be paused")
    return await _order(request, order, found)


async def resume_run(request: web.Request) -> web.Response:
    """Let a paused run go on; its deadline is later by the pause."""
    run = request.match_info["id"]
    given = await _given(request, "requestedBy")
    order = Resume(run=run, requested_by=short_text(given, "requestedBy", ""))
    found = await _going_on(request, run)
    if found.seq >= 0 and not found.paused:
        raise ConflictError(f"run {run} is not paused")
    return await _order(request, order, found)


async def _given(request: web.Request, *names: str) -> dict[str, Any]:
    given = await json_object(request)
    fields(given, *names)
    return given


async def _going_on(request: web.Request, run: str) -> RunDetail:
    found = (await told_so_far(request, run)).detail
    if found.status in TERMINAL:
        raise ConflictError(f"run {run} has ended already: {found.status}")
    return found


async def _order(request: web.Request, order: RunMessage, found: RunDetail) -> web.Response:
    await request.app[WRITER].write(INBOX, order.run, codec.encode(order))
    return _accepted(found)


def _accepted(found: RunDetail) -> web.Response:
    return answer(ControlAccepted(workflow_run_id=found.id, status=found.status), 202)

"""Retry and rerun: a new run of the same workflow version, linked to the one that it repeats."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import msgspec
from aiohttp import web
from msgspec import Raw
from msgspec.structs import replace

from gateway.given_inputs import check_given_inputs
from gateway.problem import ConflictError
from gateway.relatives import Relative, relatives
from gateway.repetition import Outputs, Repetition, Results, undone_of
from gateway.requests import answer, fields, idempotency_key, json_object, short_text
from gateway.run_detail import Told, decoded
from gateway.run_views import RepetitionAccepted, RunDetail
from gateway.runs import told_plan, told_so_far
from gateway.services import READS, SERVICES, STARTS, WRITER
from streams import codec
from streams.blob_store import BlobStore, MissingContentError
from streams.draft import PAYLOAD_LIMIT
from streams.errors import CallerError, TooLargeError
from streams.events import Event, RunStarted
from streams.ids import run_id
from streams.lifecycle import TERMINAL
from streams.messages import Start
from streams.payload import INLINE_LIMIT, as_reference
from streams.plan import Plan
from streams.records import Edit, Origin, Reused, RunStatus
from streams.topics import INBOX
from streams.trigger import trace_context

_UNDOING: Final = "compensation"
MODES: Final = ("failed", "whole", _UNDOING)
_SMALL: Final = 1024
"""Bytes of a payload that stays in a start that has to be made smaller."""
_LARGEST: Final = 4 * PAYLOAD_LIMIT


async def retry_run(request: web.Request) -> web.Response:
    """Repeat a run that has ended, as a new run of the same version; `mode` says how.

    `failed` (the default) does again what did not succeed, and what depends on that; results of
    the rest are taken over. `whole` does everything again. `compensation` undoes what the run could
    not undo. The same `Idempotency-Key` gives the same run, with the `status` it has come to.
    """
    given = await json_object(request)
    fields(given, "mode", "requestedBy")
    mode = given.get("mode", "failed")
    if mode not in MODES:
        raise CallerError(f"'mode' must be one of {', '.join(MODES)}, not {mode!r}")
    requested_by = short_text(given, "requestedBy", "")
    told, plan, events = await _ended(request)
    results = Results(events)
    if mode != _UNDOING:
        _check_does_work(told.detail)
    if mode == "whole":
        taken = results.whole()
    elif mode == "failed":
        if told.detail.status is RunStatus.SUCCESS:
            raise ConflictError(f"nothing failed in run {told.detail.id}: its retry is mode whole")
        await _learn_what_was_undone_since(request, told.detail, plan, results)
        taken = results.repeated(plan)
    else:
        await _check_can_be_undone(request, told.detail, plan, results)
        taken = results.undone(plan)
    kind = _UNDOING if mode == _UNDOING else "retry"
    return await _repeat(request, told, events, taken, kind, requested_by)


async def rerun_run(request: web.Request) -> web.Response:
    """Repeat a run that has ended from one node on, `from`, as a new run of the same version.

    That node and all that depends on it are done again, and what did not succeed; other results are
    taken over. `inputs`, by node, replace those that the definition makes for what is done again.
    """
    given = await json_object(request)
    fields(given, "from", "inputs", "requestedBy")
    requested_by = short_text(given, "requestedBy", "")
    told, plan, events = await _ended(request)
    node = given.get("from")
    steps = [spec.id for spec in plan.spec.nodes]
    if node not in steps:
        raise CallerError(f"'from' must be a node of the run ({', '.join(steps)}), not {node!r}")
    _check_does_work(told.detail)
    results = Results(events)
    await _learn_what_was_undone_since(request, told.detail, plan, results)
    chosen = frozenset({node})
    inputs = _inputs(request.app, given.get("inputs", {}), plan, results.again(plan, chosen))
    taken = results.repeated(plan, chosen, inputs)
    return await _repeat(request, told, events, taken, "rerun", requested_by)


def _inputs(app: web.Application, given: Any, plan: Plan, again: frozenset[str]) -> dict[str, Raw]:
    """The inputs of a rerun, each of which its node can take."""
    if not isinstance(given, dict):
        raise CallerError("'inputs' must be a JSON object: node → its inputs")
    for node, value in given.items():
        if node not in again:
            names = ", ".join(name for name in plan.nodes if name in again)
            raise CallerError(f"inputs: {node!r} is not done again (done again: {names})")
        check_given_inputs(app, plan.nodes[node].spec, value)
    return {node: Raw(msgspec.json.encode(value)) for node, value in given.items()}


async def _ended(request: web.Request) -> tuple[Told, Plan, Sequence[Event]]:
    """The run, its plan, and everything that happened in it."""
    run = request.match_info["id"]
    told = await told_so_far(request, run)
    if told.detail.status not in TERMINAL:
        raise ConflictError(
            f"run {run} goes on ({told.detail.status}): only runs that have ended are repeated"
        )
    plan = told_plan(told)
    rows = await request.app[READS].run_events(run)
    return told, plan, [event for _, event in decoded(rows)]


def _check_does_work(run: RunDetail) -> None:
    """A run that only undoes has done nothing of the workflow that could be done again."""
    if run.origin is not None and run.origin.kind == _UNDOING:
        raise ConflictError(
            f"run {run.id} only undoes what run {run.origin.run} had done: retry it with mode"
            f" {_UNDOING}, or repeat run {run.origin.run}"
        )


async def _learn_what_was_undone_since(
    request: web.Request, run: RunDetail, plan: Plan, results: Results, asked: str = ""
) -> list[Relative]:
    """What other runs have undone of this one is not there to be taken over, nor to be undone.

    Gives the runs that repeat one another, this one among them, where anything can be undone. Which
    of them are undoing has to be seen first, but for the one that is `asked` for.
    """
    if not any(node.compensation for node in plan.nodes.values()):
        return []
    found = await relatives(request, run)
    for each in found:
        if each.goes_on and each.kind == _UNDOING and each.kin.run != asked:
            raise ConflictError(
                f"run {each.kin.run} is undoing what run {each.kin.origin} could not undo: wait for"
                " its end"
            )
    results.undone_since(undone_of(run.id, [each.kin for each in found]))
    return found


async def _check_can_be_undone(
    request: web.Request, run: RunDetail, plan: Plan, results: Results
) -> None:
    """Whether something is left to be undone, and nobody goes on with it."""
    nothing = ConflictError(f"run {run.id} left nothing that could not be undone")
    if not results.uncompensated:
        raise nothing
    asked = _undoing_id(run)
    if await request.app[READS].newest_run_events(asked, None, 1):
        return  # asked again: it is the same run
    found = await _learn_what_was_undone_since(request, run, plan, results, asked)
    if not results.left_to_undo:
        raise nothing
    left = {*results.left_to_undo}
    for each in found:
        if each.goes_on and each.kind != _UNDOING and each.kin.results.taken_over & left:
            raise ConflictError(
                f"run {each.kin.run} goes on with results that would be undone: wait for its end,"
                " or cancel it"
            )


def _undoing_id(run: RunDetail) -> str:
    """To undo twice would be to pay a refund twice: asked again, it is the same run."""
    return _repetition_id(run, _UNDOING, _UNDOING)


def _repetition_id(run: RunDetail, kind: str, key: str) -> str:
    return run_id(run.project, run.workflow, f"/api/runs/{run.id}/{kind}", key)


async def _repeat(
    request: web.Request,
    told: Told,
    events: Sequence[Event],
    taken: Repetition,
    kind: str,
    requested_by: str,
) -> web.Response:
    app = request.app
    old = told.detail
    started = next(event for event in events if isinstance(event, RunStarted))
    if kind == _UNDOING:
        run = _undoing_id(old)
    else:
        run = _repetition_id(old, kind, idempotency_key(request) or uuid4().hex)
    accepted = RepetitionAccepted(
        workflow_run_id=run,
        status=RunStatus.PENDING,
        origin_run=old.id,
        kind=kind,
        reused=taken.results,
    )
    location = {"Location": f"/api/runs/{run}"}
    if known := await app[READS].newest_run_events(run, None, 1):
        return answer(replace(accepted, status=RunStatus(known[0].status)), 202, location)
    blobs = app[SERVICES].blobs
    start = Start(
        run=run,
        project=old.project,
        workflow=old.workflow,
        version=old.version,
        trigger=started.trigger,
        depth=started.depth,
        origin=Origin(run=old.id, kind=kind, requested_by=requested_by),
        reuse=await _reuse(blobs, old.project, taken.nodes, taken.items),
        undone=await _reuse(blobs, old.project, taken.undone),
        edits=taken.edits,
        compensate=kind == _UNDOING,
        traceparent=trace_context(request.headers.get("traceparent")),
    )
    start = await _fitting(blobs, start)
    await app[WRITER].write(INBOX, start.run, codec.encode(start))
    app[STARTS].add(start, int(app[SERVICES].clock() * 1000))
    return answer(accepted, 202, location)


async def _reuse(
    blobs: BlobStore,
    project: str,
    nodes: Sequence[tuple[str, Raw | Outputs]],
    items: Sequence[tuple[str, int, Raw]] = (),
) -> tuple[Reused, ...]:
    reuse: list[Reused] = []
    for node, output in nodes:
        whole = output if isinstance(output, Raw) else await _one_list(blobs, project, output)
        reuse.append(Reused(node=node, output=whole))
    reuse += [Reused(node=node, item=item, output=output) for node, item, output in items]
    return tuple(reuse)


async def _one_list(blobs: BlobStore, project: str, outputs: Outputs) -> Raw:
    """The items' outputs as their node's, whole: nobody looks for references inside of a list."""
    whole = []
    for output in outputs:
        reference = as_reference(output)
        try:
            content = output if reference is None else await blobs.get(project, reference)
        except MissingContentError as error:
            raise ConflictError(f"a result cannot be taken over: {error}") from error
        whole.append(Raw(content))
    return Raw(msgspec.json.encode(whole))


async def _fitting(blobs: BlobStore, start: Start) -> Start:
    """The start with its big payloads by reference; with more of them where it would be too large.

    Raises:
        TooLargeError: It cannot be made small enough.
    """
    fitting = await _packed(blobs, start, INLINE_LIMIT)
    if len(codec.encode(fitting)) <= PAYLOAD_LIMIT:
        return fitting
    fitting = await _packed(blobs, fitting, _SMALL)
    size = len(codec.encode(fitting))
    if size > _LARGEST:
        raise TooLargeError(
            f"the results to take over have {size:,} bytes, {_LARGEST:,} may be: retry it whole"
        )
    return fitting


async def _packed(blobs: BlobStore, start: Start, limit: int) -> Start:
    async def packed(payload: Raw) -> Raw:
        return await blobs.packed(start.project, payload, limit)

    async def all_packed(results: Sequence[Reused]) -> tuple[Reused, ...]:
        return tuple([replace(each, output=await packed(each.output)) for each in results])

    return replace(
        start,
        trigger=replace(start.trigger, data=await packed(start.trigger.data)),
        reuse=await all_packed(start.reuse),
        undone=await all_packed(start.undone),
        edits=tuple([Edit(node=e.node, inputs=await packed(e.inputs)) for e in start.edits]),
    )

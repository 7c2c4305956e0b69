"""Approvals: what waits for people, and what they say.

An approval is named `<run>:<node>`, or `<run>:<node>.<item>` for an item of a fan-out. What is
wrong with a decision is told here, before it is written: the run itself would pass over it.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web
from msgspec import UNSET, Raw, UnsetType

from gateway.given_inputs import check_given_inputs
from gateway.paging import place, place_text
from gateway.problem import ConflictError, ForbiddenError
from gateway.reads import ApprovalQuery, milliseconds
from gateway.requests import answer, fields, json_object, page_size, short_text
from gateway.run_detail import decoded
from gateway.run_views import ApprovalList, ApprovalView, DecisionAccepted, RunDetail
from gateway.runs import all_told_is_recorded, told_plan, told_so_far
from gateway.services import READS, SERVICES, WRITER
from streams import codec
from streams.errors import CallerError, NotFoundError
from streams.events import NodeReused
from streams.messages import Approval
from streams.payload import same
from streams.topics import INBOX

STATES: Final = ("pending", "decided")
DECISIONS: Final = ("approve", "reject")
_ROLES: Final = 50


async def list_approvals(request: web.Request) -> web.Response:
    """What people were asked: what waits first, the newest first; `status` and `run` narrow."""
    state = request.query.get("status", "")
    if state and state not in STATES:
        raise CallerError(f"status={state!r} is not one of {', '.join(STATES)}")
    limit = page_size(request)
    await all_told_is_recorded(request.app)
    reads = request.app[READS]
    watermark = await reads.watermark()
    found = await reads.approvals(
        ApprovalQuery(
            project=request.query.get("project", ""),
            workflow=request.query.get("workflow", ""),
            run=request.query.get("run", ""),
            state=state,
            before=place(request, tuple[bool, int, str]),
            limit=limit + 1,
        )
    )
    last = found[limit - 1] if len(found) > limit else None
    return answer(
        ApprovalList(
            approvals=list(found[:limit]),
            next=None if last is None else place_text(_place(last)),
            watermark=dict(watermark),
        )
    )


async def decide_approval(request: web.Request) -> web.Response:
    """Say what a person decided: `decision` approve or reject, `respondedBy`, `notes`, `roles`.

    A rejection needs `notes`. `inputs` replace those that were asked about; they stay in the
    history beside the old ones. Where several people have to agree, each of them decides once.
    """
    name = request.match_info["id"]
    said = _said(await json_object(request))
    asked = _asked(name)
    item = () if asked.item is None else ((asked.node, asked.item),)
    told = await told_so_far(request, asked.run, *item)
    approval = told.nodes.approval(asked.node, asked.item)
    if approval is None:
        raise NotFoundError(f"there is no approval {name!r}: nobody was asked about it")
    if said.inputs is not None and same(approval.inputs, Raw(msgspec.json.encode(said.inputs))):
        said = said._replace(inputs=None)  # what was asked about, sent back: no edit
    _check(approval, said)
    if said.inputs is not None:
        spec = told_plan(told).nodes[asked.node].spec
        check_given_inputs(request.app, spec, said.inputs, item=asked.item is not None)
        if spec.for_each is not None and asked.item is None:
            await _check_is_the_same_list(request, told.detail, asked.node)
    inputs: Raw | UnsetType = UNSET
    if said.inputs is not None:
        given = Raw(msgspec.json.encode(said.inputs))
        inputs = await request.app[SERVICES].blobs.packed(told.detail.project, given)
    message = Approval(
        run=asked.run,
        node=asked.node,
        item=asked.item,
        approved=said.approves,
        by=said.by,
        roles=said.roles,
        notes=said.notes,
        inputs=inputs,
    )
    await request.app[WRITER].write(INBOX, asked.run, codec.encode(message))
    return answer(
        DecisionAccepted(
            approval=name,
            workflow_run_id=asked.run,
            decision="approve" if said.approves else "reject",
        ),
        202,
    )


class _Said(NamedTuple):
    """What a request says."""

    approves: bool
    by: str
    notes: str
    roles: tuple[str, ...]
    inputs: Any


class _Asked(NamedTuple):
    """What an approval is about."""

    run: str
    node: str
    item: int | None


def _place(approval: ApprovalView) -> tuple[bool, int, str]:
    return (approval.status == "PENDING", milliseconds(approval.requested_at), approval.id)


def _said(given: Mapping[str, Any]) -> _Said:
    """The request's fields, each of which is what it has to be."""
    fields(given, "decision", "notes", "respondedBy", "roles", "inputs")
    decision = given.get("decision")
    if decision not in DECISIONS:
        raise CallerError(f"'decision' must be one of {', '.join(DECISIONS)}, not {decision!r}")
    by, notes = short_text(given, "respondedBy", ""), short_text(given, "notes", "")
    if not by.strip():
        raise CallerError("'respondedBy' must say who decides")
    if decision == "reject" and not notes.strip():
        raise CallerError("a rejection needs 'notes': say why")
    if decision == "reject" and given.get("inputs") is not None:
        raise CallerError("'inputs' go with an approval: a rejected node gets none")
    roles = given.get("roles", [])
    if (
        not isinstance(roles, list)
        or len(roles) > _ROLES
        or not all(isinstance(role, str) for role in roles)
    ):
        raise CallerError(f"'roles' must be a list of at most {_ROLES} texts")
    return _Said(decision == "approve", by, notes, tuple(roles), given.get("inputs"))


async def _check_is_the_same_list(request: web.Request, run: RunDetail, node: str) -> None:
    """Results that a run took over are of certain items: of others they would be wrong."""
    if run.origin is None:
        return
    for _, event in decoded(await request.app[READS].run_events(run.id)):
        if isinstance(event, NodeReused) and event.node == node and event.item is not None:
            raise ConflictError(
                f"items of {node!r} are taken over from run {run.origin.run}: their list cannot be"
                f" another one; reject this, and rerun that run from {node!r} with other inputs"
            )


def _asked(name: str) -> _Asked:
    run, _, key = name.partition(":")
    node, dot, item = key.partition(".")
    if not run or not node or (dot and not (item.isascii() and item.isdigit())):
        raise NotFoundError(
            f"{name!r} names no approval: it is <run>:<node> or <run>:<node>.<item>"
        )
    return _Asked(run, node, int(item[:9]) if dot else None)


def _agreed(approval: ApprovalView) -> list[str]:
    """Who has agreed to the inputs as they are now: whoever edits them begins the count anew."""
    agreed: list[str] = []
    for said in approval.answers:
        agreed = [said.by] if said.inputs is not None else [*agreed, said.by]
    return agreed


def _decided_by(approval: ApprovalView) -> str:
    """Whose answers decided it, if people did."""
    if approval.status == "APPROVED":
        people = _agreed(approval)
    else:
        people = [said.by for said in approval.answers if not said.approved]
    names = ", ".join(by for by in people if by)
    return f" by {names}" if names else ""


def _check(approval: ApprovalView, said: _Said) -> None:
    if approval.status != "PENDING":
        raise ConflictError(f"it was decided already: {approval.status}{_decided_by(approval)}")
    if approval.roles and not set(approval.roles) & set(said.roles):
        needed = ", ".join(approval.roles)
        has = ", ".join(said.roles) or "none"
        raise ForbiddenError(
            f"only people with one of the roles {needed} may decide (given: {has})"
        )
    if said.approves and said.inputs is None and said.by in _agreed(approval):
        raise ConflictError(f"{said.by} has approved it already; {approval.missing} more must")

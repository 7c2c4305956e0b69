"""The runs that repeat one another, as far as they are recorded or were accepted here lately."""

from typing import NamedTuple

from aiohttp import web

from gateway.repetition import Kin, Results
from gateway.run_detail import decoded
from gateway.run_views import RunDetail
from gateway.runs import known_run
from gateway.services import READS, STARTS
from streams.errors import NotFoundError
from streams.lifecycle import TERMINAL


class Relative(NamedTuple):
    """One of them; `kind` says how it repeats its origin, and is empty where it has none."""

    kin: Kin
    kind: str
    goes_on: bool


async def relatives(request: web.Request, run: RunDetail) -> list[Relative]:
    """All runs that repeat this one, or one that this one repeats; itself, too.

    Each comes after its origin.
    """
    first = run
    while first.origin is not None and (before := await _found(request, first.origin.run)):
        first = before
    found: list[Relative] = []
    left = [first]
    while left:
        detail = left.pop(0)
        found.append(await _relative(request, detail))
        recorded = await request.app[READS].repetitions(detail.id, detail.started_at)
        accepted = request.app[STARTS].repetitions(detail.id)
        repeating = [await _found(request, each) for each in dict.fromkeys([*recorded, *accepted])]
        left += [each for each in repeating if each is not None]
    return found


async def _found(request: web.Request, run: str) -> RunDetail | None:
    """The run; None where it is not recorded any more."""
    try:
        return (await known_run(request, run)).detail
    except NotFoundError:
        return None


async def _relative(request: web.Request, run: RunDetail) -> Relative:
    rows = await request.app[READS].run_events(run.id)
    origin, kind = ("", "") if run.origin is None else (run.origin.run, run.origin.kind)
    kin = Kin(run.id, origin, Results(event for _, event in decoded(rows)))
    return Relative(kin, kind, run.status not in TERMINAL)

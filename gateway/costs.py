"""Costs over many runs: sums by what one likes, and the single costs for FinOps tools."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import structlog
from aiohttp import web

from gateway.cost_views import CostGroup, CostSumsView
from gateway.paging import place_text, position
from gateway.requests import answer
from gateway.run_costs import plain
from gateway.run_views import CostTotal
from gateway.services import COSTS, SERVICES
from gateway.views import moment
from gateway.watermark import AT_LEAST, reached
from sinks import focus
from sinks.costs import CostFilter, Dimension, Row
from sinks.decision_record import TIME_LIMIT
from streams.budget import month_of
from streams.cost import CostKind
from streams.errors import CallerError, OperatorError

_log = structlog.get_logger(__name__)

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
KINDS: Final = get_args(CostKind)
MAX_GROUPS: Final = 10_000
FILTERS: Final = ("project", "workflow", "run", "agent", "model", "kind", "tag")
_USUAL_GROUPS: Final = 1_000
_DATES: Final = frozenset({"month", "day"})


async def sum_costs(request: web.Request) -> web.Response:
    """What costs add up to, exactly, by the names in `groupBy`: the month so far, if unsaid.

    `from` is included and `to` is not; a cost belongs to the time when its attempt had ended. The
    groups come a page at a time. While costs are added, a group may move from page to page.
    """
    wanted = cost_filter(request)
    by = _dimensions(request.query.get("groupBy", ""))
    limit, skip = _limit(request), position(request)
    seen = await reached(request, request.query.get(AT_LEAST))
    found = await request.app[COSTS].sums(wanted, by, limit, skip)
    return answer(
        CostSumsView(
            group_by=list(by),
            begin=moment(wanted.begin),
            end=moment(wanted.end),
            groups=[_group(row, by) for row in found.groups],
            totals=[_total(row) for row in found.totals],
            more=found.more,
            next=place_text(skip + limit) if found.more else None,
            watermark=dict(seen),
        )
    )


async def export_costs(request: web.Request) -> web.StreamResponse:
    """Every single cost as a row of FOCUS 1.2, in CSV: the month so far, if unsaid.

    It begins when the first rows are there. One that is cut off ends without its last chunk.
    """
    wanted = cost_filter(request)
    async with aclosing(request.app[COSTS].entries(wanted)) as pages:
        return await _export(request, wanted, pages)


async def _export(
    request: web.Request, wanted: CostFilter, pages: AsyncGenerator[Sequence[Row], None]
) -> web.StreamResponse:
    # A store that is away is said so with a status; later there is no place for one any more.
    first: Sequence[Row] = await anext(pages, [])
    name = f"costs-{moment(wanted.begin):%Y-%m-%d}.csv"
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        }
    )
    await response.prepare(request)
    try:
        await response.write(focus.heading() + focus.lines(first))
        async for page in pages:
            await response.write(focus.lines(page))
    except OperatorError as error:
        _log.warning("an export of costs was cut off", why=str(error))
        if request.transport is not None:
            request.transport.abort()  # or what is there would look complete
        return response
    await response.write_eof()
    return response


def cost_filter(request: web.Request) -> CostFilter:
    """Which costs a request is about."""
    now = int(request.app[SERVICES].clock() * 1000)
    tomorrow = datetime.fromtimestamp(now / 1000, UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    ) + timedelta(days=1)
    end = _time(request, "to", int(tomorrow.timestamp()) * 1000)
    begin = _time(request, "from", month_of(min(now, max(end - 1, 0))).begin)
    if begin >= end:
        raise CallerError("from is not before to: there is no time between them")
    kind = request.query.get("kind", "")
    if kind and kind not in KINDS:
        raise CallerError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    return CostFilter(begin, end, **{name: request.query.get(name, "") for name in FILTERS})


def _time(request: web.Request, name: str, usual: int) -> int:
    given = request.query.get(name)
    if given is None:
        return usual
    try:
        found = datetime.fromisoformat(given)
    except ValueError as error:
        raise CallerError(
            f"{name}={given!r} is no time: write 2026-11-01 or 2026-11-01T12:00:00Z (in an address"
            " a + has to be written as %2B)"
        ) from error
    milliseconds = round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= milliseconds < TIME_LIMIT:
        raise CallerError(f"{name}={given!r} is not between the years 1970 and 2299")
    return milliseconds


def _dimensions(given: str) -> tuple[Dimension, ...]:
    names = [name.strip() for name in given.split(",")] if given.strip() else []
    known: dict[str, Dimension] = {name: name for name in DIMENSIONS}
    for name in names:
        if name not in known:
            raise CallerError(f"groupBy={name!r} is not one of {', '.join(DIMENSIONS)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", str(_USUAL_GROUPS))
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= MAX_GROUPS:
        raise CallerError(f"limit={given!r} is not a number from 1 to {MAX_GROUPS}")
    return int(given)


def _group(row: Mapping[str, Any], by: Sequence[Dimension]) -> CostGroup:
    total = _total(row)
    return CostGroup(
        key={name: _key(name, row[name]) for name in by},
        currency=total.currency,
        amount=total.amount,
        compute=total.compute,
        tokens=total.tokens,
        api=total.api,
        entries=row["entries"],
    )


def _key(name: str, value: Any) -> Any:
    if name == "month":
        return f"{value:%Y-%m}"
    return value.isoformat() if name in _DATES else value


def _total(row: Mapping[str, Any]) -> CostTotal:
    return CostTotal(
        currency=row["currency"],
        amount=plain(row["amount"]),
        compute=plain(row["compute"]),
        tokens=plain(row["tokens"]),
        api=plain(row["api"]),
    )

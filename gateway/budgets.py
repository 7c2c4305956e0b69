"""Budgets: set, listed with how this month stands, taken away."""

import re
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final

from aiohttp import web

from gateway.budget_reader import budget_key
from gateway.cost_views import BudgetList, BudgetRemoved, BudgetView
from gateway.paging import page_of
from gateway.requests import answer, fields, json_object, short_text
from gateway.run_costs import plain
from gateway.services import BUDGETS, COSTS, READS, SERVICES, WRITER
from gateway.views import moment
from sinks.costs import CostFilter, Dimension
from streams import codec, topics
from streams.budget import Budget, month_of, standing
from streams.cost import COST_DIGITS, COST_LIMIT
from streams.errors import CallerError
from streams.trigger import DEFAULT_PROJECT
from streams.workflow import NAME, TAG

_EXACT: Final = Context(prec=60)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_AMOUNT: Final = re.compile(r"\d{1,12}(\.\d{1,12})?", re.ASCII)
_ALL_GROUPS: Final = 2**31
_PERCENT: Final = Decimal("0.1")

Spent = Mapping[tuple[str, str, str], Decimal]
"""What was spent this month: by project, name (of a workflow or tag) and currency."""


async def list_budgets(request: web.Request) -> web.Response:
    """The budgets with how this month stands, a page at a time; `project` narrows."""
    found = request.app[BUDGETS].all(request.query.get("project"))
    page = page_of(request, found, lambda each: (each.project, each.name), tuple[str, str])
    watermark = await request.app[READS].watermark()
    views = await _views(request.app, page.entries)
    return answer(BudgetList(budgets=views, next=page.next, watermark=dict(watermark)))


async def get_budget(request: web.Request) -> web.Response:
    """A budget with how this month stands."""
    project, name = _named(request)
    (view,) = await _views(request.app, [request.app[BUDGETS].get(project, name)])
    return answer(view)


async def set_budget(request: web.Request) -> web.Response:
    """Set what may be spent in a month: by a `workflow`, by a `tag`, or by the whole project.

    `amount` is a text, as "250.00". A budget that is there already is replaced.
    """
    project, name = _named(request)
    given = await json_object(request)
    fields(given, "amount", "currency", "workflow", "tag", "setBy")
    budget = Budget(
        project=project,
        name=name,
        amount=_amount(given.get("amount")),
        currency=_currency(given),
        set_at=int(request.app[SERVICES].clock() * 1000),
        set_by=short_text(given, "setBy", ""),
        workflow=_word(given, "workflow", NAME),
        tag=_word(given, "tag", TAG),
    )
    if budget.workflow is not None and budget.tag is not None:
        raise CallerError(
            "a budget is of a workflow or of a tag, not of both: leave one of them out"
        )
    await _write(request, budget_key(project, name), codec.encode(budget))
    (view,) = await _views(request.app, [budget])
    return answer(view)


async def remove_budget(request: web.Request) -> web.Response:
    """Take a budget away."""
    project, name = _named(request)
    request.app[BUDGETS].get(project, name)
    await _write(request, budget_key(project, name), None)
    return answer(BudgetRemoved(name=name, project=project))


def _named(request: web.Request) -> tuple[str, str]:
    project = request.query.get("project", DEFAULT_PROJECT)
    for what, word in (("project", project), ("budget", request.match_info["name"])):
        if not re.fullmatch(NAME, word):
            raise CallerError(
                f"{word[:80]!r} is no name of a {what}: small letters, digits and _ . - only,"
                " 128 at most"
            )
    return project, request.match_info["name"]


def _word(given: Mapping[str, Any], name: str, pattern: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise CallerError(f"{name!r} is {value!r}, which is no name of a {name}")
    return value


def _amount(given: Any) -> Decimal:
    """A number with a point is refused: what JSON makes of it is not what was written."""
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    try:
        if isinstance(text, str) and _AMOUNT.fullmatch(text) and Decimal(text) > 0:
            return Decimal(text)
    except InvalidOperation:
        pass
    raise CallerError(
        f"'amount' is {given!r}: write it as a text such as \"250.00\", more than 0, less than"
        f" {COST_LIMIT:,}, with {COST_DIGITS} digits after the point at most"
    )


def _currency(given: Mapping[str, Any]) -> str:
    value = given.get("currency", "USD")
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise CallerError(f"'currency' is {value!r}: write it as in \"USD\"")
    return value


async def _write(request: web.Request, key: str, value: bytes | None) -> None:
    """Returns when this gateway reads back what it wrote."""
    await request.app[WRITER].put(topics.BUDGETS, 0, key.encode(), value)
    await request.app[BUDGETS].caught_up()


async def _views(app: web.Application, budgets: Sequence[Budget]) -> list[BudgetView]:
    if not budgets:
        return []
    now = int(app[SERVICES].clock() * 1000)
    by_workflow = await _spent(app, now, "workflow")
    tagged = any(budget.tag is not None for budget in budgets)
    by_tag = await _spent(app, now, "tag") if tagged else {}
    return [_view(budget, _of(budget, by_workflow, by_tag), now) for budget in budgets]


async def _spent(app: web.Application, now: int, what: Dimension) -> Spent:
    """All of a month in one question, however many budgets there are."""
    month = month_of(now)
    wanted = CostFilter(month.begin, month.end)
    found = await app[COSTS].sums(wanted, ("project", what), _ALL_GROUPS)
    return {(row["project"], row[what], row["currency"]): row["amount"] for row in found.groups}


def _of(budget: Budget, by_workflow: Spent, by_tag: Spent) -> Decimal:
    if budget.tag is not None:
        return by_tag.get((budget.project, budget.tag, budget.currency), Decimal(0))
    total = Decimal(0)
    for (project, workflow, currency), amount in by_workflow.items():
        of_this = budget.workflow in (None, workflow)
        if of_this and (project, currency) == (budget.project, budget.currency):
            total = _EXACT.add(total, amount)
    return total


def _view(budget: Budget, spent: Decimal, now: int) -> BudgetView:
    stands = standing(budget.amount, spent, now)
    used = _EXACT.divide(_EXACT.multiply(spent, Decimal(100)), budget.amount)
    return BudgetView(
        name=budget.name,
        project=budget.project,
        workflow=budget.workflow,
        tag=budget.tag,
        amount=plain(budget.amount),
        currency=budget.currency,
        month=f"{moment(now):%Y-%m}",
        month_to_date=plain(spent),
        forecast=plain(stands.forecast),
        used_percent=plain(used.quantize(_PERCENT, context=_EXACT)),
        state=stands.state,
        set_at=moment(budget.set_at),
        set_by=budget.set_by,
    )

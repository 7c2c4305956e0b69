"""What answers say of costs over many runs, and of budgets. Amounts are exact decimal texts."""

from datetime import datetime
from typing import Any

import msgspec

from gateway.run_views import CostTotal
from gateway.views import View
from streams.budget import BudgetState


class CostGroup(View, frozen=True, kw_only=True):
    """What one group cost in one currency: `key` names it, by each of `groupBy`.

    An empty text in `key` is what has none: no model, no tag.
    """

    key: dict[str, Any]
    currency: str
    amount: str
    compute: str
    tokens: str
    api: str
    entries: int


class CostSumsView(View, frozen=True, kw_only=True):
    """Sums of the costs from `from` until before `to`; `totals` are of all, by currency.

    Groups come in the order of time where they are by month or day, then the most expensive first.
    `more`: there are groups beyond the limit, from `next` on; the totals include them.
    By tag, a cost counts for
    each tag of its workflow: those groups may add up to more than the totals.
    """

    group_by: list[str]
    begin: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    groups: list[CostGroup]
    totals: list[CostTotal]
    more: bool
    next: str | None = None
    watermark: dict[int, int]


class BudgetView(View, frozen=True, kw_only=True):
    """A budget of a calendar month (UTC), and how this month stands.

    It is of one `workflow`, of the workflows with a `tag`, or of the whole project. `forecast` is
    what the month comes to if it goes on like this: `monthToDate` in proportion to the time passed,
    a day at least. `state` is WITHIN, AT_RISK (by the forecast) or EXCEEDED.
    """

    name: str
    project: str
    workflow: str | None = None
    tag: str | None = None
    amount: str
    currency: str
    month: str
    month_to_date: str
    forecast: str
    used_percent: str
    state: BudgetState
    set_at: datetime
    set_by: str


class BudgetList(View, frozen=True, kw_only=True):
    """The budgets, by project and name, with how their month stands."""

    budgets: list[BudgetView]
    next: str | None = None
    watermark: dict[int, int]


class BudgetRemoved(View, frozen=True, kw_only=True):
    """A budget that is no more."""

    name: str
    project: str

"""Budgets: what may be spent in a month, how much of it is, and what the month will come to.

Rules:
- A month is a calendar month in UTC.
- The forecast is a straight line: what was spent so far, times the length of the month over the
  time that has passed of it. The first day counts as passed from its beginning on, so that an early
  expense is not taken for a habit of every hour.
- A forecast is an estimate, of six digits after the point; what was spent is exact.
"""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from streams.cost import number_problem
from streams.records import FORMAT, Value

_EXACT: Final = Context(prec=60)
_STEP: Final = Decimal("0.000001")
_DAY_MS: Final = 86_400_000


class Budget(Value, frozen=True, kw_only=True):
    """What may be spent in a month, UTC: by one `workflow`, by those with a `tag`, or by a project.

    Its key is `project/name`; the newest record counts, and a tombstone takes the budget away.
    """

    project: str
    name: str
    amount: Decimal
    currency: str
    set_at: int
    set_by: str = ""
    workflow: str | None = None
    tag: str | None = None
    v: Literal[1] = FORMAT

    def __post_init__(self) -> None:
        """Refuse an amount that no cost could have."""
        if problem := number_problem(self.amount):
            raise ValueError(problem)


class Month(NamedTuple):
    """A month, from `begin` until before `end`, milliseconds since the epoch."""

    begin: int
    end: int


class BudgetState(StrEnum):
    """How a month stands against its budget."""

    WITHIN = "WITHIN"
    """The forecast is not over it."""
    AT_RISK = "AT_RISK"
    """The forecast is over it."""
    EXCEEDED = "EXCEEDED"
    """What was spent is over it."""


class Standing(NamedTuple):
    """A month so far: what was spent of the budget, and what the whole month is likely to cost."""

    spent: Decimal
    forecast: Decimal
    state: BudgetState


def month_of(now: int) -> Month:
    """The month of a time in milliseconds since the epoch."""
    begin = datetime.fromtimestamp(now / 1000, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    following = (begin + timedelta(days=32)).replace(day=1)
    return Month(int(begin.timestamp()) * 1000, int(following.timestamp()) * 1000)


def standing(amount: Decimal, spent: Decimal, now: int) -> Standing:
    """How the month of `now` stands.

    Args:
        amount: The budget of a month.
        spent: In this month, until now.
        now: Milliseconds since the epoch.
    """
    month = month_of(now)
    length, passed = month.end - month.begin, max(now - month.begin, _DAY_MS)
    line = _EXACT.divide(_EXACT.multiply(spent, Decimal(length)), Decimal(passed))
    forecast = max(line.quantize(_STEP, context=_EXACT), spent)
    if spent > amount:
        state = BudgetState.EXCEEDED
    else:
        state = BudgetState.AT_RISK if forecast > amount else BudgetState.WITHIN
    return Standing(spent, forecast, state)

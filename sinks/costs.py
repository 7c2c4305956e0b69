"""What costs add up to, and the single costs behind it, asked of the store.

Rules:
- The store adds up decimals of 38 digits: sums are exact. Currencies are never added to each other.
- Sums come from the costs themselves whenever they are asked for. Nothing is added up beforehand
  that could differ from them.
- A cost belongs to the time when its attempt had ended, in UTC.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from sinks.decision_record import TIME_LIMIT
from sinks.queries import query
from sinks.store import Store

Row = dict[str, Any]

Dimension = Literal[
    "month", "day", "project", "workflow", "version", "run", "node", "agent", "kind", "source",
    "model", "tag",
]  # fmt: skip
"""What costs are added up by. By tag, a cost counts for each tag of its workflow, '' for none."""

_PAGE: Final = 5_000
_START: Final = (0, "", -1, -1)


class CostFilter(NamedTuple):
    """Which costs, from `begin` until before `end` (ms); what is left empty narrows nothing."""

    begin: int = 0
    end: int = TIME_LIMIT - 1
    project: str = ""
    workflow: str = ""
    run: str = ""
    agent: str = ""
    model: str = ""
    kind: str = ""
    tag: str = ""


class CostSums(NamedTuple):
    """Rows of `currency`, `amount`, `compute`, `tokens`, `api`, `entries`.

    `totals` are of all, one for each currency; `groups` are named by the dimensions asked for.
    `more` says that there are groups beyond the limit; the totals include them.
    """

    totals: Sequence[Row]
    groups: Sequence[Row]
    more: bool


class Costs:
    """The costs in a store with the schema applied."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def sums(
        self, wanted: CostFilter, by: Sequence[Dimension], limit: int, skip: int = 0
    ) -> CostSums:
        """What they add up to, in the order of time where that is asked for, then the most first.

        Args:
            wanted: Which costs.
            by: What tells the groups apart, beside the currency; nothing gives totals alone.
            limit: Of the groups.
            skip: So many groups are left out; the totals are then from a reading of their own.
        """
        # The totals come first, one for each currency: there are a handful.
        asked = limit + 1 + _CURRENCIES
        known = (await self.sums(wanted, (), 0)).totals if skip else ()
        page = {"skip": skip + len(known), "limit": asked}
        parameters = {**_parameters(wanted), "by": list(by), **page}
        rows = (await self._store.query(query("costs_by"), parameters)).dicts()
        totals = known or [row for row in rows if row["in_all"]]
        groups = [row for row in rows if not row["in_all"]] if by else []
        return CostSums(totals, groups[:limit], len(groups) > limit)

    async def entries(self, wanted: CostFilter) -> AsyncGenerator[Sequence[Row], None]:
        """Every single cost with its workflow's `tags`, some thousand at a time, runs in order."""
        after: tuple[int, str, int, int] = _START
        while True:
            at, run, seq, entry = after
            page = {"after_at": at, "after_run": run, "after_seq": seq, "after_entry": entry}
            parameters = {**_parameters(wanted), **page, "limit": _PAGE}
            rows = (await self._store.query(query("costs_page"), parameters)).dicts()
            if rows:
                yield rows
            if len(rows) < _PAGE:
                return
            last = rows[-1]
            started: datetime = last["run_started_at"]
            after = (round(started.timestamp() * 1000), last["run_id"], last["seq"], last["entry"])


_CURRENCIES: Final = 1_000


def _parameters(wanted: CostFilter) -> dict[str, Any]:
    given = wanted._asdict()
    return {"from": given.pop("begin"), "to": given.pop("end"), **given}

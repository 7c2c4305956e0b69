"""What a run and its steps cost, added up from the run's events.

Sums are exact; an amount is the shortest text of the number, without an exponent.
"""

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from gateway.run_views import CostTotal, CostView
from streams.cost import Cost, CostKind

_EXACT: Final = Context(prec=60)
_KINDS: Final = ("compute", "tokens", "api")


class ItemsCost(NamedTuple):
    """What the items of a node cost: the exact sum of one currency and kind."""

    node: str
    currency: str
    kind: CostKind
    amount: Decimal


class KindCost(NamedTuple):
    """What a run is charged: the exact sum of one currency and kind."""

    currency: str
    kind: CostKind
    amount: Decimal


class RunCost(NamedTuple):
    """One thing that a run is charged, where it stands: event, and place among its costs."""

    seq: int
    entry: int
    view: CostView


class CostSum:
    """Costs being added up, by currency and kind."""

    __slots__ = ("_amounts",)

    def __init__(self) -> None:
        self._amounts: dict[str, dict[str, Decimal]] = {}

    def add(self, costs: Iterable[Cost]) -> None:
        """Count these too."""
        for cost in costs:
            self.count(cost.currency, cost.kind, cost.amount)

    def count(self, currency: str, kind: CostKind, amount: Decimal) -> None:
        """Count an amount too."""
        kinds = self._amounts.setdefault(currency, dict.fromkeys(_KINDS, Decimal(0)))
        kinds[kind] = _EXACT.add(kinds[kind], amount)

    def totals(self) -> tuple[CostTotal, ...]:
        """What it adds up to, a total for each currency."""
        return tuple(
            CostTotal(
                currency=currency,
                amount=plain(_summed(kinds.values())),
                **{kind: plain(amount) for kind, amount in kinds.items()},
            )
            for currency, kinds in sorted(self._amounts.items())
        )


def costs_of(event: Any) -> tuple[Cost, ...]:
    """What an event says that its attempt cost."""
    costs: tuple[Cost, ...] = getattr(event, "costs", ())
    return costs


def plain(number: Decimal) -> str:
    """The number as text, exact and without an exponent."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _summed(amounts: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total

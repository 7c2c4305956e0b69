"""What an attempt used, to be paid for: exact numbers, as they stand on the log."""

from decimal import Context, Decimal
from functools import lru_cache
from typing import Annotated, Final, Literal

from msgspec import Meta

from streams.records import Value

COST_DIGITS: Final = 12
"""Digits that a cost's numbers may have after the point."""
COST_LIMIT: Final = 10**12
"""A cost's numbers are less than this."""
_COST_STEP: Final = Decimal(1).scaleb(-COST_DIGITS)
_COST_LIMIT: Final = Decimal(COST_LIMIT)
_ZERO: Final = Decimal(0)
_EXACT: Final = Context(prec=60)
COST_ENTRIES: Final = 100
"""Costs that one result may have."""
COST_TEXT: Final = 200
"""Characters of a cost's texts."""

CostKind = Literal["compute", "tokens", "api"]
_CostText = Annotated[str, Meta(max_length=COST_TEXT)]


class Cost(Value, frozen=True, kw_only=True):
    """Something that an attempt used: `quantity` units at `unit_price` are `amount`.

    `source` is who is paid (an agent for compute), `price_version` the price list. Numbers are
    exact, not negative, and stand on the wire as strings: 12 digits after the point at most.
    """

    kind: CostKind
    source: _CostText
    quantity: Decimal
    unit: _CostText
    unit_price: Decimal
    amount: Decimal
    model: _CostText = ""
    currency: _CostText = "USD"
    price_version: _CostText = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be added up exactly."""
        # By their texts: the hash of a number that is fresh from the log takes ten times as long.
        if problem := number_problem(str(self.quantity), str(self.unit_price), str(self.amount)):
            raise ValueError(problem)


@lru_cache(maxsize=4096)  # most costs are those of compute, which are much the same
def number_problem(*numbers: str) -> str:
    """What is wrong with numbers of a cost, or of a budget; empty if nothing is."""
    for value in map(Decimal, numbers):
        if not value.is_finite() or not _ZERO <= value < _COST_LIMIT:
            return f"a cost of {value}: its numbers are from 0 to {COST_LIMIT:,}"
        if value != value.quantize(_COST_STEP, context=_EXACT):
            return (
                f"a cost of {value}: its numbers have at most {COST_DIGITS} digits after the point"
            )
    return ""


Costs = Annotated[tuple[Cost, ...], Meta(max_length=COST_ENTRIES)]

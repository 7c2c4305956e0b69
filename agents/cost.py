"""What an attempt costs: what its action says it used, and the time that it was at work.

Rules:
- Numbers are `Decimal`, given as that, as an `int`, or as text; a `float` is refused, because it is
  not what it looks like. Amounts have 12 digits after the point, rounded half to even.
- Entries that differ in their quantity alone are added up, so a loop makes one entry.
- What was recorded counts, however the attempt ends.
"""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from threading import Lock
from typing import Final, NamedTuple, get_args

from streams.cost import COST_DIGITS, COST_ENTRIES, COST_LIMIT, COST_TEXT, Cost, CostKind
from streams.errors import AgentError

Number = Decimal | int | str
"""An exact number; text as in `"0.0025"`."""

CURRENCY: Final = "USD"
DEFAULT_RATE: Final = Decimal("0.01")
"""Per minute of compute, where neither the agent nor a setting says otherwise."""
RATE_LIMIT: Final = 1_000_000
"""A minute costs less than this, so that no time at work is too dear to be written."""

# Of our own: an action may change the context of its thread.
_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_STEP: Final = Decimal(1).scaleb(-COST_DIGITS)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class Rate(NamedTuple):
    """The price of a minute of compute, and the version of the price list that it stands in."""

    per_minute: Decimal = DEFAULT_RATE
    version: str = "default"


DEFAULT_PRICE: Final = Rate()


class Costs:
    """What one attempt has used so far, beside compute time; any thread may record."""

    __slots__ = ("_entries", "_lock")

    def __init__(self) -> None:
        self._entries: dict[tuple[str, ...], Cost] = {}
        self._lock = Lock()

    def record(
        self,
        *,
        unit_price: Number,
        source: str,
        kind: CostKind = "api",
        quantity: Number = 1,
        unit: str = "request",
        model: str = "",
        currency: str = CURRENCY,
        price_version: str = "",
    ) -> Cost:
        """Add `quantity` units at `unit_price` each to the costs of the step.

        Args:
            unit_price: price of one unit, at most 12 digits after the point.
            source: whom it is paid to: a provider, an API.
            kind: `tokens` of a language model, or `api` for anything else.
            quantity: how many units.
            unit: what is counted: `request`, `input_token`, `output_token`, ….
            model: the model, where there is one.
            currency: ISO 4217.
            price_version: which price list the price is from.

        Returns:
            The entry for just this use.

        Raises:
            AgentError: a number is a float, negative, or out of range; a text is too long.
        """
        if kind not in get_args(CostKind) or kind == "compute":
            raise AgentError(
                f"a cost of kind {kind!r}: record 'tokens' or 'api' (the time of compute is"
                " recorded by the worker)"
            )
        if not source or not unit:
            raise AgentError("a cost needs a source (who is paid) and a unit (what is counted)")
        if not _CURRENCY.fullmatch(currency):
            raise AgentError(f"a cost's currency is {currency!r}; write it as in 'USD'")
        cost = priced(
            kind,
            source,
            number(quantity, "a cost's quantity"),
            unit,
            number(unit_price, "a cost's unit_price"),
            model=model,
            currency=currency,
            price_version=price_version,
        )
        self.add(cost)
        return cost

    def add(self, cost: Cost) -> None:
        """Add an entry that is made already; for what brings them over from another process."""
        key = (
            cost.kind,
            cost.source,
            cost.model,
            cost.unit,
            str(cost.unit_price.normalize()),
            cost.currency,
            cost.price_version,
        )
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                self._entries[key] = _checked(
                    kind=cost.kind,
                    source=cost.source,
                    model=cost.model,
                    quantity=_EXACT.add(known.quantity, cost.quantity),
                    unit=cost.unit,
                    unit_price=cost.unit_price,
                    amount=_EXACT.add(known.amount, cost.amount),
                    currency=cost.currency,
                    price_version=cost.price_version,
                )
            elif len(self._entries) >= COST_ENTRIES - 1:  # one is left for compute
                raise AgentError(
                    f"an attempt has at most {COST_ENTRIES - 1} kinds of costs beside compute;"
                    " do not put what differs from call to call into source, model or unit"
                )
            else:
                self._entries[key] = cost

    @property
    def entries(self) -> tuple[Cost, ...]:
        """What was recorded, in the order of first mention."""
        with self._lock:
            return tuple(self._entries.values())

    def __repr__(self) -> str:
        return f"Costs({', '.join(f'{c.source} {c.amount} {c.currency}' for c in self.entries)})"


def compute(agent: str, nanoseconds: int, rate: Rate) -> Cost:
    """The entry for so much time at work: millionths of a minute, begun ones counted whole."""
    return _compute(agent, -(-nanoseconds // 60_000), rate)


@lru_cache(maxsize=4096)  # made for every task, and small ones take about as long as each other
def _compute(agent: str, millionths: int, rate: Rate) -> Cost:
    minutes = _shortest(Decimal(millionths).scaleb(-6, _EXACT))
    amount = _EXACT.multiply(minutes, rate.per_minute).quantize(_STEP, context=_EXACT)
    return Cost(
        kind="compute",
        source=agent,
        quantity=minutes,
        unit="minute",
        unit_price=rate.per_minute,
        amount=_shortest(amount),
        price_version=rate.version,
    )


def priced(
    kind: CostKind,
    source: str,
    quantity: Decimal,
    unit: str,
    unit_price: Decimal,
    *,
    model: str = "",
    currency: str = CURRENCY,
    price_version: str = "",
) -> Cost:
    """The entry, with its amount. Raises `AgentError` for what an entry cannot be."""
    return _checked(
        kind=kind,
        source=source,
        model=model,
        quantity=quantity,
        unit=unit,
        unit_price=unit_price,
        amount=_EXACT.multiply(quantity, unit_price).quantize(_STEP, context=_EXACT),
        currency=currency,
        price_version=price_version,
    )


def _checked(
    *,
    kind: CostKind,
    source: str,
    model: str,
    quantity: Decimal,
    unit: str,
    unit_price: Decimal,
    amount: Decimal,
    currency: str,
    price_version: str,
) -> Cost:
    for text in (source, model, unit, price_version):
        if len(text) > COST_TEXT:
            raise AgentError(
                f"a cost's texts are at most {COST_TEXT} characters: {text[:40]!r}… is too long"
            )
    try:
        return Cost(
            kind=kind,
            source=source,
            model=model,
            quantity=_shortest(quantity),
            unit=unit,
            unit_price=_shortest(unit_price),
            amount=_shortest(amount),
            currency=currency,
            price_version=price_version,
        )
    except ValueError as error:
        raise AgentError(str(error)) from error


def _shortest(value: Decimal) -> Decimal:
    """The same number with no zeros at the end of its fraction, so that it has one way to stand."""
    return _EXACT.add(value.normalize(_EXACT), Decimal(0))


def number(value: Number, what: str, limit: int = COST_LIMIT) -> Decimal:
    """An exact number from 0 to less than the limit. Raises `AgentError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise AgentError(
            f"{what} is {value!r}; give a Decimal, an int or a text as in '0.01' (a float is not"
            " exact)"
        )
    try:
        found = Decimal(value)
    except InvalidOperation as error:
        raise AgentError(f"{what} is {value!r}; that is no number") from error
    if not found.is_finite() or not 0 <= found < limit:
        raise AgentError(f"{what} is {value!r}; it must be from 0 to {limit:,}")
    if found != found.quantize(_STEP, context=_EXACT):
        raise AgentError(f"{what} is {value!r}; it may have {COST_DIGITS} digits after the point")
    return found

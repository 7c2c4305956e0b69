"""What an answer of a language model costs, by the prices of genai-prices."""

from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from agents.context import Context

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse

UNKNOWN: Final = "unknown"
"""The price version of a model that has no known price."""

_MILLION: Final = Decimal(1_000_000)
_FINE: Final = Decimal("0.000000000001")


def price_version() -> str:
    """Which prices are known here."""
    return f"genai-prices {version('genai-prices')}"


def record(answer: "ModelResponse", context: Context) -> Decimal | None:
    """Record what the answer's tokens cost; gives it where the price is known."""
    usage = answer.usage
    cached = usage.cache_read_tokens
    counts = {
        "input_token": usage.input_tokens - cached,
        "cached_input_token": cached,
        "output_token": usage.output_tokens,
    }
    source = (answer.provider_name or "test")[:200]
    model = (answer.model_name or "")[:200]
    try:
        price = answer.cost()
    except (LookupError, ValueError, AssertionError):
        for unit, count in counts.items():
            if count:
                context.cost.record(
                    kind="tokens", source=source, model=model, quantity=count, unit=unit,
                    unit_price=0, price_version=UNKNOWN,
                )  # fmt: skip
        return None
    rates = {
        "input_token": _rate(price.model_price, "input_mtok", usage.input_tokens),
        "cached_input_token": _rate(price.model_price, "cache_read_mtok", usage.input_tokens),
        "output_token": _rate(price.model_price, "output_mtok", usage.input_tokens),
    }
    rates["cached_input_token"] = rates["cached_input_token"] or rates["input_token"]
    sums = {unit: rates[unit] * count for unit, count in counts.items()}
    if sum(sums.values()) == price.total_price:
        entries = [(unit, Decimal(count), rates[unit]) for unit, count in counts.items() if count]
    else:  # tokens of other kinds are in it (audio, written caches): the total is what is exact
        entries = [("answer", Decimal(1), price.total_price)]
    for unit, quantity, each in entries:
        context.cost.record(
            kind="tokens", source=source, model=model, quantity=quantity, unit=unit,
            unit_price=each.quantize(_FINE), price_version=price_version(),
        )  # fmt: skip
    return price.total_price


def _rate(prices: Any, name: str, input_tokens: int) -> Decimal:
    """USD for one token; the tier is by the tokens of the input."""
    found = getattr(prices, name, None) or Decimal(0)
    for tier in reversed(getattr(found, "tiers", ())):
        if input_tokens > tier.start:
            base: Decimal = tier.price
            break
    else:
        base = getattr(found, "base", found)
    return base / _MILLION

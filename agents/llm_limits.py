"""What a step with a language model may use: its own limits, within those of the operator.

`COMMANDCENTER_LLM_LIMITS` has `name=number`, separated by commas: `requests=20,toolCalls=40`.
"""

import os
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pydantic import Field, ValidationError

from agents.action import explain
from agents.model import Model
from streams.errors import OperatorError

if TYPE_CHECKING:
    from pydantic_ai import UsageLimits

LIMITS: Final = "COMMANDCENTER_LLM_LIMITS"


class Limits(Model):
    """What a step may use; over it, the step fails."""

    requests: int = Field(default=10, ge=1, le=1_000, description="answers, also those thrown away")
    tool_calls: int = Field(default=20, ge=0, le=1_000, description="also those that failed")
    input_tokens: int | None = Field(default=None, ge=1)
    output_tokens: int | None = Field(default=None, ge=1)
    total_tokens: int | None = Field(default=None, ge=1)
    cost: Decimal | None = Field(default=None, gt=0, description="USD for the tokens")
    tool_result: int = Field(
        default=20_000, ge=1, le=1_000_000, description="characters that the model is given of one"
    )

    def of_usage(self) -> "UsageLimits":
        """As pydantic-ai takes them; one that it cannot hold is an error there."""
        from pydantic_ai import UsageLimits

        for category in unheld():
            warnings.simplefilter("error", category)
        return UsageLimits(
            request_limit=self.requests,
            tool_calls_limit=self.tool_calls,
            input_tokens_limit=self.input_tokens,
            output_tokens_limit=self.output_tokens,
            total_tokens_limit=self.total_tokens,
            cost_limit=self.cost,
        )


def unheld() -> tuple[type[Warning], ...]:
    """What pydantic-ai warns of where nobody tells the tokens or prices that a limit is about."""
    from pydantic_ai.exceptions import CostNotFoundWarning, UsageLimitUnavailableWarning

    return (CostNotFoundWarning, UsageLimitUnavailableWarning)


def capped(wanted: Limits, text: str | None = None) -> Limits:
    """The wanted limits, none beyond the operator's. Raises `OperatorError`."""
    text = os.environ.get(LIMITS, "") if text is None else text
    given: dict[str, str] = {}
    for each in filter(None, (it.strip() for it in text.split(","))):
        name, equals, number = each.partition("=")
        if not equals:
            raise OperatorError(f"{LIMITS}: {each!r} is not name=number")
        given[name.strip()] = number.strip()
    try:
        most = Limits.model_validate_strings(given, by_alias=True)
    except ValidationError as error:
        raise OperatorError(f"{LIMITS}: {explain(error)}") from error
    lower = {}
    for name in most.model_fields_set:
        has, cap = getattr(wanted, name), getattr(most, name)
        lower[name] = cap if has is None else min(has, cap)
    return wanted.model_copy(update=lower)

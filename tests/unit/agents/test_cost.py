"""What an attempt costs: exact numbers, added up, and kept whatever becomes of the attempt."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Agent, AgentError
from agents.cost import Costs, Rate, compute
from streams.cost import COST_ENTRIES, Cost


def test_compute_is_minutes_at_the_rate() -> None:
    assert compute("scanner", 90_000_000_000, Rate(Decimal("0.02"), "scanner@2")) == Cost(
        kind="compute",
        source="scanner",
        quantity=Decimal("1.5"),
        unit="minute",
        unit_price=Decimal("0.02"),
        amount=Decimal("0.03"),
        price_version="scanner@2",
    )


def test_what_is_recorded_is_an_entry_and_the_same_again_adds_to_it() -> None:
    costs = Costs()
    for quantity in (1200, "300"):
        costs.record(
            kind="tokens",
            source="anthropic",
            model="sonnet",
            quantity=quantity,
            unit="input_token",
            unit_price="0.000003",
            price_version="2026-11-01",
        )
    costs.record(source="maps", unit_price=Decimal("0.005"))
    assert costs.entries == (
        Cost(
            kind="tokens",
            source="anthropic",
            model="sonnet",
            quantity=Decimal(1500),
            unit="input_token",
            unit_price=Decimal("0.000003"),
            amount=Decimal("0.0045"),
            price_version="2026-11-01",
        ),
        Cost(
            kind="api",
            source="maps",
            quantity=Decimal(1),
            unit="request",
            unit_price=Decimal("0.005"),
            amount=Decimal("0.005"),
        ),
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"unit_price": 0.1}, "a cost's unit_price is 0.1; give a Decimal"),
        ({"unit_price": True}, "give a Decimal"),
        ({"unit_price": "ten"}, "that is no number"),
        ({"unit_price": "NaN"}, "it must be from 0"),
        ({"unit_price": "Infinity"}, "it must be from 0"),
        ({"unit_price": -1}, "it must be from 0"),
        ({"quantity": 10**12}, "it must be from 0"),
        ({"quantity": 10**11, "unit_price": 10**11}, "its numbers are from 0 to"),
        ({"unit_price": "0.0000000000001"}, "it may have 12 digits after the point"),
        ({"kind": "compute"}, "record 'tokens' or 'api'"),
        ({"kind": "gold"}, "record 'tokens' or 'api'"),
        ({"source": ""}, "needs a source"),
        ({"source": "s" * 201}, "at most 200 characters"),
        ({"currency": "dollars"}, "write it as in 'USD'"),
    ],
)
def test_what_is_not_exact_or_not_a_cost_is_refused(wrong: dict[str, Any], text: str) -> None:
    costs = Costs()
    with pytest.raises(AgentError, match=text):
        costs.record(**{"source": "maps", "unit_price": "0.01", **wrong})
    assert costs.entries == ()


def test_entries_are_bounded() -> None:
    costs = Costs()
    for number in range(COST_ENTRIES - 1):
        costs.record(source=f"api {number}", unit_price=1)
    with pytest.raises(AgentError, match="do not put what differs"):
        costs.record(source="one more", unit_price=1)
    costs.record(source="api 1", unit_price=1)
    assert len(costs.entries) == COST_ENTRIES - 1


@given(st.lists(st.decimals(0, 1000, places=6), max_size=30))
def test_the_sum_is_exact(prices: list[Decimal]) -> None:
    costs = Costs()
    for price in prices:
        costs.record(source="api", unit_price=price)
    assert sum(c.amount for c in costs.entries) == sum(prices)


@pytest.mark.parametrize("rate", [0.01, "-1", "much", 1_000_000, "0.0000000000001", "NaN"])
def test_a_rate_is_an_exact_number(rate: Any) -> None:
    with pytest.raises(AgentError, match="agent 'a': rate is"):
        Agent("a", description="", rate=rate)


def test_a_rate_stands_in_the_descriptor() -> None:
    assert Agent("a", description="", rate="0.0000001").descriptor()["rate"] == "0.0000001"

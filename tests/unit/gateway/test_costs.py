"""Costs and budgets over HTTP: what is asked of the store, and how its sums are told."""

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from sinks import focus
from sinks.costs import CostFilter, CostSums
from streams.budget import BudgetState, month_of, standing
from streams.errors import OperatorError

NOW = datetime(2026, 11, 11, tzinfo=UTC)
"""A third of the month has passed."""


def ms(*when: int) -> int:
    return round(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type]  # y, m, d


@pytest.fixture
def gateway(gateway: Any) -> Any:
    object.__setattr__(gateway.services, "clock", NOW.timestamp)
    return gateway


def sums(amount: str, currency: str = "USD", **key: Any) -> dict[str, Any]:
    exact = Decimal(amount)
    zero = Decimal(0)
    return {
        **key,
        "currency": currency,
        "amount": exact,
        "compute": exact,
        "tokens": zero,
        "api": zero,
        "entries": 2,
    }


async def test_sums_are_told_with_their_groups(gateway: Any) -> None:
    by = ("month", "day", "workflow")
    key = {"month": date(2026, 11, 1), "day": date(2026, 11, 3), "workflow": "review"}
    gateway.costs.found[by] = CostSums([sums("12.500")], [sums("12.500", **key)], more=False)
    asked = {"groupBy": "month, day,workflow", "from": "2026-11-02", "tag": "nightly"}
    response = await gateway.client.get("/api/costs", params=asked)
    amounts = {"amount": "12.5", "compute": "12.5", "tokens": "0", "api": "0", "currency": "USD"}
    assert await response.json() == {
        "groupBy": list(by),
        "from": "2026-11-02T00:00:00Z",
        "to": "2026-11-12T00:00:00Z",
        "groups": [
            {
                "key": {"month": "2026-11", "day": "2026-11-03", "workflow": "review"},
                **amounts,
                "entries": 2,
            }
        ],
        "totals": [amounts],
        "more": False,
        "next": None,
        "watermark": {},
    }
    wanted = CostFilter(ms(2026, 11, 2), ms(2026, 11, 12), tag="nightly")
    assert gateway.costs.asked == [(wanted, by, 1_000)]


async def test_the_month_so_far_is_meant_if_nothing_is_said(gateway: Any) -> None:
    await gateway.client.get("/api/costs")
    await gateway.client.get("/api/costs", params={"to": "2026-10-20T12:00:00+02:00"})
    assert [asked[0][:2] for asked in gateway.costs.asked] == [
        (ms(2026, 11, 1), ms(2026, 11, 12)),
        (ms(2026, 10, 1), ms(2026, 10, 20, 10)),
    ]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"groupBy": "workflow,colour"}, "groupBy='colour' is not one of month, day"),
        ({"from": "yesterday"}, "from='yesterday' is no time"),
        ({"to": "2500-01-01"}, "to='2500-01-01' is not between"),
        ({"from": "2026-11-03", "to": "2026-11-03"}, "from is not before to"),
        ({"kind": "rent"}, "kind='rent' is not one of compute, tokens, api"),
        ({"limit": "0"}, "limit='0' is not a number from 1 to 10000"),
        ({"colour": "red"}, "unknown parameter 'colour'"),
    ],
)
async def test_what_cannot_be_meant_is_refused(gateway: Any, asked: Any, text: str) -> None:
    response = await gateway.client.get("/api/costs", params=asked)
    assert response.status == 400
    assert text in (await response.json())["detail"]
    assert gateway.costs.asked == []


def entry(**fields: Any) -> dict[str, Any]:
    known = {"at": NOW, "run_id": "r", "seq": 3, "entry": 0, "project": "default", "version": 1}
    named = {"workflow": "review", "node": 'a "b", c', "item": 4, "attempt": 1, "agent": "x"}
    paid = {"kind": "api", "source": "maps", "model": "", "unit": "request", "currency": "USD"}
    numbers = {"quantity": Decimal(2), "unit_price": Decimal("0.50"), "amount": Decimal("1.00")}
    return {**known, **named, **paid, **numbers, "price_version": "", "tags": [], **fields}


async def test_an_export_is_a_table_with_every_cost(gateway: Any) -> None:
    gateway.costs.pages = [[entry()], [entry(entry=1), entry(entry=2, item=-1)]]
    response = await gateway.client.get("/api/costs/export", params={"from": "2026-11-02"})
    assert response.content_type == "text/csv"
    assert 'filename="costs-2026-11-02.csv"' in response.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(await response.text(), newline="")))
    assert [row["x_EventEntry"] for row in rows] == ["0", "1", "2"]
    assert [row["x_Item"] for row in rows] == ["4", "4", ""]
    assert {row["x_Node"] for row in rows} == {'a "b", c'}
    assert tuple(rows[0]) == focus.COLUMNS


async def test_an_export_of_nothing_has_its_heading(gateway: Any) -> None:
    response = await gateway.client.get("/api/costs/export")
    assert (await response.read()) == focus.heading()


async def test_an_export_that_is_cut_off_does_not_look_whole(gateway: Any) -> None:
    gateway.costs.fault = OperatorError("the store is away")
    assert (await gateway.client.get("/api/costs/export")).status == 503
    gateway.costs.pages = [[entry()]]
    response = await gateway.client.get("/api/costs/export")
    assert response.status == 200
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


# --- budgets ---


async def test_a_budget_is_set_told_and_removed(gateway: Any) -> None:
    of_this = sums("40", project="default", workflow="review")
    others = [
        sums("7", project="default", workflow="other"),
        sums("9", "EUR", project="default", workflow="review"),
        sums("11", project="another", workflow="review"),
    ]
    gateway.costs.found["project", "workflow"] = CostSums([], [of_this, *others], more=False)
    tagged = sums("101", project="default", tag="team:a")
    gateway.costs.found["project", "tag"] = CostSums([], [tagged], more=False)

    async def put(name: str, **body: Any) -> Any:
        response = await gateway.client.put(f"/api/budgets/{name}", json=body)
        assert response.status == 200, await response.text()
        return await response.json()

    assert await put("reviews", amount="100", workflow="review", setBy="ann") == {
        "name": "reviews",
        "project": "default",
        "workflow": "review",
        "tag": None,
        "amount": "100",
        "currency": "USD",
        "month": "2026-11",
        "monthToDate": "40",
        "forecast": "120",
        "usedPercent": "40",
        "state": "AT_RISK",
        "setAt": "2026-11-11T00:00:00Z",
        "setBy": "ann",
    }
    await put("a-team", amount="100.50", tag="team:a")
    await put("all", amount="1000")
    await put("reviews", amount="200", workflow="review")
    listed = (await (await gateway.client.get("/api/budgets")).json())["budgets"]
    assert [(b["name"], b["amount"], b["monthToDate"], b["state"]) for b in listed] == [
        ("a-team", "100.5", "101", "EXCEEDED"),
        ("all", "1000", "47", "WITHIN"),
        ("reviews", "200", "40", "WITHIN"),
    ]
    assert {asked[0][:2] for asked in gateway.costs.asked} == {(ms(2026, 11, 1), ms(2026, 12, 1))}
    assert (await gateway.client.delete("/api/budgets/all")).status == 200
    assert (await gateway.client.get("/api/budgets/all")).status == 404
    assert (await gateway.client.delete("/api/budgets/all")).status == 404


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "'amount' is None"),
        ({"amount": 2.5}, "'amount' is 2.5: write it as a text"),
        ({"amount": "-1"}, "'amount' is '-1'"),
        ({"amount": "0"}, "'amount' is '0'"),
        ({"amount": "1e3"}, "'amount' is '1e3'"),
        ({"amount": "1", "currency": "dollars"}, "'currency' is 'dollars'"),
        ({"amount": "1", "workflow": "a", "tag": "b"}, "not of both"),
        ({"amount": "1", "tag": "a b"}, "no name of a tag"),
        ({"amount": "1", "per": "day"}, "unknown field 'per'"),
    ],
)
async def test_a_budget_that_means_nothing_is_refused(gateway: Any, body: Any, text: str) -> None:
    response = await gateway.client.put("/api/budgets/mine", json=body)
    assert response.status == 400
    assert text in (await response.json())["detail"]
    assert gateway.budgets.all() == []


@pytest.mark.parametrize(
    ("spent", "now", "forecast", "state"),
    [
        ("0", ms(2026, 11, 1), "0", BudgetState.WITHIN),
        ("2", ms(2026, 11, 1, 0, 1), "60", BudgetState.WITHIN),  # as on a whole first day
        ("10", ms(2026, 11, 4), "100", BudgetState.WITHIN),
        ("10.01", ms(2026, 11, 4), "100.1", BudgetState.AT_RISK),
        ("100", ms(2026, 11, 30, 23, 59), "100.002315", BudgetState.AT_RISK),
        ("100.000000000001", ms(2026, 12, 1) - 1, "100.000000038581", BudgetState.EXCEEDED),
    ],
)
def test_the_forecast_is_a_straight_line(
    spent: str, now: int, forecast: str, state: BudgetState
) -> None:
    found = standing(Decimal(100), Decimal(spent), now)
    assert found.state is state
    assert abs(found.forecast - Decimal(forecast)) < Decimal("0.000001")
    assert found.spent == Decimal(spent) <= found.forecast


def test_months_are_of_utc() -> None:
    assert month_of(ms(2027, 1, 1) - 1) == (ms(2026, 12, 1), ms(2027, 1, 1))
    assert month_of(ms(2028, 2, 29)) == (ms(2028, 2, 1), ms(2028, 3, 1))

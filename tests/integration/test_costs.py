"""What costs add up to on a real store: exact, by whatever they are added up, and as FOCUS rows."""

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, Final, get_args

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from small_log import Record

from sinks import focus, schema
from sinks.clickhouse import open_store
from sinks.costs import CostFilter, Costs, Dimension
from sinks.recording import LogRecord, Recording
from sinks.store import Store
from streams import codec, topics
from streams.cost import Cost
from streams.events import Decision, NodeSucceeded, RunStarted
from streams.records import RunStatus, Trigger

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
EXACT: Final = Context(prec=60)
DAY: Final = 86_400_000
BEGAN: Final = 1_790_000_000_000
"""2026-09-21T14:13:20Z"""
TAGS: Final = {("shop", 1): ("team:a", "nightly"), ("shop", 2): ("team:b",), ("stock", 1): ()}
"""The tags of a workflow's version."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    path: Path = tmp_path_factory.mktemp("chdb")
    store = await open_store(f"chdb://{path}")
    await schema.apply(store)
    yield store
    await store.close()


async def never(_record: LogRecord, error: Exception) -> None:
    raise AssertionError(error)


# --- a ledger, as the log tells it, and the same added up here ---

numbers = st.decimals(0, 10**12 - 1, places=12)
costs = st.builds(
    Cost,
    kind=st.sampled_from(["compute", "tokens", "api"]),
    source=st.sampled_from(["scanner", "linter", "provider"]),
    model=st.sampled_from(["", "small", "large"]),
    quantity=numbers,
    unit=st.just("unit"),
    unit_price=numbers,
    amount=numbers,
    currency=st.sampled_from(["USD", "EUR"]),
    price_version=st.just("1"),
)
attempts = st.tuples(
    st.integers(0, 70 * DAY), st.sampled_from(["a", "b"]), st.lists(costs, max_size=4).map(tuple)
)
runs = st.tuples(st.sampled_from(sorted(TAGS)), st.lists(attempts, max_size=5))
ledgers = st.lists(runs, max_size=6)
groupings = st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=4)

Ledger = Sequence[tuple[tuple[str, int], Sequence[tuple[int, str, tuple[Cost, ...]]]]]


def on_the_log(ledger: Ledger) -> list[Record]:
    records: list[Record] = []
    for number, ((workflow, version), spent) in enumerate(ledger):
        started = RunStarted(
            trigger=Trigger(id="1", source="/test", type="manual", data=Raw(b"{}")),
            nodes=2,
            deadline=BEGAN + 90 * DAY,
            tags=TAGS[workflow, version],
        )
        told: list[tuple[int, Any]] = [(BEGAN, started)]
        for attempt, (later, node, paid) in enumerate(spent, 1):
            done = NodeSucceeded(
                node=node,
                attempt=attempt,
                output=Raw(b"1"),
                started_at=BEGAN,
                finished_at=BEGAN,
                costs=paid,
            )
            told.append((BEGAN + later, done))
        for seq, (at, event) in enumerate(told):
            decision = Decision(
                run=f"run-{number}",
                project="default",
                workflow=workflow,
                version=version,
                seq=seq,
                at=at,
                status=RunStatus.RUNNING,
                previous=RunStatus.RUNNING if seq else RunStatus.PENDING,
                events=(event,),
            )
            offset = len(records)
            value = codec.encode(decision)
            records.append(Record(topics.EVENTS, 0, offset, at, b"k", value, ()))
    return records


def flat(ledger: Ledger) -> list[dict[str, Any]]:
    """Every cost with all that it can be added up by; `tags` in the place of `tag`."""
    found = []
    for number, ((workflow, version), spent) in enumerate(ledger):
        for later, node, paid in spent:
            at = datetime.fromtimestamp((BEGAN + later) / 1000, UTC)
            agent = next((cost.source for cost in paid if cost.kind == "compute"), "")
            found += [
                {
                    "month": at.date().replace(day=1),
                    "day": at.date(),
                    "project": "default",
                    "workflow": workflow,
                    "version": version,
                    "run": f"run-{number}",
                    "node": node,
                    "agent": agent,
                    "kind": cost.kind,
                    "source": cost.source,
                    "model": cost.model,
                    "tags": TAGS[workflow, version] or ("",),
                    "currency": cost.currency,
                    "amount": cost.amount,
                    "at": BEGAN + later,
                }
                for cost in paid
            ]
    return found


def added_up(spent: Sequence[Mapping[str, Any]], by: Sequence[str]) -> dict[Any, Decimal]:
    """The sums by these names and the currency; a cost counts for each of its tags."""
    sums: dict[Any, Decimal] = {}
    for cost in spent:
        for tag in cost["tags"] if "tag" in by else ("",):
            key = (*(tag if name == "tag" else cost[name] for name in by), cost["currency"])
            sums[key] = EXACT.add(sums.get(key, Decimal(0)), cost["amount"])
    return sums


def keyed(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> dict[Any, Decimal]:
    found = {(*(row[name] for name in by), row["currency"]): row["amount"] for row in rows}
    assert len(found) == len(rows)
    return found


async def recorded(store: Store, ledger: Ledger) -> Costs:
    for table in ("events", "runs_log", "agent_runs_log", "costs_log"):
        await store.command(f"TRUNCATE TABLE {table}")
    recording = Recording(store, topics.EVENTS, never)
    log = on_the_log(ledger)
    await recording.resume([0])
    await recording.record(log)
    # Once more, as after a crash before the events were inserted: nothing may count twice.
    await store.command("TRUNCATE TABLE events")
    again = Recording(store, topics.EVENTS, never)
    await again.resume([0])
    await again.record(log)
    return Costs(store)


slow = settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # each example fills a store: shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@slow
@given(ledger=ledgers, by=groupings)
async def test_sums_by_anything_are_those_of_the_events(
    store: Store, ledger: Ledger, by: list[Dimension]
) -> None:
    spent = flat(ledger)
    found = await (await recorded(store, ledger)).sums(CostFilter(), by, 10_000)
    assert keyed(found.totals, ()) == added_up(spent, ())
    assert keyed(found.groups, by) == (added_up(spent, by) if by else {})
    assert not found.more
    for row in (*found.totals, *found.groups):
        kinds = (row["compute"], row["tokens"], row["api"])
        assert EXACT.add(EXACT.add(kinds[0], kinds[1]), kinds[2]) == row["amount"]
    if by and "tag" not in by:  # nothing is in two groups
        for total in found.totals:
            summed = Decimal(0)
            for row in found.groups:
                if row["currency"] == total["currency"]:
                    summed = EXACT.add(summed, row["amount"])
            assert summed == total["amount"]


@slow
@given(ledger=ledgers, begin=st.integers(0, 70 * DAY), length=st.integers(1, 70 * DAY))
async def test_a_filter_lets_through_what_it_says(
    store: Store, ledger: Ledger, begin: int, length: int
) -> None:
    costs = await recorded(store, ledger)
    first, last = BEGAN + begin, BEGAN + begin + length
    for name, value in (
        ("workflow", "shop"),
        ("tag", "nightly"),
        ("kind", "api"),
        ("run", "run-0"),
    ):
        wanted = CostFilter(first, last, **{name: value})
        spent = [
            cost
            for cost in flat(ledger)
            if first <= cost["at"] < last
            and value in (cost["tags"] if name == "tag" else (cost[name],))
        ]
        found = await costs.sums(wanted, ["day"], 10_000)
        assert keyed(found.groups, ["day"]) == added_up(spent, ["day"])
        assert keyed(found.totals, ()) == added_up(spent, ())
        rows = [row async for page in costs.entries(wanted) for row in page]
        assert sorted(row["amount"] for row in rows) == sorted(cost["amount"] for cost in spent)


def a_cost(amount: str, **fields: Any) -> Cost:
    exact = Decimal(amount)
    known = {"kind": "compute", "source": "scanner", "unit": "minute", **fields}
    return Cost(quantity=exact, unit_price=Decimal(1), amount=exact, **known)


@slow
@given(ledger=ledgers, by=groupings, limit=st.integers(1, 5))
async def test_pages_of_sums_are_all_of_them_with_the_same_totals(
    store: Store, ledger: Ledger, by: list[Dimension], limit: int
) -> None:
    costs = await recorded(store, ledger)
    whole = await costs.sums(CostFilter(), by, 10_000)
    groups, skip, more = [], 0, True
    while more:
        page = await costs.sums(CostFilter(), by, limit, skip)
        assert page.totals == whole.totals
        assert len(page.groups) <= limit
        groups += page.groups
        skip, more = skip + limit, page.more
    assert groups == whole.groups


async def test_groups_beyond_the_limit_are_in_the_totals(store: Store) -> None:
    ledger: Ledger = [(("stock", 1), [(0, "a", (a_cost(str(n)),))]) for n in (1, 3, 2)]
    found = await (await recorded(store, ledger)).sums(CostFilter(), ["run"], 2)
    assert [(row["run"], row["amount"]) for row in found.groups] == [("run-1", 3), ("run-2", 2)]
    assert found.more
    assert [(row["amount"], row["entries"]) for row in found.totals] == [(6, 3)]


async def test_an_export_has_every_cost_once_over_all_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.costs._PAGE", 4)
    paid = tuple(a_cost("0.1", kind="api", source=f"api {n}", unit="request") for n in range(7))
    ledger: Ledger = [(("shop", 1), [(0, "a", paid)]), (("stock", 1), [(DAY, "b", paid[:3])])]
    costs = await recorded(store, ledger)
    content = focus.heading()
    async for page in costs.entries(CostFilter()):
        assert len(page) <= 4
        content += focus.lines(page)
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert len({(row["x_EventId"], row["x_EventEntry"]) for row in rows}) == len(rows) == 10
    assert sum(Decimal(row["BilledCost"]) for row in rows) == 1


async def test_a_cost_in_the_columns_of_focus(store: Store) -> None:
    cost = Cost(
        kind="tokens",
        source="provider",
        model="small",
        quantity=Decimal(1200),
        unit="input_token",
        unit_price=Decimal("0.0000005"),
        amount=Decimal("0.0006"),
        price_version="2026-09-01",
    )
    costs = await recorded(store, [(("shop", 1), [(0, "a", (a_cost("0.5"), cost))])])
    content = focus.heading()
    async for page in costs.entries(CostFilter(kind="tokens")):
        content += focus.lines(page)
    (row,) = csv.DictReader(io.StringIO(content.decode(), newline=""))
    assert row == {
        "BilledCost": "0.0006",
        "BillingAccountId": "commandcenter",
        "BillingAccountName": "CommandCenter",
        "BillingAccountType": "Deployment",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": "2026-10-01T00:00:00Z",
        "BillingPeriodStart": "2026-09-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": "tokens of provider: 1200 input_token in attempt 1 at a of workflow"
        " shop",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-09-21T15:00:00Z",
        "ChargePeriodStart": "2026-09-21T14:00:00Z",
        "ConsumedQuantity": "1200",
        "ConsumedUnit": "input_token",
        "ContractedCost": "0.0006",
        "ContractedUnitPrice": "0.0000005",
        "EffectiveCost": "0.0006",
        "InvoiceIssuerName": "provider",
        "ListCost": "0.0006",
        "ListUnitPrice": "0.0000005",
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingQuantity": "1200",
        "PricingUnit": "input_token",
        "ProviderName": "provider",
        "PublisherName": "provider",
        "ResourceId": "run-0",
        "ResourceName": "shop",
        "ResourceType": "Workflow run",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "small",
        "ServiceSubcategory": "Generative AI",
        "SkuId": "provider/small/input_token",
        "SkuPriceId": "provider/small/input_token@2026-09-01",
        "SubAccountId": "default",
        "SubAccountName": "default",
        "SubAccountType": "Project",
        "Tags": '{"team:a":true,"nightly":true}',
        "x_Agent": "scanner",
        "x_Attempt": "1",
        "x_EventEntry": "1",
        "x_EventId": "run-0/1",
        "x_Item": "",
        "x_Kind": "tokens",
        "x_Model": "small",
        "x_Node": "a",
        "x_PriceVersion": "2026-09-01",
        "x_Workflow": "shop",
        "x_WorkflowVersion": "1",
    }


async def test_guests_ask_for_costs_by_tag(store: Store) -> None:
    await recorded(store, [((name, v), [(0, "a", (a_cost("2"),))]) for name, v in sorted(TAGS)])
    rows = await store.query_readonly(
        "SELECT tag, sum(amount) FROM costs JOIN workflow_tags USING (project, workflow, version)"
        " ARRAY JOIN tags AS tag GROUP BY tag ORDER BY tag"
    )
    assert [tuple(row) for row in rows.rows] == [("nightly", 2), ("team:a", 2), ("team:b", 2)]
    runs = await store.query_readonly("SELECT tags FROM runs ORDER BY run_id")
    assert [tuple(row[0]) for row in runs.rows] == [TAGS[key] for key in sorted(TAGS)]

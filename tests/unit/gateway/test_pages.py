"""Lists come in pages: each entry is on one of them, in the order of the whole."""

import itertools
from decimal import Decimal
from typing import Any

import pytest
from story import Story

from sinks.costs import CostSums
from streams.cost import Cost
from streams.records import Failure

WORK = {"agent": "scanner", "action": "scan"}


def spent(number: int) -> Cost:
    exact = Decimal(number)
    return Cost(
        kind="api", source="maps", quantity=exact, unit="request", unit_price=Decimal(1),
        amount=exact,
    )  # fmt: skip


async def fill(gateway: Any) -> str:
    """Five of everything that there are lists of; gives the run."""
    for number in range(5):
        for name in ("all", f"w{number}"):
            nodes = [{"id": f"n{number}", **WORK}]
            answer = await gateway.client.post(
                "/api/workflows", json={"name": name, "project": f"p{number % 2}", "nodes": nodes}
            )
            assert answer.status == 201
        gateway.serve_agent(f"agent{number}", "act")
        answer = await gateway.client.put(f"/api/budgets/b{number}", json={"amount": "1"})
        assert answer.status == 200
    nodes = [{"id": name, **WORK} for name in ("n", "d", "c", "b", "a")]
    story = Story({"name": "w", "nodes": nodes}).start()
    story.answer("n", 1, costs=tuple(map(spent, range(1, 6))))
    gateway.reads.rows[story.run] = story.rows()
    return story.run


async def pages(gateway: Any, path: str, entries: str, **query: str) -> list[Any]:
    found = []
    cursor: dict[str, str] = {}
    while True:
        answer = await gateway.client.get(path, params={**query, **cursor})
        assert answer.status == 200, await answer.text()
        page = await answer.json()
        found.append(page[entries])
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


@pytest.mark.parametrize(
    ("path", "entries", "count"),
    [
        ("/api/workflows", "workflows", 7),
        ("/api/workflows/all?project=p0", "versions", 3),
        ("/api/agents", "agents", 6),
        ("/api/budgets", "budgets", 5),
        ("/api/runs/{run}/costs", "costs", 5),
        ("/api/runs/{run}", "steps", 5),
    ],
)
async def test_the_pages_of_a_list_are_the_list(
    gateway: Any, path: str, entries: str, count: int
) -> None:
    path = path.format(run=await fill(gateway))
    [whole] = await pages(gateway, path, entries)
    assert len(whole) == count
    parts = await pages(gateway, path, entries, limit="2")
    assert list(itertools.chain(*parts)) == whole
    assert [len(part) for part in parts] == [2] * (count // 2) + [1] * (count % 2)
    for wrong in ("limit=0", "limit=201", "cursor=zzz"):
        more = "&" if "?" in path else "?"
        assert (await gateway.client.get(f"{path}{more}{wrong}")).status == 400


async def test_a_run_has_a_page_of_its_steps_and_all_else_on_every_page(gateway: Any) -> None:
    nodes = [{"id": f"n{number}", **WORK} for number in range(201)]
    story = Story({"name": "w", "nodes": nodes}).start()
    gateway.reads.rows[story.run] = story.rows()
    path = f"/api/runs/{story.run}"
    first = await (await gateway.client.get(path)).json()
    assert [step["id"] for step in first["steps"]] == [f"n{number}" for number in range(200)]
    last = await (await gateway.client.get(path, params={"cursor": first["next"]})).json()
    assert ([step["id"] for step in last["steps"]], last["next"]) == (["n200"], None)
    apart = {"steps": 0, "next": 0}
    assert last | apart == first | apart
    async with gateway.client.ws_connect("/api/stream") as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "filter": {"run": story.run}})
        shown = (await socket.receive_json())["run"]
    assert (shown["steps"], shown["next"]) == (first["steps"], first["next"])


@pytest.mark.parametrize("items", [101, 600])
async def test_a_run_that_waits_for_many_names_the_first_and_says_so(
    gateway: Any, items: int
) -> None:
    """Read by all of its events, or by those that are needed."""
    node = {"id": "n", **WORK, "forEach": list(range(items)), "maxParallel": 1_000}
    story = Story({"name": "w", "nodes": [node]}).start()
    asks = Failure(kind="approval_required", message="may I?")
    for more, item in ((False, range(100)), (True, (100,))):
        for each in item:
            story.answer("n", item=each, failure=asks)
        gateway.reads.rows[story.run] = story.rows()
        run = await (await gateway.client.get(f"/api/runs/{story.run}")).json()
        assert run["waitingFor"] == [f"{story.run}:n.{number}" for number in range(100)]
        assert run["moreWaiting"] is more


async def test_the_totals_of_a_run_are_of_all_pages(gateway: Any) -> None:
    run = await fill(gateway)
    page = await (await gateway.client.get(f"/api/runs/{run}/costs?limit=2")).json()
    assert [cost["amount"] for cost in page["costs"]] == ["1", "2"]
    assert [total["amount"] for total in page["totals"]] == ["15"]


async def test_a_page_of_a_runs_costs_is_read_without_the_events_of_the_run(gateway: Any) -> None:
    run = await fill(gateway)
    page = await (await gateway.client.get(f"/api/runs/{run}/costs?limit=2")).json()
    gateway.reads.asked.clear()
    path = f"/api/runs/{run}/costs?limit=2&cursor={page['next']}"
    assert (await gateway.client.get(path)).status == 200
    last = gateway.reads.rows[run][-1].seq
    [charged] = [row.seq for row in gateway.reads.rows[run] if row.type == "node.succeeded"]
    assert ("costs", last, (charged, 1), 3) in gateway.reads.asked
    assert ("all", run) not in gateway.reads.asked


async def test_sums_of_costs_go_on_where_the_page_before_ended(gateway: Any) -> None:
    gateway.costs.found[("run",)] = CostSums([], [], more=True)
    first = await (await gateway.client.get("/api/costs?groupBy=run&limit=10")).json()
    assert first["more"]
    path = f"/api/costs?groupBy=run&limit=10&cursor={first['next']}"
    second = await (await gateway.client.get(path)).json()
    assert second["next"] not in (None, first["next"])
    gateway.costs.found[("run",)] = CostSums([], [], more=False)
    last = await (await gateway.client.get(f"{path[: path.rindex('=')]}={second['next']}")).json()
    assert (last["more"], last["next"]) == (False, None)
    assert [asked[2:] for asked in gateway.costs.asked] == [(10,), (10, 10), (10, 20)]
    assert (await gateway.client.get("/api/costs?cursor=LTE")).status == 400  # -1

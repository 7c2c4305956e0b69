"""On the real stack: what runs cost is the same everywhere, and who serves an agent is seen.

A gateway, workers and Kafka are the product's own processes.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from msgspec import Raw
from system import System
from watching import detail_where, end_of, get

from gateway.client import GatewayClient
from infra.verification import through_gateway, verify
from streams import codec, topics
from streams.registry import AgentRecord

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

SECRET = "a secret of eleven words"
BILL = {"agent": "billing", "action": "bill", "inputs": {"fail": "{{ context.fail }}"}}
WORKFLOW: dict[str, Any] = {
    "name": "billed",
    "tags": ["team:a", "nightly"],
    "nodes": [
        {"id": "first", **BILL, "retry": {"attempts": 2, "initialDelay": "10ms"}},
        {
            "id": "each",
            **BILL,
            "forEach": "{{ context.list }}",
            "inputs": {},
            "dependsOn": ["first"],
        },
    ],
}
GHOST = {"agent": "ghost", "action": "haunt"}


class Stack:
    def __init__(self, system: System, session: aiohttp.ClientSession) -> None:
        self.system = system
        self.session = session

    async def get(self, path: str) -> Any:
        return await get(self.session, path)

    async def post(self, path: str, body: Any) -> Any:
        async with self.session.post(path, json=body) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def sql(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.post("/api/sql", {"query": query}))["rows"]
        return rows

    async def run(self, workflow: str, context: Any) -> str:
        started = await self.post(f"/api/workflows/{workflow}/trigger", context)
        run: str = started["workflowRunId"]
        return run

    async def agent(self, name: str, reached: Callable[[Any], bool]) -> Any:
        """The agent once it is so: it is looked at with every sign of life of some worker."""
        consumer = AIOKafkaConsumer(topics.AGENTS, bootstrap_servers=self.system.bootstrap)
        async with asyncio.timeout(60), consumer:
            while True:
                known = {
                    agent["name"]: agent for agent in (await self.get("/api/agents"))["agents"]
                }
                if name in known and reached(known[name]):
                    return known[name]
                await consumer.getone()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    system = System(
        tmp_path_factory.mktemp("system"),
        agents=Path(__file__).parent,
        env={"COMMANDCENTER_SECRET_BILLING": SECRET, "COMMANDCENTER_HEARTBEAT": "0.2"},
    )
    await system.start_kafka()
    try:
        await system.start_gateway()
        await system.worker("billing_agent:billing")
        async with aiohttp.ClientSession(system.url) as session:
            made = Stack(system, session)
            await made.agent("billing", lambda agent: agent["alive"])
            yield made
    finally:
        await system.stop()


async def test_what_a_run_costs_is_the_same_everywhere(stack: Stack) -> None:
    await stack.post("/api/workflows", WORKFLOW)
    run = await stack.run("billed", {"fail": 1, "list": [1, 2]})
    detail = await end_of(stack.session, run)
    assert (detail["status"], detail["error"]) == ("SUCCESS", None)
    (total,) = detail["cost"]
    assert total["tokens"] == "0.0004"  # two attempts, two items
    assert Decimal(total["compute"]) > 0
    assert Decimal(total["amount"]) == Decimal(total["compute"]) + Decimal("0.0004")
    steps = {step["id"]: step for step in detail["steps"]}
    assert [steps[name]["cost"][0]["tokens"] for name in ("first", "each")] == ["0.0002", "0.0002"]

    listed = await stack.get(f"/api/runs/{run}/costs")
    assert listed["totals"] == detail["cost"]
    compute = [cost for cost in listed["costs"] if cost["kind"] == "compute"]
    assert {(c["source"], c["unitPrice"], c["priceVersion"]) for c in compute} == {
        ("billing", "6", "billing@4.2.0")
    }
    rows = await stack.sql(
        "SELECT toString(amount) AS amount, toString(tokens) AS tokens FROM run_costs"
        f" WHERE run_id = '{run}'"
    )
    assert [Decimal(row["amount"]) for row in rows] == [Decimal(total["amount"])]
    agents = await stack.sql(f"SELECT DISTINCT agent FROM costs WHERE run_id = '{run}'")
    assert agents == [{"agent": "billing"}]
    assert detail["tags"] == ["team:a", "nightly"]
    async with GatewayClient(stack.system.url) as client:
        asked = {"groupBy": "run,tag", "run": run}
        by_tag = await client.get("/api/costs", **asked)
        assert {group["key"]["tag"] for group in by_tag["groups"]} == {"team:a", "nightly"}
        assert {group["amount"] for group in by_tag["groups"]} == {total["amount"]}
        assert by_tag["totals"] == detail["cost"]
        exported: list[bytes] = []
        await client.download("/api/costs/export", exported.append, run=run)
        lines = list(csv.DictReader(io.StringIO(b"".join(exported).decode(), newline="")))
        assert len(lines) == 8
        assert sum(Decimal(line["BilledCost"]) for line in lines) == Decimal(total["amount"])
        made = (await client.put("/api/budgets/mine", {"amount": "9", "tag": "nightly"})).value
        assert made["monthToDate"] == total["amount"]
        assert (await client.get("/api/budgets"))["budgets"] == [made]
        await client.delete("/api/budgets/mine")
        assert (await client.get("/api/budgets"))["budgets"] == []
        verdict = await verify(
            stack.system.bootstrap, through_gateway(client), settled=True, within=20
        )
    assert verdict.differences == ()
    assert verdict.counts["costs"] == 8

    blob = steps["first"]["output"]["report"]
    async with aiohttp.ClientSession() as session:
        address = f"{stack.system.url}/api/runs/{run}/payloads/{blob['blob']}"
        async with session.get(address) as response:
            assert await response.read() == b"paid"
    assert steps["first"]["output"]["secret"] == len(SECRET)
    events = await stack.sql(f"SELECT payload FROM events WHERE run_id = '{run}'")
    assert SECRET not in str(events)
    assert "not yet with ***" in str(events)


async def test_who_serves_an_agent_is_seen_and_who_is_gone(stack: Stack) -> None:
    (worker,) = (await stack.agent("billing", lambda agent: agent["alive"]))["workers"]
    assert (worker["version"], worker["capacity"]) == ("4.2.0", 7)
    second = await stack.system.worker("billing_agent:billing")
    both = await stack.agent("billing", lambda agent: len(agent["workers"]) == 2)
    assert both["capacity"] == 14
    await stack.system.kill(second)
    await stack.agent("billing", lambda agent: len(agent["workers"]) == 1)
    third = await stack.system.worker("billing_agent:billing")
    await stack.agent("billing", lambda agent: len(agent["workers"]) == 2)
    await third.stop(20)
    await stack.agent("billing", lambda agent: len(agent["workers"]) == 1)


async def test_a_task_that_nobody_serves_waits_visibly_and_not_for_ever(stack: Stack) -> None:
    # An agent that was served once: else the definition would be refused.
    record = AgentRecord(
        name="ghost",
        version="1",
        worker="gone/1",
        registered_at=1,
        descriptor=Raw(b'{"name":"ghost","actions":[{"name":"haunt"}]}'),
    )
    producer = AIOKafkaProducer(bootstrap_servers=stack.system.bootstrap)
    await producer.start()
    await producer.send_and_wait(topics.AGENTS, codec.encode(record), key=b"ghost")
    await producer.stop()
    assert not (await stack.agent("ghost", lambda _: True))["alive"]

    node = {"id": "haunt", **GHOST, "startTimeout": "3s"}
    await stack.post("/api/workflows", {"name": "haunted", "nodes": [node]})
    run = await stack.run("haunted", {})

    def waits(detail: Any) -> bool:
        return any(step["status"] == "RUNNING" for step in detail["steps"])

    detail = await detail_where(stack.session, run, waits)
    (step,) = detail["steps"]
    assert step["unserved"] == "no worker serves agent 'ghost' now; start one that does"
    detail = await end_of(stack.session, run)
    (step,) = detail["steps"]
    assert (detail["status"], step["error"]["kind"]) == ("FAILED", "not_started")
    assert step["unserved"] is None
    assert detail["cost"] == []

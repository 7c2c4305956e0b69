"""A gateway over fakes: what is asked of Kafka is kept in lists, what is recorded is given."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.agents_view import AgentsView
from gateway.app import new_app
from gateway.budget_reader import BudgetReader
from gateway.log_writer import Place
from gateway.reads import (
    ApprovalQuery,
    AttemptPlace,
    EventQuery,
    ItemQuery,
    LastEvent,
    RunQuery,
)
from gateway.run_costs import ItemsCost, KindCost, RunCost, plain
from gateway.run_detail import EventRow
from gateway.run_views import AgentRunView, ApprovalView, CostView, RunView
from gateway.services import AGENTS, BUDGETS, CATALOG, COSTS, READS, WRITER, Services
from sinks.costs import CostFilter, CostSums, Dimension
from streams import codec
from streams.blob_store import BlobStore
from streams.catalog import Catalog
from streams.errors import OperatorError
from streams.registry import AgentRecord


class FakeReads:
    """A recorded history that a test fills."""

    def __init__(self) -> None:
        self.recorded: dict[int, int] = {}
        self.log: dict[int, list[bytes]] = {}
        self.rows: dict[str, list[EventRow]] = {}
        self.run_views: list[RunView] = []
        self.asked: list[Any] = []
        self.attempts: list[AgentRunView] = []
        self.approval_views: list[ApprovalView] = []
        self.on_read: Callable[[], Awaitable[None]] | None = None
        self.on_watermark: Callable[[], Awaitable[None]] | None = None

    async def watermark(self) -> Mapping[int, int]:
        if self.on_watermark is not None:
            await self.on_watermark()
        return dict(self.recorded)

    async def decisions(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        return [(o, self.log[partition][o]) for o in range(start, end)][:limit]

    async def runs(self, query: RunQuery) -> Sequence[RunView]:
        self.asked.append(query)
        return self.run_views[: query.limit]

    async def run_events(self, run: str) -> Sequence[EventRow]:
        self.asked.append(("all", run))
        return await self._events(run)

    async def _events(self, run: str) -> Sequence[EventRow]:
        if self.on_read is not None:
            await self.on_read()
        return self.rows.get(run, [])

    async def events(self, query: EventQuery) -> Sequence[EventRow]:
        self.asked.append(query)
        return [row for rows in self.rows.values() for row in rows][: query.limit]

    async def run_events_page(self, run: str, start: int, limit: int) -> Sequence[EventRow]:
        return [row for row in await self._events(run) if row.seq >= start][:limit]

    async def newest_run_events(
        self, run: str, before: int | None, limit: int
    ) -> Sequence[EventRow]:
        rows = [r for r in await self._events(run) if before is None or r.seq < before]
        return rows[::-1][:limit]

    async def agent_runs(
        self, run: str, after: AttemptPlace | None, limit: int
    ) -> Sequence[AgentRunView]:
        self.asked.append(after)
        return [attempt for attempt in self.attempts if attempt.run == run][:limit]

    async def events_naming(self, run: str, digest: str) -> Sequence[EventRow]:
        return [r for r in self.rows.get(run, []) if digest.encode() in r.payload]

    async def repetitions(self, run: str, _since: datetime | None) -> Sequence[str]:
        begins = {each: msgspec.json.decode(rows[0].payload) for each, rows in self.rows.items()}
        return [
            each for each, began in begins.items() if (began.get("origin") or {}).get("run") == run
        ]

    async def fan_outs(self, run: str) -> Sequence[EventRow]:
        return [row for row in self.rows[run] if row.type == "node.fannedOut"]

    async def item_events(
        self, run: str, node: str, until: int, items: Sequence[int]
    ) -> Sequence[EventRow]:
        return [row for row in self.rows[run] if _item(row, node, until) in items]

    async def run_story(self, run: str, until: int) -> Sequence[EventRow]:
        newest: dict[Any, EventRow] = {}
        for row in await self._events(run):
            event = msgspec.json.decode(row.payload)
            if row.seq <= until and event.get("item") is None:
                newest[event["node"] if row.type == "node.progressed" else row.seq] = row
        return sorted(newest.values(), key=lambda row: row.seq)

    async def item_counts(self, run: str, until: int, node: str = "") -> Sequence[LastEvent]:
        names = [node] if node else self._nodes_with_items(run)
        return [
            LastEvent(name, type_, reused, 1)
            for name in names
            for type_, reused in self._lasts(run, name, until).values()
        ]

    async def item_costs(self, run: str, until: int) -> Sequence[ItemsCost]:
        found = []
        for node in self._nodes_with_items(run):
            for row in self.rows[run]:
                if _item(row, node, until) is not None:
                    costs = msgspec.json.decode(row.payload).get("costs", ())
                    found += [
                        ItemsCost(node, c.get("currency", "USD"), c["kind"], Decimal(c["amount"]))
                        for c in costs
                    ]
        return found

    async def run_cost_sums(self, run: str, until: int) -> Sequence[KindCost]:
        every = await self.run_costs(run, until, None, 10**6)
        return [KindCost(c.view.currency, c.view.kind, Decimal(c.view.amount)) for c in every]  # type: ignore[arg-type]  # it is one

    async def run_costs(
        self, run: str, until: int, after: tuple[int, int] | None, limit: int
    ) -> Sequence[RunCost]:
        self.asked.append(("costs", until, after, limit))
        found = []
        for row in self.rows[run]:
            event = msgspec.json.decode(row.payload)
            about = {"node": event.get("node"), "item": event.get("item")}
            for entry, cost in enumerate(event.get("costs", ())):
                if row.seq <= until and (after is None or (row.seq, entry) > after):
                    exact = {
                        n: plain(Decimal(cost[n])) for n in ("quantity", "unitPrice", "amount")
                    }
                    more = {"currency": "USD", "attempt": event["attempt"]}
                    view = msgspec.convert({**more, **about, **cost, **exact}, CostView)
                    found.append(RunCost(row.seq, entry, view))
        return found[:limit]

    async def item_outputs(self, run: str, until: int, nodes: Sequence[str]) -> Sequence[EventRow]:
        ended = ("node.succeeded", "node.reused")
        return [
            row
            for row in self.rows[run]
            if row.type in ended and any(_item(row, node, until) is not None for node in nodes)
        ]

    def _nodes_with_items(self, run: str) -> list[str]:
        rows = [row for row in self.rows[run] if row.type == "node.fannedOut"]
        return [msgspec.json.decode(row.payload)["node"] for row in rows]

    async def items(self, query: ItemQuery) -> Sequence[int]:
        lasts = self._lasts(query.run, query.node, query.until)
        places = range(query.start, query.start + query.span)
        return [n for n in places if lasts.get(n, ("",))[0] in query.types][: query.limit]

    def _lasts(self, run: str, node: str, until: int) -> dict[int, tuple[str, bool]]:
        found: dict[int, tuple[str, bool]] = {}
        for row in self.rows[run]:
            item = _item(row, node, until)
            if item is not None:
                reused = row.type == "node.reused" or found.get(item, ("", False))[1]
                found[item] = (row.type, reused)
        return found

    async def approvals(self, query: ApprovalQuery) -> Sequence[ApprovalView]:
        self.asked.append(query)
        return self.approval_views[: query.limit]


def _item(row: EventRow, node: str, until: int) -> int | None:
    event = msgspec.json.decode(row.payload)
    found: int | None = event.get("item") if event.get("node") == node else None
    return found if row.seq <= until else None


class FakeProducer:
    """Keeps what is sent; the catalog reader beside it reads it back."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.on_send: Callable[[str, bytes], None] = lambda _topic, _value: None

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> None:
        self.sent.append((topic, key, value))
        self.on_send(topic, value)


class FakeWriter:
    """A log that takes everything, or is away."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, bytes, list[tuple[str, bytes]]]] = []
        self.fake_producer = FakeProducer()
        self.is_away = False
        self.on_put: Callable[[bytes | None, bytes | None], None] = lambda _key, _value: None

    async def producer(self) -> FakeProducer:
        return self.fake_producer

    async def write(
        self, topic: str, key: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Place:
        await self.ping()
        self.written.append((topic, key, value, list(headers)))
        return Place(topic, 0, len(self.written) - 1)

    async def put(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None
    ) -> Place:
        await self.ping()
        self.on_put(key, value)
        return Place(topic, partition, 0)

    async def ping(self) -> None:
        if self.is_away:
            raise OperatorError("Kafka does not answer")


class FakeCatalogReader:
    """A catalog that reads what the fake producer sends."""

    trouble = ""

    def __init__(self) -> None:
        self.catalog = Catalog()

    async def caught_up(self) -> None:
        await asyncio.sleep(0)

    def take(self, _topic: str, value: bytes) -> None:
        self.catalog.apply(codec.catalog.decode(value))


class FakeAgents(AgentsView):
    """The agents view without its topic."""

    trouble = ""

    async def caught_up(self) -> None:
        await asyncio.sleep(0)


class FakeCosts:
    """Costs as a test says that they are in the store."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.found: dict[Any, CostSums] = {}
        self.pages: list[list[dict[str, Any]]] = []
        self.fault: OperatorError | None = None

    async def sums(
        self, wanted: CostFilter, by: Sequence[Dimension], limit: int, skip: int = 0
    ) -> CostSums:
        self.asked.append((wanted, tuple(by), limit, *([skip] if skip else ())))
        return self.found.get(tuple(by), CostSums([], [], more=False))

    async def entries(self, wanted: CostFilter) -> AsyncGenerator[Sequence[dict[str, Any]], None]:
        self.asked.append((wanted,))
        for page in self.pages:
            yield page
        if self.fault is not None:
            raise self.fault


class FakeBudgets(BudgetReader):
    """The budgets without their topic."""

    trouble = ""

    async def caught_up(self) -> None:
        await asyncio.sleep(0)


class FakeStore:
    """A store that answers pings."""

    fault: str = ""

    async def ping(self) -> None:
        if self.fault:
            raise OperatorError(self.fault)


class Gateway:
    """The client, and the fakes behind it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.store = FakeStore()
        self.blobs = BlobStore(str(folder), 64 * 1024 * 1024)
        self.services = Services(
            bootstrap="nowhere:1",
            store=self.store,  # type: ignore[arg-type]  # only what these tests need
            blobs=self.blobs,
            log_id="log",
            **settings,
        )
        self.reads = FakeReads()
        self.writer = FakeWriter()
        self.catalog = FakeCatalogReader()
        self.writer.fake_producer.on_send = self.catalog.take
        self.agents = FakeAgents("nowhere:1")
        self.budgets = FakeBudgets("nowhere:1")
        self.writer.on_put = self.budgets.apply
        self.costs = FakeCosts()
        app = self.app = new_app(self.services)
        app[READS] = self.reads
        app[WRITER] = self.writer  # type: ignore[misc]  # a fake
        app[CATALOG] = self.catalog  # type: ignore[misc]  # a fake
        app[AGENTS] = self.agents
        app[BUDGETS] = self.budgets
        app[COSTS] = self.costs  # type: ignore[misc]  # a fake
        self.client: TestClient[Any, Any] = TestClient(TestServer(app))

    def serve_agent(self, name: str, *actions: str, **fields: Any) -> None:
        descriptor = {"name": name, "actions": [{"name": each, **fields} for each in actions]}
        record = AgentRecord(
            name=name,
            version="1",
            worker="w",
            registered_at=0,
            descriptor=msgspec.Raw(msgspec.json.encode(descriptor)),
        )
        self.agents.apply(name.encode(), codec.encode(record))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path)
    gateway.serve_agent("scanner", "scan")
    await gateway.client.start_server()
    yield gateway
    await gateway.client.close()

"""The gateway on real Kafka and chDB; the run core decides here in place of a worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from gateway.live import LiveTail
from gateway.server import serving
from gateway.services import Services
from infra.topic_admin import ensure_topics
from sinks import schema
from sinks.clickhouse import open_store
from sinks.recorder import Recorder
from sinks.recording import LogRecord
from streams import codec
from streams.blob_store import BlobStore
from streams.lifecycle import RunState
from streams.messages import DeadLetter, Message, Result, Start
from streams.outbox import partition_of
from streams.plan import Plan, parse
from streams.registry import AgentRecord
from streams.run import decide
from streams.topics import AGENTS, DEAD_LETTERS, EVENTS, INBOX, TOPICS, TRIGGERS
from streams.trigger import from_kafka

PARTITIONS = 4


class Stack:
    """A serving gateway, and what a worker would do beside it."""

    def __init__(
        self,
        bootstrap: str,
        session: aiohttp.ClientSession,
        producer: AIOKafkaProducer,
        recorder: Recorder,
    ) -> None:
        self.bootstrap = bootstrap
        self.session = session
        self.producer = producer
        self.recorder = recorder
        self.states: dict[str, RunState] = {}

    async def serve_agent(self) -> None:
        descriptor = {"name": "scanner", "actions": [{"name": "scan"}]}
        record = AgentRecord(
            name="scanner",
            version="1",
            worker="w",
            registered_at=1,
            descriptor=msgspec.Raw(msgspec.json.encode(descriptor)),
        )
        await self.producer.send_and_wait(AGENTS, codec.encode(record), key=b"scanner")

    async def decide(self, message: Message, plan: Plan, at: int) -> None:
        """What the orchestrator makes of a message, published; nothing of it where it is none."""
        partition = partition_of(message.run, PARTITIONS)
        outcome = decide(self.states.get(message.run), message, at, plan, partition)
        if outcome.decision is None or outcome.state is None:
            return
        self.states[message.run] = outcome.state
        await self.producer.send_and_wait(
            EVENTS,
            codec.encode(outcome.decision),
            key=message.run.encode(),
            partition=partition,
        )

    async def newest(self, topic: str, partition: int) -> Any:
        """The last record of a partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            part = TopicPartition(topic, partition)
            consumer.assign([part])
            end = (await consumer.end_offsets([part]))[part]
            consumer.seek(part, end - 1)
            return await consumer.getone()
        finally:
            await consumer.stop()

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, **more) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture(params=["tap", "follow"])
async def stack(kafka: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    await ensure_topics(kafka, TOPICS, partitions=PARTITIONS, replication=1)
    async with AsyncExitStack() as exits:
        store = await open_store(f"chdb://{tmp_path / 'store'}")
        exits.push_async_callback(store.close)
        await schema.apply(store)
        tail = LiveTail()
        is_tap = request.param == "tap"

        async def bury(record: LogRecord, error: Exception) -> None:
            """Other tests may leave anything on the shared log."""

        recorder = Recorder(kafka, store, bury, on_records=tail.on_records if is_tap else None)
        running = asyncio.create_task(recorder.run())
        await asyncio.wait_for(recorder.ready.wait(), 30)
        producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
        await producer.start()
        exits.push_async_callback(producer.stop)
        services = Services(
            bootstrap=kafka,
            store=store,
            blobs=BlobStore(str(tmp_path / "blobs"), 64 * 1024 * 1024),
            tail=tail,
            follow_log=not is_tap,
            recorded=(lambda: {p: o + 1 for p, o in recorder.watermark.items()})
            if is_tap
            else None,
        )
        address = await exits.enter_async_context(serving(services, "127.0.0.1", 0))
        session = await exits.enter_async_context(aiohttp.ClientSession(address))
        stack = Stack(kafka, session, producer, recorder)
        await stack.serve_agent()
        yield stack
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def definition(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "trigger": {"event": "repo.push"},
        "nodes": [
            {"id": "scan", "agent": "scanner", "action": "scan"},
            {"id": "tell", "agent": "scanner", "action": "scan", "dependsOn": ["scan"]},
        ],
    }


async def test_from_definition_to_finished_run(stack: Stack) -> None:
    name = f"review-{uuid4().hex[:8]}"
    status, published = await stack.call("POST", "/api/workflows", json=definition(name))
    assert (status, published["version"]) == (201, 1), published
    status, published = await stack.call("POST", "/api/workflows", json=definition(name))
    assert (status, published["created"]) == (200, False)
    _, agents = await stack.call("GET", "/api/agents")
    assert "scanner" in [agent["name"] for agent in agents["agents"]]

    status, accepted = await stack.call(
        "POST", f"/api/workflows/{name}/trigger", json={"path": "/src"}
    )
    assert status == 202
    run = accepted["workflowRunId"]
    partition = partition_of(run, PARTITIONS)
    heard = await stack.newest(INBOX, partition)
    assert heard.key == run.encode()
    start = codec.messages.decode(heard.value)
    assert isinstance(start, Start)
    assert start.run == run

    plan = parse(definition(name))
    async with stack.session.ws_connect("/api/stream") as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "filter": {"workflow": name}})
        snapshot = await socket.receive_json()
        assert (snapshot["type"], snapshot["runs"]) == ("snapshot", [])
        await stack.decide(start, plan, 1_700_000_000_000)
        frame = await socket.receive_json()
        assert [d["seq"] for d in frame["decisions"]] == [0]
        resume = frame["cursor"]

    status, detail = await stack.call("GET", f"/api/runs/{run}")
    assert (status, detail["status"]) == (200, "RUNNING")
    assert [step["status"] for step in detail["steps"]] == ["RUNNING", "PENDING"]
    assert detail["trigger"]["data"] == {"path": "/src"}

    for node in ("scan", "tell"):
        result = Result(
            run=run,
            node=node,
            attempt=1,
            started_at=1_700_000_000_100,
            finished_at=1_700_000_000_350,
            output=msgspec.Raw(b'{"found":[]}'),
        )
        await stack.decide(result, plan, 1_700_000_000_400)
    await stack.recorder.reached({partition: (await stack.newest(EVENTS, partition)).offset})

    async with stack.session.ws_connect("/api/stream") as socket:
        await socket.send_json(
            {"type": "subscribe", "id": 1, "filter": {"workflow": name}, "cursor": resume}
        )
        assert (await socket.receive_json())["recovered"] is True
        told: list[dict[str, Any]] = []
        while len(told) < 2:
            told += (await socket.receive_json())["decisions"]
        assert [d["status"] for d in told] == ["RUNNING", "SUCCESS"]

    _, detail = await stack.call("GET", f"/api/runs/{run}")
    assert (detail["status"], detail["durationMs"]) == ("SUCCESS", 400)
    assert [(s["status"], s["durationMs"], s["attempts"]) for s in detail["steps"]] == [
        ("SUCCESS", 250, 1),
        ("SUCCESS", 250, 1),
    ]
    assert detail["steps"][0]["output"] == {"found": []}
    _, listed = await stack.call("GET", f"/api/runs?workflow={name}&status=SUCCESS")
    assert [(r["id"], r["status"], r["durationMs"]) for r in listed["runs"]] == [
        (run, "SUCCESS", 400)
    ]
    _, events = await stack.call("GET", f"/api/runs/{run}/events")
    assert [event["seq"] for event in events["events"]] == list(range(len(events["events"])))
    assert events["events"][-1]["type"] == "run.succeeded"
    _, paged = await stack.call("GET", f"/api/events?workflow={name}&limit=3")
    assert [e["seq"] for e in paged["events"]] == [
        e["seq"] for e in reversed(events["events"][-3:])
    ]
    _, rest = await stack.call("GET", f"/api/events?workflow={name}&cursor={paged['next']}")
    assert len(rest["events"]) == len(events["events"]) - 3
    _, attempts = await stack.call("GET", f"/api/runs/{run}/agent-runs")
    assert [(a["node"], a["status"], a["durationMs"]) for a in attempts["agentRuns"]] == [
        ("scan", "SUCCESS", 250),
        ("tell", "SUCCESS", 250),
    ]
    query = "SELECT status, duration_ms FROM runs WHERE run_id = {run:String}"
    status, answer = await stack.call(
        "POST", "/api/sql", json={"query": query, "parameters": {"run": run}}
    )
    assert (status, answer["rows"]) == (200, [{"status": "SUCCESS", "duration_ms": 400}])
    status, _ = await stack.call("POST", f"/api/runs/{run}/cancel")
    assert status == 409

    async with stack.session.ws_connect("/api/stream") as socket:
        await socket.send_json({"type": "subscribe", "id": "d", "filter": {"run": run}})
        snapshot = await socket.receive_json()
        assert snapshot["run"]["status"] == "SUCCESS"
        assert [step["id"] for step in snapshot["run"]["steps"]] == ["scan", "tell"]


async def test_sql_is_for_reading(stack: Stack) -> None:
    for query, says in (
        ("DROP TABLE events", "Only SELECT"),
        ("SELECT * FROM system.processes", "no table"),
        ("SELECT nothing FROM runs", "wrong"),
    ):
        status, answer = await stack.call("POST", "/api/sql", json={"query": query})
        assert status == 400
        assert says in answer["detail"]
    async with stack.session.post(
        "/api/sql", json={"query": "SELECT 1 AS n, now() AS t", "format": "CSVWithNames"}
    ) as response:
        assert (await response.text()).startswith('"n","t"\n1,')
    status, answer = await stack.call(
        "POST",
        "/api/sql",
        json={"query": "SELECT now64(3) AS t, [1, 2] AS l, toUUID(generateUUIDv4()) AS u"},
    )
    assert status == 200
    assert answer["rows"][0]["l"] == [1, 2]


async def test_an_event_is_on_the_triggers_topic_before_it_is_accepted(stack: Stack) -> None:
    status, accepted = await stack.call(
        "POST",
        "/api/events",
        data=b'{"a": 1}',
        headers={
            "ce-specversion": "1.0",
            "ce-id": "e-1",
            "ce-source": "/ci",
            "ce-type": "repo.push",
            "Content-Type": "application/json",
        },
    )
    assert status == 202
    record = await stack.newest(TRIGGERS, accepted["partition"])
    assert record.offset == accepted["offset"]
    event = from_kafka(record.headers, record.value, "x")
    assert (event.trigger.id, bytes(event.trigger.data)) == ("e-1", b'{"a":1}')


async def test_the_newest_dead_letters(stack: Stack) -> None:
    error = f"E{uuid4().hex}"  # other tests leave letters on the shared log
    first = uuid4().int % 2**40  # and a record has one letter
    for number in range(3):
        letter = DeadLetter(
            topic=TRIGGERS,
            partition=0,
            offset=first + number,
            at=4_000_000_000_000 + number,
            error=error,
            reason=f"reason {number}",
            worker="w",
            key=b"k",
            value=b"\xff" if number == 2 else b"text",
            headers=(("ce_id", b"1"),),
        )
        await stack.producer.send_and_wait(DEAD_LETTERS, codec.encode(letter), key=b"k%d" % number)
    status, answer = await stack.call("GET", f"/api/dead-letters?limit=2&error={error}")
    assert status == 200
    assert [letter["reason"] for letter in answer["deadLetters"]] == ["reason 2", "reason 1"]
    assert answer["deadLetters"][0]["value"] == "/w=="
    assert answer["deadLetters"][1]["valueText"] == "text"


async def test_two_publishers_at_once_get_two_versions(stack: Stack) -> None:
    name = f"race-{uuid4().hex[:8]}"
    answers = await asyncio.gather(
        *(
            stack.call("POST", "/api/workflows", json={**definition(name), "description": str(n)})
            for n in range(5)
        )
    )
    assert sorted(answer["version"] for _, answer in answers) == [1, 2, 3, 4, 5]
    _, detail = await stack.call("GET", f"/api/workflows/{name}")
    assert [v["version"] for v in detail["versions"]] == [5, 4, 3, 2, 1]


async def test_all_parts_are_ready(stack: Stack) -> None:
    async with asyncio.timeout(20):
        while True:
            status, answer = await stack.call("GET", "/readyz")
            if status == 200:
                break
            await asyncio.sleep(0.05)  # only asking again shows it
    assert set(answer["parts"].values()) == {"ok"}

"""What could not be processed is sent back when its cause is mended, or set aside with a reason."""

import asyncio
import base64
import json
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from system import PARTITIONS, System, define
from watching import dead_letters, end_of, get

from gateway.client import GatewayClient
from infra.verification import through_gateway, verify
from streams import codec, topics
from streams.ids import run_id
from streams.messages import Start
from streams.outbox import partition_of
from streams.plan import parse
from streams.records import Trigger

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("dead-letters"), agents=Path(__file__).parent)
    await system.start_kafka()
    await asyncio.gather(system.worker("trouble_agent:trouble"), system.start("gateway"))
    yield system
    await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer(system: System) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=system.bootstrap, acks="all", max_request_size=9 * 1024 * 1024
    )
    await producer.start()
    yield producer
    await producer.stop()


async def start(producer: AIOKafkaProducer, workflow: str, event: str = "1") -> str:
    """A start that refers to the first version of a workflow; gives its run."""
    trigger = Trigger(id=event, source="/test", type="x")
    run = run_id("default", workflow, "/test", event)
    message = Start(run=run, project="default", workflow=workflow, version=1, trigger=trigger)
    await producer.send_and_wait(
        topics.INBOX,
        codec.encode(message),
        key=run.encode(),
        partition=partition_of(run, PARTITIONS),
        headers=[("mine", b"kept"), ("mine", b"\xff"), ("none", None)],
    )
    return run


async def publish(system: System, name: str) -> None:
    node = {"id": "a", "agent": "trouble", "action": "echo", "inputs": {"value": 1}}
    await define(system.bootstrap, parse({"name": name, "nodes": [node]}))


async def call(
    session: aiohttp.ClientSession, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    async with session.request(method, path, json=body) as response:
        return response.status, await response.json(content_type=None)


async def letters(session: aiohttp.ClientSession, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(session, "/api/dead-letters", **query))["deadLetters"]
    return found


async def until_letters(system: System, count: int) -> None:
    await dead_letters(system.bootstrap, PARTITIONS, count)


async def record_at(system: System, place: str) -> Any:
    topic, partition, offset = place.split("/")
    part = TopicPartition(topic, int(partition))
    consumer = AIOKafkaConsumer(bootstrap_servers=system.bootstrap)
    await consumer.start()
    try:
        consumer.assign([part])
        consumer.seek(part, int(offset))
        return await consumer.getone()
    finally:
        await consumer.stop()


async def commandcenter(system: System, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra", "dead-letters", *arguments, "--url", system.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_a_record_is_replayed_when_its_cause_is_mended(
    system: System, session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    run = await start(producer, "later")
    await until_letters(system, 1)
    [letter] = await letters(session)
    assert (letter["state"], letter["attempts"], letter["error"]) == (
        "OPEN", 1, "UnknownWorkflowError",
    )  # fmt: skip
    whole = await get(session, f"/api/dead-letters/{letter['id']}")
    assert whole["allHeaders"] == [
        {"name": "mine", "value": "a2VwdA=="},
        {"name": "mine", "value": "/w=="},
        {"name": "none", "value": None},
    ]
    assert (whole["key"], whole["keyBytes"]) == (run, base64.b64encode(run.encode()).decode())
    metrics = await (await session.get("/metrics")).text()
    assert f'commandcenter_dead_letters_open{{topic="{topics.INBOX}"}} 1.0' in metrics

    status, answer = await call(session, "POST", f"/api/dead-letters/{letter['id']}/replay")
    assert (status, answer["state"]) == (202, "REPLAYED")
    await until_letters(system, 2)
    again, first = await letters(session)
    assert (first["id"], first["state"]) == (letter["id"], "REPLAYED")
    assert (again["state"], again["attempts"]) == ("OPEN", 2)
    back = await record_at(system, first["replayedTo"])
    original = await record_at(system, f"{topics.INBOX}/{letter['partition']}/{letter['offset']}")
    assert (back.key, back.value, back.partition) == (
        original.key, original.value, original.partition,
    )  # fmt: skip
    assert back.headers == (
        ("mine", b"kept"),
        ("mine", b"\xff"),
        ("none", None),
        ("commandcenter-replayed", letter["id"].encode()),
        ("commandcenter-attempt", b"2"),
    )
    status, problem = await call(session, "POST", f"/api/dead-letters/{letter['id']}/replay", {})
    assert status == 409
    assert first["replayedTo"] in problem["detail"]

    await publish(system, "later")
    status, _ = await call(session, "POST", f"/api/dead-letters/{again['id']}/replay", {})
    assert status == 202
    detail = await end_of(session, run)
    assert detail["status"] == "SUCCESS"
    path = f"/api/dead-letters/{again['id']}/replay"
    status, nevertheless = await call(session, "POST", path, {"again": True, "requestedBy": "me"})
    assert (status, nevertheless["replays"], nevertheless["closedBy"]) == (202, 2, "me")
    assert [found["state"] for found in await letters(session)] == ["REPLAYED", "REPLAYED"]
    whole = await get(session, f"/api/dead-letters/{letter['id']}")
    assert whole["allHeaders"] == [
        {"name": "mine", "value": "a2VwdA=="},
        {"name": "mine", "value": "/w=="},
        {"name": "none", "value": None},
    ]
    assert (whole["key"], whole["keyBytes"]) == (run, base64.b64encode(run.encode()).decode())
    metrics = await (await session.get("/metrics")).text()
    assert f'commandcenter_dead_letters_open{{topic="{topics.INBOX}"}} 0.0' in metrics


async def test_a_letter_is_set_aside_with_a_reason_only(
    system: System, session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    before = len(await letters(session, limit="200"))
    await producer.send_and_wait(topics.TRIGGERS, b"no event", key=b"k")
    await until_letters(system, before + 1)
    [letter] = await letters(session, topic=topics.TRIGGERS, state="OPEN")
    path = f"/api/dead-letters/{letter['id']}/purge"
    for body in (None, {}, {"reason": " "}, {"reason": 1}, {"reason": "x", "who": "y"}):
        status, _ = await call(session, "POST", path, body)
        assert status == 400
    status, answer = await call(session, "POST", path, {"reason": "a test", "purgedBy": "me"})
    assert status == 200
    assert (answer["state"], answer["purgeReason"], answer["closedBy"]) == (
        "PURGED",
        "a test",
        "me",
    )
    assert await letters(session, topic=topics.TRIGGERS) == [answer]
    for change, body in (("purge", {"reason": "again"}), ("replay", {})):
        status, problem = await call(
            session, "POST", f"/api/dead-letters/{letter['id']}/{change}", body
        )
        assert (status, "a test" in problem["detail"]) == (409, True)


async def test_filters_and_pages(session: aiohttp.ClientSession) -> None:
    everything = await get(session, "/api/dead-letters", limit="200")
    ids = [letter["id"] for letter in everything["deadLetters"]]
    assert everything["next"] is None
    paged, cursor = [], ""
    while cursor is not None:
        query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
        page = await get(session, "/api/dead-letters", **query)
        paged += [letter["id"] for letter in page["deadLetters"]]
        cursor = page["next"]
    assert paged == ids
    assert await letters(session, error="CallerError") == await letters(
        session, topic=topics.TRIGGERS
    )
    newest = everything["deadLetters"][0]
    assert [found["id"] for found in await letters(session, since=newest["at"])] == ids[:1]
    for wrong in ("state=GONE", "since=yesterday", "cursor=zz", "limit=0", "wat=1"):
        assert (await call(session, "GET", f"/api/dead-letters?{wrong}"))[0] == 400
    for wrong in ("x", "0-999", "9-0"):
        assert (await call(session, "GET", f"/api/dead-letters/{wrong}"))[0] == 404
        assert (await call(session, "POST", f"/api/dead-letters/{wrong}/replay"))[0] == 404


async def test_a_large_original_is_kept_and_replayed_whole(
    system: System, session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    before = len(await letters(session, limit="200"))
    value = b"\xff" * (8 * 1024 * 1024)
    await producer.send_and_wait(topics.TRIGGERS, value, headers=[("large", b"1")])
    await until_letters(system, before + 1)
    [letter] = await letters(session, topic=topics.TRIGGERS, state="OPEN")
    assert (letter["complete"], letter["value"]) == (False, None)
    _, whole = await call(session, "GET", f"/api/dead-letters/{letter['id']}")
    assert whole["complete"]
    assert b64decode(whole["value"]) == value
    status, done = await call(session, "POST", f"/api/dead-letters/{letter['id']}/replay")
    assert status == 202
    back = await record_at(system, done["replayedTo"])
    assert (back.value, back.headers[0]) == (value, ("large", b"1"))
    await until_letters(system, before + 2)
    [again] = await letters(session, topic=topics.TRIGGERS, state="OPEN")
    assert again["attempts"] == 2


async def test_the_command_line(
    system: System, session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    before = len(await letters(session, limit="200"))
    runs = [await start(producer, "by-hand", str(number)) for number in range(3)]
    await until_letters(system, before + 3)
    code, out = await commandcenter(system, "list", "--topic", topics.INBOX, "--state", "OPEN")
    rows = [line.split("\t") for line in out.splitlines()]
    assert (code, rows[0][0], len(rows)) == (0, "id", 4)
    ids = [row[0] for row in rows[1:]]

    code, out = await commandcenter(system, "purge", ids[0])
    assert (code, "--reason" in out) == (2, True)
    code, out = await commandcenter(system, "purge", ids[0], "--reason", "not needed")
    assert (code, out) == (0, f"{ids[0]}\tpurged\n")
    code, out = await commandcenter(system, "show", ids[0])
    assert (code, "not needed" in out) == (0, True)

    await publish(system, "by-hand")
    code, out = await commandcenter(
        system, "replay", "--all", "--topic", topics.INBOX, "--error", "UnknownWorkflowError",
        "--json",
    )  # fmt: skip
    results = json.loads(out)
    assert (code, sorted(result["id"] for result in results)) == (0, sorted(ids[1:]))
    assert all(result["done"] for result in results)
    code, out = await commandcenter(system, "replay", ids[1], "0-999")
    assert code == 1
    assert "replayed to" in out
    assert "no dead letter 0-999" in out
    code, out = await commandcenter(system, "replay", ids[0], "--again")
    assert (code, "replayed to" in out) == (0, True)
    for run in runs:
        assert (await end_of(session, run))["status"] == "SUCCESS"
    for wrong in ((), (ids[0], "--all"), (ids[0], "--topic", "x")):
        assert (await commandcenter(system, "replay", *wrong))[0] == 2


async def test_the_ledger_agrees_with_all_of_it(system: System) -> None:
    async with GatewayClient(system.url) as client:
        verdict = await verify(system.bootstrap, through_gateway(client), settled=True, within=30)
    assert verdict.differences == ()
    assert verdict.counts["dead letters"] > 0

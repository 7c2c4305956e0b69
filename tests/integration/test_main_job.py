"""The main job from outside: events in, runs through Kafka, worker, recorder and gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from system import PARTITIONS, System, define
from watching import dead_letters, end_of, get

from streams import topics
from streams.ids import run_id
from streams.plan import parse

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

NUMBERED = {"value": "{{ context.value }}"}


QUICK = {"attempts": 2, "initialDelay": "10ms", "maxDelay": "10ms"}


def node(name: str, action: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "agent": "trouble",
        "action": action,
        "dependsOn": list(needs),
        "retry": QUICK,
        **more,
    }


WORKFLOWS = {
    "echo": [node("echo", "echo", inputs=NUMBERED)],
    "fails": [node("bad", "fail"), node("after", "echo", "bad", inputs={"value": 1})],
    "misshapes": [node("bad", "misshape")],
    "hangs": [node("bad", "hang", timeout="300ms")],
    "blocks": [node("bad", "block", timeout="300ms")],
    "recovers": [node("bad", "fail_first")],
    "nowhere": [node("lost", "echo", inputs={"value": "{{ context.missing.value }}"})],
    "waits": [node("bad", "hang")],
    "too-long": [
        node(
            "bad",
            "hang",
            timeout="300ms",
            totalTimeout="700ms",
            retry={"attempts": 9, "initialDelay": "10ms", "maxDelay": "10ms"},
        )
    ],
    "cleans": [
        node("bad", "fail"),
        node("always", "echo", "bad", runIf="always", inputs={"value": 1}),
        node("because", "echo", "bad", runIf="anyFailed", inputs={"value": 2}),
        node("unless", "echo", "bad", runIf="noneFailed", inputs={"value": 3}),
    ],
    "storms": [node(name, "fail", retry={**QUICK, "attempts": 9}) for name in ("a", "b", "c")],
    "many": [node("each", "echo", forEach=list(range(60)), inputs={"value": "{{ item }}"})],
}
MORE: dict[str, dict[str, Any]] = {"storms": {"retryBudget": 4}}
EVENTS_LIMIT = 100
TRIGGER_LIMIT = 200_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    limits = {
        "COMMANDCENTER_RUN_EVENTS_LIMIT": str(EVENTS_LIMIT),
        "COMMANDCENTER_TRIGGER_LIMIT": str(TRIGGER_LIMIT),
    }
    folder = tmp_path_factory.mktemp("main-job")
    system = System(folder, agents=Path(__file__).parent, env=limits)
    await system.start_kafka()
    await asyncio.gather(system.worker("trouble_agent:trouble"), system.start("gateway"))
    for name, nodes in WORKFLOWS.items():
        trigger = {"event": f"test.{name}"}
        definition = {"name": name, "trigger": trigger, "nodes": nodes, **MORE.get(name, {})}
        await define(system.bootstrap, parse(definition))
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


def headers(**attributes: str) -> list[tuple[str, bytes]]:
    return [
        (name.replace("content_type", "content-type"), v.encode()) for name, v in attributes.items()
    ]


async def publish(
    producer: AIOKafkaProducer, name: str, number: str, value: bytes = b'{"value": 7}'
) -> str:
    """A CloudEvent as any Kafka client sends it; gives the run that it must start."""
    await producer.send_and_wait(
        topics.TRIGGERS,
        value,
        headers=headers(
            ce_specversion="1.0", ce_id=number, ce_source="/test", ce_type=f"test.{name}"
        ),
    )
    return run_id("default", name, "/test", number)


async def test_a_cloudevent_of_another_client_starts_a_run_and_twice_is_once(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    run = await publish(producer, "echo", "twice")
    assert await publish(producer, "echo", "twice") == run
    other = await publish(producer, "echo", "other", b'{"value": 8}')
    for each, value in ((run, 7), (other, 8)):
        detail = await end_of(session, each)
        assert detail["status"] == "SUCCESS"
        assert [step["output"] for step in detail["steps"]] == [{"value": value}]
    listed = await get(session, "/api/workflows/echo/runs")
    assert sorted(item["id"] for item in listed["runs"]) == sorted([run, other])


@pytest.mark.parametrize(
    ("workflow", "kind", "text", "attempts"),
    [
        ("fails", "agent_error", "RuntimeError: the disk is on fire", 2),
        ("misshapes", "invalid_output", "value", 1),
        ("hangs", "timeout", "300ms", 2),
        ("blocks", "timeout", "300ms", 2),
    ],
)
async def test_an_agent_that_misbehaves_fails_its_run_with_the_reason(
    session: aiohttp.ClientSession,
    producer: AIOKafkaProducer,
    workflow: str,
    kind: str,
    text: str,
    attempts: int,
) -> None:
    detail = await end_of(session, await publish(producer, workflow, "1"))
    bad, *after = detail["steps"]
    assert (detail["status"], bad["status"], bad["attempts"]) == ("FAILED", "FAILED", attempts)
    assert bad["error"]["kind"] == kind
    assert text in bad["error"]["message"]
    assert detail["error"]["node"] == "bad"
    assert bad["error"]["message"] in detail["error"]["message"]
    assert [step["status"] for step in after] == ["SKIPPED"] * len(after)


async def test_a_failed_attempt_is_tried_again(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    detail = await end_of(session, await publish(producer, "recovers", "1"))
    assert (detail["status"], detail["steps"][0]["output"]) == ("SUCCESS", {"value": 2})
    tried = await get(session, f"/api/runs/{detail['id']}/agent-runs")
    # Each attempt is a row of its own, and the first one keeps its error.
    rows = tried.get("agentRuns") or tried.get("runs")
    assert rows is not None, sorted(tried)
    assert [(row["attempt"], row["status"]) for row in rows] == [(1, "FAILED"), (2, "SUCCESS")]
    assert "not yet" in rows[0]["error"]["message"]


async def test_all_attempts_together_have_a_time_of_their_own(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    detail = await end_of(session, await publish(producer, "too-long", "1"))
    [bad] = detail["steps"]
    assert (detail["status"], bad["status"]) == ("FAILED", "FAILED")
    # Each has 0.3 s of the 0.7: a third one begins, and on a slow machine not even that.
    reasons = ("no result within 700ms, over all attempts", "no time is left for another attempt")
    assert any(reason in bad["error"]["message"] for reason in reasons)
    assert bad["error"]["kind"] == "timeout"
    assert bad["attempts"] < 4


async def test_what_runs_after_a_failure_is_what_says_so(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    detail = await end_of(session, await publish(producer, "cleans", "1"))
    assert {step["id"]: step["status"] for step in detail["steps"]} == {
        "bad": "FAILED",
        "always": "SUCCESS",
        "because": "SUCCESS",
        "unless": "SKIPPED",
    }
    assert (detail["status"], detail["error"]["node"]) == ("FAILED", "bad")


async def test_a_retry_budget_that_is_used_up_ends_the_attempts_of_all_nodes(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    detail = await end_of(session, await publish(producer, "storms", "1"))
    assert detail["status"] == "FAILED"
    for step in detail["steps"]:
        assert "(the run's retry budget of 4 is used up)" in step["error"]["message"]
    tried = await get(session, f"/api/runs/{detail['id']}/agent-runs")
    assert len(tried["agentRuns"]) == 3 + 4


async def test_a_run_with_too_many_events_ends_and_says_which_limit(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    detail = await end_of(session, await publish(producer, "many", "1"))
    assert (detail["status"], detail["error"]["kind"]) == ("FAILED", "events")
    assert detail["error"]["message"] == (
        f"the run has more than {EVENTS_LIMIT} events (COMMANDCENTER_RUN_EVENTS_LIMIT)"
    )
    seqs: list[int] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        more = f"&cursor={page['next']}" if page["next"] else ""
        page = await get(session, f"/api/runs/{detail['id']}/events?limit=50{more}")
        seqs += [event["seq"] for event in page["events"]]
    assert seqs == list(range(detail["seq"] + 1))
    items = await get(session, f"/api/runs/{detail['id']}/nodes/each/items?status=SUCCESS")
    assert 0 < items["counts"]["succeeded"] < items["counts"]["total"] == 60


async def test_a_big_context_reaches_its_run_and_one_over_the_limit_starts_none(
    session: aiohttp.ClientSession,
) -> None:
    body = {"value": 7, "more": "x" * 100_000}
    async with session.post("/api/workflows/echo/trigger", json=body) as answer:
        run = (await answer.json())["workflowRunId"]
    assert (await end_of(session, run))["steps"][0]["output"] == {"value": 7}
    for path, sent in (
        ("/api/workflows/echo/trigger", {**body, "more": "x" * TRIGGER_LIMIT}),
        ("/api/events", {"type": "test.echo", "payload": {**body, "more": "x" * TRIGGER_LIMIT}}),
    ):
        async with session.post(path, json=sent) as answer:
            problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["status"]) == (413, 413)
        assert f"{TRIGGER_LIMIT:,} bytes (COMMANDCENTER_TRIGGER_LIMIT)" in problem["detail"]


async def test_a_template_that_points_nowhere_fails_its_node_with_what_is_there(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    detail = await end_of(session, await publish(producer, "nowhere", "1"))
    error = detail["steps"][0]["error"]
    assert (detail["status"], error["kind"]) == ("FAILED", "template")
    assert error["message"] == (
        "'{{ context.missing.value }}' points nowhere: context has value, not 'missing'"
    )


async def test_a_run_is_cancelled(
    session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    run = await publish(producer, "waits", "1")
    async with session.ws_connect("/api/stream") as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "filter": {"run": run}})
        while True:
            frame = await socket.receive_json(timeout=30)
            if frame.get("decisions") or frame.get("run"):
                break
    async with session.post(
        f"/api/runs/{run}/cancel", json={"reason": "no longer wanted"}
    ) as answer:
        assert answer.status == 202, await answer.text()
    detail = await end_of(session, run)
    assert (detail["status"], detail["steps"][0]["status"]) == ("CANCELLED", "CANCELLED")


BAD_TRIGGERS: list[tuple[str, list[tuple[str, bytes]], bytes | None, str]] = [
    (
        "malformed JSON",
        headers(content_type="application/cloudevents+json"),
        b'{"specversion": "1.0", "id": ',
        "JSON",
    ),
    (
        "missing ce_type",
        headers(ce_specversion="1.0", ce_id="1", ce_source="/test"),
        b"{}",
        "ce_type",
    ),
    ("wrong content type", headers(content_type="image/png"), b"\x89PNG", "image/png"),
    ("no event at all", [], b"hello", "JSON"),
    (
        "5 MB",
        headers(ce_specversion="1.0", ce_id="5mb", ce_source="/test", ce_type="test.echo"),
        json.dumps({"value": "x" * 5_000_000}).encode(),
        f"{TRIGGER_LIMIT:,} may be (COMMANDCENTER_TRIGGER_LIMIT)",
    ),
]
BAD_RECORDS: list[tuple[str, str, bytes, str]] = [
    ("a later version", topics.INBOX, b'{"v":2,"type":"start"}', "format version 2"),
    ("an unknown kind", topics.INBOX, b'{"v":1,"type":"party","run":"x"}', "party"),
    ("no such run", topics.INBOX, b'{"v":1,"type":"cancel","run":"x","reason":"y"}', "no run x"),
    ("no task", topics.tasks("trouble"), b"\xff\xfe", "not a task"),
    ("no decision", topics.EVENTS, b'{"v":1}', "not a decision"),
]


async def test_what_cannot_be_processed_is_a_dead_letter_and_the_rest_goes_on(
    system: System, session: aiohttp.ClientSession, producer: AIOKafkaProducer
) -> None:
    sent: dict[tuple[str, int, int], str] = {}
    first = await publish(producer, "echo", "before")
    for _, with_headers, value, text in BAD_TRIGGERS:
        place = await producer.send_and_wait(topics.TRIGGERS, value, headers=with_headers)
        sent[place.topic, place.partition, place.offset] = text
    for _, topic, value, text in BAD_RECORDS:
        place = await producer.send_and_wait(topic, value, key=b"x")
        sent[place.topic, place.partition, place.offset] = text
    last = await publish(producer, "echo", "after")

    letters = await dead_letters(system.bootstrap, PARTITIONS, len(sent))
    found = {(letter.topic, letter.partition, letter.offset): letter for letter in letters}
    assert set(found) == set(sent)
    for place, text in sent.items():
        assert text in found[place].reason
        assert found[place].error.endswith("Error")
    for run in (first, last):
        assert (await end_of(session, run))["status"] == "SUCCESS"
    shown = await get(session, "/api/dead-letters")
    assert len(next(v for v in shown.values() if isinstance(v, list))) == len(sent)
    ready = await get(session, "/readyz")
    assert ready["ready"] is True

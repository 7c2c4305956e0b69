"""`commandcenter verify` on the real system: it agrees, and after damage it says what differs."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from system import PARTITIONS, System, define
from watching import end_of

from gateway.client import GatewayClient
from infra.owned_process import OwnedProcess
from infra.verification import Verdict, through_gateway, verify
from sinks.queries import query
from streams import codec, topics
from streams.ids import run_id
from streams.plan import parse

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

WORKFLOW = {
    "name": "echo",
    "trigger": {"event": "test.echo"},
    "nodes": [
        {"id": "a", "agent": "trouble", "action": "echo", "inputs": {"value": 1}},
        {
            "id": "b",
            "agent": "trouble",
            "action": "echo",
            "inputs": {"value": "{{ nodes.a.output.value }}"},
            "dependsOn": ["a"],
        },
    ],
}
RUNS = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("verify"), agents=Path(__file__).parent)
    await system.start_kafka()
    await define(system.bootstrap, parse(WORKFLOW))
    await system.worker("trouble_agent:trouble")
    yield system
    await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def gateway(system: System) -> OwnedProcess:
    return await system.start("gateway")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer(system: System) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=system.bootstrap, acks="all")
    await producer.start()
    yield producer
    await producer.stop()


async def audit(system: System, **options: Any) -> Verdict:
    async with GatewayClient(system.url) as client:
        return await verify(system.bootstrap, through_gateway(client), **options)


async def commandcenter(system: System, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """The command line as a script runs it: exit code, output, and what it says beside."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={
            "COMMANDCENTER_KAFKA": system.bootstrap,
            "COMMANDCENTER_DATA": str(system.data),
            "COMMANDCENTER_PORT": str(system.port),
            **settings,
        },
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_sound_system_agrees_and_damage_is_told(
    system: System, producer: AIOKafkaProducer
) -> None:
    for number in range(RUNS):
        await producer.send_and_wait(
            topics.TRIGGERS,
            b'{"value": 1}',
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_id", b"%d" % number),
                ("ce_source", b"/test"),
                ("ce_type", b"test.echo"),
            ],
        )
    await producer.send_and_wait(topics.TRIGGERS, b"no event at all")
    runs = [run_id("default", "echo", "/test", str(number)) for number in range(RUNS)]
    async with aiohttp.ClientSession(system.url) as session:
        await asyncio.gather(*(end_of(session, run) for run in runs))

    seen: list[str] = []
    verdict = await audit(
        system, settled=True, within=30, say=lambda what, _done, _total: seen.append(what)
    )
    assert verdict.differences == ()
    assert verdict.counts["runs"] == verdict.counts["ended.SUCCESS"] == RUNS
    assert verdict.counts["recorded runs"] == RUNS
    assert verdict.counts["recorded events"] == verdict.counts["events"]
    assert verdict.counts["dead letters"] == 1
    assert verdict.counts["doubtful triggers"] == 0
    assert any(what.startswith(topics.EVENTS) for what in seen)

    # The log is read for longer than one waits, and something was recorded meanwhile.
    async with GatewayClient(system.url) as client:
        asked = through_gateway(client)
        stale: Iterator[Sequence[Mapping[str, Any]]] = iter([[]])

        async def ask(sql: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
            recorded = await asked(sql, parameters)
            return next(stale, recorded) if sql == query("positions") else recorded

        verdict = await verify(system.bootstrap, ask, settled=True, within=0.001)
    assert verdict.differences == ()

    code, out, err = await commandcenter(system, "verify", "--settled")
    assert (code, out.splitlines()[-1]) == (0, "Everything agrees.")
    assert f"read {topics.WORKFLOWS}/0: 1\n" in err

    await conflict(producer, runs[0], await decisions(system, runs[0]))
    code, out, _ = await commandcenter(system, "verify", "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"]) == (1, False)
    assert [(d["check"], d["subject"]) for d in answer["differences"]] == [
        ("sequence.conflict", runs[0])
    ]
    code, out, _ = await commandcenter(system, "verify", "--since", "1ms", "--json")
    assert (code, json.loads(out)["counts"].get("runs", 0)) == (0, 0)


async def decisions(system: System, run: str) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=system.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Any] = []
    try:
        consumer.assign([TopicPartition(topics.EVENTS, n) for n in range(PARTITIONS)])
        await consumer.seek_to_beginning()
        while not found or not found[-1].value.count(b"run.succeeded"):
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                found += [record for record in records if record.key == run.encode()]
    finally:
        await consumer.stop()
    return found


async def conflict(producer: AIOKafkaProducer, run: str, records: list[Any]) -> None:
    """The run's second decision once more, with another time in it."""
    decision = codec.decisions.decode(records[1].value)
    value = records[1].value.replace(b'"at":%d' % decision.at, b'"at":%d' % (decision.at + 1))
    await producer.send_and_wait(
        topics.EVENTS, value, key=run.encode(), partition=records[1].partition
    )


async def test_what_is_out_of_reach_is_said(system: System) -> None:
    code, _, err = await commandcenter(system, "verify", COMMANDCENTER_KAFKA="127.0.0.1:1")
    assert code == 3
    assert "127.0.0.1:1" in err
    code, _, err = await commandcenter(system, "verify", "--url", "http://127.0.0.1:1")
    assert code == 3
    assert "http://127.0.0.1:1" in err
    code, _, err = await commandcenter(system, "verify", "--since", "yesterday")
    assert (code, err.count("yesterday")) == (2, 1)


async def test_without_a_gateway_the_embedded_store_is_opened(
    system: System, gateway: OwnedProcess
) -> None:
    await gateway.stop(20)
    code, out, _ = await commandcenter(system, "verify", "--json")
    counts = json.loads(out)["counts"]
    assert (code, counts["recorded runs"]) == (1, RUNS)  # the conflict is still there

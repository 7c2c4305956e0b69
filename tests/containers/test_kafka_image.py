"""The main job on the official Kafka image: nothing of it depends on the embedded broker."""

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from system import PARTITIONS, System, define
from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs
from watching import end_of

from infra.kafka_broker import free_port
from infra.topic_admin import ensure_topics
from streams import topics
from streams.ids import run_id
from streams.plan import parse

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "apache/kafka:4.1.0"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    port = free_port()
    container = DockerContainer(IMAGE).with_bind_ports(9092, port)
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    }
    for name, value in settings.items():
        container = container.with_env(name, value)
    with container:
        wait_for_logs(container, "Kafka Server started", timeout=60)
        yield f"127.0.0.1:{port}"


async def test_an_event_runs_to_its_end(cluster: str, tmp_path: Path) -> None:
    system = System(tmp_path, bootstrap=cluster)
    try:
        await ensure_topics(cluster, topics.TOPICS, partitions=PARTITIONS, replication=1)
        await system.worker()
        await system.start("gateway")
        notify = {
            "id": "notify",
            "agent": "notifier",
            "action": "send",
            "inputs": {"channel": "console", "message": "{{ context.text }}"},
        }
        workflow = {"name": "tell", "trigger": {"event": "test.tell"}, "nodes": [notify]}
        await define(cluster, parse(workflow))
        producer = AIOKafkaProducer(bootstrap_servers=cluster, acks="all")
        await producer.start()
        await producer.send_and_wait(
            topics.TRIGGERS,
            b'{"text": "hello"}',
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_id", b"1"),
                ("ce_source", b"/test"),
                ("ce_type", b"test.tell"),
            ],
        )
        await producer.stop()
        async with aiohttp.ClientSession(system.url) as session:
            detail = await end_of(session, run_id("default", "tell", "/test", "1"))
        assert detail["status"] == "SUCCESS"
    finally:
        await system.stop()

import asyncio
import uuid
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from command_line import commandcenter

from infra.kafka_broker import free_port
from infra.topic_admin import MAX_RECORD_BYTES, differences, ensure_topics, topic_config
from streams import topics
from streams.errors import OperatorError
from streams.topics import STATE, TOPICS, Topic

pytestmark = pytest.mark.kafka


def fresh(cleanup: str = "delete", *, single: bool = False) -> Topic:
    name = f"admin-{uuid.uuid4()}"
    assert cleanup in ("delete", "compact")
    return Topic(name, "none", "a test", cleanup, 60_000, single)  # type: ignore[arg-type]  # checked


async def found(bootstrap: str, name: str) -> tuple[int, dict[str, str]]:
    """The partition count and the configuration of a topic, as the broker tells them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        [topic] = await admin.describe_topics([name])
        [reply] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    finally:
        await admin.close()
    [resource] = reply.resources
    return len(topic["partitions"]), {entry[0]: entry[1] for entry in resource[4]}


async def test_missing_topics_are_created_as_declared(kafka: str) -> None:
    many, one = fresh("delete"), fresh("compact", single=True)
    created = await ensure_topics(kafka, [many, one], partitions=3, replication=1)
    assert created == [many.name, one.name]

    partitions, config = await found(kafka, many.name)
    assert partitions == 3
    assert config["cleanup.policy"] == "delete"
    assert config["retention.ms"] == "60000"
    assert config["max.message.bytes"] == str(MAX_RECORD_BYTES)
    assert config["message.timestamp.type"] == "LogAppendTime"
    partitions, config = await found(kafka, one.name)
    assert partitions == 1
    assert config["cleanup.policy"] == "compact"

    assert await ensure_topics(kafka, [many, one], partitions=3, replication=1) == []


async def test_the_brokers_default_replication_can_be_asked_for(kafka: str) -> None:
    topic = fresh()
    assert await ensure_topics(kafka, [topic], partitions=1, replication=-1) == [topic.name]


async def test_every_difference_is_named_and_nothing_is_created(kafka: str) -> None:
    first, second, absent = fresh("delete"), fresh("compact"), fresh()
    await ensure_topics(kafka, [first, second], partitions=2, replication=1)
    wanted = [first, second._replace(cleanup="delete"), absent]
    with pytest.raises(OperatorError) as caught:
        await ensure_topics(kafka, wanted, partitions=4, replication=1)
    for text in (
        f"{first.name} has 2 partitions instead of 4",
        f"{second.name} has 2 partitions instead of 4",
        f"{second.name} has cleanup.policy=compact instead of delete",
        "COMMANDCENTER_PARTITIONS",
    ):
        assert text in str(caught.value)
    assert await ensure_topics(kafka, [absent], partitions=1, replication=1) == [absent.name]


async def test_doctor_finds_a_topic_that_differs(
    kafka: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there, absent = fresh(), fresh()
    await ensure_topics(kafka, [there], partitions=2, replication=1)
    monkeypatch.setattr(topics, "TOPICS", (there, absent))
    monkeypatch.setenv("COMMANDCENTER_KAFKA", kafka)
    for partitions, code in ((2, 0), (3, 1)):
        monkeypatch.setenv("COMMANDCENTER_PARTITIONS", str(partitions))
        command = ("doctor", "--data-dir", tmp_path, "--url", f"http://127.0.0.1:{free_port()}")
        assert await commandcenter(*command) == code
        told = f"{there.name} has 2 partitions instead of 3"
        assert (told in capsys.readouterr().out) is (code == 1)
    assert await ensure_topics(kafka, [absent], partitions=1, replication=1) == [absent.name]


async def test_two_processes_may_create_the_same_topics_at_once(kafka: str) -> None:
    topics = [fresh() for _ in range(4)]
    made = await asyncio.gather(
        *(ensure_topics(kafka, topics, partitions=2, replication=1) for _ in range(4))
    )
    assert sorted(name for names in made for name in names) == sorted(
        topic.name for topic in topics
    )


async def test_a_refused_topic_is_named_with_the_reason(kafka: str) -> None:
    topic = fresh()
    with pytest.raises(OperatorError, match=rf"refused to create the topic {topic.name}: .+"):
        await ensure_topics(kafka, [topic], partitions=1, replication=3)


async def test_a_kafka_that_does_not_answer_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(OperatorError, match=rf"Kafka at {address} does not answer"):
        await ensure_topics(address, [fresh()], partitions=1, replication=1)


def test_the_declared_topics_agree_with_themselves() -> None:
    partitions = {topic.name: 1 if topic.single_partition else 4 for topic in TOPICS}
    cleanup = {topic.name: topic_config(topic)["cleanup.policy"] for topic in TOPICS}
    assert differences(TOPICS, 4, partitions, cleanup) == []


def test_a_mixed_cleanup_policy_is_a_difference() -> None:
    topic = fresh("compact")
    assert differences([topic], 1, {topic.name: 1}, {topic.name: "compact,delete"}) == [
        f"{topic.name} has cleanup.policy=compact,delete instead of compact"
    ]


def test_state_is_compacted_in_small_segments() -> None:
    [state] = [topic for topic in TOPICS if topic.name == STATE]
    config = topic_config(state)
    assert int(config["segment.bytes"]) <= 64 * 1024 * 1024
    assert int(config["min.compaction.lag.ms"]) > 0
    assert "segment.bytes" not in topic_config(TOPICS[0])

"""Who registers an agent finds its task topic made, as a worker in another language does."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from msgspec import Raw

from infra.task_topics import RegisteredAgents, TaskTopics
from infra.topic_admin import ensure_topics
from streams import codec, topics
from streams.ids import worker_key
from streams.registry import AgentRecord, WorkerRecord

pytestmark = pytest.mark.kafka

PARTITIONS = 5


class Watched(TaskTopics):
    """Says when it has made, or found, a topic."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap, PARTITIONS, 1)
        self.prepared: asyncio.Queue[str] = asyncio.Queue()

    async def prepare(self, *agents: str) -> None:
        try:
            await super().prepare(*agents)
        finally:
            for agent in agents:
                if agent.startswith("foreign-"):  # other tests leave agents on the shared log
                    self.prepared.put_nowait(agent)


def registration(name: str) -> tuple[bytes, bytes]:
    record = AgentRecord(
        name=name, version="1", worker="elsewhere/1", registered_at=0, descriptor=Raw(b"{}")
    )
    return name.encode(), codec.encode(record)


async def test_a_registered_agent_has_a_task_topic(kafka: str) -> None:
    await ensure_topics(
        kafka,
        [next(each for each in topics.TOPICS if each.name == topics.AGENTS)],
        partitions=PARTITIONS,
        replication=1,
    )
    other = topics.tasks_topic("foreign-other")
    await ensure_topics(kafka, [other], partitions=PARTITIONS + 1, replication=1)
    alive = WorkerRecord(worker="elsewhere/1", started_at=0, interval_ms=1_000, agents=())
    records = [
        (b"foreign-broken", b"no registration"),
        registration("no name of ours"),
        (worker_key("elsewhere/1").encode(), codec.encode(alive)),
        (b"foreign-gone", None),
        registration("foreign-other"),  # somebody has made it with a wrong number of partitions
        registration("foreign-before"),
    ]
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for key, value in records:
            await producer.send_and_wait(topics.AGENTS, key=key, value=value, partition=0)
        watched = Watched(kafka)
        async with RegisteredAgents(kafka, watched) as registered:
            work = asyncio.create_task(registered.run())
            found = [await watched.prepared.get() for _ in range(2)]
            key, value = registration("foreign-after")
            await producer.send_and_wait(topics.AGENTS, key=key, value=value, partition=0)
            found.append(await watched.prepared.get())
            work.cancel()
    assert found == ["foreign-other", "foreign-before", "foreign-after"]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    made = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
    await admin.close()
    foreign = {name: count for name, count in made.items() if ".foreign-" in name}
    assert foreign == {
        other.name: PARTITIONS + 1,
        topics.tasks("foreign-before"): PARTITIONS,
        topics.tasks("foreign-after"): PARTITIONS,
    }

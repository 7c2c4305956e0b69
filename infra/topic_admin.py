"""Creates the declared topics on a Kafka, and checks those that exist against the declaration.

Only what would break the product is checked: partition count (runs are mapped to partitions by
key, and co-partitioned topics must agree) and clean-up policy. How long records are kept and how
segments are cut is the operator's to change; these are only set at creation.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from streams.errors import OperatorError
from streams.topics import AGENTS, STATE, Topic

MAX_RECORD_BYTES: Final = 9 * 1024 * 1024  # a payload of 8 MiB with its headers

_ANSWER_WITHIN_MS: Final = 30_000
_LEADERS_WITHIN_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.05

_STATE_CONFIG: Final = {
    # A worker that restores a partition reads all of the changelog. The active segment is never
    # compacted, so small segments, cleaned early, keep that near the size of the live state.
    "segment.bytes": str(32 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
    # The newest records stay side by side for a while: a restore compares the epochs of their
    # writers, to ignore what a worker wrote after it had lost the partition.
    "min.compaction.lag.ms": str(60 * 1000),
}

_AGENTS_CONFIG: Final = {
    # Workers say every few seconds that they live. A gateway that starts reads all of the topic.
    "segment.ms": str(60 * 60 * 1000),
    "segment.bytes": str(1024 * 1024),
    "max.compaction.lag.ms": str(60 * 60 * 1000),
}


async def ensure_topics(
    bootstrap: str, topics: Sequence[Topic], *, partitions: int, replication: int
) -> list[str]:
    """Create the missing ones of `topics`, check the others, and wait until all have leaders.

    Args:
        bootstrap: `host:port`, several separated by commas.
        topics: Declarations, each name once.
        partitions: Of each topic that is not declared to have a single one.
        replication: Replicas of each partition, at creation only; -1 is the cluster's default.

    Returns:
        The names of the topics that were created, in the order of `topics`.

    Raises:
        OperatorError: Kafka does not answer or refuses, or existing topics differ; the text names
            every difference.
    """
    async with _asking(bootstrap) as admin:
        present = await _partition_counts(admin)
        missing = [topic for topic in topics if topic.name not in present]
        existing = [topic for topic in topics if topic.name in present]
        await _check(admin, existing, present, partitions)
        created = await _create(admin, missing, partitions, replication)
        lost_races = [topic for topic in missing if topic.name not in created]
        await _await_leaders(admin, topics)
        await _check(admin, lost_races, await _partition_counts(admin), partitions)
    return created


async def check_topics(bootstrap: str, topics: Sequence[Topic], *, partitions: int) -> None:
    """Check those of `topics` that exist, and create none; errors as for `ensure_topics`."""
    async with _asking(bootstrap) as admin:
        present = await _partition_counts(admin)
        existing = [topic for topic in topics if topic.name in present]
        await _check(admin, existing, present, partitions)


@asynccontextmanager
async def _asking(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, request_timeout_ms=_ANSWER_WITHIN_MS, client_id="commandcenter"
    )
    try:
        await admin.start()
        yield admin
    except (KafkaError, TimeoutError) as error:
        raise OperatorError(
            f"Kafka at {bootstrap} does not answer as it should: {error}. "
            "Is it running, and is COMMANDCENTER_KAFKA right?"
        ) from error
    finally:
        await admin.close()


async def cluster_id(bootstrap: str) -> str:
    """What names the cluster: another one has other offsets; `OperatorError` if it is away."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="commandcenter")
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    except KafkaError as error:
        raise OperatorError(f"Kafka at {bootstrap} does not answer: {error}") from error
    finally:
        await admin.close()


def topic_config(topic: Topic) -> dict[str, str]:
    """The configuration that a topic is created with."""
    config = {
        "cleanup.policy": topic.cleanup,
        "max.message.bytes": str(MAX_RECORD_BYTES),
        # The time of a record is when it was appended, by one clock, whoever sent it. By the clocks
        # of the senders, one that is an hour ahead could write nothing.
        "message.timestamp.type": "LogAppendTime",
    }
    if topic.cleanup == "delete":
        config["retention.ms"] = str(topic.retention_ms)
    if topic.name == STATE:
        config |= _STATE_CONFIG
    if topic.name == AGENTS:
        config |= _AGENTS_CONFIG
    return config


def differences(
    topics: Iterable[Topic],
    partitions: int,
    found_partitions: Mapping[str, int],
    found_cleanup: Mapping[str, str],
) -> list[str]:
    """What of existing topics is not as declared, one sentence each."""
    faults = []
    for topic in topics:
        wanted, found = _count(topic, partitions), found_partitions[topic.name]
        if wanted != found:
            faults.append(f"{topic.name} has {_partitions(found)} instead of {wanted}")
        policy = found_cleanup[topic.name]
        if set(policy.split(",")) != {topic.cleanup}:
            faults.append(f"{topic.name} has cleanup.policy={policy} instead of {topic.cleanup}")
    return faults


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"


def _count(topic: Topic, partitions: int) -> int:
    return 1 if topic.single_partition else partitions


async def group_members(bootstrap: str, group: str) -> int:
    """How many consumers are in a group now.

    Raises:
        OperatorError: Kafka is out of reach.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        (answer,) = await admin.describe_consumer_groups([group])
    except KafkaError as error:
        raise OperatorError(f"Kafka at {bootstrap} cannot be asked: {error}.") from error
    finally:
        await admin.close()
    members: list[Any] = answer.groups[0][5]
    return len(members)


async def _check(
    admin: AIOKafkaAdminClient,
    topics: Sequence[Topic],
    found_partitions: Mapping[str, int],
    partitions: int,
) -> None:
    if not topics:
        return
    found_cleanup = await _cleanup_policies(admin, [topic.name for topic in topics])
    faults = differences(topics, partitions, found_partitions, found_cleanup)
    if faults:
        raise OperatorError(
            "Topics on this Kafka are not as CommandCenter needs them: "
            + "; ".join(faults)
            + ". Set COMMANDCENTER_PARTITIONS to the number that the topics were created with, "
            "correct a cleanup.policy with Kafka's own tools, or use another cluster."
        )


async def _create(
    admin: AIOKafkaAdminClient, topics: Sequence[Topic], partitions: int, replication: int
) -> list[str]:
    if not topics:
        return []
    wanted = [
        NewTopic(
            topic.name,
            _count(topic, partitions),
            replication,
            # The client wants "no assignment" said differently when replication is -1.
            replica_assignments={} if replication == -1 else None,
            topic_configs=topic_config(topic),
        )
        for topic in topics
    ]
    response = await admin.create_topics(wanted)
    created = []
    for name, code, *text in response.topic_errors:
        if code == 0:
            created.append(name)
        elif code != TopicAlreadyExistsError.errno:  # another process was quicker: checked later
            reason = text[0] if text and text[0] else for_code(code).description
            raise OperatorError(f"Kafka refused to create the topic {name}: {reason}")
    return created


async def _await_leaders(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> None:
    """A topic can be used once each partition has a leader, shortly after it was created."""
    waiting = {topic.name for topic in topics}
    try:
        async with asyncio.timeout(_LEADERS_WITHIN_S):
            while True:
                waiting -= await _led(admin)
                if not waiting:
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)  # Kafka tells nobody when a leader is there
    except TimeoutError as error:
        raise OperatorError(
            f"After {_LEADERS_WITHIN_S:.0f} s some topics still have no leader: "
            f"{', '.join(sorted(waiting))}. Look at the brokers' logs."
        ) from error


async def _led(admin: AIOKafkaAdminClient) -> set[str]:
    return {
        topic["topic"]
        for topic in await _all_topics(admin)
        if topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
    }


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    return {topic["topic"]: len(topic["partitions"]) for topic in await _all_topics(admin)}


async def _all_topics(admin: AIOKafkaAdminClient) -> list[dict[str, Any]]:
    # Asking for topics by name would make a cluster with auto.create.topics.enable create them.
    found: list[dict[str, Any]] = await admin.describe_topics()
    return found


async def _cleanup_policies(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, str]:
    wanted = [
        ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": ""}) for name in names
    ]
    policies: dict[str, str] = {}
    for response in await admin.describe_configs(wanted):
        for code, text, _type, name, entries in response.resources:
            if code != 0:
                raise OperatorError(
                    f"Kafka refused to describe the topic {name}: "
                    f"{text or for_code(code).description}"
                )
            policies[name] = next(entry[1] for entry in entries if entry[0] == "cleanup.policy")
    return policies

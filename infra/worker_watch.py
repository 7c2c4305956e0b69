"""Whether the workers do their work, as anybody can see it: by their group and its offsets.

Looks every few seconds from whatever process it runs in (the gateway's), so that a worker that
hangs cannot hide it. What it finds is metrics, a log line for each stall that begins or ends, and
the `worker` part of `/readyz`.
"""

import asyncio
import contextlib
import time
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from streams.errors import OperatorError
from streams.topics import CONTROL, INBOX, TASKS_PREFIX, TRIGGERS
from streams.watchdog import PATIENCE_S, Place, Seen, Stall, Watchdog

_log = structlog.get_logger(__name__)
_lag = Gauge(
    "commandcenter_partition_lag", "Records that are not processed yet.", ["topic", "partition"]
)
_stalled = Gauge("commandcenter_partitions_stalled", "Partitions that make no progress.")
_stalls = Counter("commandcenter_stalls_total", "Times that a partition stood still.", ["topic"])
_workers = Gauge("commandcenter_workers", "Members of the workers' group.")

FOREIGN_GROUPS: Final = "commandcenter."
"""Workers in other languages have a group for each agent, of this and the agent's name."""
EVERY_S: Final = 2.0
_OUT_OF_DATE_S: Final = 15.0


class WorkerWatch:
    """Watches one group; an async context manager that owns its task and connections."""

    def __init__(
        self, bootstrap: str, group: str = "commandcenter", patience_s: float = PATIENCE_S
    ) -> None:
        """Prepare to watch; a stall is `patience_s` without progress."""
        self._bootstrap = bootstrap
        self._group = group
        self._watchdog = Watchdog(patience_s)
        self._stalls: list[Stall] = []
        self._members = 0
        self._waiting = 0
        self._orders = ""
        self._looked_at = float("-inf")
        self._trouble = "the workers have not been looked at yet"
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="watch workers")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def looked(self) -> None:
        """Wait until the workers have been looked at once more: the metrics are of that look."""
        await self._look.wait()

    async def check(self) -> None:
        """Return if workers do their work; `OperatorError` says what is wrong with them."""
        if self._trouble:
            raise OperatorError(self._trouble)
        if time.monotonic() - self._looked_at > _OUT_OF_DATE_S:
            raise OperatorError("the workers cannot be looked at: Kafka takes too long to answer")
        if not self._members:
            raise OperatorError(
                "no worker is running: start `commandcenter worker`"
                f" (records that wait: {self._waiting:,})"
            )
        if self._orders:
            raise OperatorError(self._orders)
        if self._stalls:
            raise OperatorError(
                "; ".join(map(str, self._stalls[:5])) + ": see the log of the worker that has them"
            )

    async def _watch(self) -> None:
        while True:
            try:
                await self._look_until_it_fails()
            except (KafkaError, OSError) as error:
                self._trouble = f"the workers cannot be looked at: {error!r}"
            await asyncio.sleep(EVERY_S)

    async def _look_until_it_fails(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, client_id="commandcenter")
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
        try:
            await admin.start()
            await consumer.start()
            while True:
                owned = await self._owned(admin)
                self._judge(await self._partitions(admin, consumer, owned))
                await asyncio.sleep(EVERY_S)
        finally:
            await consumer.stop()
            await admin.close()

    async def _owned(self, admin: AIOKafkaAdminClient) -> set[Place]:
        (answer,) = await admin.describe_consumer_groups([self._group])
        ((code, _group, _state, _kind, _protocol, members, *_),) = answer.groups
        self._members = len(members) if code == 0 else 0
        owned: set[Place] = set()
        for _member, _client, _host, _metadata, assignment, *_ in members:
            if assignment:
                decoded = ConsumerProtocolMemberAssignment.decode(assignment)
                owned |= {(topic, n) for topic, numbers in decoded.assignment for n in numbers}
        return owned

    async def _partitions(
        self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, owned: set[Place]
    ) -> dict[Place, Seen]:
        topics = await admin.describe_topics()
        self._orders = _trouble_with_orders(topics)
        places = [
            TopicPartition(topic["topic"], part["partition"])
            for topic in topics
            if topic["topic"] in (TRIGGERS, INBOX) or topic["topic"].startswith(TASKS_PREFIX)
            for part in topic["partitions"]
        ]
        if not places:
            return {}
        committed: dict[Any, Any] = await admin.list_consumer_group_offsets(self._group)
        names = {name for name, _ in places}
        for group, *_ in await admin.list_consumer_groups():
            if TASKS_PREFIX + group.removeprefix(FOREIGN_GROUPS) in names:
                for place, commit in (await admin.list_consumer_group_offsets(group)).items():
                    known = committed.get(place)
                    if known is None or known.offset < commit.offset:
                        committed[place] = commit
        starts = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        found = {}
        for place in places:
            commit = committed.get(place)
            # What the log has dropped is not waiting any more.
            done = max(starts[place], -1 if commit is None else commit.offset)
            metadata = "" if commit is None else str(commit.metadata)
            # Every worker is to serve these two; tasks may be those of an agent that nobody serves.
            is_owed = tuple(place) in owned or place.topic in (TRIGGERS, INBOX)
            found[tuple(place)] = Seen(ends[place], done, metadata, is_owed)
        return found

    def _judge(self, partitions: dict[Place, Seen]) -> None:
        now = time.monotonic()
        self._stalls = self._watchdog.look(now, partitions)
        self._waiting = sum(max(0, seen.end - seen.done) for seen in partitions.values())
        self._looked_at = now
        self._trouble = ""
        for (topic, partition), seen in partitions.items():
            _lag.labels(topic, partition).set(max(0, seen.end - seen.done))
        _stalled.set(len(self._stalls))
        _workers.set(self._members)
        for stall in self._watchdog.begun:
            _stalls.labels(stall.topic).inc()
            _log.error("a partition stands still", **stall._asdict())
        for topic, partition in self._watchdog.ended:
            _log.info("a partition moves again", topic=topic, partition=partition)
        self._look.set()
        self._look = asyncio.Event()  # for who waits from now on


def _trouble_with_orders(topics: list[dict[str, Any]]) -> str:
    """Why workers cannot read the orders to end tasks, as far as the cluster knows; else empty."""
    parts = [part for topic in topics if topic["topic"] == CONTROL for part in topic["partitions"]]
    if not parts:
        return f"there is no topic {CONTROL}: agents cannot be told to end; start a worker anew"
    if any(part["leader"] < 0 for part in parts):
        return f"{CONTROL} has no leader: agents cannot be told to end; see to the Kafka cluster"
    return ""

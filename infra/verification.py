"""The ledger's shell: reads the log from Kafka and asks the store, a partition at a time.

What is read in which order is what makes it right while everything runs: how far triggers are
routed and the store has recorded first, then the triggers, then of each partition the state, the
inbox and the events, at last the dead letters. What is read later has all that came of it before.
The events end where they did before the inbox was read, so that each has its cause there.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from gateway.client import GatewayClient
from sinks.ledger import WIDTH, Range, StoreAudit
from sinks.queries import query
from sinks.store import Store
from streams import letters, topics
from streams.errors import CallerError, OperatorError, UnreadableRecordError
from streams.findings import Finding, Findings, Place
from streams.ledger import PartitionAudit
from streams.messages import DeadLetter
from streams.outbox import partition_of
from streams.run import DEFAULT_LIMITS, Limits
from streams.trigger_ledger import TriggerAudit, WorkflowHistory

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Sequence[Mapping[str, Any]]]]
"""Asks the store one SELECT with parameters; gives its rows by column name."""

Say = Callable[[str, int, int], None]
"""Told what is read now, how many records of it are read, and of how many."""

_SPAN: Final = 500 * WIDTH
"""Offsets whose sums are asked for at once: within the limits of a guest's query."""

_PAGE: Final = 5_000
_LOOKED_INTO: Final = 20
"""Ranges of a partition that are looked at event by event; the rest is said as such."""

_FETCHED: Final = 2_000
_FETCH_WAIT_MS: Final = 20
"""A fetch that was under way at the end of a partition delays the next one by this at most."""

_SILENCE_S: Final = 30.0
_AGAIN_S: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `verify` found.

    Attributes:
        differences: Laws that are broken; of each check the first ones.
        open: What is not done yet: runs under way, records that nobody has read. Empty where
            everything had to be settled: then it is among the differences.
        difference_counts: By check, of all.
        open_counts: By check, of all.
        counts: What was looked at, by name.
    """

    differences: tuple[Finding, ...]
    open: tuple[Finding, ...]
    difference_counts: Mapping[str, int]
    open_counts: Mapping[str, int]
    counts: Mapping[str, int]

    @property
    def agrees(self) -> bool:
        """Whether there are no differences."""
        return not self.differences


async def verify(
    bootstrap: str,
    ask: Ask | None,
    *,
    since: int = 0,
    settled: bool = False,
    within: float = 0.0,
    kept_from: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    group: str = "commandcenter",
    say: Say = lambda _what, _done, _total: None,
) -> Verdict:
    """Compare the log, the table and the store.

    Args:
        bootstrap: Kafka, `host:port[,host:port]`.
        ask: The store; None leaves it out.
        since: Milliseconds; runs that began before are left out. 0: everything.
        settled: All work must be done: whatever is open is a difference.
        within: Where `settled`, seconds to wait for what is open to be done. All is read once more
            after that: what was open while it was read before may be done by then.
        kept_from: Milliseconds; of runs that began before, retention may have removed what the
            store had.
        limits: What an event may have, as the workers have it.
        group: The workers' consumer group.
        say: Told of the progress.

    Raises:
        OperatorError: Kafka or the store is out of reach.
    """
    until = time.monotonic() + within
    while True:
        began = time.monotonic()
        verdict = await _verify(bootstrap, ask, since, settled, kept_from, limits, group, say)
        if not (settled and verdict.open_counts) or began >= until:
            return _settled(verdict) if settled else verdict
        await asyncio.sleep(_AGAIN_S)


def _settled(verdict: Verdict) -> Verdict:
    return Verdict(
        differences=(*verdict.differences, *verdict.open),
        open=(),
        difference_counts={**verdict.difference_counts, **verdict.open_counts},
        open_counts={},
        counts=verdict.counts,
    )


async def _verify(
    bootstrap: str,
    ask: Ask | None,
    since: int,
    settled: bool,
    kept_from: int,
    limits: Limits,
    group: str,
    say: Say,
) -> Verdict:
    findings = Findings()
    counts: Counter[str] = Counter()
    try:
        routed, numbers = await _asked(bootstrap, group)
        async with _log(bootstrap, numbers, since, say) as log:
            recorded = {} if ask is None else await _watermark(ask)
            partitions = log.partitions(topics.EVENTS)
            history = WorkflowHistory()
            async for record in log.read(topics.WORKFLOWS, whole=True):
                history.take(record)
            count = len(partitions)
            triggers = TriggerAudit(history, findings, lambda run: partition_of(run, count), limits)
            for partition in log.partitions(topics.TRIGGERS):
                routed_to = routed.get(TopicPartition(topics.TRIGGERS, partition), 0)
                async for record in log.read(topics.TRIGGERS, partition):
                    triggers.take(record, routed_to)
            counts.update(triggers.counts)
            for partition in partitions:
                last = recorded.get(partition, -1)
                store = StoreAudit(topics.EVENTS, partition, last, findings, kept_from=kept_from)
                counts.update(await _partition(log, ask, partition, store, triggers, findings))
                del triggers.expected[partition], triggers.told_ends[partition]
            excused = [place async for place in _letters(log)]
            counts["dead letters"] += len(excused)
            findings.excuse(excused)
            if ask is not None and settled:
                await ask_strangers(ask, findings, kept_from)
    except (KafkaError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise OperatorError(f"Kafka at {bootstrap} cannot be read: {why}") from error
    return Verdict(
        differences=tuple(findings.differences),
        open=tuple(findings.open),
        difference_counts=dict(findings.difference_counts),
        open_counts=dict(findings.open_counts),
        counts=dict(counts),
    )


async def _partition(
    log: "_Log",
    ask: Ask | None,
    partition: int,
    store: StoreAudit,
    triggers: TriggerAudit,
    findings: Findings,
) -> Counter[str]:
    begins = [await log.begin(topic, partition) for topic in (topics.INBOX, topics.EVENTS)]
    audit = PartitionAudit(
        partition,
        findings,
        triggers.expected[partition],
        triggers.told_ends[partition],
        whole=not begins[1],
        all_starts=not begins[0],
        since=log.since,
        recorded_to=store.recorded_to,
    )
    async for record in log.read(topics.STATE, partition, whole=True):
        audit.take_state(record)
    events_end = await log.end(topics.EVENTS, partition)
    async for record in log.read(topics.INBOX, partition):
        audit.take_inbox(record)
    async for record in log.read(topics.EVENTS, partition, end=events_end):
        fresh = audit.take_event(record)
        if fresh is not None and ask is not None:
            store.take(fresh)
    audit.close()
    if ask is not None:
        await ask_store(ask, store, partition, begins[1], findings)
    audit.counts.update(store.counts)
    return audit.counts


async def ask_store(
    ask: Ask, store: StoreAudit, partition: int, begin: int, findings: Findings
) -> None:
    """Compare one partition, whose decisions from offset `begin` on the audit has taken."""
    whole = Range(begin, store.recorded_to)
    where = {"topic": topics.EVENTS, "partition": partition}
    kept = {**where, "kept_from": store.kept_from}
    differing: list[Range] = []
    for first in range(whole.first, whole.last + 1, _SPAN):
        span = Range(first, min(first + _SPAN - 1, whole.last))
        rows = await ask(query("ledger_sums"), {**kept, "width": WIDTH, **span._asdict()})
        differing += store.differing(rows, span)
    for one in differing[:_LOOKED_INTO]:
        store.compare_events(one, [row async for row in _events(ask, kept, one)])
    for one in differing[_LOOKED_INTO:]:
        findings.differ(
            "store.eventsDiffer",
            f"{topics.EVENTS}/{partition}",
            f"the store has other events at offsets {one.first} to {one.last} than the log",
        )
    for runs in store.spans():
        bounds = {**where, **runs._asdict()}
        del bounds["runs"]
        rows = await ask(query("ledger_runs"), bounds)
        store.compare_runs(runs, rows, await ask(query("ledger_attempts"), bounds))
        store.compare_costs(runs, await ask(query("ledger_costs"), bounds))
    store.close()


async def _events(
    ask: Ask, where: Mapping[str, Any], one: Range
) -> AsyncIterator[Mapping[str, Any]]:
    skip = 0
    while True:
        page = {"limit": _PAGE, "skip": skip}
        rows = await ask(query("ledger_events"), {**where, **one._asdict(), **page})
        for row in rows:
            yield row
        if len(rows) < _PAGE:
            return
        skip += _PAGE


async def _watermark(ask: Ask) -> dict[int, int]:
    rows = await ask(query("positions"), {"topic": topics.EVENTS})
    return {int(row["partition"]): int(row["offset"]) for row in rows}


async def ask_strangers(ask: Ask, findings: Findings, kept_from: int = 0) -> None:
    """Look for what the store has of runs that have no events there."""
    for row in await ask(query("ledger_strangers"), {"kept_from": kept_from}):
        text = f"{row['table_name']} of the store has it, and there are no events of it"
        findings.differ("store.noEvents", row["run_id"], text)


async def _letters(log: "_Log") -> AsyncIterator[Place]:
    for partition in log.partitions(topics.DEAD_LETTERS):
        async for record in log.read(topics.DEAD_LETTERS, partition):
            try:
                letter = letters.read(record.value)
            except UnreadableRecordError:
                continue  # it excuses nothing
            if isinstance(letter, DeadLetter):
                yield Place(letter.topic, letter.partition, letter.offset)


async def _asked(
    bootstrap: str, group: str
) -> tuple[dict[TopicPartition, int], dict[str, list[int]]]:
    """How far the group has processed each partition (next offset), and all topics' partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(group)
        described = await admin.describe_topics()
    finally:
        await admin.close()
    numbers = {
        topic["topic"]: sorted(part["partition"] for part in topic["partitions"])
        for topic in described
    }
    return {partition: found.offset for partition, found in offsets.items()}, numbers


@asynccontextmanager
async def _log(
    bootstrap: str, numbers: Mapping[str, list[int]], since: int, say: Say
) -> AsyncIterator["_Log"]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id="commandcenter-verify",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    try:
        await consumer.start()
        yield _Log(consumer, numbers, since, say)
    finally:
        await consumer.stop()


class _Log:
    """Partitions read from where they begin to the end that they have then."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        numbers: Mapping[str, list[int]],
        since: int,
        say: Say,
    ) -> None:
        self.since = since
        self._consumer = consumer
        self._numbers = numbers
        self._say = say
        self._begins: dict[TopicPartition, int] = {}

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; `OperatorError` if it does not exist."""
        if topic not in self._numbers:
            raise OperatorError(
                f"Kafka has no topic {topic}. Is it the one that CommandCenter uses "
                "(COMMANDCENTER_KAFKA, COMMANDCENTER_DATA)?"
            )
        return self._numbers[topic]

    async def begin(self, topic: str, partition: int) -> int:
        """The first offset that is read: where `since` begins, or all that is there."""
        part = TopicPartition(topic, partition)
        if part not in self._begins:
            first = (await self._consumer.beginning_offsets([part]))[part]
            if self.since:
                end = await self.end(topic, partition)
                found = (await self._consumer.offsets_for_times({part: self.since}))[part]
                first = end if found is None else found.offset
            self._begins[part] = first
        return self._begins[part]

    async def end(self, topic: str, partition: int) -> int:
        """The offset that the next record of the partition gets."""
        part = TopicPartition(topic, partition)
        return int((await self._consumer.end_offsets([part]))[part])

    async def read(
        self, topic: str, partition: int = 0, *, whole: bool = False, end: int | None = None
    ) -> AsyncIterator[Any]:
        """The partition's records, up to `end` or its end now; all of them where `whole`."""
        consumer, part = self._consumer, TopicPartition(topic, partition)
        if end is None:
            end = await self.end(topic, partition)
        if whole:
            begin = (await consumer.beginning_offsets([part]))[part]
        else:
            begin = await self.begin(topic, partition)
        if begin >= end:
            return
        consumer.assign([part])
        consumer.seek(part, begin)
        heard = time.monotonic()
        position = begin
        while position < end:
            fetched = await consumer.getmany(part, timeout_ms=1_000, max_records=_FETCHED)
            for record in fetched.get(part, ()):
                if record.offset < end:
                    yield record
            now = await consumer.position(part)
            if now > position:
                heard, position = time.monotonic(), now
            elif time.monotonic() - heard > _SILENCE_S:
                raise OperatorError(f"Kafka gives nothing more of {topic}/{partition}")
            self._say(f"{topic}/{partition}", min(position, end) - begin, end - begin)


def through_gateway(client: GatewayClient) -> Ask:
    """The store as guests of a gateway ask it."""

    async def ask(sql: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        try:
            answer = await client.post("/api/sql", {"query": sql, "parameters": parameters})
        except CallerError as error:  # our own query: it is not the caller who can mend it
            raise OperatorError(f"The store does not answer the ledger: {error}") from error
        rows: list[dict[str, Any]] = answer.value["rows"]
        return rows

    return ask


def of_store(store: Store) -> Ask:
    """The store itself, opened by this process."""

    async def ask(sql: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return (await store.query(sql, parameters)).dicts()

    return ask

"""The orchestrator's writes: what goes out, in which batches, and what a fault leaves behind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.types import TP
from msgspec import Raw
from structlog.testing import capture_logs

from streams import codec, outbox, topics
from streams.blob_store import BlobStore
from streams.errors import OperatorError
from streams.events import NodeFailed
from streams.faust_shell import Batch
from streams.lifecycle import RunState, evolve
from streams.messages import Message, Result, Start, Timer
from streams.orchestrator import Orchestrator
from streams.payload import reference_to
from streams.plan import Plan, parse
from streams.records import Trigger
from streams.run import DEFAULT_LIMITS, Limits
from streams.run_store import OFFSET_KEY, RunStore

PLAN = parse(
    {
        "name": "w",
        "nodes": [
            {"id": "a", "agent": "x", "action": "do"},
            {"id": "b", "agent": "y", "action": "do", "dependsOn": ["a"]},
        ],
    }
)
READS = parse(
    {
        "name": "reads",
        "nodes": [
            {"id": "a", "agent": "x", "action": "do"},
            {"id": "b", "agent": "x", "action": "do", "dependsOn": ["a"],
             "inputs": {"part": "{{ nodes.a.output.part }}"}},
            {"id": "c", "agent": "x", "action": "do", "dependsOn": ["a"],
             "forEach": "{{ nodes.a.output }}"},
            {"id": "d", "agent": "x", "action": "do", "dependsOn": ["a"]},
        ],
    }
)  # fmt: skip


CALLS = parse(
    {
        "name": "calls",
        "nodes": [{"id": "a", "workflow": "c", "forEach": [1, 2, 3], "maxParallel": 1}],
    }
)


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class SentBatch(NamedTuple):
    """A record batch as the broker would read it."""

    records: list[tuple[bytes | None, bytes | None]]
    size: int


class FakeProducer:
    """Keeps every batch that it was told to send."""

    def __init__(self, *, max_batch_size: int, **_: Any) -> None:
        self._limit = max_batch_size
        self.sent: list[tuple[str, SentBatch]] = []

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(self._limit, 0)

    async def send_batch(
        self, batch: Any, topic: str, *, partition: int
    ) -> asyncio.Future[SimpleNamespace]:
        assert partition == 0
        content = bytes(batch._build())
        records = [(r.key, r.value) for r in MemoryRecords(content).next_batch()]
        assert len(records) == batch.record_count()
        self.sent.append((topic, SentBatch(records, len(content))))
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(offset=len(self.sent)))
        return sent

    def written(self, topic: str) -> list[tuple[bytes | None, bytes | None]]:
        return [record for name, batch in self.sent if name == topic for record in batch.records]


class Rig:
    """An orchestrator that owns one partition, and the producer behind it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        monkeypatch.setattr(outbox, "AIOKafkaProducer", FakeProducer)
        self.unprepared: set[str] = set()
        out = outbox.Outbox("", "test")
        self.producer: Any = out._producer
        self.orchestrator = Orchestrator(
            out, out, 1, self._plan_of, self._prepare, BlobStore(str(tmp_path), 10**6),
            limits=limits,
        )  # fmt: skip
        self.orchestrator.own(0, {})
        self.offset = 0

    async def _plan_of(self, _project: str, workflow: str, _version: int) -> Plan | None:
        return {"w": PLAN, "reads": READS, "calls": CALLS}.get(workflow)

    async def _prepare(self, agent: str) -> None:
        if agent in self.unprepared:
            raise OperatorError(f"no topic for {agent}")

    async def hear(self, *messages: Message | bytes, at: int = 1_000) -> None:
        """One batch with all of them."""
        records = []
        for message in messages:
            value = message if isinstance(message, bytes) else codec.encode(message)
            key = b"?" if isinstance(message, bytes) else message.run.encode()
            records.append(Record(topics.INBOX, 0, self.offset, at, key, value))
            self.offset += 1
        batch = Batch(TP(topics.INBOX, 0), 1, records)
        assert await self.process(batch) == [batch]

    async def process(self, *batches: Batch) -> Sequence[Batch]:
        """Decide and write them; those that are done."""
        return await self.orchestrator.write(await self.orchestrator.decide(list(batches)))

    def decisions(self) -> list[Any]:
        values = [value for _, value in self.producer.written(topics.EVENTS)]
        return [codec.decisions.decode(value) for value in values]

    def letters(self) -> list[tuple[int, str, str]]:
        values = [value for _, value in self.producer.written(topics.DEAD_LETTERS)]
        letters = [codec.dead_letters.decode(value) for value in values]
        return [(letter.offset, letter.error, letter.reason) for letter in letters]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rig:
    return Rig(monkeypatch, tmp_path)


def start(run: str, **fields: Any) -> Start:
    trigger = Trigger(id=run, source="s", type="t", data=Raw(b"1"))
    return Start(
        **{"run": run, "project": "default", "workflow": "w", "version": 1, "trigger": trigger}
        | fields
    )


def done(run: str, node: str, output: bytes = b"{}") -> Result:
    return Result(run=run, node=node, attempt=1, started_at=1, finished_at=2, output=Raw(output))


async def test_outputs_go_before_the_state_and_the_offset_goes_with_it(rig: Rig) -> None:
    await rig.hear(start("r1"), start("r2"), done("r1", "a"))
    assert [topic for topic, _ in rig.producer.sent] == [
        topics.EVENTS,
        topics.tasks("x"),
        topics.tasks("y"),
        topics.STATE,
    ]
    keys = [key for key, _ in rig.producer.written(topics.STATE)]
    assert sorted(keys[:-1]) == [
        *(b"r1", b"r1/@trigger", b"r1/a", b"r1/b"),
        *(b"r2", b"r2/@trigger", b"r2/a"),
    ]
    assert rig.producer.written(topics.STATE)[-1] == (OFFSET_KEY, b"3")
    assert [(d.run, d.seq) for d in rig.decisions()] == [("r1", 0), ("r2", 0), ("r1", 2)]


async def test_a_run_is_asked_for_before_it_is_called_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where one decision does both: a cancel of what has not begun would mean nothing."""
    rig = Rig(monkeypatch, tmp_path, Limits(events=5))
    trigger = Trigger(id="e", source="s", type="t")
    await rig.hear(Start(run="r", project="default", workflow="calls", version=1, trigger=trigger))
    done = Result(
        run="r", node="a", item=0, attempt=1, started_at=1, finished_at=2, output=Raw(b"1")
    )
    await rig.hear(done)
    told = [bytes(value or b"") for _, value in rig.producer.written(topics.TRIGGERS)]
    kinds = ["called off" if b'"type":"cancel"' in each else "asked for" for each in told]
    assert kinds == ["asked for", "asked for", "called off"]


async def test_timers_that_come_early_by_the_brokers_clock_are_said_once(rig: Rig) -> None:
    await rig.hear(start("r1"))
    with capture_logs() as logs:
        await rig.hear(Timer(run="r1", node="", due=2_000), at=1_000)
        assert logs == []
        await rig.hear(*2 * (Timer(run="r1", node="", due=8_000),), at=1_000)
    (line,) = logs
    assert (line["event"], line["seconds"]) == (
        "the clock of a worker is ahead of the broker's",
        7.0,
    )


async def test_what_was_read_before_is_not_decided_again(rig: Rig) -> None:
    await rig.hear(start("r1"), done("r1", "a"))
    sent = list(rig.producer.sent)
    rig.offset = 0
    await rig.hear(start("r1"), done("r1", "a"))
    assert rig.producer.sent == sent
    rig.offset = 1
    await rig.hear(done("r1", "a"), done("r1", "b"))
    assert [(d.run, d.seq) for d in rig.decisions()] == [("r1", 0), ("r1", 2), ("r1", 4)]


async def test_a_message_that_cannot_be_processed_becomes_a_letter_and_stops_nothing(
    rig: Rig,
) -> None:
    with capture_logs():
        await rig.hear(
            b"{", done("r1", "a"), start("r1"), done("r1", "q"), start("r2", workflow="gone")
        )
    assert [(offset, error) for offset, error, _ in rig.letters()] == [
        (0, "UnreadableRecordError"),
        (1, "UnknownRunError"),
        (3, "UnknownRunError"),
        (4, "UnknownWorkflowError"),
    ]
    assert [(d.run, d.seq) for d in rig.decisions()] == [("r1", 0)]
    assert rig.producer.written(topics.STATE)[-1] == (OFFSET_KEY, b"5")


@pytest.mark.parametrize("fate", ["gone", "damaged"])
async def test_a_payload_that_is_lost_fails_the_nodes_that_need_it(
    rig: Rig, tmp_path: Path, fate: str
) -> None:
    reference = reference_to(b'{"part":1}')
    if fate == "damaged":
        place = tmp_path / "default" / reference.digest[:2] / reference.digest
        place.parent.mkdir(parents=True)
        place.write_bytes(b'{"part":2}')
    await rig.hear(start("r1", workflow="reads"), done("r1", "a", reference.encode()))
    assert rig.letters() == []
    ends = {e.node: e for e in rig.decisions()[-1].events if isinstance(e, NodeFailed)}
    assert set(ends) == {"b", "c"}
    for end in ends.values():
        assert not end.failure.retryable
        assert reference.digest in end.failure.message
        assert {"gone": "is not in", "damaged": "is damaged"}[fate] in end.failure.message
    assert "r1/d/1" in {e.task for e in rig.decisions()[-1].events if hasattr(e, "task")}


async def test_a_decision_that_cannot_be_carried_out_leaves_nothing_behind(rig: Rig) -> None:
    """Events without their state would be made again, with other contents."""
    await rig.hear(start("r1"))
    before = rig.decisions()
    rig.unprepared.add("y")
    with capture_logs():
        await rig.hear(done("r1", "a"))
    assert rig.letters() == [(1, "OperatorError", "no topic for y")]
    assert rig.decisions() == before
    rig.unprepared.clear()
    await rig.hear(done("r1", "a"))
    assert [(d.seq, len(d.events)) for d in rig.decisions()] == [(0, 2), (2, 2)]


async def test_a_crash_between_the_batches_of_a_write_tears_no_run(rig: Rig) -> None:
    """Large outputs make more state than one record batch holds; each is all that survives."""
    runs = [f"r{n}" for n in range(40)]
    await rig.hear(*map(start, runs))
    await rig.hear(*(done(run, "a", b'"' + b"x" * 60_000 + b'"') for run in runs))
    batches = [batch for topic, batch in rig.producer.sent if topic == topics.STATE]
    assert sum(batch.size for batch in batches) > 2 * outbox.BATCH_BYTES
    records: dict[bytes, bytes] = {}
    for batch in batches:
        for key, value in batch.records:
            assert key is not None
            assert value is not None
            records[key] = value
        store = RunStore(0, dict(records))  # what a restore finds if the worker ends here
        for run in runs:
            state = store.get(run)
            seq = 0 if state is None else state.head.seq
            assert _replayed(rig, run, seq) == state, f"{run} is torn after {len(records)} records"


def _replayed(rig: Rig, run: str, seq: int) -> RunState | None:
    state: RunState | None = None
    for decision in rig.decisions():
        if decision.run == run and decision.seq < seq:
            state = evolve(state, decision)
    return state


class Changelog:
    """What the shell knows of the changelog, as a test says it."""

    def __init__(self, mend: set[bytes] | None = None, *, ours: bool = True) -> None:
        self.mend = mend or set()
        self.ours = ours
        self.told: list[tuple[int, int | None, int, int]] = []

    async def may_write(self) -> bool:
        return self.ours

    def to_mend(self, _partition: int, _reads: int) -> set[bytes]:
        mend, self.mend = self.mend, set()
        return mend

    def written(self, *what: Any) -> None:
        self.told.append(what)


async def test_a_replaced_owner_writes_no_state_and_goes_on_with_nothing(rig: Rig) -> None:
    await rig.hear(start("r1"))
    state = rig.producer.written(topics.STATE)
    rig.orchestrator.changelog = Changelog(ours=False)
    batch = Batch(
        TP(topics.INBOX, 0),
        1,
        [Record(topics.INBOX, 0, 1, 1_000, b"r2", codec.encode(start("r2")))],
    )
    with capture_logs():
        assert list(await rig.process(batch)) == []
    rig.orchestrator.changelog = Changelog()
    assert list(await rig.process(batch)) == []  # it owns nothing until it is given again
    assert rig.producer.written(topics.STATE) == state


async def test_a_run_whose_state_cannot_be_read_is_not_begun_again(rig: Rig) -> None:
    await rig.hear(start("r1"))
    table = dict(rig.producer.written(topics.STATE)) | {b"r1/a": b"{}"}
    decided = rig.decisions()
    with capture_logs():
        rig.orchestrator.own(0, table)
        await rig.hear(start("r1"))
    assert [(offset, error) for offset, error, _ in rig.letters()] == [(1, "UnreadableRecordError")]
    assert rig.decisions() == decided


async def test_what_a_replaced_owner_wrote_last_is_written_again(rig: Rig) -> None:
    await rig.hear(start("r1"))
    before = dict(rig.producer.written(topics.STATE))
    rig.orchestrator.changelog = changelog = Changelog({b"r1", b"r1/gone", OFFSET_KEY})
    await rig.hear(start("r2"))
    written = rig.producer.written(topics.STATE)[len(before) :]
    assert (b"r1", before[b"r1"]) in written
    assert (b"r1/gone", None) in written
    assert [value for key, value in written if key == OFFSET_KEY] == [b"2"]
    assert changelog.told == [(0, len(rig.producer.sent), len(written), 2)]

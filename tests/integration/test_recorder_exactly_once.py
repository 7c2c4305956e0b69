"""The recording of a log into a real store, with everything that can go wrong in between."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from msgspec import Raw

from sinks import schema
from sinks.clickhouse import open_store
from sinks.history import DecisionFilter, EventFilter, History, RunFilter
from sinks.recording import LogRecord, Recording
from sinks.store import Columns, Store
from streams import codec
from streams.errors import OperatorError
from streams.events import Decision
from streams.ids import run_id
from streams.lifecycle import RunState
from streams.messages import Cancel, Message, Result, Start
from streams.plan import parse
from streams.records import Failure, RunStatus, Trigger
from streams.run import decide

TOPIC = "test.events"
PLAN = parse(
    {
        "name": "review",
        "nodes": [
            {
                "id": "scan",
                "agent": "scanner",
                "action": "scan",
                "inputs": {"é": "{{ event.data }}"},
            },
            {"id": "lint", "agent": "linter", "action": "lint", "retry": {"attempts": 2}},
            {"id": "tell", "agent": "notifier", "action": "send", "dependsOn": ["scan", "lint"]},
        ],
    }
)


@dataclass(slots=True)
class Record:
    offset: int
    value: bytes | None
    partition: int = 0
    topic: str = TOPIC
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Run:
    """One run, driven through the real core; collects its decisions."""

    name: str
    at: int
    state: RunState | None = None
    decisions: list[Decision] = field(default_factory=list)

    def hear(self, make: Callable[[str], Message]) -> "Run":
        run = run_id("default", "review", "/test", self.name)
        outcome = decide(self.state, make(run), self.at, PLAN, 0)
        assert outcome.decision is not None, outcome.ignored
        self.state = outcome.state
        self.at += 10
        self.decisions.append(outcome.decision)
        return self

    def start(self) -> "Run":
        trigger = Trigger(
            id=self.name, source="/test", type="repo.push", data=Raw(b'{"a":"\xc3\xa9"}')
        )
        return self.hear(
            lambda run: Start(
                run=run, project="default", workflow="review", version=1, trigger=trigger
            )
        )

    def answer(self, node: str, attempt: int = 1, *, failure: Failure | None = None) -> "Run":
        return self.hear(
            lambda run: Result(
                run=run,
                node=node,
                attempt=attempt,
                started_at=self.at - 5,
                finished_at=self.at - 2,
                worker="w",
                failure=failure,
                output=msgspec.UNSET if failure else Raw(b'{"n": 1}'),
            )
        )

    def cancel(self) -> "Run":
        return self.hear(lambda run: Cancel(run=run, reason="not wanted", force=True))


def good(name: str, at: int) -> Run:
    return Run(name, at).start().answer("scan").answer("lint").answer("tell")


def failed(name: str, at: int) -> Run:
    no = Failure(kind="agent_error", message="boom", retryable=False)
    return Run(name, at).start().answer("lint", failure=no).answer("scan")


def cancelled(name: str, at: int) -> Run:
    return Run(name, at).start().answer("scan").cancel()


def unfinished(name: str, at: int) -> Run:
    return Run(name, at).start().answer("scan")


def some_runs() -> list[Run]:
    makers = (good, failed, cancelled, unfinished)
    return [makers[n % 4](f"run-{n}", 1_700_000_000_000 + 3 * n) for n in range(12)]


def log_of(runs: Iterable[Run]) -> list[Record]:
    """The runs' decisions as a log of one partition, interleaved by time."""
    decisions = sorted((d for run in runs for d in run.decisions), key=lambda d: (d.at, d.run))
    return [Record(offset, codec.encode(d)) for offset, d in enumerate(decisions)]


class CrashError(Exception):
    """The process ends here."""


class FaultyStore:
    """A store whose n-th insert meets a fault, before or after the engine has done it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.inserts = 0
        self.fail_at = -1
        self.done_first = False
        self.fault: Exception = CrashError()
        self.failed = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def insert(self, table: str, columns: Columns, *, token: str = "") -> None:
        number, self.inserts = self.inserts, self.inserts + 1
        if number == self.fail_at:
            self.failed = table
        if number == self.fail_at and not self.done_first:
            raise self.fault
        await self._store.insert(table, columns, token=token)
        if number == self.fail_at:
            raise self.fault


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    store = await open_store(f"chdb://{tmp_path_factory.mktemp('store')}")
    try:
        await schema.apply(store)
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(engine: Store) -> FaultyStore:
    for table in ("events", "runs_log", "agent_runs_log", "costs_log", "run_places"):
        await engine.command(f"TRUNCATE TABLE {table}")
    return FaultyStore(engine)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.recording.RETRY_FIRST_S", 0.0)


@dataclass
class Letters:
    kept: list[tuple[int, str]] = field(default_factory=list)

    async def __call__(self, record: LogRecord, error: Exception) -> None:
        self.kept.append((record.offset, str(error)))


async def resumed(
    store: Store, letters: Letters | None = None, *, capacity: int = 20_000
) -> Recording:
    recording = Recording(store, TOPIC, letters or Letters(), capacity=capacity)
    await recording.resume([0])
    return recording


async def record(recording: Recording, log: list[Record], *, batch: int = 5) -> None:
    """Read on as the recorder does: from what the store says, in batches."""
    rest = [entry for entry in log if entry.offset > recording.watermark[0]]
    for start in range(0, len(rest), batch):
        await recording.record(rest[start : start + batch])


async def check(store: Store, runs: list[Run]) -> None:
    """The store says of every run, attempt and event what the core made, and nothing else."""
    history = History(store, TOPIC)
    events = sum(len(d.events) for run in runs for d in run.decisions)
    [counts] = (
        await store.query(
            "SELECT (SELECT count() FROM events), (SELECT count() FROM runs),"
            " (SELECT count() FROM agent_runs), (SELECT uniqExact(run_id, seq) FROM events)"
        )
    ).rows
    attempts = sum(
        b'"node.dispatched"' in codec.encode(event)
        for run in runs
        for d in run.decisions
        for event in d.events
    )
    assert counts == (events, len(runs), attempts, events)

    rows = {row["run_id"]: row for row in await history.runs()}
    for run in runs:
        assert run.state is not None
        head = run.state.head
        row = rows[head.run]
        assert row["status"] == head.status
        assert row["error_message"] == (
            "not wanted"
            if head.status is RunStatus.CANCELLED
            else (head.failure.message if head.failure and head.finished_at else "")
        )
        assert (row["started_at"].timestamp(), row["nodes"]) == (head.started_at / 1000, 3)
        finished = row["finished_at"] and row["finished_at"].timestamp() * 1000
        assert finished == head.finished_at
        seqs = [event["seq"] for event in await history.run_events(head.run)]
        assert seqs == list(range(head.seq))


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fail_at", range(8))
async def test_a_crash_around_any_insert_loses_and_doubles_nothing(
    store: FaultyStore, fail_at: int, done_first: bool
) -> None:
    runs = some_runs()
    log = log_of(runs)
    store.fail_at, store.done_first = fail_at, done_first

    with pytest.raises(CrashError):
        await record(await resumed(store), log)
    again = await resumed(store)
    await record(again, log, batch=7)  # other batches than before

    await check(store, runs)
    assert again.counts.duplicates == again.counts.conflicts == again.counts.gaps == 0


@pytest.mark.parametrize("done_first", [False, True], ids=["not done", "done all the same"])
@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 7])
async def test_a_store_that_is_away_is_tried_again(
    store: FaultyStore, fail_at: int, done_first: bool
) -> None:
    runs = some_runs()
    store.fail_at, store.done_first = fail_at, done_first
    store.fault = OperatorError("the store is away")

    recording = await resumed(store)
    await record(recording, log_of(runs))

    await check(store, runs)
    assert recording.last_error is None
    # An events insert that was done all the same is found out by asking, not tried again.
    assert recording.counts.retries == (0 if done_first and store.failed == "events" else 1)


async def test_every_decision_comes_back_byte_for_byte(store: FaultyStore) -> None:
    log = log_of(some_runs())
    await record(await resumed(store), log)

    history = History(store, TOPIC)
    assert [d.value for d in await history.decisions(0, after=-1)] == [r.value for r in log]
    page = await history.decisions(0, after=4, until=9, limit=3)
    assert [(d.partition, d.offset) for d in page] == [(0, 5), (0, 6), (0, 7)]
    assert await history.decisions(1, after=-1) == []


async def test_what_two_owners_wrote_is_recorded_once(store: FaultyStore) -> None:
    runs = some_runs()
    once = log_of(runs)
    # A zombie repeats stretches of the log: at once, and after a restart that forgot everything.
    values = [r.value for r in once]
    twice = values[:10] + values[6:10] + values[10:] + values[:3] + values[-5:]
    log = [Record(offset, value) for offset, value in enumerate(twice)]

    await record(await resumed(store), log[:18])
    recording = await resumed(store, capacity=2)
    await record(recording, log)

    await check(store, runs)
    assert recording.counts.conflicts == recording.counts.gaps == 0
    assert recording.watermark[0] == len(log) - 1
    doubled = sum(1 for n, value in enumerate(twice) if value in twice[:n])
    before = sum(1 for n, value in enumerate(twice[:18]) if value in twice[:n])
    assert recording.counts.duplicates == doubled - before


async def test_a_start_from_before_the_restart_is_not_taken_for_new(store: FaultyStore) -> None:
    runs = [good(f"r-{n}", 1_700_000_000_000 + 100_000 * n) for n in range(4)]
    log = log_of(runs)
    await record(await resumed(store), log)
    recording = await resumed(store, capacity=2)
    await record(recording, [*log, Record(len(log), log[0].value)])

    await check(store, runs)
    assert recording.counts.duplicates == 1


async def test_a_different_decision_with_the_same_number_is_a_conflict(store: FaultyStore) -> None:
    run = good("a", 1_700_000_000_000)
    other = msgspec.structs.replace(run.decisions[1], at=run.decisions[1].at + 1)
    log = [*log_of([run]), Record(4, codec.encode(other))]
    recording = await resumed(store)
    await record(recording, log)

    await check(store, [run])
    assert (recording.counts.duplicates, recording.counts.conflicts) == (1, 1)


async def test_what_is_missing_is_counted_and_the_rest_recorded(store: FaultyStore) -> None:
    log = log_of([good("a", 1_700_000_000_000)])
    recording = await resumed(store)
    await record(recording, [log[0], log[2], log[3]])

    assert recording.counts.gaps == 1
    [run] = await History(store, TOPIC).runs()
    assert run["status"] == "SUCCESS"


async def test_a_run_goes_on_after_the_recorder_forgot_it(store: FaultyStore) -> None:
    runs = [unfinished(f"r-{n}", 1_700_000_000_000 + 100_000 * n) for n in range(6)]
    log = log_of(runs)
    recording = await resumed(store, capacity=2)
    await record(recording, log, batch=2)
    for run in runs:
        run.at += 1_000_000
        run.answer("lint").answer("tell")
    await record(recording, log_of(runs), batch=2)

    await check(store, runs)
    assert recording.counts.gaps == recording.counts.duplicates == 0


async def test_an_unreadable_record_is_kept_and_the_others_are_recorded(store: FaultyStore) -> None:
    runs = some_runs()
    good_values = [r.value for r in log_of(runs)]
    values = [b"not json", *good_values[:4], None, *good_values[4:], b'{"v":2}']
    letters = Letters()
    recording = await resumed(store, letters)
    await record(recording, [Record(offset, value) for offset, value in enumerate(values)])

    await check(store, runs)
    assert [offset for offset, _ in letters.kept] == [0, 5, len(values) - 1]
    assert "format version 2" in letters.kept[-1][1]
    assert recording.watermark[0] == len(values) - 1
    assert recording.counts.dead_letters == 3


async def test_lists_detail_and_sql_agree_on_an_attempt(store: FaultyStore) -> None:
    run = failed("a", 1_700_000_000_000)
    await record(await resumed(store), log_of([run]))
    history = History(store, TOPIC)
    head = run.decisions[0].run

    scan, lint = sorted(await history.agent_runs(head), key=lambda row: row["node"], reverse=True)
    assert (scan["node"], scan["status"], scan["duration_ms"]) == ("scan", "SUCCESS", 3)
    assert scan["inputs"] == '{"é":{"a":"é"}}'
    assert (lint["status"], lint["error_kind"], lint["output"]) == ("FAILED", "agent_error", "")
    asked = await store.query_readonly(
        "SELECT node, status FROM agent_runs WHERE status = 'FAILED' AND retry_at IS NULL"
    )
    assert asked.rows == [("lint", "FAILED")]


@pytest.mark.parametrize("parts", [1, 3])
async def test_pages_of_runs_and_events_join_without_a_seam(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    # With one for each run, what is read ends within the parts of a run.
    monkeypatch.setattr("sinks.history._PARTS", parts)
    # Runs that start in the same millisecond, so that only the second part of the key tells them.
    runs = [good(f"r-{n}", 1_700_000_000_000 + n // 4) for n in range(10)]
    await record(await resumed(store), log_of(runs))
    history = History(store, TOPIC)

    pages: list[dict[str, Any]] = []
    while page := await history.runs(limit=3, before=_run_key(pages)):
        pages += page
    whole = await history.runs()
    assert pages == whole
    stored = await store.query("SELECT * FROM runs ORDER BY started_at DESC, run_id DESC")
    assert whole == stored.dicts()
    assert [_run_key([row]) for row in whole] == sorted(
        (_run_key([row]) for row in whole), reverse=True
    )

    seen: list[dict[str, Any]] = []
    while page := await history.events(limit=7, before=_event_key(seen)):
        seen += page
    assert len(seen) == len({(row["run_id"], row["seq"]) for row in seen}) == 80


def _run_key(rows: list[dict[str, Any]]) -> tuple[int, str] | None:
    return (_ms(rows[-1]["started_at"]), rows[-1]["run_id"]) if rows else None


def _event_key(rows: list[dict[str, Any]]) -> tuple[int, str, int] | None:
    return (_ms(rows[-1]["at"]), rows[-1]["run_id"], rows[-1]["seq"]) if rows else None


def _ms(time: Any) -> int:
    return round(time.timestamp() * 1000)


async def test_filters_choose_runs(store: FaultyStore) -> None:
    runs = some_runs()
    await record(await resumed(store), log_of(runs))
    history = History(store, TOPIC)
    assert len(await history.runs(RunFilter(statuses=("FAILED", "CANCELLED")))) == 6
    assert len(await history.runs(RunFilter(workflow="review", trigger_type="repo.push"))) == 12
    for nothing in (
        RunFilter(workflow="other"),
        RunFilter(project="other"),
        RunFilter(trigger_type="other"),
        RunFilter(since=1_800_000_000_000),
    ):
        assert await history.runs(nothing) == []
    assert len(await history.runs(RunFilter(since=1_700_000_000_000 + 30))) == 2
    assert len(await history.events(EventFilter(type="run.failed"))) == 3
    assert await history.events(EventFilter(node="scan", type="run.failed")) == []
    first = runs[0].decisions[0].run
    assert len(await history.decisions(0, after=-1, wanted=DecisionFilter(run=first))) == 4
    ended = DecisionFilter(workflow="review", project="default", statuses=("SUCCESS",))
    assert len(await history.decisions(0, after=-1, wanted=ended)) == 3
    for status in ("SUCCESS", "FAILED", "CANCELLED", "RUNNING"):
        assert len(await history.runs(RunFilter(workflow="review", statuses=(status,)))) == 3

"""The audit of the store: what the recorder wrote agrees, and every kind of damage has its name."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from small_log import SmallLog, run_of

from infra import verification
from infra.verification import Ask, ask_store, ask_strangers, of_store
from sinks import schema
from sinks.clickhouse import open_store
from sinks.ledger import StoreAudit
from sinks.queries import query
from sinks.recording import LogRecord, Recording
from sinks.store import Store
from streams import topics
from streams.errors import CallerError
from streams.findings import Findings
from streams.ledger import PartitionAudit

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMPTY = {"events": {}, "runs_log": {}, "agent_runs_log": {}, "costs_log": {}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    path: Path = tmp_path_factory.mktemp("chdb")
    store = await open_store(f"chdb://{path}")
    yield store
    await store.close()


async def never(_record: LogRecord, error: Exception) -> None:
    raise AssertionError(error)


@pytest_asyncio.fixture(loop_scope="module")
async def store(opened: Store) -> Store:
    await schema.apply(opened)
    for table in EMPTY:
        await opened.command(f"TRUNCATE TABLE {table}")
    return opened


@pytest_asyncio.fixture(loop_scope="module")
async def log(store: Store) -> SmallLog:
    log = SmallLog().some_runs()
    recording = Recording(store, topics.EVENTS, never)
    await recording.resume([0])
    await recording.record(log.events)
    return log


async def audit(
    store: Store,
    log: SmallLog,
    recorded_to: int | None = None,
    asked: list[str] | None = None,
    kept_from: int = 0,
) -> Findings:
    findings = Findings()
    last = len(log.events) - 1 if recorded_to is None else recorded_to
    partition = PartitionAudit(0, findings, {}, recorded_to=last)
    held = StoreAudit(topics.EVENTS, 0, last, findings, kept_from=kept_from)
    for record in log.state:
        partition.take_state(record)
    for record in log.inbox:
        partition.take_inbox(record)
    for record in log.events:
        fresh = partition.take_event(record)
        if fresh is not None:
            held.take(fresh)
    partition.close()
    await ask_store(_as_guest(store, asked), held, 0, 0, findings)
    return findings


def _as_guest(store: Store, asked: list[str] | None = None) -> Ask:
    """As the gateway lets its guests ask: what it refuses them must not be asked."""

    async def ask(sql: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if asked is not None:
            asked.append(sql)
        return (await store.query_readonly(sql, parameters)).dicts()

    return ask


async def test_what_the_recorder_wrote_agrees(store: Store, log: SmallLog) -> None:
    asked: list[str] = []
    found = await audit(store, log, asked=asked)
    assert found.differences == []
    assert query("ledger_sums") in asked
    assert query("ledger_events") not in asked  # the sums say it all
    own = await of_store(store)("SELECT count() AS n FROM events", {})
    assert int(own[0]["n"]) > len(log.events)


async def test_repetitions_are_not_expected_twice(store: Store, log: SmallLog) -> None:
    again = log.events[3]
    log.append(topics.EVENTS, again.value, again.key)
    assert (await audit(store, log)).differences == []


async def test_what_is_not_recorded_yet_is_open(store: Store, log: SmallLog) -> None:
    last = len(log.events) - 1
    log.answer("going", "lint")
    log.start("newest")
    found = await audit(store, log, recorded_to=last)
    assert found.differences == []
    assert found.open_counts["store.behind"] == 1


async def test_a_run_may_be_further_in_the_store_by_now(store: Store, log: SmallLog) -> None:
    last = len(log.events) - 1
    log.answer("going", "lint")
    log.answer("going", "tell")
    recording = Recording(store, topics.EVENTS, never)
    await recording.resume([0])
    await recording.record(log.events)
    assert (await audit(store, log, recorded_to=last)).differences == []


RUN = run_of("good")
LATER = "FROM events WHERE run_id = '{run}' AND events.seq = 1"


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("ALTER TABLE events DELETE WHERE run_id = '{run}' AND seq = 1", "store.eventMissing"),
        (
            "ALTER TABLE events UPDATE payload = '{{}}' WHERE run_id = '{run}' AND seq = 1",
            "store.eventDiffers",
        ),
        (
            "ALTER TABLE events UPDATE status = 'FAILED' WHERE run_id = '{run}' AND seq = 1",
            "store.eventDiffers",
        ),
        (
            "INSERT INTO events SELECT * REPLACE (seq + 90 AS seq) " + LATER,
            "store.eventUnknown",
        ),
        ("INSERT INTO events SELECT * " + LATER, "store.eventTwice"),
        ("ALTER TABLE runs_log DELETE WHERE run_id = '{run}'", "store.runMissing"),
        (
            (
                "INSERT INTO runs_log (started_at, run_id, project, workflow, version, latest) "
                "SELECT started_at, run_id, project, workflow, version, "
                "(99, 'FAILED', toDateTime64(1, 3, 'UTC'), '', '', '') FROM runs "
                "WHERE run_id = '{run}'"
            ),
            "store.runDiffers",
        ),
        (
            "ALTER TABLE agent_runs_log DELETE WHERE run_id = '{run}' AND attempt = 2",
            "store.attemptsDiffer",
        ),
        ("ALTER TABLE agent_runs_log DELETE WHERE run_id = '{run}'", "store.attemptsDiffer"),
        (
            "ALTER TABLE agent_runs_log UPDATE outcome = 'FAILED' WHERE run_id = '{run}'",
            "store.attemptsDiffer",
        ),
        (
            (
                "ALTER TABLE agent_runs_log UPDATE finished_at = finished_at + 1 "
                "WHERE run_id = '{run}' AND outcome != ''"
            ),
            "store.attemptsDiffer",
        ),
        ("ALTER TABLE costs_log DELETE WHERE run_id = '{run}'", "store.costsDiffer"),
        (
            "ALTER TABLE costs_log DELETE WHERE run_id = '{run}' AND attempt = 2",
            "store.costsDiffer",
        ),
        (
            "ALTER TABLE costs_log UPDATE currency = 'EUR' WHERE run_id = '{run}' AND attempt = 2",
            "store.costsDiffer",
        ),
        (
            (
                "ALTER TABLE costs_log UPDATE amount = amount + toDecimal128('0.000000000001', 12) "
                "WHERE run_id = '{run}' AND kind = 'tokens'"
            ),
            "store.costsDiffer",
        ),
        *(
            (
                f"ALTER TABLE costs_log UPDATE {change} WHERE run_id = '{{run}}' AND attempt = 2",
                "store.costsDiffer",
            )
            for change in ("model = 'large'", "agent = 'scan'", "at = at + 86400", "quantity = 0")
        ),
        ("ALTER TABLE runs_log UPDATE tags = ['day'] WHERE run_id = '{run}'", "store.runDiffers"),
        (
            (
                "INSERT INTO costs_log SELECT * REPLACE (entry + 9 AS entry) FROM costs_log "
                "WHERE run_id = '{run}' AND kind = 'tokens'"
            ),
            "store.costsDiffer",
        ),
    ],
)
async def test_damage_is_named(store: Store, log: SmallLog, damage: str, found: str) -> None:
    if damage.startswith("ALTER"):
        await store.command(damage.format(run=RUN) + " SETTINGS mutations_sync = 1")
        seen = await audit(store, log)
    else:
        await store.command("SYSTEM STOP MERGES")  # one of them would mend it
        try:
            await store.command(damage.format(run=RUN))
            seen = await audit(store, log)
        finally:
            await store.command("SYSTEM START MERGES")
    assert {(one.check, one.subject) for one in seen.differences} == {(found, RUN)}


async def test_what_retention_may_have_removed_is_not_missed(store: Store, log: SmallLog) -> None:
    runs = await store.query("SELECT toUnixTimestamp64Milli(started_at) FROM runs ORDER BY 1")
    kept_from = int(runs.rows[-1][0])
    assert runs.rows[0][0] < kept_from
    removed = f"run_started_at < fromUnixTimestamp64Milli({kept_from})"
    for table in ("events", "costs_log"):  # a merge has not come to the others yet
        await store.command(f"ALTER TABLE {table} DELETE WHERE {removed} SETTINGS mutations_sync=1")
    found = await audit(store, log, kept_from=kept_from)
    await ask_strangers(_as_guest(store), found, kept_from)
    assert found.differences == []
    found = await audit(store, log)
    assert {"store.eventMissing", "store.costsDiffer"} <= {one.check for one in found.differences}
    gone = f"ALTER TABLE events DELETE WHERE NOT {removed} AND seq = 1 SETTINGS mutations_sync=1"
    await store.command(gone)
    found = await audit(store, log, kept_from=kept_from)
    assert [one.check for one in found.differences] == ["store.eventMissing"]


async def test_ranges_that_differ_beyond_those_looked_into_are_named(
    store: Store, log: SmallLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_LOOKED_INTO", 0)
    damage = f"ALTER TABLE events UPDATE payload = '{{}}' WHERE run_id = '{RUN}' AND seq = 1"
    await store.command(damage + " SETTINGS mutations_sync = 1")
    [found] = (await audit(store, log)).differences
    assert (found.check, found.subject) == ("store.eventsDiffer", "commandcenter.events/0")


@pytest.mark.parametrize("table", ["runs", "agent_runs", "costs"])
async def test_what_the_store_has_of_runs_without_events_is_named(
    store: Store, log: SmallLog, table: str
) -> None:
    findings = Findings()
    await ask_strangers(_as_guest(store), findings)
    assert findings.differences == []
    stranger = f"INSERT INTO {table}_log SELECT * REPLACE ('stranger' AS run_id) FROM {table}_log"
    await store.command(stranger + f" WHERE {table}_log.run_id = '{RUN}'")
    await ask_strangers(_as_guest(store), findings)
    [found] = findings.differences
    assert (found.check, found.subject) == ("store.noEvents", "stranger")
    assert found.text.startswith(f"{table} of the store has it")


async def test_a_question_that_no_guest_may_ask_is_refused(store: Store) -> None:
    with pytest.raises(CallerError):
        await _as_guest(store)("SELECT 1 FROM runs_log", {})


async def test_what_runs_cost_is_exact_and_counted_once(store: Store, log: SmallLog) -> None:
    recording = Recording(store, topics.EVENTS, never)
    # The same batch once more, as after a crash before its events were inserted.
    await store.command("TRUNCATE TABLE events")
    await recording.resume([0])
    await recording.record(log.events)
    rows = await store.query_readonly(
        "SELECT kind, source, model, attempt, toString(amount) FROM costs"
        " WHERE run_id = {run:String} ORDER BY seq, entry",
        {"run": RUN},
    )
    assert rows.rows == [
        ("compute", "scan", "", 1, "0.00333333333"),
        ("compute", "lint", "", 1, "0.00333333333"),
        ("tokens", "provider", "small", 1, "0.0000001234"),
        ("compute", "lint", "", 2, "0.00666666667"),
        ("compute", "tell", "", 1, "0.00333333333"),
    ]
    totals = await store.query_readonly(
        "SELECT currency, toString(amount), toString(compute), toString(tokens) FROM run_costs"
        " WHERE run_id = {run:String} ORDER BY currency",
        {"run": RUN},
    )
    assert totals.rows == [
        ("EUR", "0.0000001234", "0", "0.0000001234"),
        ("USD", "0.01666666666", "0.01666666666", "0"),
    ]

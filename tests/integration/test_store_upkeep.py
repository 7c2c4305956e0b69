"""What happens to the tables besides recording: migrations, rollups, retention, damage."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from small_log import BEGAN, Record, SmallLog

from sinks import damage, rebuild, retention, schema
from sinks.clickhouse import open_store
from sinks.recording import LogRecord, Recording
from sinks.rollups import Rollups
from sinks.store import DEFAULT_LIMITS, Store
from streams import codec, topics
from streams.errors import OperatorError
from streams.events import Decision

MINUTE = 60_000
ROLLED_UP: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "runs",
        "workflow, version",
        "runs",
        "started_at",
        (
            "runs = count(), succeeded = countIf(status = 'SUCCESS'),"
            " failed = countIf(status = 'FAILED'), cancelled = countIf(status = 'CANCELLED'),"
            " open = countIf(finished_at IS NULL), duration_ms = sum(ifNull(duration_ms, 0))"
        ),
    ),
    (
        "steps",
        "workflow, node, agent, action",
        "agent_runs",
        "run_started_at",
        (
            "attempts = count(), succeeded = countIf(status = 'SUCCESS'),"
            " failed = countIf(status = 'FAILED'), open = countIf(status = 'RUNNING'),"
            " retried = countIf(retry_at IS NOT NULL)"
        ),
    ),
    (
        "costs",
        "workflow, agent, kind, source, model, unit, currency",
        "costs",
        "run_started_at",
        "entries = count(), quantity = sum(quantity), amount = sum(amount)",
    ),
    ("events", "workflow, type", "events", "at", "events = count()"),
)
"""Views per minute and day, their keys, what they count, by which time, and how."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"chdb://{tmp_path}")
    try:
        await schema.apply(opened)
        yield opened
    finally:
        await opened.close()


async def never(_record: LogRecord, error: Exception) -> None:
    raise AssertionError(error)


async def record(store: Store, records: list[Record]) -> Recording:
    recording = Recording(store, topics.EVENTS, never)
    await recording.resume([0])
    rest = [entry for entry in records if entry.offset > recording.watermark[0]]
    for start in range(0, len(rest), 5):
        await recording.record(rest[start : start + 5])
    return recording


# --- migrations ---


async def test_a_start_applies_nothing_twice(store: Store) -> None:
    applied = await store.query("SELECT number, applied_at FROM schema_versions ORDER BY number")
    numbers = [migration.number for migration in schema.migrations()][1:]
    assert [number for number, _ in applied.rows] == numbers
    await schema.apply(store)
    again = await store.query("SELECT number, applied_at FROM schema_versions ORDER BY number")
    assert again.rows == applied.rows


async def test_a_file_that_changed_is_applied_again_with_all_after_it(store: Store) -> None:
    await store.command("DROP VIEW costs_per_day")
    await store.command("DROP VIEW workflows")
    row = {"number": [8], "name": ["x"], "digest": ["older"], "applied_at": [9_000_000_000_000]}
    await store.insert("schema_versions", row)
    await schema.apply(store)
    for view in ("workflows", "costs_per_day"):
        assert (await store.query(f"SELECT count() FROM {view}")).rows == [(0,)]


async def test_a_schema_of_a_newer_release_is_refused(store: Store) -> None:
    row = {"number": [9_000], "name": ["9000_x.sql"], "digest": ["d"], "applied_at": [1]}
    await store.insert("schema_versions", row)
    with pytest.raises(OperatorError, match=r"newer release .*schema 9000, this one knows \d+"):
        await schema.apply(store)


async def test_two_that_start_at_once_both_get_the_whole_schema(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}"
    stores = [await open_store(url) for _ in range(3)]
    try:
        await asyncio.gather(*(schema.apply(one) for one in stores))
        applied = await stores[0].query("SELECT count() FROM schema_versions FINAL")
        assert applied.rows == [(len(schema.migrations()) - 1,)]
        for one in stores:
            await record(one, SmallLog().some_runs().events)
        assert (await stores[0].query("SELECT count() FROM runs")).rows == [(4,)]
    finally:
        for one in stores:
            await one.close()


# --- rollups ---


async def check_rollups(store: Store) -> None:
    """They say what a count of the tables says."""
    for span, start in (("minute", "toStartOfMinute"), ("day", "toStartOfDay")):
        for view, columns, table, at, counts in ROLLED_UP:
            pairs = _pairs(counts)
            names = ", ".join(name for name, _ in pairs)
            values = ", ".join(value for _, value in pairs)
            rolled = await store.query(
                f"SELECT toUnixTimestamp({span}) AS t, {columns}, {names} FROM {view}_per_{span}"
                " ORDER BY ALL"
            )
            counted = await store.query(
                f"SELECT toUnixTimestamp({start}({at})) AS t, {columns}, {values} FROM {table}"
                f" GROUP BY t, {columns} ORDER BY ALL"
            )
            assert rolled.rows, view
            assert list(map(tuple, rolled.rows)) == list(map(tuple, counted.rows)), view


def _pairs(text: str) -> list[tuple[str, str]]:
    """`a = f(x, y), b = g(z)` by its outermost commas."""
    found, depth, part = [], 0, ""
    for character in f"{text},":
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            name, value = part.strip().split(" = ", 1)
            found.append((name, value))
            part = ""
        else:
            part += character
    return found


def later(records: list[Record], by_ms: int, prefix: str) -> list[Record]:
    """The same runs under other names, at another time."""
    moved = []
    for entry in records:
        assert entry.value is not None
        decision = codec.decisions.decode(entry.value)
        fields = {name: getattr(decision, name) for name in decision.__struct_fields__}
        fields |= {"run": prefix + decision.run[len(prefix) :], "at": decision.at + by_ms}
        moved.append(entry._replace(value=codec.encode(Decision(**fields))))
    return moved


def in_order(*parts: list[Record]) -> list[Record]:
    records = [entry for part in parts for entry in part]
    return [entry._replace(offset=offset) for offset, entry in enumerate(records)]


async def test_rollups_are_what_a_count_of_the_tables_is(store: Store) -> None:
    events = SmallLog().some_runs().events
    log = in_order(
        events,
        later(events, 90 * MINUTE, "b"),
        later(events, 400 * 24 * 60 * MINUTE, "c"),
        later(events, -200 * 24 * 60 * MINUTE, "d"),  # months late
    )
    rollups = Rollups(store)
    for upto in (7, len(events) + 3, len(log)):
        recording = await record(store, log[:upto])
        await rollups.refresh(recording.watermark)
        await check_rollups(store)


async def test_counting_again_changes_no_rollup(store: Store) -> None:
    recording = await record(store, SmallLog().some_runs().events)
    await Rollups(store).refresh(recording.watermark)
    await store.command("TRUNCATE TABLE positions")  # as after a crash in between
    await Rollups(store).refresh(recording.watermark)
    await check_rollups(store)


async def test_percentiles_of_a_day_are_those_of_its_minutes(store: Store) -> None:
    recording = await record(store, SmallLog().some_runs().events)
    await Rollups(store).refresh(recording.watermark)
    [(day, minute, exact)] = (
        await store.query(
            "SELECT (SELECT p50_ms FROM runs_per_day), (SELECT p50_ms FROM runs_per_minute),"
            " (SELECT quantileTDigest(0.5)(toFloat32(assumeNotNull(duration_ms))) FROM runs"
            " WHERE finished_at IS NOT NULL)"
        )
    ).rows
    assert day == minute == exact


# --- late events, and retention ---


async def test_events_of_a_hundred_months_make_one_part_a_batch(store: Store) -> None:
    events = SmallLog().some_runs().events[:4]
    month = 31 * 24 * 60 * MINUTE
    log = in_order(*(later(events, n * -month, f"{n:03}") for n in range(120)))
    for table in retention.TABLES:
        await store.command(f"SYSTEM STOP MERGES {table}")
    recording = Recording(store, topics.EVENTS, never)
    await recording.resume([0])
    await recording.record(log)
    parts = await store.query(
        "SELECT max(n) FROM (SELECT table, count() AS n FROM system.parts"
        " WHERE active AND database = currentDatabase() AND table != 'schema_versions'"
        " GROUP BY table)"
    )
    assert parts.rows == [(1,)]


async def test_old_runs_are_removed_whole_and_their_counts_stay(store: Store) -> None:
    events = SmallLog().some_runs().events
    [(now,)] = (await store.query("SELECT toUnixTimestamp64Milli(now64(3))")).rows
    log = in_order(events, later(events, now - BEGAN, "b"))  # of 2023, and of today
    recording = await record(store, log)
    await Rollups(store).refresh(recording.watermark)
    positions = dict(recording.watermark)
    await retention.apply(store, 30)
    for table in retention.TABLES:
        await store.command(f"OPTIMIZE TABLE {table} FINAL")
    for table in ("events", "runs", "agent_runs", "costs"):
        left = await store.query(
            f"SELECT count(), countIf(NOT startsWith(run_id, 'b')) FROM {table}"
        )
        assert left.rows[0][0] > 0, table
        assert left.rows[0][1] == 0, table
    assert (await store.query("SELECT sum(runs) FROM runs_per_day")).rows == [(8,)]
    again = await record(store, log)
    assert dict(again.watermark) == positions

    await store.command("TRUNCATE TABLE events")  # all of them were too old
    again = Recording(store, topics.EVENTS, never)
    await again.resume([0])
    assert dict(again.watermark) == positions

    for days, expected in ((7, "toIntervalDay(7)"), (0, "")):
        await retention.apply(store, days)
        made = await store.query(
            "SELECT create_table_query FROM system.tables WHERE name = 'events'"
            " AND database = currentDatabase()"
        )
        assert expected in made.rows[0][0]
        assert ("TTL" in made.rows[0][0]) == bool(days)


async def test_a_late_event_of_a_removed_minute_leaves_its_count(store: Store) -> None:
    events = SmallLog().some_runs().events
    recording = await record(store, events)
    await Rollups(store).refresh(recording.watermark)
    await store.command("TRUNCATE TABLE runs_log")
    await store.command("TRUNCATE TABLE positions")
    aged = Rollups(store, retention_days=30)
    await aged.refresh(recording.watermark)
    assert (await store.query("SELECT sum(runs) FROM runs_per_minute")).rows == [(4,)]


# --- damage ---

_OPEN = """
import asyncio, sys
from sinks import damage, schema
from sinks.clickhouse import open_store

async def main():
    store = await open_store(sys.argv[1])
    try:
        await damage.refuse(store)
    finally:
        await store.close()

asyncio.run(main())
"""


async def test_a_broken_part_is_named_and_not_passed_over(tmp_path: Path) -> None:
    store = await open_store(f"chdb://{tmp_path}")
    await schema.apply(store)
    await record(store, SmallLog().some_runs().events)
    await damage.refuse(store)
    [(path,)] = (
        await store.query("SELECT any(path) FROM system.parts WHERE table = 'events' AND active")
    ).rows
    await store.close()
    (Path(path) / "checksums.txt").write_text("nonsense")
    opened = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OPEN, f"chdb://{tmp_path}"),
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    said = (await opened.communicate())[1].decode()
    assert opened.returncode != 0
    assert "is damaged" in said
    assert "events/" in said
    assert "commandcenter rebuild" in said


async def _spoil(store: Store, table: str) -> None:
    """Write over what a table has on the disk, and close the store."""
    parts = await store.query(
        "SELECT path FROM system.parts WHERE active AND table = {table:String}", {"table": table}
    )
    await store.close()
    for [path] in parts.rows:
        _write_over(Path(path))


def _write_over(part: Path) -> None:
    for file in part.glob("*.bin"):
        file.write_bytes(b"nonsense" * 16 + file.read_bytes()[128:])


async def test_a_query_that_comes_upon_damage_says_so(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path / 'store'}"
    store = await open_store(url)
    await schema.apply(store)
    await record(store, SmallLog().some_runs().events)
    await _spoil(store, "events")
    store = await open_store(url)
    try:
        for ask in (store.query, store.query_readonly):
            with pytest.raises(OperatorError, match=r"damaged.*default\.events.*rebuild"):
                await ask("SELECT * FROM events")
        assert (await store.query("SELECT count() FROM runs_log")).rows != [(0,)]
    finally:
        await store.close()


async def test_a_rebuild_puts_aside_what_it_cannot_read(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path / 'store'}"
    store = await open_store(url)
    await schema.apply(store)
    await _spoil(store, "schema_versions")
    with pytest.raises(OperatorError, match=r"damaged.*schema_versions"):
        await _applied(url)
    told: list[str] = []
    store = await rebuild.opened(url, DEFAULT_LIMITS, told.append)
    try:
        assert (await store.query("SELECT count() FROM runs")).rows == [(0,)]
    finally:
        await store.close()
    [text] = told
    assert "schema_versions" in text
    assert text.endswith(f"It is now {tmp_path / 'store.damaged-1'}.")


async def _applied(url: str) -> None:
    store = await open_store(url)
    try:
        await schema.apply(store)
    finally:
        await store.close()

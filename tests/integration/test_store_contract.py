"""What every store must do: one suite, over chDB and over a ClickHouse server in a container."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from testcontainers.community.clickhouse import ClickHouseContainer

from sinks import schema
from sinks.clickhouse import open_store
from sinks.guest_sql import Checked
from sinks.store import Limits, Store
from streams.errors import CallerError, OperatorError

LIMITS = Limits(seconds=1.0, rows=100, export_rows=1_000, memory_bytes=64 * 1024 * 1024)
LATEST = (4, "SUCCESS", 3_000, "", "", "")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ClickHouseContainer(username="test", password="p@ss", dbname="test") as container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(8123)
        yield f"clickhouse://test:p%40ss@{host}:{port}/history"


@pytest.fixture(params=["chdb", pytest.param("server", marks=pytest.mark.containers)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"chdb://{tmp_path}" if request.param == "chdb" else request.getfixturevalue("server")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await open_store(url, LIMITS)
    try:
        await schema.apply(store)
        for table in ("events", "runs_log", "agent_runs_log", "costs_log"):
            await store.command(f"TRUNCATE TABLE {table}")
        yield store
    finally:
        await store.close()


async def insert_run(store: Store, run: str = "r-1", *, at: int = 1_000) -> None:
    await store.insert(
        "runs_log",
        {
            "started_at": [at, at],
            "run_id": [run, run],
            "workflow": ["review", "review"],
            "nodes": [3, 0],
            "latest": [(0, "RUNNING", 0, "", "", ""), LATEST],
        },
    )


async def test_what_was_inserted_is_there_when_the_call_returns(store: Store) -> None:
    await insert_run(store)
    [run] = (await store.query("SELECT * FROM runs")).dicts()
    assert (run["run_id"], run["status"], run["nodes"], run["seq"]) == ("r-1", "SUCCESS", 3, 4)


async def test_times_are_aware_and_in_utc(store: Store) -> None:
    await insert_run(store)
    rows = await store.query("SELECT started_at, finished_at, duration_ms FROM runs")
    assert rows.rows[0] == (
        datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC),
        2_000,
    )


async def test_parts_may_come_twice_and_in_any_order(store: Store) -> None:
    await insert_run(store)
    once = await store.query("SELECT * FROM runs")
    await insert_run(store)
    assert await store.query("SELECT * FROM runs") == once


async def test_parameters_are_values_and_never_text(store: Store) -> None:
    await insert_run(store, "it's \\ a {run}")
    sql = "SELECT count() FROM runs WHERE run_id = {run:String}"
    assert (await store.query(sql, {"run": "it's \\ a {run}"})).rows[0] == (1,)
    assert (await store.query(sql, {"run": "' OR 1 = 1 --"})).rows[0] == (0,)


async def test_the_same_block_changes_nothing(store: Store) -> None:
    columns = {"run_id": ["r", "r"], "seq": [0, 1], "partition": [0, 0], "offset": [5, 5]}
    for _ in range(2):
        await store.insert("events", columns, token="0:5-5")
    assert (await store.query("SELECT count() FROM events")).rows[0] == (2,)


async def test_a_large_insert_is_one_part(store: Store) -> None:
    # The engine makes a part visible as a whole: one part is all or nothing.
    rows = 40_000
    columns = {
        "run_id": ["r"] * rows,
        "seq": list(range(rows)),
        "offset": list(range(rows)),
        "payload": [f"{number:>1000}" for number in range(rows)],
    }
    await store.command("SYSTEM STOP MERGES events")
    await store.insert("events", columns)
    parts = await store.query(
        "SELECT sum(rows), count() FROM system.parts WHERE table = 'events' AND active"
        " AND database = currentDatabase()"
    )
    assert parts.rows[0] == (rows, 1)


async def test_the_schema_can_be_applied_again(store: Store) -> None:
    await insert_run(store)
    await schema.apply(store)
    assert (await store.query("SELECT count() FROM runs")).rows[0] == (1,)


async def test_tables_of_an_earlier_release_are_taken_over_with_their_rows(store: Store) -> None:
    tables = await store.query(
        "SELECT engine = 'View', name FROM system.tables WHERE database = currentDatabase()"
        " ORDER BY ALL DESC"
    )
    for is_view, name in tables.rows:
        await store.command(f"DROP {'VIEW' if is_view else 'TABLE'} {name}")
    for migration in schema.migrations()[1:6]:  # without versions: those came later
        for statement in migration.statements:
            if "CREATE TABLE" in statement:  # as they were first made: columns came by ALTER
                await store.command(statement)
    await store.command("INSERT INTO events (run_id, type) VALUES ('r', 'run.started')")
    await store.command("INSERT INTO runs_log (started_at, run_id) VALUES (1, 'r')")
    await store.command(
        "INSERT INTO agent_runs_log (run_started_at, run_id, node, attempt, dispatched_at)"
        " VALUES (1, 'r', 'n', 1, 5)"
    )
    for _ in range(2):
        await schema.apply(store)
    attempts = await store.query("SELECT node, item, attempt, child_run FROM agent_runs")
    assert attempts.rows == [("n", -1, 1, "")]
    assert (await store.query("SELECT item FROM events")).rows == [(-1,)]
    runs = await store.query("SELECT paused, depth, parent_run FROM runs")
    assert runs.rows == [(False, 0, "")]


async def test_every_column_and_table_says_what_it_is(store: Store) -> None:
    silent = await store.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = ''"
        " UNION ALL SELECT name, '' FROM system.tables WHERE database = currentDatabase()"
        " AND comment = ''"
    )
    assert silent.rows == []


async def test_a_guest_reads_the_public_tables(store: Store, tmp_path: Path) -> None:
    await insert_run(store)
    sql = "SELECT run_id FROM runs WHERE status = {status:String};"
    assert (await store.query_readonly(sql, {"status": "SUCCESS"})).rows[0] == ("r-1",)
    file = tmp_path / "it's.csv"
    await store.export_readonly(sql, {"status": "SUCCESS"}, output_format="CSVWithNames", file=file)
    assert file.read_bytes() == b'"run_id"\n"r-1"\n'


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("DROP TABLE runs", "Only SELECT"),
        ("SELECT nope FROM runs", "nope"),
        ("SELECT toUInt8('x')", "Cannot parse"),
        ("SELECT number FROM numbers(101)", "more than 100 rows"),
        ("SELECT sum(sipHash64(number)) FROM numbers(100000000000)", "stopped after 1 s"),
        ("SELECT groupArray(toString(number)) FROM numbers(30000000)", "64 MiB|stopped after"),
    ],
)
async def test_a_guests_mistake_is_told_in_a_sentence(store: Store, sql: str, reason: str) -> None:
    with pytest.raises(CallerError, match=reason) as refused:
        await store.query_readonly(sql)
    assert "DB::Exception" not in str(refused.value)


async def test_an_unknown_output_format_is_the_callers_mistake(
    store: Store, tmp_path: Path
) -> None:
    for name in ("Nope", "CSV SETTINGS readonly = 0"):
        with pytest.raises(CallerError, match=r"format|Format"):
            await store.export_readonly("SELECT 1", output_format=name, file=tmp_path / "x")


async def test_an_export_may_have_more_rows_and_a_limit_of_its_own(
    store: Store, tmp_path: Path
) -> None:
    async def export(rows: int) -> int:
        file = tmp_path / str(rows)
        sql = f"SELECT number FROM numbers({rows})"
        await store.export_readonly(sql, output_format="CSV", file=file)
        return len(file.read_text().splitlines())

    assert await export(1_000) == 1_000
    with pytest.raises(CallerError, match="more than 1,000 rows"):
        await export(1_001)


async def test_the_engine_itself_refuses_a_guest_to_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second gate, with the first one open.
    monkeypatch.setattr("sinks.guest_sql.check", lambda sql, _database: Checked(sql))
    for sql in (
        "INSERT INTO runs_log (run_id) VALUES ('x')",
        "DROP TABLE runs_log",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_result_rows = 0",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    ):
        with pytest.raises(CallerError, match=r"only reading|readonly"):
            await store.query_readonly(sql)


async def test_an_answer_without_rows_has_its_columns(store: Store) -> None:
    rows = await store.query_readonly("SELECT run_id, seq FROM events WHERE 0; -- none")
    assert rows == (("run_id", "seq"), [])


async def test_a_guest_keeps_its_limits_after_many_questions(store: Store) -> None:
    for _ in range(5):
        with pytest.raises(CallerError, match="more than 100 rows"):
            await store.query_readonly("SELECT number FROM numbers(101)")
    assert len((await store.query("SELECT number FROM numbers(101)")).rows) == 101


async def test_questions_and_inserts_go_on_side_by_side(store: Store) -> None:
    async def ask() -> int:
        rows = await store.query_readonly("SELECT count() FROM runs")
        return int(rows.rows[0][0])

    asked = [asyncio.create_task(ask()) for _ in range(20)]
    for number in range(5):
        await insert_run(store, f"r-{number}", at=1_000 + number)
    assert all(0 <= count <= 5 for count in await asyncio.gather(*asked))
    assert await ask() == 5


async def test_it_answers_until_it_is_closed(store: Store) -> None:
    await store.ping()
    await store.close()
    await store.close()
    with pytest.raises(OperatorError, match="closed"):
        await store.ping()


async def test_it_keeps_what_it_was_given(url: str) -> None:
    for expected in (1, 1):
        store = await open_store(url)
        try:
            await schema.apply(store)
            await insert_run(store)
            counted = await store.query("SELECT count() FROM runs WHERE run_id = 'r-1'")
            assert counted.rows[0] == (expected,)
        finally:
            await store.close()


# --- chDB alone ---

_OWNER = """
import asyncio, sys
from sinks.clickhouse import open_store

async def main():
    store = await open_store(sys.argv[1])
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await store.close()

asyncio.run(main())
"""


async def test_a_second_owner_of_a_folder_is_told_who_has_it(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}"
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _OWNER,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    try:
        assert await owner.stdout.readline() == b"open\n"
        with pytest.raises(OperatorError, match=rf"in use by process {owner.pid}"):
            await open_store(url)
    finally:
        await owner.communicate(b"\n")
    store = await open_store(url)
    await store.close()


async def test_two_folders_in_one_process_are_refused(tmp_path: Path) -> None:
    store = await open_store(f"chdb://{tmp_path / 'a'}")
    try:
        with pytest.raises(OperatorError, match="already has another chDB open"):
            await open_store(f"chdb://{tmp_path / 'b'}")
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///x", "not known"),
        ("chdb://relative/folder", "absolute folder"),
        ("chdb:///dev/null/store", "cannot be used"),
        ("clickhouse://localhost:99999/x", "wrong"),
        ("clickhouse://user:secret@127.0.0.1:1/x", "cannot be reached: Connection refused."),
    ],
)
async def test_what_cannot_be_opened_says_why(url: str, reason: str) -> None:
    with pytest.raises(OperatorError, match=reason) as refused:
        await open_store(url)
    assert "secret" not in str(refused.value)

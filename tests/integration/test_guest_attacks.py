"""What a guest tries who wants more than to read the history; every text runs on a real engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from sinks import guest_sql, schema
from sinks.clickhouse import open_store
from sinks.guest_catalogue import PUBLIC_TABLES
from sinks.store import Limits, Store
from streams.errors import CallerError

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "the-secret-of-the-host"
LIMITS = Limits(seconds=1.0, rows=1_000, memory_bytes=200_000_000, answer_bytes=1_000_000)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = tmp_path_factory.mktemp("host") / "secret.txt"
    file.write_text(SECRET + "\n")
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    store = await open_store(f"chdb://{tmp_path_factory.mktemp('store')}", LIMITS)
    try:
        await schema.apply(store)
        yield store
    finally:
        await store.close()


ATTACKS = [
    # Files, by every door.
    "SELECT file('{f}')",
    "SELECT FILE('{f}')",
    "SELECT `file`('{f}')",
    "SELECT \"file\"('{f}')",
    "SELECT file/**/('{f}')",
    "SELECT file\n('{f}')",
    "SELECT file --\n('{f}')",
    "SELECT arrayMap(file, ['{f}'])",
    "SELECT arrayMap(`file`, ['{f}'])",
    "SELECT arrayMap((file), ['{f}'])",
    "SELECT arrayMap(((file)), ['{f}'])",
    "SELECT arrayMap(file AS f, ['{f}'])",
    "SELECT arrayMap(x -> file(x), ['{f}'])",
    "SELECT arrayFilter(file, ['{f}'])",
    "SELECT arrayFold(file, ['{f}'], '')",
    "SELECT 1 AS file, arrayMap(file, ['{f}'])",
    "WITH file AS x SELECT arrayMap(x, ['{f}'])",
    "WITH (x -> file(x)) AS f SELECT f('{f}')",
    "SELECT * APPLY(file) FROM (SELECT '{f}')",
    "SELECT * APPLY file FROM (SELECT '{f}')",
    "SELECT COLUMNS('.') APPLY(x -> file(x)) FROM (SELECT '{f}')",
    "SELECT '{f}' AS x, x.file FROM runs",
    "SELECT begin show, file('{f}')",
    "SELECT 1 AS “'”, file('{f}') AS “'”",
    "SELECT 1 /* /* */, file('{f}') -- */ */",
    "SELECT $$'$$, file('{f}'), $$'$$",
    "SELECT file\ufeff('{f}')",
    "SELECT `file`\u200b('{f}')",
    "WITH (x -> file\u2060(x)) AS f SELECT f('{f}')",
    "SELECT {{# \n'{f}': 1}}, file('{f}'), -- #}}\n 2",
    "SELECT 1 AND$b$, file('{f}') AS c$b$",
    "SELECT DISTINCT$b$, file('{f}') AS c$b$, 1 AS `DISTINCT$b$`",
    "SELECT 1 //* */ 2, ' \n , file('{f}') -- '",
    "SELECT `fi\\x6ce`('{f}')",
    "SELECT '\\\\', file('{f}')",
    "SELECT '\\'', file('{f}'), '\\''",
    "SELECT `a\\``, file('{f}'), `b`",
    "SELECT 1 #\n, file('{f}')",
    "SELECT 1 UNION ALL SELECT file('{f}')",
    "SELECT if(1, file('{f}'), '')",
    "SELECT count() FROM runs HAVING file('{f}') != ''",
    "SELECT * FROM file('{f}', 'LineAsString')",
    "SELECT * FROM FILE('{f}', LineAsString, 'a String')",
    "SELECT * FROM `file`('{f}', 'LineAsString')",
    "SELECT b FROM VALUES('a String, b String ALIAS file(a)', ('{f}'))",
    "SELECT b FROM values ('a String, b String ALIAS file(a)', ('{f}'))",
    "SELECT * FROM null('a String ALIAS file($${f}$$)')",
    "SELECT * FROM '{f}'",
    "SELECT * FROM `{f}`",
    "WITH 1 AS `{f}` SELECT * FROM `{f}`",
    "SELECT (WITH `{f}` AS (SELECT 1) SELECT 1), (SELECT * FROM `{f}`)",
    "WITH 1 AS LICENSE SELECT * FROM LICENSE",
    "SELECT (WITH LICENSE AS (SELECT 1) SELECT 1) WHERE '' NOT IN LICENSE",
    "SELECT arrayReduce('groupConcat(file($${f}$$))', ['a', 'b'])",
    "SELECT arrayReduceInRanges('groupConcat(file($${f}$$))', [(1, 2)], ['a', 'b'])",
    "SELECT arrayReduce(concat('groupConcat(fi', 'le($${f}$$))'), ['a', 'b'])",
    "SELECT 1 IN file('{f}')",
    "SELECT 1 IN (SELECT * FROM file('{f}', 'LineAsString'))",
    "WITH t AS (SELECT * FROM file('{f}', 'LineAsString')) SELECT * FROM t",
    "SELECT (SELECT * FROM file('{f}', 'LineAsString'))",
    "SELECT * FROM fileCluster('default', '{f}', 'LineAsString')",
    "SELECT * FROM merge(file('{f}', 'LineAsString'))",
    "DESCRIBE file('{f}', 'LineAsString')",
    "DESCRIBE TABLE (SELECT file('{f}'))",
    "EXPLAIN SELECT file('{f}')",
    "SHOW TABLES LIKE file('{f}')",
    # The network, other engines, programs.
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV')",
    "SELECT * FROM urlCluster('default', 'http://127.0.0.1:1/')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1', 'system', 'one')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM s3('http://127.0.0.1/bucket/x', 'CSV')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1/x', 'CSV')",
    "SELECT * FROM azureBlobStorage('x', 'y', 'z')",
    "SELECT * FROM iceberg('http://127.0.0.1/x')",
    "SELECT * FROM deltaLake('http://127.0.0.1/x')",
    "SELECT * FROM mysql('127.0.0.1:3306', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:5432', 'a', 'b', 'c', 'd')",
    "SELECT * FROM mongodb('127.0.0.1', 'a', 'b', 'c', 'd', 'x Int')",
    "SELECT * FROM redis('127.0.0.1', 'k', 'k String')",
    "SELECT * FROM jdbc('x', 'y')",
    "SELECT * FROM odbc('x', 'y')",
    "SELECT * FROM sqlite('{f}', 't')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM python('x')",
    "SELECT aiGenerate('x', 'y')",
    # Dictionaries, other tables, what the engine knows of itself.
    "SELECT dictGet('d', 'a', 1)",
    "SELECT * FROM dictionary('d')",
    "SELECT joinGet('t', 'a', 1)",
    "SELECT * FROM runs_log",
    "SELECT * FROM default.runs_log",
    "SELECT * FROM `default`.`costs_log`",
    "SELECT * FROM merge('default', '.*')",
    "SELECT * FROM mergeTreeIndex('default', 'events')",
    "SELECT * FROM loop(runs_log)",
    "SELECT * FROM viewExplain('', '', (SELECT 1))",
    "SELECT * FROM view(SELECT * FROM runs_log)",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.settings_changes",
    "SELECT * FROM system.users",
    "SELECT * FROM SYSTEM.query_log",
    "SELECT * FROM `system`.`parts_columns`",
    "SELECT system.tables.name FROM system.tables AS `t``.name FROM file('{f}', 'RawBLOB') --`",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM INFORMATION_SCHEMA.TABLES",
    "SELECT 1 IN system.one_",
    "SELECT 1 IN runs_log",
    "SELECT 1 IN (runs_log)",
    "SELECT (1, 2) NOT IN ((schema_versions))",
    "SELECT 0 GLOBAL IN (system.one)",
    "WITH schema_versions AS r SELECT (1, '') IN r",
    "WITH (runs_log) AS a, a AS runs SELECT '' IN runs",
    "SELECT runs_log AS runs, '' IN (runs)",
    "SELECT (WITH 1 AS runs_log SELECT 1), (WITH runs_log AS a SELECT '' IN a)",
    "SELECT `in`(0, system.one)",
    "SELECT globalIn(0, system.one)",
    "WITH 1 AS runs_log SELECT count() FROM runs_log",
    "WITH runs_log AS (SELECT * FROM runs_log) SELECT * FROM runs_log",
    "SELECT (WITH runs_log AS (SELECT 1) SELECT 1), (SELECT count() FROM runs_log)",
    "WITH 1 AS getServerSetting SELECT getServerSetting('path')",
    "SELECT (WITH (x -> x) AS getServerSetting SELECT 1), getServerSetting('path')",
    "WITH ((a, b) -> 1) AS `and` SELECT name FROM system.tables",
    "WITH ((a, b) -> 1) AS f, (f) AS equals SELECT name FROM system.columns",
    "SELECT (() -> 'system') AS currentDatabase, name FROM system.tables",
    "SELECT hasColumnInTable('system', 'users', 'name')",
    "SELECT getSetting('max_threads')",
    "SELECT getServerSetting('path')",
    "SELECT hostName()",
    "SELECT current_user",
    "SELECT serverUUID()",
    "SELECT * FROM {{t:Identifier}}",
    # Changes.
    "SET max_threads = 64",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT 1; DROP TABLE runs_log",
    "SELECT 1;; SYSTEM SHUTDOWN",
    "INSERT INTO runs_log (run_id) VALUES ('x')",
    "INSERT INTO FUNCTION file('{f}', 'CSV') SELECT 1",
    "CREATE TABLE x (a Int) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x AS SELECT 1",
    "ALTER TABLE runs_log DELETE WHERE 1",
    "DROP VIEW runs",
    "TRUNCATE TABLE events",
    "OPTIMIZE TABLE events FINAL",
    "KILL QUERY WHERE 1",
    "SYSTEM STOP MERGES",
    "GRANT ALL ON *.* TO default",
    "ATTACH TABLE x",
    "BACKUP TABLE events TO File('{f}')",
    "USE system",
    "BEGIN TRANSACTION",
    "SELECT 1 INTO OUTFILE '{f}.out'",
    "SELECT 1 INTO OUTFILE '{f}.out' TRUNCATE FORMAT CSV",
    "SELECT 1 FORMAT CSV",
    # Time and memory.
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(100)",
    "SELECT count() FROM numbers(1000000000000)",
    "SELECT count() FROM numbers(1000000) AS a, numbers(1000000) AS b, numbers(1000000) AS c",
    "SELECT number FROM numbers(100000)",
    "SELECT repeat('x', 900000000)",
    "SELECT repeat('x', 3000000)",
    "SELECT groupArray(toString(number)) FROM numbers(100000000)",
    "SELECT range(100000000)",
    "SELECT * FROM generateRandom('a String')",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    "SELECT finalizeAggregation(unhex('ffff')::AggregateFunction(groupArray, String))",
    "SELECT unhex('ffff')::AggregateFunction(uniq, String)",
    "SELECT CAST(unhex('ffff'), 'AggregateFunction(uniq, String)')",
    "SELECT CAST(unhex('ffff'), 'AggregateFunction/*array*/(uniq, String)')",
    "SELECT CAST(substring($$($$, 2) || 'x', 'AggregateFunction(uniq, String)')",
    "SELECT arrayTopK(newlyMade, 1, [1])",
    "SELECT accurateCast(unhex('ffff'), 'Array(A\\x67gregateFunction(uniq, String))')",
    "SELECT arrayReduce(concat('sum', 'State'), [1]), map([1], 2)",
    "SELECT reinterpret(unhex('ffff'), concat('Aggregate', 'Function(uniq, String)'))",
    "SELECT sum(levenshteinDistance(repeat('a', 60000), toString(number))) FROM numbers(99999)",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack[:60])
async def test_an_attack_is_refused(store: Store, secret: Path, attack: str) -> None:
    sql = attack.replace("{f}", str(secret)).replace("{{", "{").replace("}}", "}")
    with pytest.raises(CallerError) as refused:
        await store.query_readonly(sql)
    assert SECRET not in str(refused.value)
    assert [file.name for file in secret.parent.iterdir()] == [secret.name]


async def test_a_parameter_cannot_bring_sql_into_the_text(store: Store, secret: Path) -> None:
    inside = f" , file($${secret}$$) , "
    for sql in (
        "SELECT '%(a)s'",
        "SELECT '%(a)s', {b:String}",
        "SELECT '{a:String', '%(a)s'",
        "SELECT 1 /* {a:String */, '%(a)s'",
    ):
        with pytest.raises(CallerError):
            await store.query_readonly(sql, {"a": inside, **({"b": "x"} if "b:" in sql else {})})
    rows = await store.query_readonly("SELECT {a:String} AS a", {"a": inside})
    assert rows.rows == [(inside,)]
    rows = await store.query_readonly("SELECT '{a:String}', '%(a)s'", {"a": inside})
    assert rows.rows == [("{a:String}", "%(a)s")]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT throwIf(1, 'while reading from part /a/b/ in table runs')",
        "SELECT toInt8(concat('while reading from pa', 'rt /a/b/ in table runs'))",
        "SELECT readWKB('x'), 'while reading from part /a/b/ in table runs'",
        "SELECT toInt8('\\xff')",
        "SELECT '' AS `\\xff`",
    ],
)
async def test_what_a_guest_has_wrong_is_no_trouble_of_the_operator(store: Store, sql: str) -> None:
    with pytest.raises(CallerError):
        await store.query_readonly(sql)


async def test_no_function_that_takes_others_gets_one_by_its_name(store: Store) -> None:
    takers = await store.query("SELECT name FROM system.functions WHERE higher_order")
    for (name,) in takers.rows:
        with pytest.raises(CallerError, match="cannot"):
            guest_sql.check(f"SELECT `{name}`(newlyMade, ['x'], ['x'])")


async def test_names_that_nobody_has_are_free(store: Store) -> None:
    rows = await store.query_readonly(
        "WITH mine AS (SELECT 1 AS n), (x -> x + 1) AS inc"
        " SELECT inc(n) FROM mine WHERE n IN (mine)"
    )
    assert rows.rows == [(2,)]


async def test_the_system_tables_show_the_public_tables_alone(store: Store) -> None:
    for sql in (
        "SELECT name FROM system.tables",
        "SELECT DISTINCT table FROM system.columns AS c",
        "SELECT t.name FROM system.tables t JOIN system.databases d ON t.database = d.name",
        "SHOW TABLES",
    ):
        found = {row[0] for row in (await store.query_readonly(sql)).rows}
        assert found == PUBLIC_TABLES, sql
    assert (await store.query_readonly("SELECT * FROM system.settings")).rows == []
    assert (await store.query_readonly("SELECT create_table_query FROM system.tables")).rows[0] == (
        "",
    )


async def test_a_stopped_query_leaves_nothing_behind(store: Store) -> None:
    async def running() -> int:
        sql = "SELECT count() FROM system.processes WHERE query LIKE '%groupArray(toString%'"
        return int((await store.query(sql + " AND query NOT LIKE '%processes%'")).rows[0][0])

    process = psutil.Process()
    hungry = "SELECT length(groupArray(toString(number))) FROM numbers(100000000)"
    with pytest.raises(CallerError):
        await store.query_readonly(hungry)
    at_rest = process.memory_info().rss
    for _ in range(5):
        with pytest.raises(CallerError, match=r"memory|stopped"):
            await store.query_readonly(hungry)
        assert await running() == 0
    # Five times the limit would be a gigabyte.
    assert process.memory_info().rss - at_rest < LIMITS.memory_bytes


async def test_a_query_that_fails_leaves_nothing_to_the_next_one(store: Store) -> None:
    fails = "SELECT number FROM numbers(200000) WHERE NOT ignore(throwIf(number = 199999))"
    for ask in (store.query_readonly, store.query):
        with pytest.raises(CallerError):
            await ask(fails)
        for _ in range(3):  # each of the threads has its turn
            found = await ask("SELECT run_id FROM runs WHERE run_id = 'nobody'")
            assert found.rows == []
            assert found.columns in (("run_id",), ())


async def test_slow_questions_do_not_keep_others_from_their_turn(store: Store) -> None:
    slow = [
        asyncio.create_task(store.query_readonly("SELECT count() FROM numbers(1000000000000)"))
        for _ in range(4)
    ]
    inserted = 0
    while not slow[0].done():
        await store.insert("runs_log", {"started_at": [inserted], "run_id": [f"i-{inserted}"]})
        inserted += 1
        assert (await store.query("SELECT 1")).rows == [(1,)]
    # The writer and the readers have threads of their own: they went on meanwhile.
    assert inserted > 1
    for each in await asyncio.gather(*slow, return_exceptions=True):
        assert isinstance(each, CallerError)

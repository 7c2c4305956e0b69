"""What Grafana and DBeaver send, word for word; so neither Go nor Java is needed here.

The requests were recorded from the backend of grafana/clickhouse-datasource 4.20 (clickhouse-go
over HTTP: gzip, `limit`) and from clickhouse-jdbc 0.6.1, 0.9.9 and 0.11.2 (DBeaver's driver), and
more queries taken from what Grafana's editor (`src/data`) and dbeaver/dbeaver
(`plugins/org.jkiss.dbeaver.ext.clickhouse`) write.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import quote

import generated_history
import lz4.frame
import pytest
import pytest_asyncio
from served_history import KEY, Served, serving

from gateway.clickhouse_blocks import BlockPacker, unpack
from sinks.clickhouse import open_store
from sinks.guest_catalogue import PUBLIC_TABLES
from streams.errors import CallerError

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREETING = "SELECT displayName(), version(), revision(), timezone()"
PROTOCOL = {"client_protocol_version": "54485", "default_format": "Native", "database": "default"}
GRAFANA = {**PROTOCOL, "limit": "1000000"}
JDBC = {"compress": "1", "async_insert": "0", "wait_end_of_query": "0", "query_id": "q-1"}
ENOUGH = 1_000_000
FIXTURES = Path(__file__).parent.parent / "fixtures" / "driver_queries"


def recorded(name: str) -> list[str]:
    text = (FIXTURES / f"{name}.sql").read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n;;\n")


JDBC_TABLES = (
    "SELECT '' AS TABLE_CAT, t.database AS TABLE_SCHEM, t.name AS TABLE_NAME, CASE WHEN t.engine"
    " LIKE '%Log' THEN 'LOG TABLE' WHEN t.engine like '%View' THEN 'VIEW'WHEN t.engine ="
    " 'Dictionary' THEN 'DICTIONARY' WHEN empty(t.data_paths) THEN 'REMOTE TABLE' ELSE 'TABLE' END"
    " AS TABLE_TYPE, t.comment AS REMARKS, d.engine AS TYPE_SCHEM FROM system.tables t JOIN"
    " system.databases d ON system.tables.database = system.databases.name WHERE t.database LIKE"
    " '%' AND TABLE_TYPE IN ('TABLE','VIEW','SYSTEM TABLE')"
)
JDBC_COLUMNS = (
    "SELECT table AS TABLE_NAME, name AS COLUMN_NAME, toInt32(multiIf(character_octet_length IS NOT"
    " NULL, character_octet_length, system.columns.type == 'Bool', 1, 0)) AS COLUMN_SIZE,"
    " toInt32(position(type, 'Nullable(') >= 1 ?1 : 0) as NULLABLE, system.columns.comment AS"
    " REMARKS, toInt32(system.columns.position) AS ORDINAL_POSITION FROM system.columns WHERE"
    " database LIKE 'default' AND table LIKE 'runs' AND name LIKE '%' ORDER BY ORDINAL_POSITION"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


async def post(
    served: Served,
    sql: str | bytes,
    parameters: Mapping[str, str],
    *,
    path: str = "/clickhouse",
    **headers: str,
) -> tuple[bytes, Mapping[str, str]]:
    """The body as it came, and the headers, of an answer without a fault."""
    async with served.http.post(
        path,
        data=sql,
        params=parameters,
        headers={"X-ClickHouse-Key": KEY, **{k.replace("_", "-"): v for k, v in headers.items()}},
    ) as response:
        content = await response.read()
        assert response.status == 200, content
        return content, response.headers


@pytest.mark.parametrize("sql", recorded("grafana"))
async def test_grafana_gets_native(served: Served, sql: str) -> None:
    content, headers = await post(served, sql, GRAFANA)
    assert headers["X-ClickHouse-Format"] == "Native"
    assert content


@pytest.mark.parametrize("sql", recorded("dbeaver"))
async def test_dbeaver_gets_compressed_rows_at_the_root(served: Served, sql: str) -> None:
    content, headers = await post(
        served, sql, JDBC, path="/", X_ClickHouse_Format="RowBinaryWithNamesAndTypes"
    )
    assert headers["X-ClickHouse-Query-Id"] == "q-1"
    assert unpack(content, ENOUGH)


async def test_jdbc_finds_tables_and_columns(served: Served) -> None:
    async def rows(sql: str) -> list[dict[str, object]]:
        content, _ = await post(served, sql, JDBC, path="/", X_ClickHouse_Format="JSONEachRow")
        return [json.loads(line) for line in unpack(content, ENOUGH).splitlines()]

    assert {row["TABLE_NAME"] for row in await rows(JDBC_TABLES)} == PUBLIC_TABLES
    first = (await rows(JDBC_COLUMNS))[0]
    assert (first["COLUMN_NAME"], first["ORDINAL_POSITION"]) == ("run_id", 1)


async def test_the_oldest_driver_of_dbeaver_says_what_holds_anyway(served: Served) -> None:
    content, _ = await post(served, "SELECT 1 FORMAT TSV", {"extremes": "0"}, path="/")
    assert content == b"1\n"
    status, text, _ = await served.get("SELECT 1", extremes="1")
    assert (status, "extremes" in text) == (403, True)


async def test_every_table_has_the_types_that_it_tells(served: Served) -> None:
    for table in sorted(PUBLIC_TABLES):
        told, _ = await post(served, f"DESCRIBE {table}", {"default_format": "TSV"})
        content, _ = await post(
            served, f"SELECT * FROM {table} LIMIT 0", {"default_format": "TSVWithNamesAndTypes"}
        )
        types = content.decode().splitlines()[1].split("\t")
        assert set(types) <= {line.split("\t")[1] for line in told.decode().splitlines()}, table


async def test_show_tells_what_is_like_it_asks(served: Served) -> None:
    async def shown(sql: str) -> list[str]:
        return (await post(served, sql, {"default_format": "TSV"}))[0].decode().splitlines()

    assert await shown("SHOW DATABASES LIKE 'def%'") == ["default"]
    assert await shown("SHOW DATABASES LIKE 'x'") == []
    assert await shown("SHOW FULL TABLES FROM `default` LIKE 'cost_'") == ["costs\tView"]
    assert await shown("SHOW FULL TABLES FROM other") == []
    assert await shown("SHOW FULL TEMPORARY TABLES LIKE '%'") == []


def filtered(sql: str, **filters: str) -> str:
    """The query with ad hoc filters, as Grafana writes them."""
    pairs = ", ".join(
        "'{}' : '{}'".format(table, condition.replace("\\", r"\\").replace("'", r"\'"))
        for table, condition in filters.items()
    )
    return f"{sql} settings additional_table_filters={{{pairs}}}"


@pytest.mark.parametrize(
    ("sql", "filters", "meant"),
    [
        (
            "SELECT count() FROM runs",
            {"runs": "workflow = 'review'"},
            "SELECT count() FROM runs WHERE workflow = 'review'",
        ),
        (
            "SELECT count() FROM default.runs AS r JOIN events AS e USING (run_id)",
            {"runs": "workflow = 'release'", "events": r"type REGEXP '^run\.' AND trace_id = ''"},
            r"""SELECT count() FROM runs AS r JOIN events AS e USING (run_id)
            WHERE r.workflow = 'release' AND e.type REGEXP '^run\.' AND e.trace_id = ''""",
        ),
        (
            "WITH runs AS (SELECT 7 AS n) SELECT n FROM runs",
            {"runs": "workflow = 'review'"},
            "SELECT 7",
        ),
        ("SELECT count() FROM runs", {"costs": "0"}, "SELECT count() FROM runs"),
    ],
)
async def test_ad_hoc_filters_narrow_tables(
    served: Served, sql: str, filters: dict[str, str], meant: str
) -> None:
    text = {"default_format": "TSV"}
    found, _ = await post(served, filtered(sql, **filters), text)
    assert found == (await post(served, meant, text))[0]
    assert found not in (b"", b"0\n")


@pytest.mark.parametrize(
    "condition",
    [
        "run_id IN (SELECT run_id FROM runs_log)",
        "file('/etc/hostname') != ''",
        "1)) UNION ALL SELECT * FROM ((SELECT * FROM system.processes",
        "1)) --\n SETTINGS readonly = 0",
    ],
)
async def test_ad_hoc_filters_say_no_more_than_a_query_may(served: Served, condition: str) -> None:
    status, text, headers = await served.get(filtered("SELECT count() FROM runs", runs=condition))
    assert status in (400, 403), text
    assert headers["X-ClickHouse-Exception-Code"] in ("62", "497")


async def test_a_client_stops_its_own_query(served: Served) -> None:
    endless = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000) FORMAT TSV"
    asked = asyncio.create_task(served.get(endless, query_id="mine"))
    kill = "KILL QUERY WHERE query_id='mine'"
    text = {"default_format": "TSV"}
    while (answer := (await post(served, kill, text))[0]) == b"":
        assert not asked.done(), await asked  # it has not come that far yet
        assert (await served.get(kill))[0] == 403
    assert answer == b"finished\tmine\n"
    status, message, headers = await asked
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (400, "394"), message
    assert await under_way(served) == 0
    assert (await post(served, kill, text))[0] == b""


async def under_way(served: Served) -> int:
    """How many endless queries the engine works at."""
    [(found,)] = (
        await served.store.query(
            "SELECT count() FROM system.processes WHERE query LIKE '%numbers(1000000000000)%'"
            " AND query NOT LIKE '%processes%'"
        )
    ).rows
    return int(found)


@pytest.mark.parametrize("path", ["/clickhouse", "/api/sql"])
async def test_a_client_that_goes_away_has_its_query_stopped(served: Served, path: str) -> None:
    endless = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"

    async def ask() -> None:
        body = {"data": endless} if path == "/clickhouse" else {"json": {"query": endless}}
        async with served.http.post(path, headers={"X-ClickHouse-Key": KEY}, **body):
            raise AssertionError("it has no end")

    asking = asyncio.create_task(ask())
    while not await under_way(served):
        assert not asking.done(), await asking
    asking.cancel()
    async with asyncio.timeout(15):  # by itself it would be stopped after 30
        while await under_way(served):
            pass


@pytest.mark.parametrize("packed", [False, True])
async def test_clickhouse_go_is_greeted_in_its_protocol_and_told_ours(
    served: Served, packed: bool
) -> None:
    asked = {
        **GRAFANA,
        **({"compress": "1", "network_compression_method": "LZ4"} if packed else {}),
    }
    content, _ = await post(served, GREETING, asked)
    content = unpack(content, ENOUGH) if packed else content
    head, columns = content[:8], content[8:]
    assert head == b"\x01\x00\x02\xff\xff\xff\xff\x00"
    assert columns.startswith(b"\x04\x01\x0ddisplayName()\x06String\x00\x0dCommandCenter")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in columns


async def test_a_client_gets_the_first_rows_that_it_wants(served: Served) -> None:
    sql = "SELECT started_at FROM runs ORDER BY started_at DESC"
    text = {"default_format": "TSV"}
    everything, _ = await post(served, sql, text)
    for wanted in (
        {"limit": "2"},
        {"max_result_rows": "2", "result_overflow_mode": "break"},
    ):
        content, _ = await post(served, sql, {**text, **wanted})
        assert content.splitlines() == everything.splitlines()[:2]
    content, _ = await post(served, sql, {**text, "max_result_rows": "2"})
    assert content == everything


@pytest.mark.parametrize(
    ("encoding", "unpacked"),
    [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("lz4", lz4.frame.decompress)],
)
async def test_answers_are_compressed_for_http(
    served: Served, encoding: str, unpacked: object
) -> None:
    assert callable(unpacked)
    sql = "SELECT number, repeat('x', 100) FROM numbers(10000)"
    asked = {"default_format": "TSV", "enable_http_compression": "1"}
    async with served.http.post(
        "/clickhouse",
        data=sql,
        params=asked,
        headers={"X-ClickHouse-Key": KEY, "Accept-Encoding": encoding},
        auto_decompress=False,
    ) as response:
        assert response.headers["Content-Encoding"] == encoding
        content = unpacked(await response.read())
    assert content == (await post(served, sql, {"default_format": "TSV"}))[0]


async def test_the_head_alone_has_no_rows(served: Served) -> None:
    asked = {"query": "SELECT 1 FORMAT TSV", "password": KEY}
    for _ in range(2):  # the second one would find what the first one left on the connection
        async with served.http.head("/clickhouse", params=asked) as response:
            assert (response.status, response.headers["Content-Length"]) == (200, "2")
    async with served.http.get("/clickhouse", params=asked) as response:
        assert await response.text() == "1\n"


async def test_a_query_may_come_compressed(served: Served) -> None:
    sql = BlockPacker().compress(b"SELECT 1 + 1 FORMAT TSV")
    assert (await post(served, sql, {"decompress": "1"}))[0] == b"2\n"
    async with served.http.post(
        "/clickhouse",
        data=sql[:-1],
        params={"decompress": "1"},
        headers={"X-ClickHouse-Key": KEY},
    ) as response:
        assert response.status == 400
        assert "block of the body is broken" in await response.text()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT 1 SETTINGS readonly = 0, max_result_rows = 0", "497"),
        ("SELECT 1 SETTINGS max_threads = 1, max_rows_to_read = 1", "497"),
        ("SELECT * FROM (SELECT 1 SETTINGS max_threads = 1)", "497"),
        ("SET readonly=0", "497"),
        ("SET max_memory_usage=0", "497"),
        ("USE system", "497"),
        ("SELECT system.tables.name FROM system.parts_columns", "497"),
    ],
)
async def test_what_only_looks_like_it_is_refused(served: Served, sql: str, code: str) -> None:
    status, _, headers = await served.get(sql)
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, code)


async def test_our_own_client_of_a_server_reads_through_it(served: Served, tmp_path: Path) -> None:
    address = f"127.0.0.1:{served.port}"
    store = await open_store(f"clickhouse://analyst:{quote(KEY, safe='')}@{address}/default")
    sql = "SELECT workflow, count() AS n FROM runs WHERE workflow = {w:String} GROUP BY workflow"
    try:
        rows = await store.query_readonly(sql, {"w": "review"})
        assert rows == (("workflow", "n"), [("review", 4 * generated_history.DAYS)])
        file = tmp_path / "answer.csv"
        await store.export_readonly(sql, {"w": "release"}, output_format="CSV", file=file)
        assert file.read_bytes() == b'"release",14\n'
        with pytest.raises(CallerError, match="nope"):
            await store.export_readonly("SELECT nope", output_format="CSV", file=tmp_path / "x")
        assert not (tmp_path / "x").exists(), "a mistake is told before there is an answer"
    finally:
        await store.close()

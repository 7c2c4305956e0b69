"""ClickHouse's own clients on the embedded store, over HTTP."""

import asyncio
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import generated_history
import pytest
import pytest_asyncio
import sqlalchemy
from clickhouse_connect.driver.exceptions import DatabaseError
from served_history import KEY, Served, serving

from sinks.guest_catalogue import PUBLIC_TABLES

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("store")) as served:
        yield served


async def test_clickhouse_connect_asks_with_parameters(served: Served) -> None:
    def work(client: Any) -> Any:
        sql = (
            "SELECT workflow, count() AS n, min(started_at) AS first FROM runs"
            " WHERE workflow IN {names:Array(String)} AND error_message != {text:String}"
            " GROUP BY workflow ORDER BY workflow"
        )
        parameters = {"names": ["review", "release"], "text": "a\\b\t'c'\né"}
        return client.query(sql, parameters=parameters).result_rows

    rows = await served.connected(work)
    assert [(row[0], row[1]) for row in rows] == [
        ("release", generated_history.DAYS),
        ("review", 4 * generated_history.DAYS),
    ]


async def test_decimals_and_frames_come_whole(served: Served) -> None:
    def work(client: Any) -> Any:
        sql = "SELECT workflow, sum(amount) AS usd FROM default.run_costs GROUP BY workflow"
        return client.query(sql).result_rows, client.query_arrow(sql)

    rows, arrow = await served.connected(work)
    assert all(isinstance(amount, Decimal) and amount > 0 for _, amount in rows)
    assert dict(zip(*arrow.to_pydict().values(), strict=True)) == dict(rows)


async def test_pandas_gets_a_frame(served: Served) -> None:
    # In a process of its own: this one's store has told the client that there is no pandas.
    script = (
        "import clickhouse_connect, sys\n"
        "client = clickhouse_connect.get_client(host='127.0.0.1', port=int(sys.argv[1]),"
        " proxy_path='/clickhouse', password=sys.argv[2])\n"
        "frame = client.query_df('SELECT workflow, started_at, duration_ms FROM runs')\n"
        "print(frame.groupby('workflow').size().to_dict(), frame['started_at'].dt.year.unique())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(served.port), KEY, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode() == "{'release': 14, 'review': 56} [2025]\n"


async def test_commands_tell_what_there_is(served: Served) -> None:
    def work(client: Any) -> Any:
        return (
            client.ping(),
            client.command("SHOW TABLES"),
            client.query("DESCRIBE TABLE runs").named_results(),
            client.command("EXISTS TABLE runs_log"),
            client.query("SELECT name FROM system.tables WHERE database = 'default'").result_rows,
            client.query("SELECT table, name, comment FROM system.columns").result_rows,
            client.command("SHOW CREATE TABLE run_costs"),
        )

    alive, tables, columns, exists, names, known, created = await served.connected(work)
    assert alive
    assert set(tables.split("\n") if isinstance(tables, str) else "\t".join(tables).split()) == set(
        PUBLIC_TABLES
    )
    first = next(iter(columns))
    assert (first["name"], first["type"]) == ("run_id", "String")
    assert exists == 0
    assert {row[0] for row in names} == {row[0] for row in known} == set(PUBLIC_TABLES)
    assert all(row[2] for row in known), "every column says what it is"
    assert "amount Decimal(38, 12)" in str(created)


@pytest.mark.parametrize("password", ["", "wrong"])
async def test_without_the_key_nothing_is_told(served: Served, password: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        await served.connected(lambda client: client.ping(), password=password)
    assert refused.value.code == 516


@pytest.mark.parametrize(
    "headers",
    [{"X-ClickHouse-User": "x", "X-ClickHouse-Key": KEY}, {"Authorization": f"Bearer {KEY}"}],
)
async def test_the_key_may_come_in_headers(served: Served, headers: dict[str, str]) -> None:
    async with served.http.post("/clickhouse", data="SELECT 1", headers=headers) as response:
        assert (response.status, await response.text()) == (200, "1\n")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic !"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Basic é"},
    ],
)
async def test_no_key_is_a_refusal(served: Served, headers: dict[str, str]) -> None:
    async with served.http.get(
        "/clickhouse", params={"query": "SELECT 1"}, headers=headers
    ) as response:
        assert response.status == 403
        assert response.headers["X-ClickHouse-Exception-Code"] == "516"


async def test_plain_requests_are_answered_as_clickhouse_does(served: Served) -> None:
    assert (await served.get("SELECT 1 AS a, 'x'"))[:2] == (200, "1\tx\n")
    status, text, headers = await served.get(
        "SELECT {a:String} AS a FORMAT JSONEachRow;", param_a="\\t"
    )
    assert (status, text) == (200, '{"a":"\\t"}\n')
    assert headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert (await served.get("SELECT {a:Nullable(String)}", param_a="\\N"))[1] == "\\N\n"
    assert (await served.get("SELECT 1 AS a", default_format="CSVWithNames"))[1] == '"a"\n1\n'
    assert (await served.get("SELECT 1", database="default"))[0] == 200
    async with served.http.post(
        "/clickhouse", params={"query": "SELECT", "password": KEY}, data="2"
    ) as response:
        assert await response.text() == "2\n"
    async with served.http.get("/clickhouse") as response:
        assert await response.text() == "Ok.\n"
    async with served.http.get("/clickhouse/ping") as response:
        assert await response.text() == "Ok.\n"


@pytest.mark.parametrize(
    ("query", "parameters", "code"),
    [
        ("SELECT nope FROM runs", {}, "47"),
        ("SELECT * FROM system.processes", {}, "497"),
        ("SELECT file('/etc/passwd')", {}, "497"),
        ("INSERT INTO runs_log VALUES (1)", {}, "497"),
        ("SELECT 1 FROM", {}, "62"),
        ("SELECT 'x", {}, "62"),
        ("SELECT 1", {"database": "other"}, "81"),
        ("SELECT 1 FORMAT PostgreSQLWire", {}, "73"),
        ("SELECT 1", {"readonly_": "0"}, "164"),
        ("SELECT 1", {"query_id": "a\r\nX-Other: b"}, "62"),
        ("SELECT 1", {"format_schema": "/etc/passwd"}, "164"),
        ("SELECT {a:UInt8}", {"param_a": "x"}, "457"),
    ],
)
async def test_a_refusal_has_clickhouses_form(
    served: Served, query: str, parameters: dict[str, str], code: str
) -> None:
    status, text, headers = await served.get(query, **parameters)
    assert status in (400, 403, 404)
    assert headers["X-ClickHouse-Exception-Code"] == code
    assert text.startswith(f"Code: {code}. DB::Exception: ")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
)
async def test_a_body_that_is_not_what_its_headers_say_is_refused(
    served: Served, headers: dict[str, str]
) -> None:
    async with served.http.post(
        "/clickhouse", params={"password": KEY}, data=b"SELECT 1", headers=headers
    ) as response:
        assert response.status == 400
        assert response.headers["X-ClickHouse-Exception-Code"] == "62"


async def test_an_answer_tells_how_far_it_has_read(served: Served) -> None:
    _, _, headers = await served.get("SELECT 1", atLeast=f"0:{served.decisions}")
    assert headers["X-CommandCenter-Watermark"] == f"0:{served.decisions}"
    run = generated_history.stories()[0].run
    sql = "SELECT count() FROM runs WHERE run_id = {run:String}"
    assert (await served.get(sql, param_run=run, atLeast=run))[:2] == (200, "1\n")
    body = {"query": "SELECT 1 AS n"}
    async with served.http.post("/api/sql?atLeast=0:1", json=body) as response:
        assert (await response.json())["watermark"] == {"0": served.decisions}
    status, text, _ = await served.get("SELECT 1", atLeast="soon")
    assert (status, "no watermark" in text) == (400, True)


async def test_sqlalchemy_reflects_and_asks(served: Served) -> None:
    def work() -> tuple[Any, ...]:
        address = f"127.0.0.1:{served.port}/default?proxy_path=/clickhouse"
        engine = sqlalchemy.create_engine(
            f"clickhousedb+connect://analyst:{quote(KEY, safe='')}@{address}"
        )
        try:
            inspector = sqlalchemy.inspect(engine)
            runs = sqlalchemy.Table("runs", sqlalchemy.MetaData(), autoload_with=engine)
            asked = (
                sqlalchemy.select(runs.c.workflow, sqlalchemy.func.count().label("n"))
                .where(runs.c.status == "SUCCESS", runs.c.duration_ms > 0)
                .group_by(runs.c.workflow)
                .order_by(runs.c.workflow)
            )
            with engine.connect() as connection:
                rows = connection.execute(asked).all()
            names = inspector.get_table_names()
            return names, inspector.get_view_names(), inspector.has_table("runs_log"), runs, rows
        finally:
            engine.dispose()

    names, views, knows_private, runs, rows = await asyncio.to_thread(work)
    assert set(names) | set(views) == set(PUBLIC_TABLES)
    assert not knows_private
    assert "paused" in runs.c
    assert [tuple(row) for row in rows] == [("release", 12), ("review", 52)]

import pytest

from sinks import guest_sql
from streams.errors import CallerError


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM runs WHERE started_at > now() - INTERVAL 1 DAY ORDER BY started_at LIMIT 5",
        "select workflow, quantiles(0.5, 0.9)(duration_ms) from runs group by workflow with totals",
        "SELECT * FROM events WHERE workflow = {workflow:String} AND seq = {seq:UInt32}",
        "WITH slow AS (SELECT run_id FROM runs) SELECT * FROM slow WHERE run_id IN slow",
        "WITH 5 AS n, [n] AS s, run_id AS r SELECT n IN s, r IN (SELECT node FROM costs) FROM runs",
        "SELECT r.status FROM runs AS r JOIN agent_runs AS a USING (run_id) WHERE a.attempt > 1",
        "SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM agent_runs)",
        "SELECT run_id FROM runs UNION ALL SELECT run_id FROM events",
        "SELECT JSONExtractString(payload, 'output', 'x'), payload::JSON FROM events",
        "SELECT number, arrayMap(x -> x + 1, [1]) FROM numbers(3) ARRAY JOIN [1, 2] AS y",
        "-- why\n/* how */ (SELECT 1)",
        "FROM runs SELECT count()",
        "SELECT arrayMap((x, y) -> x + y, [1], [2]), arrayMap(lower, ['A']), arraySum([1])",
        "SELECT countIf(attempt > 1), sumOrNullIf(item, 1), uniqExactIf(node, 1) FROM agent_runs",
        "SELECT toDecimal64(1, 2)::Decimal(9, 2), CAST(1 AS Nullable(UInt8)) FROM events",
        "SELECT sum(attempt) OVER (PARTITION BY node ORDER BY attempt) FROM default.agent_runs",
        "SELECT * EXCEPT (payload), COLUMNS('at') APPLY(max) FROM events GROUP BY ALL",
        "SELECT '\u2018{#\ufeff', $$\u2018{#$$ AS `é`",
        "SELECT 'it''s \\' // --', $a$ '\" $a$ -- http://x 'y\n, \"a\"\"`\", /* ' */\u00a01 # \"",
        "SELECT arrayReduce('quantiles(0.5, 1)', [1]), arrayReduce('groupConcat(\\', \\')', ['a'])",
        "SELECT '\U0001f600', {'a': {'b': 1}}, CAST('a', 'Enum8(\\'a b\\' = 1)') FROM runs",
        "SELECT 'system.tables; DROP TABLE runs -- file(1)' AS text",
    ],
)
def test_a_question_to_the_public_tables_passes_unchanged(sql: str) -> None:
    assert guest_sql.check(sql).sql == sql


def test_names_that_the_text_defines_are_told() -> None:
    sql = "WITH a AS (SELECT 1 AS n), b AS (SELECT 1), (x -> x) AS F SELECT F(n), lower('') FROM a"
    assert guest_sql.check(sql) == (sql, {"a"}, {"f"})
    assert guest_sql.check("WITH runs AS (SELECT 1) SELECT * FROM runs").tables == frozenset()
    for sql in (
        "WITH ((a, b) -> a = b) AS f, (f) AS equals SELECT 1 = 2",
        "WITH (a, b) -> a AND b OR 1 AS equals, 1 AS f SELECT 1 = 2",
    ):
        assert "equals" in guest_sql.check(sql).functions, sql
    called = "SELECT arraySum(x -> x + 1, [1]) AS sum, arrayMap((x, y) -> x, [1], [2]) AS map"
    assert guest_sql.check(called).functions == frozenset()
    with pytest.raises(CallerError, match="The name a is taken"):
        guest_sql.refuse_taken(["a"])


def test_a_closing_semicolon_is_not_part_of_the_question() -> None:
    assert guest_sql.check(" SELECT 1 ;\n").sql == "SELECT 1"


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("", "Only SELECT"),
        ("DROP TABLE runs", "Only SELECT"),
        ("INSERT INTO runs_log SELECT * FROM runs", "Only SELECT"),
        ("SHOW PROCESSLIST", "SHOW TABLES"),
        ("DESCRIBE secrets", "secrets"),
        ("EXPLAIN SELECT 1", "Only SELECT"),
        ("SET max_threads = 1", "Only SELECT"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT 1; DROP TABLE runs", "one statement"),
        ("SELECT * FROM system.processes", "system.processes"),
        ("SELECT * FROM `system`.`processes`", "system.processes"),
        ("SELECT * FROM information_schema.tables", "information_schema.tables"),
        ("SELECT * FROM runs_log", "runs_log"),
        ("SELECT 1 IN system.one", "system.one"),
        ("SELECT 1 IN secrets", "secrets"),
        ("SELECT 1 IN ((secrets))", "secrets"),
        ("WITH (secrets) AS a, a AS runs SELECT 1 IN runs", "secrets"),
        ("SELECT secrets AS runs, 1 IN (runs)", "secrets"),
        ("SELECT `in`(1, secrets)", "function in"),
        ("SELECT (SELECT count() FROM other)", "other"),
        ("WITH a AS (SELECT * FROM other) SELECT 1", "other"),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')", "file cannot"),
        ("SELECT * FROM runs UNION ALL SELECT * FROM url('http://127.0.0.1/')", "url cannot"),
        ("SELECT * FROM remote('127.0.0.1', system.one)", "cannot|no table"),
        ("SELECT * FROM executable('x', 'TSV', 'a String')", "executable cannot"),
        ("SELECT * FROM merge('default', '.*')", "merge cannot"),
        ("SELECT * FROM view(SELECT 1)", "view cannot"),
        ("SELECT file('/etc/passwd')", "file"),
        ("SELECT arrayMap(file, ['/etc/passwd'])", "file"),
        ("SELECT arrayMap((file), ['/etc/passwd'])", "file"),
        ("SELECT arrayMap(`file`, ['/etc/passwd'])", "file"),
        ("SELECT arrayMap(newlyMade, ['x'])", "newlyMade: write a lambda"),
        ("SELECT * APPLY(file) FROM runs", "file"),
        ("SELECT current_user", "current_user"),
        ("SELECT newlyMade('x')", "newlyMade"),
        ("SELECT begin show, file('/etc/passwd')", "not clear"),
        ("SELECT 1 AS \u201c'\u201d, file('/etc/passwd') AS \u201c'\u201d", "character|understood"),
        ("SELECT file\ufeff('/etc/passwd')", "character"),
        ("SELECT '\ufeff{#', {# \na:String}, file('/etc/passwd'), -- #}\n {a:String}", "{#"),
        ("SELECT 1 AND$b$, file('/etc/passwd') AS c$b$", "not clear"),
        ("SELECT 1 //* */ 2, '\n, file(1) -- '", "write --"),
        ("SELECT 1 /* ", "cannot be split"),
        ("SELECT arrayReduce('groupConcat(file($$/etc/passwd$$))', ['a'])", "aggregate"),
        ("SELECT arrayReduce(concat('su', 'm'), [1])", "aggregate"),
        ("SELECT CAST('', 'AggregateFunction/*array*/(uniq, String)')", "needs a type"),
        ("SELECT CAST('', 'Tuple(a$$ AggregateFunction(uniq, UInt8), b$$ Int8)')", "needs a type"),
        ("SELECT CAST($$($$, 'AggregateFunction(uniq, String)')", "needs a type"),
        ("WITH 1 AS `/etc/passwd` SELECT * FROM `/etc/passwd`", "cannot be called"),
        ("SELECT", "nothing to select"),
        ("SELECT '" + "x" * 262_144 + "'", "262,144 bytes"),
        ("SELECT dictGet('d', 'a', 1)", "dictGet"),
        ("SELECT joinGet('t', 'a', 1)", "joinGet"),
        ("SELECT sleepEachRow(1) FROM events", "sleepEachRow"),
        ("SELECT * FROM {table:Identifier}", "Identifier"),
        ("SELECT {column:Identifier} FROM runs", "Identifier"),
        ("SELECT 1 SETTINGS readonly = 0", "SETTINGS"),
        ("SELECT * FROM (SELECT 1 SETTINGS max_threads = 9)", "SETTINGS"),
        ("SELECT 1 FORMAT CSV", "FORMAT"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", "cannot be understood|INTO"),
        ("SELECT 1 /* /* */ UNION ALL SELECT * FROM file('x') -- */", "comment"),
        ("SELECT sum(x FROM runs", r"Expecting \) at line 1, column 17"),
        ("SELECT 1 FROM", "cannot be understood: Expected table name at line 1"),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "nested too deeply|cannot be understood"),
    ],
)
def test_whatever_else_is_refused_with_the_reason(sql: str, reason: str) -> None:
    with pytest.raises(CallerError, match=reason) as refused:
        guest_sql.check(sql)
    assert "Token" not in str(refused.value)


@pytest.mark.timeout(60)  # hours, if the time grew exponentially
def test_a_hostile_text_is_refused_in_time_that_grows_with_its_length() -> None:
    with pytest.raises(CallerError):
        guest_sql.check("/**/" * 10_000 + "x")


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        # Without a place for it the client would write the value into the text.
        ("SELECT '%(a)s'", {"a": ", file($$/etc/passwd$$), "}),
        ("SELECT {b:String}, '%(a)s'", {"a": "x", "b": "y"}),
        ("SELECT '{a:String', '%(a)s'", {"a": ", file($$/etc/passwd$$), "}),
        ("SELECT '%(a)s' -- {a:String", {"a": ", file($$/etc/passwd$$), "}),
        ("SELECT {a:String}", {"a": "x", "b.*": "y"}),
        ("SELECT { a : String}", {"a": "x"}),
    ],
)
def test_a_parameter_has_its_place_in_the_text(sql: str, parameters: dict[str, str]) -> None:
    with pytest.raises(CallerError, match="has no place"):
        guest_sql.bound(sql, parameters)
    assert guest_sql.bound("SELECT {a:UInt8}", {"a": 1}) == {"a": 1}

"""docs/sql.md: every query runs on a generated history, and the list of columns is the schema's."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import generated_history
import pytest
import pytest_asyncio

from sinks import column_list, schema
from sinks.clickhouse import open_store
from sinks.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUIDE = Path(__file__).parents[2] / "docs" / "sql.md"
TEXT = GUIDE.read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^### (.+?)\n.*?```sql\n(.+?)```", TEXT, re.DOTALL | re.MULTILINE))
PARAMETERS: dict[str, Any] = {
    "workflow": "review",
    "old": 1,
    "new": 2,
    "now": "2025-10-20 00:00:00",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    store = await open_store(f"chdb://{tmp_path_factory.mktemp('store')}")
    try:
        await schema.apply(store)
        await generated_history.record(store)
        yield store
    finally:
        await store.close()


async def asked(store: Store, recipe: str) -> list[dict[str, Any]]:
    sql = RECIPES[recipe]
    retried = next(s for s in generated_history.stories() if s.event == "r-3-1")
    given = {"run": retried.run, **PARAMETERS}
    used = {name: value for name, value in given.items() if f"{{{name}:" in sql}
    return (await store.query_readonly(sql, used)).dicts()


@pytest.mark.parametrize("recipe", RECIPES)
async def test_a_recipe_has_an_answer(store: Store, recipe: str) -> None:
    rows = await asked(store, recipe)
    assert rows


async def test_there_are_recipes_enough() -> None:
    assert len(RECIPES) == TEXT.count("```sql") >= 20


async def test_the_recipes_say_what_the_history_has(store: Store) -> None:
    odd = await asked(store, "Days that are unlike the others")
    day = generated_history.BEGAN // generated_history.DAY + generated_history.ODD_DAY
    assert [(row["d.workflow"] if "d.workflow" in row else row["workflow"]) for row in odd] == [
        "review"
    ]
    found = odd[0].get("day") or odd[0]["d.day"]
    assert found.toordinal() - 719_163 == day
    dear = await asked(store, "Runs that cost far more than their workflow's median")
    story = next(s for s in generated_history.stories() if s.event == "r-5-3")
    assert story.run in next(iter(dear)).values()
    path = await asked(store, "The critical path of a run")
    assert [row["node"] for row in path] == ["lint", "judge"], "lint ended after scan"
    by_version = await asked(store, "Failure rate by agent version")
    assert [(row["agent_version"], row["attempts"], row["failed"]) for row in by_version] == [
        ("1.0.0", 4 * 7 + 7, 7),
        ("1.1.0", 4 * 7 + 6 + 4, 6 + 4),
    ]
    versions = await asked(store, "Two versions of a workflow, compared")
    assert [(row["version"], row["runs"], row["success_percent"]) for row in versions] == [
        (1, 28, 100.0),
        (2, 28, round(100 * 24 / 28, 1)),
    ]
    wasted = await asked(store, "What retries waste")
    retries = generated_history.DAYS - 1 + 4
    assert [(row["node"], row["failed_attempts"]) for row in wasted] == [("scan", retries)]


async def test_the_list_of_columns_is_the_schemas(store: Store) -> None:
    assert column_list.replaced(TEXT, await column_list.markdown(store)) == TEXT, "run make docs"

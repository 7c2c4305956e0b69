from typing import Any

import msgspec
import pytest

from streams.catalog import Catalog, Definition, Retirement, record_key
from streams.errors import DefinitionError
from streams.plan import parse


def definition(
    version: int, event: str | None = "repo.push", name: str = "review", **more: Any
) -> Definition:
    content = {
        "name": name,
        "description": more.pop("description", ""),
        "trigger": {} if event is None else {"event": event},
        "nodes": [{"id": "a", "agent": "x", "action": "y"}],
    }
    spec = parse(content).spec
    values: dict[str, Any] = {
        "project": "default",
        "name": name,
        "version": version,
        "digest": spec.digest,
        "published_at": 1,
        "definition": msgspec.Raw(spec.canonical()),
    }
    return Definition(**(values | more))


def matched(catalog: Catalog, event_type: str, project: str = "default") -> list[tuple[str, int]]:
    return [(m.name, m.version) for m in catalog.matching(project, event_type)]


def test_the_first_record_of_a_version_wins() -> None:
    catalog = Catalog()
    first = definition(1, description="first")
    catalog.apply(first)
    catalog.apply(definition(1, description="second"))
    published = catalog.version("default", "review", 1)
    assert published is not None
    assert published.record == first
    plan = catalog.get("default", "review", 1)
    assert plan is not None
    assert plan.spec.description == "first"
    assert catalog.get("default", "review", 1) is plan, "made once"
    assert catalog.get("default", "review", 2) is None
    assert catalog.get("other", "review", 1) is None


def test_an_event_starts_the_latest_versions_that_want_it() -> None:
    catalog = Catalog()
    catalog.apply(definition(1, "repo.push"))
    catalog.apply(definition(1, "repo.*", name="any"))
    catalog.apply(definition(1, ">", name="all"))
    catalog.apply(definition(1, None, name="manual"))
    catalog.apply(definition(1, "repo.push", name="elsewhere", project="shop"))
    assert matched(catalog, "repo.push") == [("all", 1), ("any", 1), ("review", 1)]
    catalog.apply(definition(2, "repo.tag"))
    assert matched(catalog, "repo.push") == [("all", 1), ("any", 1)]
    assert matched(catalog, "repo.tag") == [("all", 1), ("any", 1), ("review", 2)]
    assert matched(catalog, "repo.push", "shop") == [("elsewhere", 1)]


def test_a_retired_workflow_starts_nothing_until_it_is_published_again() -> None:
    catalog = Catalog()
    catalog.apply(definition(1))
    catalog.apply(definition(2))
    catalog.apply(Retirement(project="default", name="review", version=2, retired_at=5))
    assert matched(catalog, "repo.push") == []
    assert catalog.active("default", "review") is None
    assert list(catalog.workflows()) == []
    assert catalog.get("default", "review", 2) is not None, "runs in progress go on"
    latest = catalog.latest("default", "review")
    assert latest is not None
    assert latest.record.version == 2
    catalog.apply(definition(3))
    assert matched(catalog, "repo.push") == [("review", 3)]
    assert [p.record.version for p in catalog.versions("default", "review")] == [3, 2, 1]


@pytest.mark.parametrize("content", [b"[]", b'{"name":"review","nodes":[]}', b'{"newField":1}'])
def test_a_definition_that_this_release_cannot_read_harms_only_itself(content: bytes) -> None:
    catalog = Catalog()
    catalog.apply(definition(1, name="good"))
    catalog.apply(definition(1, definition=msgspec.Raw(content)))
    assert matched(catalog, "repo.push") == [("good", 1)]
    with pytest.raises(DefinitionError):
        catalog.get("default", "review", 1)


def test_no_two_records_share_a_key() -> None:
    record = definition(1)
    assert record_key(record, "a") != record_key(record, "b")
    assert record_key(record, "a").startswith(b"default/review@1#")

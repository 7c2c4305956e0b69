"""Records of the workflows and agents topics as rows."""

import pytest
from msgspec import Raw

from sinks.catalog_recording import agent_row, workflow_row
from streams import codec
from streams.catalog import Definition, Retirement
from streams.errors import UnreadableRecordError
from streams.registry import AgentRecord

VERSION = Definition(
    project="default",
    name="review",
    version=2,
    digest="d",
    published_at=100,
    definition=Raw(b'{"name":"review"}'),
)
AGENT = AgentRecord(
    name="scanner",
    version="1.2.0",
    worker="w",
    registered_at=100,
    descriptor=Raw(b'{"type":"RULE"}'),
)


def test_a_version_and_a_retirement_are_rows_of_their_own() -> None:
    made = workflow_row(7, codec.encode(VERSION))
    assert made == (
        *("default", "review", "definition", 2, 100, "d", '{"name":"review"}'),
        *(7, 2**63 - 7),
    )
    retired = Retirement(project="default", name="review", version=2, retired_at=200)
    made = workflow_row(8, codec.encode(retired))
    assert made == ("default", "review", "retirement", 2, 200, "", "", 8, 2**63 - 8)
    assert workflow_row(9, None) is None


def test_an_agent_is_a_row_and_its_tombstone_takes_it_off() -> None:
    made = agent_row(3, b"scanner", codec.encode(AGENT))
    assert made == ("scanner", "1.2.0", "w", 100, '{"type":"RULE"}', 3, 0)
    assert agent_row(4, b"scanner", None) == ("scanner", "", "", 0, "", 4, 1)
    assert agent_row(5, b"worker/w", b"anything") is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"nonsense", "not a workflow definition"),
        (codec.encode(VERSION).replace(b'"v":1', b'"v":9'), "format version 9"),
        (codec.encode(VERSION).replace(b'"version":2', b'"version":-1'), "version is -1"),
        (codec.encode(VERSION).replace(b'"version":2', b'"version":4294967296'), "version is"),
        (codec.encode(VERSION).replace(b'"publishedAt":100', b'"publishedAt":-1'), "publishedAt"),
    ],
)
def test_what_the_store_cannot_keep_is_unreadable(value: bytes, reason: str) -> None:
    with pytest.raises(UnreadableRecordError, match=reason):
        workflow_row(0, value)

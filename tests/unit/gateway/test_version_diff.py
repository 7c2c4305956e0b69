"""What changed between two definitions: the text, and the paths."""

from typing import Any

import pytest

from gateway.version_diff import Change, changes, diff, text

SCAN = {"id": "scan", "agent": "scanner", "action": "scan", "inputs": {"path": "/srv", "n": [1, 2]}}
TELL = {"id": "tell", "agent": "notifier", "action": "send", "dependsOn": ["scan"]}
OLD: dict[str, Any] = {"name": "review", "nodes": [SCAN, TELL], "timeout": "1h"}


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (OLD, []),
        ({**OLD, "timeout": "2h"}, [Change("timeout", "changed", "1h", "2h")]),
        (
            {"name": "review", "description": "é", "nodes": [SCAN, TELL]},
            [
                Change("description", "added", None, "é"),
                Change("timeout", "removed", "1h", None),
            ],
        ),
        (
            {**OLD, "nodes": [{**SCAN, "inputs": {"path": "/opt", "n": [1, 3]}}, TELL]},
            [
                Change("nodes[scan].inputs.n", "changed", [1, 2], [1, 3]),
                Change("nodes[scan].inputs.path", "changed", "/srv", "/opt"),
            ],
        ),
        (
            {**OLD, "nodes": [SCAN, {**TELL, "id": "say"}]},
            [
                Change("nodes[tell]", "removed", TELL, None),
                Change("nodes[say]", "added", None, {**TELL, "id": "say"}),
            ],
        ),
        (
            {**OLD, "nodes": [TELL, SCAN]},
            [Change("nodes", "reordered", ["scan", "tell"], ["tell", "scan"])],
        ),
        ({**OLD, "timeout": 1}, [Change("timeout", "changed", "1h", 1)]),
    ],
    ids=["same", "changed", "fields", "inputs", "nodes", "reordered", "type"],
)
def test_every_path_that_differs(new: dict[str, Any], expected: list[Change]) -> None:
    assert list(changes(OLD, new)) == expected
    assert (diff(OLD, new, "a", "b") == "") == (expected == [])


def test_true_is_not_one() -> None:
    assert list(changes({"a": True}, {"a": 1})) == [Change("a", "changed", True, 1)]


def test_the_text_is_what_people_write() -> None:
    jumbled = {"nodes": [dict(sorted(SCAN.items()))], "timeout": "1h", "name": "review"}
    assert text(jumbled).splitlines()[:4] == [
        "name: review",
        "nodes:",
        "- id: scan",
        "  agent: scanner",
    ]


def test_the_diff_names_both_and_shows_the_lines() -> None:
    lines = diff(OLD, {**OLD, "timeout": "2h"}, "review v1", "review v2").splitlines()
    assert lines[:2] == ["--- review v1", "+++ review v2"]
    assert lines[-2:] == ["-timeout: 1h", "+timeout: 2h"]

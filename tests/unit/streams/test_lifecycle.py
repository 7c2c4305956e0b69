"""The lifecycle document shows the transitions of the code: its diagrams are made from the tables.

python tests/unit/streams/test_lifecycle.py    # draws them anew
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import pytest

from streams.lifecycle import NODE_TRANSITIONS, RUN_TRANSITIONS, TERMINAL
from streams.records import NodeStatus, RunStatus

DOCUMENT = Path(__file__).parents[3] / "docs" / "lifecycle.md"
DIAGRAMS = {"run": RUN_TRANSITIONS, "node": NODE_TRANSITIONS}
_DRAWN = re.compile(r"(<!-- (\w+) -->\n```mermaid\n)(.*?)(```\n)", re.DOTALL)


def diagram(transitions: Mapping[StrEnum, frozenset[StrEnum]]) -> str:
    """The Mermaid state diagram of a table, in the order in which the statuses are declared."""
    lines = ["stateDiagram-v2", "    [*] --> PENDING"]
    for status in type(next(iter(transitions))):
        moves = transitions.get(status)
        if moves is not None:
            lines += [f"    {status} --> {move}" for move in type(status) if move in moves]
            lines += [] if moves else [f"    {status} --> [*]"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_document_shows_the_table(name: str) -> None:
    drawn = {match[2]: match[3] for match in _DRAWN.finditer(DOCUMENT.read_text())}
    assert drawn[name] == diagram(DIAGRAMS[name])


@pytest.mark.parametrize("name", DIAGRAMS)
def test_every_status_of_a_table_can_be_reached_and_leads_to_an_end(name: str) -> None:
    transitions = DIAGRAMS[name]
    assert {s for moves in transitions.values() for s in moves} <= transitions.keys()
    for status in transitions:
        reached, ahead = {status}, [status]
        while ahead:
            new = transitions[ahead.pop()] - reached
            reached |= new
            ahead += new
        assert any(not transitions[s] for s in reached)
        if status == "PENDING":
            assert reached == set(transitions)


def test_the_terminal_statuses_are_the_contracts() -> None:
    ends = {RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
    assert ends == TERMINAL
    assert {s for s, moves in NODE_TRANSITIONS.items() if not moves} == {
        NodeStatus.SUCCESS,
        NodeStatus.FAILED,
        NodeStatus.SKIPPED,
        NodeStatus.CANCELLED,
    }


if __name__ == "__main__":
    text = _DRAWN.sub(lambda m: m[1] + diagram(DIAGRAMS[m[2]]) + m[4], DOCUMENT.read_text())
    DOCUMENT.write_text(text)

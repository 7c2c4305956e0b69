"""A graph as a Mermaid flowchart, in which no name can break out of its place."""

from collections.abc import Iterable, Sequence
from typing import Final

from agents.architecture_diagrammer import Import, Node

MAX_TEXT: Final = 48_000
"""Mermaid draws no text of more than 50,000 characters."""

_ESCAPES: Final = str.maketrans({
    "#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;",
    "\\": "#92;", ";": "#59;",
})  # fmt: skip


def flowchart(nodes: Sequence[Node], imports: Iterable[Import], cut: str) -> str:
    """The diagram: a box for each folder, a link on each node. `cut` says what is not drawn."""
    lines = ["flowchart LR"]
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.group, []).append(node)
    for number, (group, members) in enumerate(groups.items()):
        lines.append(f'    subgraph g{number}["{_label(group)}"]')
        lines += [f'        {node.id}["{_label(node.name)}"]' for node in members]
        lines.append("    end")
    for each in imports:
        weight = f"|{each.count}|" if each.count > 1 else ""
        lines.append(f"    {each.source} -->{weight} {each.target}")
    if cut:
        lines.append(f'    cut["{_label(cut)}"]')
    for node in nodes:
        lines.append(f'    click {node.id} href "{node.link}" "{_label(node.name)}"')
    return "\n".join([*lines, ""])


def _label(text: str) -> str:
    """Text within quotes, at most 80 characters of it."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return (plain if len(plain) <= 80 else "…" + plain[-79:]).translate(_ESCAPES) or "."

"""What YAML becomes when its aliases are written out, which is what most readers of it do.

A few lines can so stand for billions of values, or for one without an end.
"""

import re
from typing import Any, Final

MOST: Final = 200_000
"""Nodes that a file may grow to."""

_ALIAS: Final = re.compile(r"(?:^|[\s\[{,:-])\*[^\s,\]}]", re.MULTILINE)


def make_too_large(text: str) -> bool:
    """Whether they make it larger than that; False for what is no YAML of one document."""
    if _ALIAS.search(text) is None:
        return False
    import yaml

    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return False
    return size(node) > MOST


def size(node: Any) -> int:
    """How many nodes there are with each alias written out; of PyYAML's nodes, or ruamel.yaml's."""
    return _size(node, {})


def _size(node: Any, known: dict[int, int]) -> int:
    if node is None or id(node) in known:
        return known.get(id(node), 1)
    known[id(node)] = MOST + 1  # an alias within its own anchor has no end
    children = node.value if isinstance(node.value, list) else []
    total = 1
    for child in children:
        parts = child if isinstance(child, tuple) else (child,)
        total += sum(_size(part, known) for part in parts)
    known[id(node)] = total
    return total

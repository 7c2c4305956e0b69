"""What changed between two versions of a workflow: as text, and as a list of paths. Pure.

Definitions are compared as they were recorded: in one order, with defaults left out. Where a list's
items have ids (nodes), an item is known by its id, wherever it stands.
"""

from collections.abc import Iterator
from difflib import unified_diff
from typing import Any, Final, Literal, NamedTuple

import yaml

_FIRST: Final = {
    name: place
    for place, name in enumerate(
        ("name", "id", "description", "project", "agent", "action", "trigger", "dependsOn")
    )
}
_MISSING: Final = object()

Kind = Literal["added", "removed", "changed", "reordered"]


class Change(NamedTuple):
    """One path that differs; a value is None where there is none."""

    path: str
    kind: Kind
    old: Any
    new: Any


def text(definition: dict[str, Any]) -> str:
    """A definition as YAML, its fields in the order in which people write them."""
    return yaml.safe_dump(_ordered(definition), sort_keys=False, allow_unicode=True)


def diff(old: dict[str, Any], new: dict[str, Any], old_name: str, new_name: str) -> str:
    """The unified diff of the two texts; empty where they are the same."""
    lines = unified_diff(
        text(old).splitlines(keepends=True),
        text(new).splitlines(keepends=True),
        old_name,
        new_name,
    )
    return "".join(lines)


def changes(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """Every path that differs, in the order in which people write fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _of_fields(old, new, path)
    elif _has_ids(old) and _has_ids(new):
        yield from _of_items(old, new, path)
    elif old is _MISSING:
        yield Change(path, "added", None, new)
    elif new is _MISSING:
        yield Change(path, "removed", old, None)
    elif old != new or type(old) is not type(new):
        yield Change(path, "changed", old, new)


def _of_fields(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys(), key=_place):
        inner = f"{path}.{name}" if path else name
        yield from changes(old.get(name, _MISSING), new.get(name, _MISSING), inner)


def _of_items(old: list[Any], new: list[Any], path: str) -> Iterator[Change]:
    before = {item["id"]: item for item in old}
    after = {item["id"]: item for item in new}
    for name in {**before, **after}:
        inner = f"{path}[{name}]"
        yield from changes(before.get(name, _MISSING), after.get(name, _MISSING), inner)
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    if kept_before != kept_after:
        yield Change(path, "reordered", kept_before, kept_after)


def _has_ids(value: Any) -> bool:
    """Whether it is a list of objects that are told apart by their `id`."""
    if not isinstance(value, list) or not value:
        return False
    ids = [item.get("id") if isinstance(item, dict) else None for item in value]
    return all(isinstance(one, str) for one in ids) and len(set(ids)) == len(ids)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value, key=_place)}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _place(name: str) -> tuple[int, str]:
    return _FIRST.get(name, len(_FIRST)), name

"""Values of a JSON, YAML or TOML file are changed; comments, order and spacing stay.

Every change is checked: what the new text says must be what the old one said with this one value
changed, or the file is left alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Final

from agents.errors import PermanentError
from agents.patcher.order import ConfigChange

Path = tuple[str | int, ...]


def update(file: str, content: bytes, changes: Sequence[ConfigChange]) -> bytes:
    """The file with the changes made. Raises `PermanentError`."""
    edit = _FORMATS.get(PurePosixPath(file).suffix.lower())
    if edit is None:
        raise PermanentError(f"{file}: only {', '.join(_FORMATS)} can be updated")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise PermanentError(f"{file} is not UTF-8 text: {error.reason}") from error
    for change in changes:
        try:
            text = edit(text, change)
        except PermanentError as error:
            raise PermanentError(f"{file}: {error}") from error
        except RecursionError as error:
            raise PermanentError(f"{file} is nested too deep") from error
    return text.encode()


def expected(data: Any, change: ConfigChange) -> Any:
    """Plain data with the change made. Raises `PermanentError`."""
    data = _unshared(data)
    holder = data
    *steps, last = change.path
    for depth, step in enumerate(steps):
        if not _has(holder, step):
            raise PermanentError(f"there is nothing at {list(change.path[: depth + 1])!r}")
        holder = holder[step]
    if change.remove:
        if not _has(holder, last):
            raise PermanentError(f"there is nothing at {list(change.path)!r}")
        del holder[last]
    elif _has(holder, last) or (isinstance(holder, dict) and isinstance(last, str)):
        holder[last] = change.value
    elif isinstance(holder, list) and last == len(holder):
        holder.append(change.value)
    else:
        raise PermanentError(
            f"{list(change.path)!r} cannot be set: {last!r} is no place in the "
            f"{type(holder).__name__} that is there"
        )
    return data


def _unshared(data: Any) -> Any:
    """A copy in which what YAML's aliases share is there more than once."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(value) for value in data] if isinstance(data, list) else data


def _has(holder: Any, step: str | int) -> bool:
    if isinstance(holder, Mapping):
        return step in holder
    return isinstance(holder, list) and isinstance(step, int) and 0 <= step < len(holder)


def _check(is_so: bool, change: ConfigChange) -> None:
    if not is_so:
        raise PermanentError(
            f"{list(change.path)!r} cannot be changed without changing more of the file "
            "(an anchor, a merge or a key that is there twice?); edit it by hand"
        )


# --- JSON -----------------------------------------------------------------------------------------


def _json(text: str, change: ConfigChange) -> str:
    from agents.patcher.json_text import JsonText

    document = JsonText(text.encode())
    was = json.loads(text)
    wanted = expected(was, change)
    if _same(wanted, was):
        return text
    content = (
        document.without(change.path)
        if change.remove
        else document.changed(change.path, change.value)
    )
    _check(_same(json.loads(content), wanted), change)
    return content.decode()


# --- TOML -----------------------------------------------------------------------------------------


def _toml(text: str, change: ConfigChange) -> str:
    import tomllib

    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from agents.patcher.toml_text import put

    try:
        was = tomllib.loads(text)
        document = tomlkit.parse(text)
    except (tomllib.TOMLDecodeError, TOMLKitError) as error:
        raise PermanentError(f"it is not TOML: {error}") from error
    wanted = expected(was, change)
    if _same(wanted, was):
        return text
    holder: Any = document
    *steps, last = change.path
    for step in steps:
        holder = holder[step]
    try:
        if change.remove:
            del holder[last]
        elif isinstance(holder, list) and last == len(holder):
            holder.append(change.value)
        else:
            put(holder, last, change.value)
    except (TOMLKitError, ValueError, TypeError) as error:
        raise PermanentError(f"TOML cannot hold this at {list(change.path)!r}: {error}") from error
    changed, is_so = "", False
    # Where a value takes the place of tables, tomlkit trips over it.
    with suppress(AttributeError, tomllib.TOMLDecodeError):
        changed = tomlkit.dumps(document)
        is_so = _same(tomllib.loads(changed), wanted)
    _check(is_so, change)
    return changed


# --- YAML -----------------------------------------------------------------------------------------


def _yaml(text: str, change: ConfigChange) -> str:
    from agents.patcher.yaml_text import YamlText

    document = YamlText(text)
    wanted = expected(document.data, change)
    if _same(wanted, document.data):
        return text
    for attempt in (document.with_scalar, document.round_trip):
        changed = attempt(change.path, change.value, change.remove)
        if changed is not None and _same(YamlText(changed).data, wanted):
            return changed
    _check(False, change)
    return text


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: to Python `1`, `1.0` and `true` are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


_FORMATS: Final[Mapping[str, Callable[[str, ConfigChange], str]]] = {
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": _toml,
}

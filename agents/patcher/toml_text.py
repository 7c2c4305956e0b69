"""A value of a tomlkit document is replaced, and a string keeps its kind of quotes."""

from typing import Any


def put(holder: Any, step: str | int, value: Any) -> None:
    """Set `holder[step]`. Raises tomlkit's errors, or `ValueError` for what TOML cannot hold."""
    import tomlkit
    from tomlkit.items import String

    has_old = step in holder if isinstance(step, str) else True
    old = holder[step] if has_old else None
    # Within single quotes TOML has no escapes, so not every string can stand there.
    is_literal = isinstance(old, String) and old.as_string().startswith("'")
    if is_literal and isinstance(value, str) and value.isprintable() and "'" not in value:
        value = tomlkit.string(value, literal=True)
    holder[step] = value

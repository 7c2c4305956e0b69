"""Durations in definitions: `500ms`, `30s`, `5m`, `24h`, `7d`, or a number of seconds.

Inside they are whole milliseconds, as is a moment: `2026-12-31T23:59:00Z`.
"""

import re
from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST: Final = 366 * _UNITS["d"]
_TEXT: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse(value: Any) -> int:
    """Milliseconds of a duration as written in a definition; ValueError says what is wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        text = f"{value!r} is not a duration: write 30s, 5m, 24h or a number of seconds"
        raise ValueError(text)  # noqa: TRY004  # pydantic turns only ValueError into a problem
    if isinstance(value, str):
        match = _TEXT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a duration: write 500ms, 30s, 5m, 24h or 7d")
        milliseconds = float(match[1]) * _UNITS[match[2]]
    else:
        milliseconds = float(value) * 1_000
    if not isfinite(milliseconds):
        raise ValueError(f"{value!r} is not a duration: write 30s, 5m, 24h or a number of seconds")
    return round(milliseconds)


def _bounded(value: Any) -> int:
    milliseconds = parse(value)
    if not 1 <= milliseconds <= _LONGEST:
        raise ValueError(f"{value!r} is not from 1ms to {text(_LONGEST)}")
    return milliseconds


def moment(value: Any) -> int:
    """Milliseconds since 1970 of a time in RFC 3339; ValueError says what is wrong."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a time: write 2026-12-31T23:59:00Z") from error
    if found.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone: write 2026-12-31T23:59:00Z")
    return round(found.timestamp() * 1000)


def text(milliseconds: int) -> str:
    """The shortest exact way to write a duration."""
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNITS[unit] == 0:
            return f"{milliseconds // _UNITS[unit]}{unit}"
    return f"{milliseconds}ms"


Duration = Annotated[
    int,
    BeforeValidator(_bounded),
    PlainSerializer(text, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$"},
                {"type": "number", "exclusiveMinimum": 0},
            ],
            "examples": ["30s", "5m", "24h"],
        }
    ),
]

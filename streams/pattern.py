"""Event-type patterns: `*` is one dot-separated segment, `>` (last) is one or more.

`repo.*` matches `repo.push`, not `repo.push.main`; `repo.>` matches both; `>` matches all.
"""

import re
from functools import lru_cache

_SEGMENT = re.compile(r"[A-Za-z0-9_\-/:]+|\*|>")


def check(pattern: str) -> str | None:
    """What is wrong with the pattern, or None."""
    segments = pattern.split(".")
    for position, segment in enumerate(segments):
        if not _SEGMENT.fullmatch(segment):
            return f"{segment!r} is not a segment of an event-type pattern"
        if segment == ">" and position != len(segments) - 1:
            return "'>' stands for the rest and must be the last segment"
    return None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"*": r"[^.]+", ">": r".+"}
    return re.compile(r"\.".join(parts.get(s) or re.escape(s) for s in pattern.split(".")))


def matches(pattern: str, event_type: str) -> bool:
    """Whether an event of this type is meant by the pattern."""
    return _compiled(pattern).fullmatch(event_type) is not None

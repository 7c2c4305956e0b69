"""The findings that are known already: a baseline holds their fingerprints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agents.errors import PermanentError
from agents.repository.source_tree import read_regular

_MAX_BYTES: Final = 64_000_000
_LEVELS: Final = 12


def fingerprints(path: Path) -> frozenset[str]:
    """All fingerprints in a file: a scan's output, its SARIF, or a list of them, as JSON.

    Raises `PermanentError` where it cannot be read.
    """
    try:
        content = read_regular(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise PermanentError(f"baseline: {path} cannot be read: {error}") from error
    if content is None:
        raise PermanentError(f"baseline: {path} is no regular file, or too large")
    try:
        return frozenset(_in(json.loads(content), _LEVELS))
    except (ValueError, RecursionError) as error:
        raise PermanentError(f"baseline: {path} is no JSON: {error}") from error


def _in(value: object, levels: int) -> Iterator[str]:
    if levels == 0:
        return
    if isinstance(value, list):
        for each in value:
            if isinstance(each, str):
                yield each
            else:
                yield from _in(each, levels - 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in ("fingerprint", "commandcenter/v1") and isinstance(each, str):
                yield each
            elif isinstance(each, dict) or key in ("findings", "fingerprints", "runs", "results"):
                yield from _in(each, levels - 1)

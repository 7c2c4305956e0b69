"""A wall clock that is stepped from outside: imported first, if this folder is on the path.

The file `CHAOS_CLOCK` holds the seconds by which the clock is wrong.
"""

import os
import time
from pathlib import Path

_right = time.time
_wrong_by = Path(os.environ.get("CHAOS_CLOCK", "/nonexistent"))


def _now() -> float:
    try:
        return _right() + float(_wrong_by.read_text())
    except (OSError, ValueError):
        return _right()


time.time = _now

"""The environment of a job: the same everywhere, with nothing of the worker's in it."""

import sys
from pathlib import Path


def environment(temporary: Path) -> dict[str, str]:
    """All that a job finds in its environment; nothing of the worker's."""
    scripts = Path(sys.executable).parent
    return {
        "PATH": f"{scripts}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",  # threads of an import would not survive the fork
        # A repository belongs to another user, and cannot be written to: git does not mind.
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }

"""What a scan needs of the process that it is in, where it may not be the only one.

bandit and detect-secrets judge a file by the name they are given, so they work in its repository's
folder; both keep settings in globals, and bandit's complaints may quote the code. In a sandbox none
of that is anybody else's. Elsewhere, as in tests, scans wait for each other.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Final

from agents.scanning.secrets import prepared

_turn: Final = threading.Lock()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The process is one scan's, in `folder`, with detect-secrets set up and nothing logged."""
    with _turn, chdir(folder), _silence(), prepared():
        yield


@contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            # Of the scanners' own code, and of the code that they parse.
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""How a child process tells its supervisor that it is ready: one byte into an inherited pipe."""

import contextlib
import os
from typing import Final

READY_FD: Final = "COMMANDCENTER_READY_FD"


def announce_ready() -> None:
    """Tell the supervisor, if there is one, that this process serves now; once is enough.

    Takes the variable out of the environment, so that no grandchild writes into the pipe.
    """
    number = os.environ.pop(READY_FD, None)
    if number is None:
        return
    with (
        contextlib.suppress(BrokenPipeError),  # the supervisor gave up waiting, and stops us
        os.fdopen(int(number), "wb", buffering=0) as pipe,
    ):
        pipe.write(b"1")

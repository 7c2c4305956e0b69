"""A call in a container: it is told over stdin, and answers over stdout.

python -m agents.sandbox.contained
"""

import os
import sys
from pathlib import Path

from agents.sandbox.calling import Line, answer, log_over
from agents.sandbox.job import Call
from agents.sandbox.wire import Begin, to_job


class _Pipes:
    """Two pipes, used as a socket."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def recv(self, size: int, /) -> bytes:
        return os.read(self._incoming, size)

    def sendall(self, data: bytes, /) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]


def main() -> None:
    """Make the call that comes over stdin."""
    pipes = _Pipes(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # what the action prints does not get into the answers
    begin = to_job(pipes)
    if not (isinstance(begin, Begin) and isinstance(begin.work, Call)):
        sys.exit("this is for a worker's sandbox to start")
    line = Line(pipes)
    log_over(line)
    status = answer(begin.work, line, Path.cwd())
    sys.stdout.flush()
    os._exit(status)  # a thread still reads


if __name__ == "__main__":
    main()

"""The process that forks a sandbox in milliseconds: it has imported what the jobs will need.

One a worker, and one more where jobs may use the network. It has one thread, no event loop and an
empty environment; it takes an `Order` with four descriptors at a time, forks a `keeper` for it, and
ends when its worker does.

    python -c "from agents.sandbox.zygote import main; main()" SOCKET MODULE... -- MODULE...

The modules after `--` are imported once the worker knows that this process is there: whoever comes
earlier waits for them.
"""

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

from agents.sandbox import inside, keeper
from agents.sandbox.wire import Ended, Order, Ready, encode, orders

ORDER_LIMIT: Final = 128 * 1024
DESCRIPTORS: Final = 4


def main() -> None:
    """Serve the worker at the other end of the socket that the command line names."""
    worker = socket.socket(fileno=int(sys.argv[1]))
    worker.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's matter
    faults: dict[str, str] = {}
    end = sys.argv.index("--")
    for module in sys.argv[2:end]:
        try:
            import_module(module)
        except BaseException as error:  # noqa: BLE001 -- an agent's module may do anything
            faults[module] = f"{type(error).__name__}: {error}"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 -- a number is wanted
    worker.sendall(encode(Ready(faults=faults, threads=threads, memory=_resident())))
    for module in sys.argv[end + 1 :]:
        with suppress(Exception):  # what needs it says that it is missing
            import_module(module)
    gc.collect()
    gc.freeze()  # what is shared with the forks stays shared
    while True:
        message, descriptors, _, _ = socket.recv_fds(worker, ORDER_LIMIT, DESCRIPTORS)
        if not message:
            return
        _fork(message, descriptors, worker)


def _fork(message: bytes, descriptors: list[int], worker: socket.socket) -> None:
    try:
        child = os.fork()
    except OSError as error:
        with suppress(OSError):
            text = f"no process could be started: {error.strerror}"
            os.write(descriptors[0], keeper.STARTED)
            os.write(descriptors[0], encode(Ended(status=-1, kind="killed", message=text)))
    else:
        if child == 0:
            worker.close()
            _serve(orders.decode(message), descriptors)
    for each in descriptors:
        os.close(each)


def _serve(order: Order, descriptors: list[int]) -> NoReturn:
    try:
        control, channel = (socket.socket(fileno=each) for each in descriptors[:2])
        out, err = descriptors[2:]

        def let_go() -> None:
            channel.close()
            os.close(out)
            os.close(err)

        start = partial(inside.enter, order, channel, out, err, os.getpid())
        keeper.keep(order, control, start, let_go)
    finally:
        os._exit(1)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

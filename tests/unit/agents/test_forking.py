"""Orders to the process that forks, where it takes them more slowly than they come."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.sandbox.forking import Forking
from agents.sandbox.job import Limits
from agents.sandbox.wire import Order

ORDER = Order(
    limits=Limits(),
    workspace=Path("/w"),
    temporary=Path("/t"),
    readable=(),
    environment={},
    user=None,
    landlock=False,
    exact_view=False,
    network=False,
)


async def test_many_who_wait_for_a_full_line_all_get_their_turn() -> None:
    process: Any = None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        forking = Forking(process, ours)
        with suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 4096)
        waiting = [asyncio.create_task(forking.send(ORDER, [theirs.fileno()])) for _ in range(5)]
        for _ in range(3):
            await asyncio.sleep(0)  # all of them have found the line full
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            while not all(task.done() for task in waiting):
                await loop.sock_recv(theirs, 65_536)
        await asyncio.gather(*waiting)

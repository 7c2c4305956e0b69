"""Root without its rights: a thread that has to keep to the modes of files, as everybody else has.

Linux alone, where the process is root; any other user has no such rights to begin with.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PR_SET_SECUREBITS: Final = 28
_PROGRAMS_GAIN_NOTHING: Final = 1 << 0
_CAPABILITIES_VERSION_3: Final = 0x20080522


async def unprivileged(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the coroutine gives, or raises, without rights: it, its threads and its programs."""
    with ThreadPoolExecutor(1, initializer=_drop_rights) as thread:
        return await asyncio.wrap_future(thread.submit(lambda: asyncio.run(make())))


def _drop_rights() -> None:
    """Of this thread alone: neither call goes through the C library's wrappers for all threads."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITIES_VERSION_3, 0)
    for failed in (
        libc.prctl(_PR_SET_SECUREBITS, _PROGRAMS_GAIN_NOTHING, 0, 0, 0),
        libc.capset(header, bytes(24)),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), "root's rights cannot be laid down")

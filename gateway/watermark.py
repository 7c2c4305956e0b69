"""How far a SQL answer has read, and waiting until it has read far enough.

A watermark is the next offset of each partition of the events topic: the answer has every decision
before it. In headers it is `0:17,3:4`, in JSON `{"0": 17, "3": 4}`.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from gateway import cursor
from gateway.services import READS, SERVICES
from streams.errors import CallerError, OperatorError

HEADER: Final = "X-CommandCenter-Watermark"
AT_LEAST: Final = "atLeast"
WITHIN_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.02
_VECTOR: Final = re.compile(r"\d{1,10}:\d{1,19}(?:,\d{1,10}:\d{1,19})*")
_RUN: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def text(watermark: Mapping[int, int]) -> str:
    """The watermark for a header."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(watermark.items()))


async def reached(request: web.Request, wanted: str | None) -> Mapping[int, int]:
    """The watermark, once it is what the client wants to see.

    Args:
        request: Of the client.
        wanted: A watermark, a cursor of the stream, or the id of a run that has to be recorded;
            empty or None: as it stands.

    Raises:
        CallerError: `wanted` is none of them.
        OperatorError: It was not reached in `WITHIN_S`.
    """
    app = request.app
    reads = app[READS]
    if not wanted:
        return await reads.watermark()
    run = wanted if _RUN.fullmatch(wanted) else None
    vector = {} if run else _vector(wanted, app[SERVICES].log_id)
    end = app[SERVICES].clock() + WITHIN_S
    while True:
        # Read first: what the query sees beyond it does no harm.
        watermark = await reads.watermark()
        if run is not None:
            if await reads.newest_run_events(run, None, 1):
                return watermark
        elif all(watermark.get(partition, 0) >= offset for partition, offset in vector.items()):
            return watermark
        if app[SERVICES].clock() >= end:
            what = f"run {run}" if run else f"{AT_LEAST}={text(vector)}"
            raise OperatorError(
                f"After {WITHIN_S:g} s {what} is not recorded; the history stands at"
                f" {text(watermark) or 'its beginning'}. Ask again, or see /readyz."
            )
        await asyncio.sleep(_LOOK_AGAIN_S)  # the store tells nobody when it has recorded


def _vector(wanted: str, log: str) -> Mapping[int, int]:
    if _VECTOR.fullmatch(wanted):
        pairs = (pair.split(":") for pair in wanted.split(","))
        return {int(partition): int(offset) for partition, offset in pairs}
    vector = cursor.decode(wanted, log)
    if vector is None:
        raise CallerError(
            f"{AT_LEAST}={wanted[:100]!r} is no watermark (such as 0:17,3:4), no cursor of this log"
            " and no id of a run"
        )
    return vector

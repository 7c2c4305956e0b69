"""A SQL answer that the engine wrote into a file, sent piece by piece: never whole in memory.

The file is whole before its first byte is sent. So a mistake still has its status, the client's
slowness keeps no place among the queries, and an answer that breaks off is seen by its length.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Protocol

from aiohttp import hdrs, web

from gateway.running_queries import QUERIES
from gateway.services import SERVICES
from sinks.store import Parameters

UNDER_WAY: Final = 16
"""Answers on the disk at once: more wait, so that slow readers cannot fill it."""
PLACES: Final = web.AppKey("answer places", asyncio.Semaphore)

_PIECE: Final = 256 * 1024


class Packing(Protocol):
    """What packs an answer on its way, such as `zlib.compressobj`."""

    def compress(self, data: bytes, /) -> bytes:
        """What there is to send after this much."""
        ...

    def flush(self) -> bytes:
        """The end of what is sent."""
        ...


class AnswerFile(NamedTuple):
    """A whole answer: where it is, and its length in bytes."""

    path: Path
    size: int


@asynccontextmanager
async def answered(
    request: web.Request,
    sql: str,
    parameters: Parameters,
    output_format: str,
    *,
    query_id: str,
    rows: int = 0,
) -> AsyncIterator[AnswerFile]:
    """The answer to a guest's query, or its first rows, as a file while the context is open.

    Raises:
        CallerError: The query is refused or wrong, or was stopped by its id.
        OperatorError: The store does not answer.
    """
    services = request.app[SERVICES]
    async with request.app[PLACES]:
        with TemporaryDirectory(
            prefix="commandcenter-answer-", dir=services.scratch, ignore_cleanup_errors=True
        ) as folder:
            file = Path(folder) / "answer"
            asked = services.store.export_readonly(
                sql, parameters, output_format=output_format, file=file, rows=rows
            )
            await request.app[QUERIES].run(request, query_id, asked)
            size = (await asyncio.to_thread(file.stat)).st_size
            yield AnswerFile(file, size)


async def send(
    request: web.Request,
    file: AnswerFile,
    headers: Mapping[str, str],
    packing: Packing | None = None,
) -> web.StreamResponse:
    """The file as the answer to a request, packed if the client asked for that."""
    response = web.StreamResponse(headers=headers)
    if packing is None:
        response.content_length = file.size
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    with file.path.open("rb") as content:
        while piece := await asyncio.to_thread(content.read, _PIECE):
            if packing is not None:
                piece = await asyncio.to_thread(packing.compress, piece)
            await response.write(piece)
    if packing is not None:
        await response.write(packing.flush())
    await response.write_eof()
    return response

"""Blobs: files that an action leaves for others, kept in the blob store by their content.

A `Blob` in an output says where the content is: `{"blob": "<sha256>", "size": n, "mediaType": "…",
"name": "…"}`. Unlike the reference that stands for a big payload (`streams.payload`), nothing puts
the content in its place: who wants it asks for it, with `context.blobs.read`. The content is in the
project's part of the store, as the payloads of its runs are, and lives as long as they do.
"""

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Annotated, Any, Final, Protocol, TypeVar

from pydantic import Field

from agents.model import Model
from streams.errors import AgentError
from streams.payload import Reference

T = TypeVar("T")

OCTETS: Final = "application/octet-stream"


class Blob(Model):
    """Content in the blob store: its SHA-256 (hexadecimal), bytes, media type, and a name."""

    blob: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    media_type: Annotated[str, Field(max_length=200)] = OCTETS
    name: Annotated[str, Field(max_length=200)] = ""


class Blobs(Protocol):
    """Where an action leaves content and finds it.

    Both calls block: an async action hands them to `asyncio.to_thread`.
    """

    def write(self, content: bytes, *, media_type: str = OCTETS, name: str = "") -> Blob:
        """Keep the content. Raises `CommandCenterError`: it is too large, the store is away."""

    def read(self, blob: Blob) -> bytes:
        """The content. Raises `CommandCenterError`: there is none, the store is away."""


class MemoryBlobs:
    """Blobs in memory; for tests."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def write(self, content: bytes, *, media_type: str = OCTETS, name: str = "") -> Blob:
        """Keep the content."""
        digest = sha256(content).hexdigest()
        self._contents[digest] = bytes(content)
        return Blob(blob=digest, size=len(content), media_type=media_type, name=name)

    def read(self, blob: Blob) -> bytes:
        """The content; `AgentError` where it was not written here."""
        if blob.blob not in self._contents:
            raise AgentError(f"there is no blob {blob.blob}")
        return self._contents[blob.blob]

    def __repr__(self) -> str:
        return f"MemoryBlobs({len(self._contents)})"


class BlobKeeper(Protocol):
    """The blob store as the worker has it; `streams.blob_store.BlobStore` is one."""

    async def put(self, project: str, content: bytes) -> Reference:
        """Keep it."""

    async def get(self, project: str, reference: Reference) -> bytes:
        """Give it."""


class ProjectBlobs:
    """The part of the blob store that belongs to a project, for code in threads."""

    __slots__ = ("_keeper", "_loop", "_project")

    def __init__(self, keeper: BlobKeeper, project: str, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: where the store is used."""
        self._keeper = keeper
        self._project = project
        self._loop = loop

    def write(self, content: bytes, *, media_type: str = OCTETS, name: str = "") -> Blob:
        """Keep the content. Raises `CommandCenterError`: it is too large, the store is away."""
        reference = self._wait(lambda: self._keeper.put(self._project, bytes(content)))
        return Blob(blob=reference.digest, size=reference.size, media_type=media_type, name=name)

    def read(self, blob: Blob) -> bytes:
        """The content. Raises `CommandCenterError`: there is none, the store is away."""
        return self._wait(lambda: self._keeper.get(self._project, Reference(blob.blob, blob.size)))

    def _wait(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise AgentError(
                "blobs are written and read in threads: in an async action write"
                " `await asyncio.to_thread(context.blobs.read, blob)`"
            )
        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def __repr__(self) -> str:
        return f"ProjectBlobs({self._project})"

"""Where payloads that travel by reference are kept: a folder, or anything else that fsspec knows.

A blob's place is its project and the hash of its content, so it is written once and never changes.
What is read is held against its hash: a torn or foreign file is no content.
"""

import asyncio
from collections import OrderedDict
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, Final
from uuid import uuid4

import structlog
from msgspec import Raw

from streams.errors import CommandCenterError, OperatorError
from streams.payload import INLINE_LIMIT, Reference, check_payload, reference_to

_log = structlog.get_logger(__name__)

CACHED_BYTES: Final = 64 * 1024 * 1024


class MissingContentError(CommandCenterError):
    """A reference leads to nothing, or not to what it names."""


class BlobStore:
    """Keeps and gives content; what was used last is kept in memory.

    Args:
        url: A folder, or a URL that fsspec opens (`s3://bucket/path`).
        limit: Bytes of the largest content that is taken.
    """

    def __init__(self, url: str, limit: int) -> None:
        self.limit = limit
        self._url = url
        self._opened: tuple[Any, str] | None = None
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._cached_bytes = 0

    async def put(self, project: str, content: bytes) -> Reference:
        """Keep the content.

        Raises:
            TooLargeError: It is over the limit.
            OperatorError: The place cannot be written.
        """
        self.check(len(content))
        reference = reference_to(content)
        if (project, reference.digest) not in self._cache:
            await asyncio.to_thread(self._write, project, reference, content)
            self._remember(project, reference, content)
        return reference

    async def packed(self, project: str, payload: Raw, limit: int = INLINE_LIMIT) -> Raw:
        """The payload as it travels: itself, or kept and a reference to it where it is larger.

        Errors as for `put`.
        """
        content = bytes(payload)
        if len(content) <= limit:
            return payload
        return Raw((await self.put(project, content)).encode())

    def check(self, size: int) -> None:
        """Raise `TooLargeError` where content of so many bytes would not be taken."""
        check_payload(size, self.limit)

    async def get(self, project: str, reference: Reference) -> bytes:
        """The content.

        Raises:
            MissingContentError: There is none, or another one.
            OperatorError: The place cannot be read.
        """
        found = self.at_hand(project, reference)
        if found is None:
            found = await asyncio.to_thread(self._read, project, reference)
            self._remember(project, reference, found)
        return found

    def at_hand(self, project: str, reference: Reference) -> bytes | None:
        """The content, if it is in memory."""
        found = self._cache.get((project, reference.digest))
        if found is not None:
            self._cache.move_to_end((project, reference.digest))
        return found

    def _remember(self, project: str, reference: Reference, content: bytes) -> None:
        self._cache[project, reference.digest] = content
        self._cached_bytes += len(content)
        while self._cached_bytes > CACHED_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= len(oldest)

    def _place(self, project: str, digest: str) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec  # with what it needs for the URL: only who has big payloads pays for it

            self._opened = fsspec.url_to_fs(self._url)
        files, root = self._opened
        return files, str(PurePosixPath(root) / project / digest[:2] / digest)

    def _write(self, project: str, reference: Reference, content: bytes) -> None:
        try:
            files, path = self._place(project, reference.digest)
            if files.exists(path) and files.size(path) == reference.size:
                return
            files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            draft = f"{path}.{uuid4().hex[:8]}"
            with files.open(draft, "wb") as file:
                file.write(content)
            files.mv(draft, path)
        except (OSError, ValueError, ImportError) as error:
            raise OperatorError(f"the blob store {self._url} cannot be written: {error}") from error

    def _read(self, project: str, reference: Reference) -> bytes:
        try:
            files, path = self._place(project, reference.digest)
            content: bytes = files.cat_file(path)
        except FileNotFoundError as error:
            raise MissingContentError(
                f"the payload {reference.digest} is not in the blob store {self._url}"
            ) from error
        except (OSError, ValueError, ImportError) as error:
            raise OperatorError(f"the blob store {self._url} cannot be read: {error}") from error
        if sha256(content).hexdigest() != reference.digest:
            raise MissingContentError(
                f"the payload {reference.digest} in the blob store {self._url} is damaged"
            )
        return content

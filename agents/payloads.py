"""Big payloads of tasks: inputs that travel by reference are fetched, big outputs are kept.

Rules (law 9):
- A reference (`streams.payload`) may stand anywhere in the inputs, and in what another one names.
  An action never sees one.
- An output of more than `INLINE_LIMIT` bytes goes to the blob store, and its reference into the
  result. More than the store's limit is refused, of an output and of inputs all together.
- A store that is away is asked again until `until`, in seconds of the loop's clock: that is a
  time-out, which another attempt may cure. Content that is not there is a failure for good.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
from msgspec import Raw

from streams.blob_store import MissingContentError
from streams.errors import CallerError
from streams.payload import Reference, has_references, reference_in
from streams.records import Failure
from streams.trigger import MAX_DEPTH, check_depth

T = TypeVar("T")

LIMIT_SETTING: Final = "COMMANDCENTER_PAYLOAD_LIMIT"
_AGAIN_S: Final = 0.5
_LEVELS: Final = 50

_log = structlog.get_logger(__name__)


class Blobs(Protocol):
    """What keeps the content; `streams.blob_store.BlobStore` does."""

    limit: int

    async def put(self, project: str, content: bytes) -> Reference:
        """Keep it; `OperatorError` where that is not possible now."""

    async def get(self, project: str, reference: Reference) -> bytes:
        """Give it; `OperatorError` where that is not possible now."""


class PayloadError(Exception):
    """The payload cannot be had, or not be taken; `failure` is what becomes of the task."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Payloads:
    """Gives actions their inputs, and takes their outputs."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def inputs(self, project: str, inputs: bytes, until: float) -> bytes:
        """The inputs with content where references are. Raises `PayloadError`."""
        return await _Inputs(self._blobs, project, until).whole(inputs, 0)

    async def output(self, project: str, output: bytes, until: float) -> Raw:
        """What stands in the result for an output over `INLINE_LIMIT`. Raises `PayloadError`."""
        reference = await _patiently(lambda: self._blobs.put(project, output), until)
        return Raw(reference.encode())

    def check(self, output: bytes) -> None:
        """Raise `PayloadError` for what nobody could take or read."""
        limit = self._blobs.limit
        if len(output) > limit:
            raise _final(
                "output_too_large",
                f"the output is {len(output):,} bytes of JSON; {limit:,} may be ({LIMIT_SETTING})",
            )
        # Looking inside is dear, and nearly never needed; the search for one byte is the fast one.
        size = len(output)
        deep = size > MAX_DEPTH and output.count(b"{") + output.count(b"[") > MAX_DEPTH
        if (
            deep
            or (b"N" in output and b"NaN" in output)
            or (b"I" in output and b"Infinity" in output)
        ):
            try:
                check_depth(msgspec.json.decode(output), "the output")
            except (CallerError, RecursionError) as error:
                text = f"the output is nested more than {MAX_DEPTH} levels deep"
                raise _final("invalid_output", text) from error
            except msgspec.MsgspecError as error:
                raise _final("invalid_output", f"the output is not JSON: {error}") from error


class _Inputs:
    """The inputs of one task, being completed."""

    def __init__(self, blobs: Blobs, project: str, until: float) -> None:
        self._blobs = blobs
        self._project = project
        self._until = until
        self._left = blobs.limit

    async def whole(self, content: bytes, level: int) -> bytes:
        """The content with nothing left to be fetched; `level` references led to it."""
        if not has_references(content):
            return content
        try:
            value = msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return content  # whoever validates it says what is wrong with it
        root = [value]
        places = _references(root)
        if places and level >= _LEVELS:
            raise _final("invalid_input", f"references lead to references {level} times over")
        for container, key, reference in places:
            container[key] = Raw(await self.whole(await self._fetched(reference), level + 1))
        return msgspec.json.encode(root[0]) if places else content

    async def _fetched(self, reference: Reference) -> bytes:
        self._left -= reference.size
        if self._left < 0:
            raise _final(
                "inputs_too_large",
                f"the inputs are more than {self._blobs.limit:,} bytes with what they refer to"
                f" ({LIMIT_SETTING})",
            )
        try:
            found = await _patiently(lambda: self._blobs.get(self._project, reference), self._until)
        except MissingContentError as error:
            raise _final("invalid_input", str(error)) from error
        if len(found) != reference.size:
            text = f"the payload {reference.digest} is {len(found):,} bytes, not {reference.size:,}"
            raise _final("invalid_input", text)
        return found


async def _patiently(ask: Callable[[], Awaitable[T]], until: float) -> T:
    """The answer, asked for until there is one."""
    why = "it does not answer"
    try:
        async with asyncio.timeout_at(until):
            while True:
                try:
                    return await ask()
                except (MissingContentError, CallerError):
                    raise
                except Exception as error:  # noqa: BLE001 -- each store behind fsspec has its own
                    why = str(error)
                    _log.warning("the blob store is asked again", why=why)
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError as error:
        text = f"the blob store was away until the task's time was over: {why}"
        raise PayloadError(Failure(kind="timeout", message=text)) from error


def _references(root: list[Any]) -> list[tuple[Any, Any, Reference]]:
    """Every reference inside: the list or object that it stands in, its place there, and itself."""
    found: list[tuple[Any, Any, Reference]] = []
    containers: list[Any] = [root]
    while containers:
        container = containers.pop()
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in pairs:
            reference = reference_in(value)
            if reference is not None:
                found.append((container, key, reference))
            elif isinstance(value, (dict, list)):
                containers.append(value)
    return found


def _final(kind: str, message: str) -> PayloadError:
    return PayloadError(Failure(kind=kind, message=message, retryable=False))

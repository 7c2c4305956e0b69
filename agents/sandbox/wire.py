"""What goes between a worker and a sandboxed process: typed messages in frames.

A frame is four bytes of length (big-endian) and one MessagePack value. What comes out of a sandbox
is not trusted: a frame that is too long or not of these types is an error of the sandboxed side.
"""

import asyncio
import struct
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from agents.sandbox.job import Call, Command, FailureKind, Limits

FRAME_LIMIT: Final = 80 * 1024 * 1024
"""More than the largest payload that a worker takes by default, with its wrapping."""


class Order(Struct, frozen=True, kw_only=True):
    """To the process that forks: what surrounds a job. `user` is who root becomes for it."""

    limits: Limits
    workspace: Path
    temporary: Path
    readable: tuple[Path, ...]
    environment: dict[str, str]
    user: int | None
    landlock: bool
    exact_view: bool
    network: bool


class Ready(Struct, frozen=True, kw_only=True):
    """From the process that forks, once: it is ready. `faults`: modules that it cannot import."""

    faults: dict[str, str]
    threads: int
    memory: int


class Ended(Struct, frozen=True, kw_only=True):
    """From the keeper, once: every process of the job is gone. `kind` and `message`: a limit."""

    status: int
    kind: FailureKind | None = None
    message: str = ""
    memory: int = 0


class Begin(Struct, frozen=True, kw_only=True, tag="begin"):
    """To the job: what to do."""

    work: Command | Call


class Cancel(Struct, frozen=True, kw_only=True, tag="cancel"):
    """To the job: its result is not wanted any more."""

    reason: str


class Answer(Struct, frozen=True, kw_only=True, tag="answer"):
    """To the job: what it asked for. `error`: why it does not get it."""

    id: int
    body: Any = None
    error: str | None = None


class Told(Struct, frozen=True, kw_only=True, tag="told"):
    """From the job: progress, a cost and the like; nobody answers."""

    kind: str
    body: Any


class Asked(Struct, frozen=True, kw_only=True, tag="asked"):
    """From the job: it waits for an answer."""

    id: int
    kind: str
    body: Any


class Returned(Struct, frozen=True, kw_only=True, tag="returned"):
    """From the job: the JSON of its result."""

    output: bytes


class Raised(Struct, frozen=True, kw_only=True, tag="raised"):
    """From the job: what it raised."""

    kind: FailureKind
    message: str
    retryable: bool = True
    error: str = ""


ToJob: TypeAlias = Begin | Cancel | Answer
FromJob: TypeAlias = Told | Asked | Returned | Raised


def _encode_hook(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} is not sent")


def _decode_hook(kind: type, value: object) -> object:
    if kind is Path or issubclass(kind, Path):
        return Path(str(value))
    raise NotImplementedError(f"{kind.__name__} is not received")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_to_job: msgspec.msgpack.Decoder[ToJob] = msgspec.msgpack.Decoder(
    Begin | Cancel | Answer, dec_hook=_decode_hook
)
_from_job: msgspec.msgpack.Decoder[FromJob] = msgspec.msgpack.Decoder(
    Told | Asked | Returned | Raised
)
orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order, dec_hook=_decode_hook)
readies: msgspec.msgpack.Decoder[Ready] = msgspec.msgpack.Decoder(Ready)
endings: msgspec.msgpack.Decoder[Ended] = msgspec.msgpack.Decoder(Ended)


class FrameError(Exception):
    """The other side sent what is no frame."""


def encode(message: Struct) -> bytes:
    """The message alone, without a length."""
    return _encoder.encode(message)


def frame(message: Struct) -> bytes:
    """The message as it goes into a stream."""
    body = _encoder.encode(message)
    return struct.pack(">I", len(body)) + body


async def from_job(stream: asyncio.StreamReader, limit: int) -> FromJob | None:
    """The next message of a job, of `limit` bytes at most; None: it says no more."""
    try:
        (length,) = struct.unpack(">I", await stream.readexactly(4))
        if length > limit:
            raise FrameError(f"a message of {length:,} bytes; at most {limit:,} are taken")
        return _from_job.decode(await stream.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FrameError(f"no message: {error}") from error


class Pipe(Protocol):
    """The job's end of the line, as a socket has it."""

    def recv(self, size: int, /) -> bytes:
        """What there is, at most `size` bytes; waited for; empty at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send it all."""


def to_job(pipe: Pipe) -> ToJob | None:
    """The next message to the job, waited for; None: the worker is gone."""
    head = _exactly(pipe, 4)
    body = None if head is None else _exactly(pipe, struct.unpack(">I", head)[0])
    return None if body is None else _to_job.decode(body)


def _exactly(pipe: Pipe, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = pipe.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)

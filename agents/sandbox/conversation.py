"""What a worker hears from a job at work, and what it answers. Nothing of it is trusted.

Rules:
- Output is read as it comes and kept up to a limit; a job that writes more is ended.
- A message that makes no sense ends the job; one that asks for what there is not is answered so.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec import Struct

from agents.sandbox.job import MEGABYTE, Call, Command, Limits, Problem
from agents.sandbox.sandbox import Attendant
from agents.sandbox.wire import (
    Answer,
    Asked,
    Begin,
    FrameError,
    Raised,
    Returned,
    Told,
    frame,
    from_job,
)
from streams.errors import CommandCenterError

_CHUNK = 65_536


class Nobody:
    """Attends to a job that tells and asks nothing."""

    def told(self, kind: str, body: Any) -> None:
        """Nobody hears it."""

    async def asked(self, kind: str, body: Any) -> Any:  # noqa: ARG002 -- whatever it is
        """Nobody answers."""
        raise CommandCenterError(f"nobody answers {kind!r} here")


class Output:
    """What a job writes to stdout and stderr, both together up to a limit."""

    def __init__(self, limits: Limits, over: Callable[[Problem], None]) -> None:
        self._left = limits.output
        self._limit = limits.output
        self._over = over
        self.stdout = bytearray()
        self.stderr = bytearray()

    async def read(self, stream: asyncio.StreamReader, into: bytearray) -> None:
        """Read to the end; what is over the limit is thrown away."""
        while part := await stream.read(_CHUNK):
            into += part[: self._left]
            if len(part) > self._left:
                text = f"it wrote more than {self._limit:,} bytes to stdout and stderr"
                self._over(Problem(kind="output_limit", message=text, retryable=False))
            self._left = max(0, self._left - len(part))


class Conversation:
    """One job's talk with its worker, from `Begin` to its last word."""

    def __init__(
        self,
        work: Command | Call,
        limits: Limits,
        attendant: Attendant,
        over: Callable[[Problem], None],
    ) -> None:
        self._work = work
        self._limits = limits
        self._attendant = attendant
        self._over = over
        self._writer: asyncio.StreamWriter | None = None
        self.returned: bytes | None = None
        self.raised: Raised | None = None

    def say(self, message: Struct) -> None:
        """Send the job a message, if it still listens."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell the job what to do, and attend to it until it says no more."""
        self._writer = writer
        try:
            with suppress(ConnectionError):
                self.say(Begin(work=self._work))
                await writer.drain()
            # Beside the result there are blobs, of the same size at most.
            limit = self._limits.result + MEGABYTE
            while (message := await from_job(reader, limit)) is not None:
                match message:
                    case Told(kind=kind, body=body):
                        self._attendant.told(kind, body)
                    case Asked():
                        self.say(await self._answer(message))
                        with suppress(ConnectionError):
                            await writer.drain()
                    case Returned(output=output):
                        if len(output) > self._limits.result:
                            raise FrameError(f"a result of {len(output):,} bytes")  # noqa: TRY301
                        self.returned = output
                    case Raised():
                        self.raised = message
        except (FrameError, ValueError) as error:
            text = f"it told the worker what it may not: {error}"
            self._over(Problem(kind="agent_error", message=text, retryable=False))

    async def _answer(self, question: Asked) -> Answer:
        try:
            body = await self._attendant.asked(question.kind, question.body)
        except CommandCenterError as error:
            return Answer(id=question.id, error=str(error))
        return Answer(id=question.id, body=body)

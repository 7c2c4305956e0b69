"""Seeing a job through in a worker: from its start to its outcome, whatever the backend.

Rules:
- When `see_through` returns or raises, the job is over: who is cancelled kills it first.
- A backend's limits come before those here: this watch is on output, and on time where the backend
  (`keeps_time`) does not do so itself.
"""

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import Final, Protocol, TypeAlias

from agents.sandbox.conversation import Conversation, Nobody, Output
from agents.sandbox.job import Job, Outcome, Problem
from agents.sandbox.sandbox import Attendant
from agents.sandbox.verdict import CANCELLED, outcome
from agents.sandbox.wire import Cancel, Ended

_LAST_WORDS_S: Final = 5.0


Line: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""The worker's end of the line to a job."""


class Running(Protocol):
    """A job at work, as its backend has it. Nothing here raises because the job has ended."""

    keeps_time: bool
    line: Line | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def ended(self) -> Ended:
        """Wait until nothing of it is left."""

    def terminate(self) -> None:
        """Have it end by itself."""

    def kill(self) -> None:
        """End it."""


async def see_through(
    job: Job,
    running: Running,
    attendant: Attendant | None,
    stop: asyncio.Event | None,
    began: float,
) -> Outcome:
    """Attend to the job until it is over. `began`: when it was asked for, by `time.monotonic`."""
    return await _Watch(job, running, attendant or Nobody(), stop).to_the_end(began)


class _Watch:
    def __init__(
        self, job: Job, running: Running, attendant: Attendant, stop: asyncio.Event | None
    ) -> None:
        self._job = job
        self._running = running
        self._stop = stop
        self._problem: Problem | None = None
        self._talk = Conversation(job.work, job.limits, attendant, self._over)
        self._output = Output(job.limits, self._over)

    def _over(self, problem: Problem) -> None:
        """The job has done what it may not."""
        self._problem = self._problem or problem
        self._running.kill()

    async def to_the_end(self, began: float) -> Outcome:
        async with AsyncExitStack() as stack:
            talks = self._talks()
            watches = [
                asyncio.create_task(self._obey_stop()),
                asyncio.create_task(self._keep_time()),
            ]
            stack.push_async_callback(_given_up, [*talks, *watches])
            ending = asyncio.create_task(self._running.ended())
            try:
                ended = await asyncio.shield(ending)
            except asyncio.CancelledError:
                self._running.kill()
                await ending
                raise
            # Whoever held the other ends is gone, so these come to their ends by themselves, unless
            # an answer is being waited for.
            if talks:
                await asyncio.wait(talks, timeout=_LAST_WORDS_S)
            for talk in talks:
                if talk.done() and not talk.cancelled() and (error := talk.exception()):
                    raise error
            return outcome(
                self._job.work,
                ended,
                self._talk,
                self._output,
                problem=self._problem,
                stopped=self._stop is not None and self._stop.is_set(),
                wall=time.monotonic() - began,
            )

    def _talks(self) -> list[asyncio.Task[None]]:
        running, output = self._running, self._output
        talks = []
        if running.line is not None:
            talks.append(asyncio.create_task(self._talk.hold(*running.line)))
        for stream, into in ((running.stdout, output.stdout), (running.stderr, output.stderr)):
            if stream is not None:
                talks.append(asyncio.create_task(output.read(stream, into)))
        return talks

    async def _obey_stop(self) -> None:
        if self._stop is None:
            return
        await self._stop.wait()
        self._talk.say(Cancel(reason=CANCELLED))
        await self._end_softly()

    async def _keep_time(self) -> None:
        limits = self._job.limits
        if self._running.keeps_time:
            return
        await asyncio.sleep(limits.wall)
        text = f"it did not end within {limits.wall:g} s"
        self._problem = self._problem or Problem(kind="time_limit", message=text)
        await self._end_softly()

    async def _end_softly(self) -> None:
        grace = self._job.limits.grace
        self._running.terminate()
        if self._running.keeps_time or (grace is None and self._problem is None):
            return
        await asyncio.sleep(grace or 0.0)
        self._running.kill()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close the stream, whatever state it is in."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _given_up(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

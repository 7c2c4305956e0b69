"""`GET /api/events/stream`: a plain feed of the log's events, one frame an event.

The last frame of a decision has the `cursor` to come back with: events of one decision belong
together, and a cursor in their midst would lose some.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from gateway import cursor
from gateway.live import LiveDecision
from gateway.services import READS, SERVICES
from gateway.stream import Socket, attended, first_of, growth
from gateway.subscription import Filter, Subscription
from streams import pattern
from streams.errors import CallerError


class _Decision(Struct, frozen=True):
    events: tuple[Raw, ...]


class _Typed(Struct, frozen=True):
    type: str


_decision: Final = msgspec.json.Decoder(_Decision)
_typed: Final = msgspec.json.Decoder(_Typed)


async def event_feed(request: web.Request) -> web.WebSocketResponse:
    """A websocket with the events from now on, or from `cursor` on.

    `subject` is a pattern of event types (`node.*`), `project` narrows.
    """
    subject = request.query.get("subject", ">")
    if problem := pattern.check(subject):
        raise CallerError(f"subject: {problem}")
    position = await _start(request)
    socket = Socket()
    await socket.ws.prepare(request)
    feed = _Feed(request, socket, subject, position)
    await attended(request.app, socket, feed.run())
    return socket.ws


async def _start(request: web.Request) -> dict[int, int]:
    """Where to begin: the cursor if one is given, else the end of the log as it is known here."""
    services = request.app[SERVICES]
    end = dict(await request.app[READS].watermark())
    for partition, offset in services.tail.ends().items():
        end[partition] = max(offset, end.get(partition, 0))
    if "cursor" not in request.query:
        return end
    given = cursor.decode(request.query["cursor"], services.log_id)
    if given is None or any(offset > end.get(part, 0) for part, offset in given.items()):
        raise CallerError("cursor is not one of this log; leave it out to begin now")
    return given


class _Feed:
    """One client of the feed."""

    def __init__(
        self, request: web.Request, socket: Socket, subject: str, position: dict[int, int]
    ) -> None:
        services = request.app[SERVICES]
        self._tail = services.tail
        self._log_id = services.log_id
        self._socket = socket
        self._subject = subject
        self._sent = dict(position)
        wanted = Filter(project=request.query.get("project"))
        self._subscription = Subscription(self._tail, request.app[READS], wanted, position)

    async def run(self) -> None:
        """Serve the client until it goes."""
        await first_of(self._listen(), self._serve(), self._socket.keep_alive())

    async def _listen(self) -> None:
        while await self._socket.receive() is not None:
            pass  # a client has nothing to say on this feed

    async def _serve(self) -> None:
        with self._tail.watch() as changed:
            while True:
                changed.clear()
                batch = await self._subscription.next()
                for decision in batch.decisions:
                    self._sent[decision.partition] = decision.offset + 1
                    for frame in self._frames(decision):
                        await self._socket.send(frame)
                self._sent.update(self._subscription.position)
                if not batch.moved:
                    await growth(changed, batch.waiting)

    def _frames(self, decision: LiveDecision) -> Iterator[dict[str, Any]]:
        heading = decision.heading
        frames = []
        for number, event in enumerate(_decision.decode(decision.raw).events):
            kind = _typed.decode(event).type
            if pattern.matches(self._subject, kind):
                frames.append(
                    {
                        "id": f"{heading.run}/{heading.seq + number}",
                        "run": heading.run,
                        "project": heading.project,
                        "workflow": heading.workflow,
                        "seq": heading.seq + number,
                        "type": kind,
                        "at": heading.at,
                        "status": heading.status,
                        "event": event,
                    }
                )
        if frames:
            frames[-1]["cursor"] = cursor.encode(self._sent, self._log_id)
        return iter(frames)

"""`GET /api/stream`: runs as they change, over one websocket.

Client frames (JSON):
    {"type": "subscribe", "id": 1, "filter": {"workflow", "run", "status", "project"}, "cursor"?}
    {"type": "unsubscribe", "id": 1}
Server frames:
    {"type": "snapshot", "id", "recovered": false, "cursor", "watermark", "runs" or "run"}
    {"type": "resumed", "id", "recovered": true, "cursor"}
    {"type": "events", "id", "cursor", "decisions": [...]}
    {"type": "unsubscribed", "id"} and {"type": "error", "id", "detail"}

A subscription begins with a snapshot, or, where its cursor is usable, with `resumed`; from there on
it gets every decision exactly once, in the order of its run. A bad frame is answered and harms
nothing else. A client that takes no frame for some seconds is closed with code 3008.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Raw
from prometheus_client import Counter, Gauge

from gateway import cursor
from gateway.cursor import Vector
from gateway.runs import snapshot
from gateway.services import READS, SERVICES
from gateway.subscription import Subscription, parse_filter
from streams.errors import CallerError, CommandCenterError

_log = structlog.get_logger(__name__)
_open = Gauge("commandcenter_stream_connections", "Open websockets of the stream.")
_slow = Counter("commandcenter_stream_too_slow_total", "Websockets closed with code 3008.")

TOO_SLOW: Final = 3008
PING_S: Final = 25.0
PONG_S: Final = 8.0
SEND_S: Final = 10.0
_POLL_S: Final = 0.1
_AHEAD_S: Final = 2.0
_SUBSCRIPTIONS: Final = 32
_FRAME_BYTES: Final = 64 * 1024

Id = int | str


class Subscribe(
    msgspec.Struct, tag_field="type", tag="subscribe", frozen=True, forbid_unknown_fields=True
):
    """A client wants decisions."""

    id: Id
    filter: dict[str, Any] | None = None
    cursor: Any = None


class Unsubscribe(
    msgspec.Struct, tag_field="type", tag="unsubscribe", frozen=True, forbid_unknown_fields=True
):
    """A client has enough."""

    id: Id


_frames: Final = msgspec.json.Decoder(Subscribe | Unsubscribe)


class TooSlowError(CallerError):
    """The client does not take what it asked for."""


class Socket:
    """A websocket with its rules: bounded sending, pings, closing."""

    def __init__(self) -> None:
        self.ws = web.WebSocketResponse(
            autoping=False, max_msg_size=_FRAME_BYTES, timeout=2.0, compress=False
        )
        self._alive = asyncio.Event()

    async def send(self, frame: Any) -> None:
        """Send a frame; `TooSlowError` if the client does not take it."""
        try:
            async with asyncio.timeout(SEND_S):
                await self.ws.send_frame(msgspec.json.encode(frame), WSMsgType.TEXT)
        except TimeoutError as error:
            raise TooSlowError("the client is too slow; come back with the last cursor") from error

    async def receive(self) -> str | None:
        """The next text frame, or None when the client has gone. Answers pings."""
        while True:
            message = await self.ws.receive()
            self._alive.set()
            match message.type:
                case WSMsgType.TEXT:
                    return str(message.data)
                case WSMsgType.PING:
                    await self.ws.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case WSMsgType.BINARY:
                    return ""
                case _:
                    return None

    async def keep_alive(self) -> None:
        """Ping for ever; return when the client does not answer."""
        while True:
            await asyncio.sleep(PING_S)
            self._alive.clear()
            await self.ws.ping()
            try:
                async with asyncio.timeout(PONG_S):
                    await self._alive.wait()
            except TimeoutError:
                return

    async def close(self, code: int, reason: str) -> None:
        """Close; where the client does not even take that, drop the connection."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(4):
                await self.ws.close(code=code, message=reason.encode(), drain=False)


SOCKETS: Final = web.AppKey("sockets", set[Socket])


class Stream:
    """The subscriptions of one socket, and the one task that serves them in turn."""

    def __init__(self, socket: Socket, app: web.Application) -> None:
        self._socket = socket
        self._app = app
        self._tail = app[SERVICES].tail
        self._log_id = app[SERVICES].log_id
        self._reads = app[READS]
        self._subscriptions: dict[Id, Subscription] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serve the client until it goes or an error ends it."""
        with self._tail.watch() as self._changed:
            await first_of(self._listen(), self._serve(), self._socket.keep_alive())

    async def _listen(self) -> None:
        """Do what the client asks."""
        while (text := await self._socket.receive()) is not None:
            frame_id: Id | None = None
            try:
                frame = _read(text)
                frame_id = frame.id
                if isinstance(frame, Subscribe):
                    await self._subscribe(frame)
                else:
                    await self._unsubscribe(frame)
            except TooSlowError:
                raise
            except CallerError as error:
                await self._socket.send({"type": "error", "id": frame_id, "detail": str(error)})

    async def _subscribe(self, frame: Subscribe) -> None:
        if frame.id in self._subscriptions:
            raise CallerError(
                f"subscription {frame.id!r} exists: unsubscribe it, or use another id"
            )
        if len(self._subscriptions) >= _SUBSCRIPTIONS:
            raise CallerError(f"a websocket may have {_SUBSCRIPTIONS} subscriptions")
        wanted = parse_filter(frame.filter)
        position = None if frame.cursor is None else await self._usable(frame.cursor)
        if position is not None:
            first: dict[str, Any] = {"type": "resumed", "recovered": True}
            subscription = Subscription(self._tail, self._reads, wanted, position)
        else:
            view = await snapshot(self._app, wanted)
            first = {"type": "snapshot", "recovered": False, **view.content}
            first["watermark"] = position = dict(view.watermark)
            subscription = Subscription(self._tail, self._reads, wanted, position, view.shown)
        first["id"] = frame.id
        first["cursor"] = cursor.encode(position, self._log_id)
        await self._socket.send(first)
        self._subscriptions[frame.id] = subscription
        self._changed.set()

    async def _unsubscribe(self, frame: Unsubscribe) -> None:
        if self._subscriptions.pop(frame.id, None) is None:
            raise CallerError(f"there is no subscription {frame.id!r}")
        await self._socket.send({"type": "unsubscribed", "id": frame.id})

    async def _usable(self, text: Any) -> dict[int, int] | None:
        """Where a cursor stands; None if it is not of this log, or ahead of all that is known."""
        position = cursor.decode(text, self._log_id)
        if position is None:
            return None
        recorded = await self._reads.watermark()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AHEAD_S):  # another gateway may have read further
                while self._is_ahead(position, recorded):
                    self._changed.clear()
                    await self._changed.wait()
        return None if self._is_ahead(position, recorded) else position

    def _is_ahead(self, position: Vector, recorded: Vector) -> bool:
        ends = self._tail.ends()
        return any(
            offset > max(recorded.get(partition, 0), ends.get(partition, 0))
            for partition, offset in position.items()
        )

    async def _serve(self) -> None:
        """Send what the subscriptions have, whenever there is something."""
        while True:
            self._changed.clear()
            busy = waiting = False
            for key, subscription in list(self._subscriptions.items()):
                batch = await subscription.next()
                busy |= batch.moved
                waiting |= batch.waiting
                if batch.due and self._subscriptions.get(key) is subscription:
                    await self._socket.send(
                        {
                            "type": "events",
                            "id": key,
                            "cursor": cursor.encode(subscription.position, self._log_id),
                            "decisions": [Raw(decision.raw) for decision in batch.decisions],
                        }
                    )
            if not busy:
                await growth(self._changed, waiting)


async def growth(changed: asyncio.Event, waiting: bool) -> None:
    """Wait for new records; not for long where older ones are waited for from the store."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_POLL_S if waiting else None):
            await changed.wait()


async def first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends, end the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stream(request: web.Request) -> web.WebSocketResponse:
    """Runs as they change: see the module's text for the frames."""
    app = request.app
    socket = Socket()
    await socket.ws.prepare(request)
    await attended(app, socket, Stream(socket, app).run())
    return socket.ws


async def attended(app: web.Application, socket: Socket, work: Coroutine[Any, Any, None]) -> None:
    """Do the work of a websocket, and close it with a code that says how it ended."""
    app[SOCKETS].add(socket)
    _open.inc()
    code, reason = int(WSCloseCode.OK), ""
    try:
        await work
    except TooSlowError as error:
        _slow.inc()
        code, reason = TOO_SLOW, str(error)
    except CommandCenterError as error:
        code, reason = WSCloseCode.TRY_AGAIN_LATER, str(error)[:120]
    except ConnectionError:
        pass  # the client has gone in the middle of a frame
    except Exception:  # noqa: BLE001  # logged, and told to the client by the code
        _log.exception("a stream failed")
        code, reason = WSCloseCode.INTERNAL_ERROR, "a fault inside CommandCenter"
    finally:
        _open.dec()
        app[SOCKETS].discard(socket)
        await socket.close(code, reason)


async def close_all(app: web.Application) -> None:
    """Close every websocket because the server stops; clients come back with their cursors."""
    closing = [socket.close(WSCloseCode.GOING_AWAY, "stopping") for socket in app[SOCKETS]]
    await asyncio.gather(*closing)


def _read(text: str) -> Subscribe | Unsubscribe:
    try:
        frame: Subscribe | Unsubscribe = _frames.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CallerError(f"not a frame that is understood here: {error}") from error
    return frame

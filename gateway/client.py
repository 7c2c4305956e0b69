"""The gateway's client: its REST interface and its stream, for the command line and for scripts.

- What the gateway refuses comes back as the error type that it was there, with the same text.
- A stream that breaks is taken up again with its last cursors, so nothing is lost or told twice.
- Answers are plain JSON values, as documented in `/openapi.json`.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Self
from urllib.parse import quote

import aiohttp
import msgspec

from streams.errors import (
    CallerError,
    CommandCenterError,
    DefinitionError,
    NotFoundError,
    OperatorError,
    Problem,
    TooLargeError,
)

MAX_SUBSCRIPTIONS: Final = 32
"""How many filters one stream may have."""

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 90.0
_DOWNLOAD: Final = aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_ANSWER_S)
_RETRY_S: Final = 0.25
_RETRY_MAX_S: Final = 4.0
_GIVE_UP_S: Final = 60.0
_FRAME_BYTES: Final = 64 * 1024 * 1024
_PATH_PART: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")

Json = Any


class GatewayUnreachableError(OperatorError):
    """Nothing answers at the gateway's address, or it is not a gateway."""


class Answer(NamedTuple):
    """A successful answer: its status and its JSON value."""

    status: int
    value: Json


class GatewayClient:
    """A connection to one gateway; an async context manager.

    Args:
        url: Where it listens, such as `http://127.0.0.1:8080`.
    """

    def __init__(self, url: str) -> None:
        if not re.match(r"https?://[^/]", url):
            raise CallerError(f"{url!r} is not an address like http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **parameters: str | int | None) -> Json:
        """What the gateway has at `path`; parameters that are None are left out.

        Raises:
            GatewayUnreachableError: It does not answer.
            CommandCenterError: It refuses; the type says who has to act.
        """
        query = {name: str(value) for name, value in parameters.items() if value is not None}
        return (await self._request("GET", path, query)).value

    async def whole(self, path: str, entries: str, **parameters: str | int | None) -> Json:
        """A list with its `entries` of all pages; errors as for `get`."""
        answer = await self.get(path, **parameters)
        found = list(answer[entries])
        while answer.get("next") is not None:
            answer = await self.get(path, **{**parameters, "cursor": answer["next"]})
            found += answer[entries]
        return {**answer, entries: found}

    async def post(
        self, path: str, body: Json, *, headers: Mapping[str, str] | None = None, **query: str
    ) -> Answer:
        """Send a JSON body; errors as for `get`."""
        return await self._request("POST", path, query, msgspec.json.encode(body), headers)

    async def put(self, path: str, body: Json, **query: str) -> Answer:
        """Put a JSON body there; errors as for `get`."""
        return await self._request("PUT", path, query, msgspec.json.encode(body))

    async def delete(self, path: str, **query: str) -> Answer:
        """Take away what is there; errors as for `get`."""
        return await self._request("DELETE", path, query)

    async def download(
        self, path: str, take: Callable[[bytes], object], **parameters: str | None
    ) -> None:
        """Hand what the gateway has at `path` to `take`, a part at a time, however big it is.

        Raises:
            OperatorError: It was cut off; what `take` was given is not all.
            GatewayUnreachableError: As for `get`; likewise the others.
        """
        query = {name: value for name, value in parameters.items() if value is not None}
        begun = False
        try:
            async with self._open().get(
                self.url + path, params=query, timeout=_DOWNLOAD
            ) as response:
                if response.status >= 400:
                    _refuse(response.status, await response.read(), self.url)
                async for part in response.content.iter_any():
                    begun = True
                    take(part)
        except (aiohttp.ClientError, TimeoutError) as error:
            if begun:
                raise OperatorError(
                    f"The answer of {self.url}{path} was cut off ({_reason(error)}): what has come"
                    " is not all of it. Try again; the gateway's log says why."
                ) from error
            raise _unreachable(self.url, error) from error

    async def post_for_bytes(self, path: str, body: Json, **query: str) -> bytes:
        """Send a JSON body; the answer as it comes, whatever it is. Errors as for `get`."""
        _, content = await self._exchange("POST", path, query, msgspec.json.encode(body))
        return content

    async def readiness(self) -> dict[str, str]:
        """What the gateway needs: part → `ok`, or what is missing. Errors as for `get`."""
        content = (await self._request("GET", "/readyz", {}, refused=(503,))).value
        parts: dict[str, str] = content["parts"]
        return parts

    async def follow(
        self, *filters: Mapping[str, str], cursors: Sequence[str] = ()
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The stream's frames for each of the filters, without end.

        First of each filter comes a `snapshot` (or `resumed`, for one with a cursor), then its
        `events`; a frame's `id` is the filter's position. When the connection breaks it is made
        again; a gap that cannot be closed shows as a new `snapshot`.

        Args:
            filters: At most `MAX_SUBSCRIPTIONS`; each has any of run, workflow, status, project.
            cursors: Where each filter goes on; empty begins with snapshots.

        Raises:
            GatewayUnreachableError: It does not answer, or not again after the stream broke.
            CallerError: A filter is wrong.
        """
        if len(filters) > MAX_SUBSCRIPTIONS:
            raise CallerError(f"{len(filters)} filters; a stream has {MAX_SUBSCRIPTIONS} at most")
        latest = dict(enumerate(cursors))
        clock = asyncio.get_running_loop().time
        was_connected = False
        down_since: float | None = None
        pause = _RETRY_S
        while True:
            try:
                async with self._connected() as socket:
                    was_connected, down_since = True, None
                    for number, wanted in enumerate(filters):
                        await socket.send_str(_subscribe(number, wanted, latest.get(number)))
                    async for frame in _frames(socket):
                        pause = _RETRY_S
                        if "cursor" in frame:
                            latest[frame["id"]] = frame["cursor"]
                        yield frame
            except GatewayUnreachableError:
                down_since = down_since or clock()
                if not was_connected or clock() - down_since > _GIVE_UP_S:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MAX_S)

    def _connected(self) -> "_Socket":
        return _Socket(self._open(), f"{self.url}/api/stream", self.url)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("this client is not open: use it with `async with`")
        return self._session

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        refused: Collection[int] = (),
    ) -> Answer:
        """One request for JSON; errors as for `_exchange`."""
        status, content = await self._exchange(method, path, query, body, headers, refused=refused)
        try:
            return Answer(status, msgspec.json.decode(content))
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise _stranger(self.url) from error

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        refused: Collection[int] = (),
    ) -> tuple[int, bytes]:
        """One request; answers with an error status are raised, but for those in `refused`."""
        sent = {"Content-Type": "application/json", **(headers or {})} if body is not None else None
        try:
            async with self._open().request(
                method, self.url + path, params=query, data=body, headers=sent
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self.url, error) from error
        if response.status >= 400 and response.status not in refused:
            _refuse(response.status, content, self.url)
        return response.status, content


def path(*parts: str) -> str:
    """A path below `/api`, each part quoted: `path("runs", id)`."""
    return "/api/" + "/".join(quote(part, safe="") for part in parts)


class _Socket:
    """One websocket to the stream, as a context manager with our errors."""

    def __init__(self, session: aiohttp.ClientSession, address: str, url: str) -> None:
        self._session = session
        self._address = address
        self._url = url
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        try:
            self._socket = await self._session.ws_connect(
                self._address, max_msg_size=_FRAME_BYTES, heartbeat=30
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 503:
                raise _unreachable(self._url, error) from error
            raise _stranger(self._url) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._url, error) from error
        return self._socket

    async def __aexit__(self, *error: object) -> None:
        if self._socket is not None:
            await self._socket.close()


async def _frames(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[dict[str, Any]]:
    """The frames until the connection ends."""
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            break
        frame = msgspec.json.decode(message.data)
        if frame["type"] == "error":
            raise CallerError(frame["detail"])
        yield frame
    if socket.close_code == aiohttp.WSCloseCode.INTERNAL_ERROR:
        raise CommandCenterError("The gateway ended the stream: a fault inside it; see its log.")


def _subscribe(number: int, wanted: Mapping[str, str], cursor: str | None) -> str:
    frame: dict[str, Any] = {"type": "subscribe", "id": number, "filter": dict(wanted)}
    if cursor is not None:
        frame["cursor"] = cursor
    return msgspec.json.encode(frame).decode()


def _unreachable(url: str, error: Exception) -> GatewayUnreachableError:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    reason = "no answer in time" if isinstance(error, TimeoutError) else _reason(error)
    return GatewayUnreachableError(
        f"CommandCenter does not answer at {url}: {reason}. Start it with `commandcenter up`, or "
        "say where it is with --url or COMMANDCENTER_URL."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)  # asyncio says "Connect call failed (…)" of all of them
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _stranger(url: str) -> GatewayUnreachableError:
    return GatewayUnreachableError(
        f"What answers at {url} is not CommandCenter. Say where it is with --url or "
        "COMMANDCENTER_URL."
    )


def _refuse(status: int, content: bytes, url: str) -> NoReturn:
    """Raise the error that a problem document stands for."""
    try:
        problem = msgspec.json.decode(content)
        text = problem.get("detail") or problem["title"]
    except (msgspec.MsgspecError, UnicodeError, AttributeError, KeyError) as error:
        raise _stranger(url) from error
    if status == 422:
        faults = problem.get("errors") or ()
        problems = tuple(Problem(_path(fault["path"]), fault["message"]) for fault in faults)
        raise DefinitionError(text, problems)
    if status == 503:
        raise OperatorError(text)
    if status >= 500:
        raise CommandCenterError(f"{text} (request {problem.get('requestId', 'unnamed')})")
    kind = {404: NotFoundError, 413: TooLargeError}.get(status, CallerError)
    raise kind(text)


def _path(text: str) -> tuple[str | int, ...]:
    """The field's path of `nodes[0].inputs`."""
    return tuple(int(match[1]) if match[1] else match[2] for match in _PATH_PART.finditer(text))

"""The command line in this process, and a gateway of the test's own for it to talk to."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from infra.cli import main

Socket = web.WebSocketResponse


class FakeGateway:
    """Answers what a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.subscribed: list[dict[str, Any]] = []
        self.sockets: list[Callable[[Socket, list[dict[str, Any]]], Any]] = []
        self.posted = asyncio.Event()
        self.url = ""

    def says(self, path: str, value: Any, status: int = 200) -> None:
        """The answer at the path, or what makes it of the query."""
        self.answers[path] = (status, value)

    async def http(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((f"{request.method} {request.path}", dict(request.query), body))
        if request.method == "POST":
            self.posted.set()
        status, value = self.answers.get(request.path, (404, {"title": "x", "detail": "nothing"}))
        return web.json_response(value(request.query) if callable(value) else value, status=status)

    async def stream(self, request: web.Request) -> Socket:
        """The next of `sockets` is given the websocket and what the client subscribed to."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        frames = [await socket.receive_json()]
        self.subscribed += frames
        await self.sockets.pop(0)(socket, frames)
        await socket.close()
        return socket


async def commandcenter(*arguments: str | Path) -> int:
    """Run the command line in a thread of its own: its exit code."""

    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    return await asyncio.to_thread(run)

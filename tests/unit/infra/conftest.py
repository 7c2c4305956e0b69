"""The gateway that the command line finds in these tests."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from command_line import FakeGateway


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeGateway]:
    fake = FakeGateway()
    app = web.Application()
    app.router.add_get("/api/stream", fake.stream)
    app.router.add_route("*", "/{path:.*}", fake.http)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        monkeypatch.setenv("COMMANDCENTER_URL", fake.url)
        yield fake

"""The gateway while Kafka is away, and where it cannot listen."""

import socket

import aiohttp
import pytest

from gateway.server import serving
from gateway.services import Services
from streams.blob_store import BlobStore
from streams.errors import OperatorError


class AnsweringStore:
    """A store of which only the ping matters here."""

    async def ping(self) -> None:
        """Answer."""


def services() -> Services:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Services(
        bootstrap=f"127.0.0.1:{port}",
        store=AnsweringStore(),  # type: ignore[arg-type]  # only what this test needs
        blobs=BlobStore("/nowhere", 1024),
    )


async def test_it_starts_without_kafka_and_says_what_is_missing() -> None:
    async with (
        serving(services(), "127.0.0.1", 0) as address,
        aiohttp.ClientSession(address) as session,
    ):
        async with session.get("/api/health") as response:
            assert response.status == 200
        async with session.get("/readyz") as response:
            assert response.status == 503
            parts = (await response.json())["parts"]
        assert parts["store"] == "ok"
        assert "does not answer" in parts["kafka"]
        assert parts["workflows"] != "ok"
        async with session.post("/api/events", json={"type": "a"}) as response:
            assert response.status == 503
            assert "does not answer" in (await response.json())["detail"]


async def test_a_taken_port_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match=rf"Port {port} of 127\.0\.0\.1 is taken.*--port"):
            async with serving(services(), "127.0.0.1", port):
                pass

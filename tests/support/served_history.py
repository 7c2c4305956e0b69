"""A gateway with a generated history, as ClickHouse's clients find it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import generated_history
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.app import new_app
from gateway.reads import StoreReads
from gateway.services import READS, Services
from sinks import schema
from sinks.clickhouse import open_store
from sinks.history import History
from sinks.store import Store
from streams.blob_store import BlobStore

KEY = "p@ss: word"
T = TypeVar("T")


class Served:
    """A gateway with a generated history, for blocking clients."""

    def __init__(self, http: TestClient[Any, Any], store: Store, decisions: int) -> None:
        self.http = http
        self.store = store
        self.decisions = decisions

    @property
    def port(self) -> int:
        port = self.http.port
        assert port is not None
        return port

    async def connected(self, work: Callable[[Any], T], **fields: Any) -> T:
        """What `work` gives with a clickhouse-connect client."""

        def session() -> T:
            with clickhouse_connect.get_client(
                **{
                    "host": "127.0.0.1",
                    "port": self.port,
                    "proxy_path": "/clickhouse",
                    "username": "analyst",
                    "password": KEY,
                    **fields,
                }
            ) as client:
                return work(client)

        return await asyncio.to_thread(session)

    async def get(self, query: str, **parameters: str) -> tuple[int, str, Any]:
        """A plain request with the key."""
        async with self.http.get(
            "/clickhouse/", params={"query": query, "password": KEY, **parameters}
        ) as response:
            return response.status, await response.text(), response.headers


class _Server(TestServer):
    """As the gateway serves: a handler goes on when its client has gone away."""

    async def _make_runner(self, **options: Any) -> web.AppRunner:
        return await super()._make_runner(**{**options, "handler_cancellation": False})


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    """Serve it from a folder."""
    store = await open_store(f"chdb://{folder / 'clickhouse'}")
    try:
        await schema.apply(store)
        decisions = await generated_history.record(store)
        blobs = BlobStore(str(folder / "blobs"), 1_000_000)
        services = Services(bootstrap="nowhere:1", store=store, blobs=blobs, sql_key=KEY)
        app = new_app(services)
        app[READS] = StoreReads(History(store))
        async with TestClient(_Server(app)) as http:
            yield Served(http, store, decisions)
    finally:
        await store.close()

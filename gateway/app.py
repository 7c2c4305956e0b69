"""The gateway put together: what it opens, in order, and what it serves."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from gateway import asyncapi, clickhouse_http, dead_letters, openapi
from gateway.agents_view import AgentsView
from gateway.answer_file import PLACES, UNDER_WAY
from gateway.budget_reader import BudgetReader
from gateway.letter_reader import LetterReader
from gateway.log_follower import LogFollower
from gateway.log_writer import LogWriter
from gateway.middlewares import MIDDLEWARES
from gateway.reads import StoreReads
from gateway.recent_starts import RecentStarts
from gateway.routes import add_routes
from gateway.running_queries import QUERIES, RunningQueries
from gateway.services import (
    AGENTS,
    BUDGETS,
    CATALOG,
    COSTS,
    FOLLOWER,
    LETTERS,
    READS,
    SERVICES,
    STARTS,
    WRITER,
    Services,
)
from gateway.stream import SOCKETS, close_all
from sinks.costs import Costs
from sinks.history import History
from streams.publishing import CatalogReader


def create_app(services: Services) -> web.Application:
    """The gateway as an aiohttp application; it serves what it can while Kafka is away."""
    app = new_app(services)
    app[READS] = StoreReads(History(services.store), services.recorded)
    app[COSTS] = Costs(services.store)
    app.cleanup_ctx.extend([_writer, _catalog, _agents, _budgets, _letters])
    if services.follow_log:
        app.cleanup_ctx.append(_follower)
    return app


def new_app(services: Services) -> web.Application:
    """The routes alone; whoever calls this puts in the parts that `services.py` names."""
    # The most that any route takes; each holds its body against its own limit.
    most = max(services.body_limit, services.trigger_limit)
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=most)
    app[SERVICES] = services
    app[STARTS] = RecentStarts()
    app[SOCKETS] = set()
    app[PLACES] = asyncio.Semaphore(UNDER_WAY)
    app[QUERIES] = RunningQueries()
    dead_letters.prepare(app)
    app.on_shutdown.append(close_all)
    add_routes(app)
    clickhouse_http.add_routes(app)
    app.router.add_get("/openapi.json", openapi.describe)
    app.router.add_get("/asyncapi.json", asyncapi.describe)
    return app


async def _writer(app: web.Application) -> AsyncIterator[None]:
    async with LogWriter(app[SERVICES].bootstrap) as app[WRITER]:
        yield


async def _catalog(app: web.Application) -> AsyncIterator[None]:
    async with CatalogReader(app[SERVICES].bootstrap) as app[CATALOG]:
        yield


async def _agents(app: web.Application) -> AsyncIterator[None]:
    async with AgentsView(app[SERVICES].bootstrap) as app[AGENTS]:
        yield


async def _budgets(app: web.Application) -> AsyncIterator[None]:
    async with BudgetReader(app[SERVICES].bootstrap) as app[BUDGETS]:
        yield


async def _letters(app: web.Application) -> AsyncIterator[None]:
    async with LetterReader(app[SERVICES].bootstrap) as app[LETTERS]:
        yield


async def _follower(app: web.Application) -> AsyncIterator[None]:
    services = app[SERVICES]
    async with LogFollower(services.bootstrap, services.tail, app[READS]) as app[FOLLOWER]:
        yield

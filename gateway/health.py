"""Whether the gateway lives, whether all it needs is usable, and its metrics."""

import asyncio
from importlib.metadata import version

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.requests import answer
from gateway.services import AGENTS, BUDGETS, CATALOG, FOLLOWER, SERVICES, WRITER, Check
from gateway.views import Health, Readiness
from streams.errors import OperatorError

_CHECK_S = 5.0


async def health(_request: web.Request) -> web.Response:
    """Always 200: the process answers."""
    return answer(Health(status="ok", version=version("commandcenter")))


async def ready(request: web.Request) -> web.Response:
    """200 where every part is usable, 503 with what is missing where not."""
    services = request.app[SERVICES]
    checks: dict[str, Check] = {
        "kafka": request.app[WRITER].ping,
        "store": services.store.ping,
        **services.checks,
    }
    if FOLLOWER in request.app:
        checks["live"] = request.app[FOLLOWER].check
    found = await asyncio.gather(*(_state(check) for check in checks.values()))
    parts = dict(zip(checks, found, strict=True))
    parts["workflows"] = request.app[CATALOG].trouble or "ok"
    agents = request.app[AGENTS]
    parts["agents"] = agents.trouble or "ok"
    parts["readers"] = "; ".join(agents.troubled()) or "ok"
    parts["budgets"] = request.app[BUDGETS].trouble or "ok"
    is_ready = all(state == "ok" for state in parts.values())
    return answer(Readiness(ready=is_ready, parts=parts), 200 if is_ready else 503)


async def metrics(_request: web.Request) -> web.Response:
    """The process's metrics in Prometheus's text format."""
    body = generate_latest()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _state(check: Check) -> str:
    try:
        async with asyncio.timeout(_CHECK_S):
            await check()
    except OperatorError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {_CHECK_S:g} s"
    return "ok"

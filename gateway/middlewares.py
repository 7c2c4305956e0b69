"""What happens to every request, from the outside in: `MIDDLEWARES` is the list.

A request is named and measured, a request from a foreign web page is refused (law 11), and errors
become problem documents.
"""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from aiohttp import hdrs, web
from msgspec import structs
from prometheus_client import Counter, Histogram

from gateway import problem
from gateway.problem import ForbiddenError
from gateway.services import SERVICES
from streams.errors import OperatorError

_log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = "X-Request-Id"
_ID: Final = web.RequestKey("id", str)
_SANE_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_requests = Counter(
    "commandcenter_http_requests_total", "HTTP requests.", ["method", "route", "status"]
)
_seconds = Histogram(
    "commandcenter_http_request_seconds",
    "From request to answer; websockets are left out.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)


@web.middleware
async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id (its own, if it has a sane one) that the answer and log carry."""
    given = request.headers.get(REQUEST_ID, "")
    request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
    request[_ID] = request_id
    with structlog.contextvars.bound_contextvars(request=request_id):
        response = await handler(request)
    if not response.prepared:
        response.headers[REQUEST_ID] = request_id
    return response


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time the request under its route (not its path: paths are without number)."""
    resource = request.match_info.route.resource
    route = "unknown" if resource is None else resource.canonical
    began = time.perf_counter()
    response = await handler(request)
    _requests.labels(request.method, route, str(response.status)).inc()
    if not isinstance(response, web.WebSocketResponse):
        _seconds.labels(route).observe(time.perf_counter() - began)
    return response


@web.middleware
async def explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an error with a problem document."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        keep = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else None
        answer = structs.replace(problem.of_error(error), request_id=request[_ID])
        return problem.respond(answer, keep)
    except Exception as error:  # noqa: BLE001  # the outermost place: nothing may fall through
        answer = structs.replace(problem.of_error(error), request_id=request[_ID])
        if isinstance(error, OperatorError):
            _log.warning("request refused", path=request.path, why=str(error))
        elif answer.status >= 500:
            _log.exception("request failed", method=request.method, path=request.path)
        return problem.respond(answer)


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a web page of another origin sends, and names that are not ours.

    A browser says with `Origin` which page a request comes from: it has to be ours wherever the
    request changes something or opens a websocket (which no other browser rule protects). A page
    whose name is re-bound to a loopback address is its own origin, but shows in `Host`. Where no
    `Origin` is sent (a picture, say, whose address is a query), `Sec-Fetch-Site` tells: such a page
    may lead here, and no more.
    """
    host = _host_name(request.host)
    if host not in _LOOPBACK and host not in request.app[SERVICES].hosts:
        raise ForbiddenError(f"{host!r} is not a name of this server")
    origin = request.headers.get(hdrs.ORIGIN)
    is_websocket = request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
    if (
        origin is not None
        and (is_websocket or request.method not in _SAFE_METHODS)
        and urlsplit(origin).netloc.lower() != request.host.lower()
    ):
        raise ForbiddenError(f"requests from pages of {origin[:100]!r} are not accepted")
    is_foreign = request.headers.get("Sec-Fetch-Site", "") in ("cross-site", "same-site")
    if is_foreign and request.headers.get("Sec-Fetch-Mode") != "navigate":
        raise ForbiddenError("requests from pages of another origin are not accepted")
    return await handler(request)


def _host_name(host: str) -> str:
    """The name in a `Host` header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


MIDDLEWARES: Final = (named, measured, explained, same_origin)

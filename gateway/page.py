"""The live page: static files of `gateway/ui`, served with a strict content security policy."""

from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

_TYPES: Final = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "costs.js": "text/javascript",
    "element.js": "text/javascript",
    "pages.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def index(_request: web.Request) -> web.Response:
    """The live page of runs."""
    return _file("index.html")


async def asset(request: web.Request) -> web.Response:
    """A file of the live page."""
    name = request.match_info["file"]
    if name not in _TYPES:
        raise web.HTTPNotFound
    return _file(name)


def _file(name: str) -> web.Response:
    return web.Response(
        body=_content(name), content_type=_TYPES[name], charset="utf-8", headers=_HEADERS
    )


@cache
def _content(name: str) -> bytes:
    return (files("gateway") / "ui" / name).read_bytes()

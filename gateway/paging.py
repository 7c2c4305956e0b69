"""Pages: where the next one begins, as an opaque text that the answer before gave."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
from aiohttp import web

from streams.errors import CallerError


def place_text(place: Any) -> str:
    """The place as text for the `cursor` parameter."""
    return urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def place(request: web.Request, kind: Any) -> Any:
    """The place that the request's cursor says, of this type; None where there is no cursor."""
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, RecursionError) as error:
        raise CallerError("cursor is not one that a page gave as its next") from error

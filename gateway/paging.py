"""Pages: where the next one begins, as an opaque text that the answer before gave."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from gateway.requests import MAX_PAGE, page_size
from streams.errors import CallerError

T = TypeVar("T")
_FARTHEST: Final = 2**31


class Page(NamedTuple):
    """Some of the entries of a list, and the cursor of the next page; None where none follows."""

    entries: Sequence[Any]
    next: str | None


def place_text(place: Any) -> str:
    """The place as text for the `cursor` parameter."""
    return urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def page_of(request: web.Request, found: Sequence[T], key: Callable[[T], Any], kind: Any) -> Page:
    """The page that the request asks for, of a list in the order of its keys, which are so typed.

    `limit` entries, or as many as a page may have, after the one whose key the cursor says.
    """
    limit = page_size(request, MAX_PAGE)
    after = place(request, kind)
    rest = found if after is None else [each for each in found if key(each) > after]
    more = len(rest) > limit
    return Page(rest[:limit], place_text(key(rest[limit - 1])) if more else None)


def page_from(found: Sequence[T], start: int, limit: int) -> Page:
    """`limit` entries of a list whose places are counted, from a place on."""
    end = start + limit
    return Page(found[start:end], place_text(end) if len(found) > end else None)


def position(request: web.Request) -> int:
    """The place that the cursor says of a list whose places are counted; 0 where there is none."""
    found: int | None = place(request, int)
    if found is not None and not 0 <= found < _FARTHEST:
        raise CallerError("cursor is not one that a page gave as its next")
    return found or 0


def place(request: web.Request, kind: Any) -> Any:
    """The place that the request's cursor says, of this type; None where there is no cursor."""
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, RecursionError) as error:
        raise CallerError("cursor is not one that a page gave as its next") from error

"""Reading requests and writing answers: bodies, query parameters, JSON."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from gateway.services import SERVICES
from streams.errors import CallerError, TooLargeError
from streams.trigger import ContentTypeError, json_data
from streams.workflow_file import WorkflowFileError, read_text

JSON: Final = "application/json"
_JSON_TYPES: Final = re.compile(r"(?:application|text)/(?:[\w.\-]+\+)?json")
_YAML_TYPES: Final = re.compile(r"(?:application|text)/(?:x-|vnd\.)?yaml")
MAX_PAGE: Final = 200
_TEXT_LIMIT: Final = 1_000
_KEY_LIMIT: Final = 255


def answer(view: Any, status: int = 200, headers: Any = None) -> web.Response:
    """The view as a JSON response."""
    return web.Response(
        body=msgspec.json.encode(view), status=status, content_type=JSON, headers=headers
    )


async def body(request: web.Request) -> bytes:
    """The body; `TooLargeError` names the limit if it is over it."""
    limit = request.app[SERVICES].body_limit
    return await _read(request, limit, f"{limit:,} bytes")


async def event_body(request: web.Request) -> bytes:
    """The body that is an event, or the context of a run: how large it may be is a setting."""
    limit = request.app[SERVICES].trigger_limit
    return await _read(request, limit, f"{limit:,} bytes (COMMANDCENTER_TRIGGER_LIMIT)")


async def json_object(
    request: web.Request, read: Callable[[web.Request], Awaitable[bytes]] = body
) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object."""
    content = await read(request)
    if not content:
        return {}
    if not _JSON_TYPES.fullmatch(request.content_type):
        raise ContentTypeError(f"send {JSON}, not {request.content_type}")
    value = msgspec.json.decode(json_data(content, "the body"))
    if not isinstance(value, dict):
        raise CallerError("the body must be a JSON object")
    return value


async def document(request: web.Request) -> dict[str, Any]:
    """The body as an object written in JSON or YAML, told apart by the content type."""
    services = request.app[SERVICES]
    limit = services.body_limit
    named = f"{limit:,} bytes; a definition may have {services.definition_limit:,} as JSON"
    content = await _read(request, limit, f"{named} (COMMANDCENTER_DEFINITION_LIMIT)")
    if _JSON_TYPES.fullmatch(request.content_type):
        value = msgspec.json.decode(json_data(content, "the body"))
    elif _YAML_TYPES.fullmatch(request.content_type):
        value = await asyncio.to_thread(_yaml, content)
    else:
        given = request.headers.get(hdrs.CONTENT_TYPE, "nothing")
        raise ContentTypeError(f"send {JSON} or application/yaml, not {given}")
    if not isinstance(value, dict):
        raise CallerError("the body must be an object with the fields of a definition")
    return value


def fields(given: Mapping[str, Any], *names: str) -> None:
    """Refuse fields of a body that mean nothing: a misspelt one must not be passed over."""
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise CallerError(f"unknown field {unknown[0]!r} (there are: {', '.join(names)})")


def short_text(given: Mapping[str, Any], name: str, usual: str) -> str:
    """A field of a body that is a short text."""
    value = given.get(name, usual)
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT:
        raise CallerError(f"{name!r} must be text of at most {_TEXT_LIMIT} characters")
    return value


def flag(given: Mapping[str, Any], name: str) -> bool:
    """A field of a body that is true or false; false where it is absent."""
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise CallerError(f"{name!r} must be true or false")
    return value


def idempotency_key(request: web.Request) -> str | None:
    """The `Idempotency-Key` header, by which a request sent again is recognised."""
    key = request.headers.get("Idempotency-Key") or None
    if key is not None and len(key) > _KEY_LIMIT:
        raise CallerError(f"Idempotency-Key has more than {_KEY_LIMIT} characters")
    return key


def choice(request: web.Request, name: str, kind: Any) -> Any:
    """A query parameter that must be one of an enumeration's values; None where it is absent."""
    given = request.query.get(name)
    if given is None:
        return None
    try:
        return kind(given)
    except ValueError as error:
        known = ", ".join(kind)
        raise CallerError(f"{name}={given!r} is not one of {known}") from error


def page_size(request: web.Request, usual: int = 50) -> int:
    """The `limit` parameter."""
    given = request.query.get("limit", str(usual))
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= MAX_PAGE:
        raise CallerError(f"limit={given!r} is not a number from 1 to {MAX_PAGE}")
    return int(given)


def known_parameters(request: web.Request, *names: str) -> None:
    """Refuse parameters that mean nothing: a misspelt filter must not answer with everything."""
    unknown = sorted(set(request.query) - set(names))
    if unknown:
        raise CallerError(
            f"unknown parameter {unknown[0]!r} (there are: {', '.join(names) or 'none'})"
        )


async def _read(request: web.Request, limit: int, named: str) -> bytes:
    """The body; one that is over the limit is a `TooLargeError` that names it so."""
    too_large = TooLargeError(
        f"the body is larger than the limit of {named}: put big data elsewhere and send its address"
    )
    try:
        content = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large from error
    except web.RequestPayloadError as error:
        raise CallerError("the body cannot be read: it is not as its headers say") from error
    if len(content) > limit:
        raise too_large
    return content


def _yaml(content: bytes) -> Any:
    try:
        # Without aliases: a few lines of them expand to gigabytes.
        found = read_text(content.decode("utf-8-sig"), "the body", aliases=False)
        if len(found) > 1:
            raise CallerError(f"the body has {len(found)} definitions; send one at a time")
        encoded = msgspec.json.encode(found[0].definition)
        return msgspec.json.decode(json_data(encoded, "the YAML"))
    except WorkflowFileError as error:
        first, *others = error.faults
        raise CallerError(f"{first}{f' (and {len(others)} more)' if others else ''}") from error
    except UnicodeDecodeError as error:
        raise CallerError(f"the YAML is not UTF-8: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise CallerError(f"the YAML has values that JSON has not: {error}") from error

"""Errors as HTTP answers: RFC 9457 problem documents, by the type of the error.

Who has to act decides the status: the caller (4xx), the operator (503). Everything else is a
defect of ours (500), which is logged; its text stays inside.
"""

from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from streams.errors import (
    CallerError,
    CommandCenterError,
    DefinitionError,
    NotFoundError,
    OperatorError,
    TooLargeError,
    path_text,
)
from streams.trigger import ContentTypeError

_log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


class ForbiddenError(CallerError):
    """The request comes from where it must not come from."""


class ConflictError(CallerError):
    """The request does not fit the state that the thing is in."""


_STATUS: Final[tuple[tuple[type[CommandCenterError], HTTPStatus], ...]] = (
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ContentTypeError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (ConflictError, HTTPStatus.CONFLICT),
    (CallerError, HTTPStatus.BAD_REQUEST),
    (DefinitionError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (OperatorError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class FieldProblem(msgspec.Struct, frozen=True):
    """One fault of a document: the path of the field and what is wrong with it."""

    path: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An RFC 9457 problem document; `errors` lists the faults of a refused document."""

    title: str
    status: int
    type: str = "about:blank"
    detail: str = ""
    errors: list[FieldProblem] | None = None
    request_id: str = ""


def of_error(error: Exception) -> Problem:
    """What to tell the caller about an error."""
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    for kind, status in _STATUS:
        if isinstance(error, kind):
            faults = error.problems if isinstance(error, DefinitionError) else ()
            return Problem(
                title=status.phrase,
                status=status,
                detail=str(error),
                errors=[FieldProblem(path_text(f.path), f.message) for f in faults] or None,
            )
    return Problem(
        title=HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        detail="a fault inside CommandCenter; its log has the details under this request's id",
    )


def respond(problem: Problem, headers: Any = None) -> web.Response:
    """The problem as a response."""
    return web.Response(
        body=msgspec.json.encode(problem),
        status=problem.status,
        content_type=MEDIA_TYPE,
        headers=headers,
    )


def _of_http(error: web.HTTPException) -> Problem:
    detail = ""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        detail = error.text or ""
    elif isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{error.method} is not possible here; use {allowed}"
    elif isinstance(error, web.HTTPNotFound):
        detail = "there is nothing at this address; /openapi.json lists what there is"
    return Problem(title=error.reason, status=error.status, detail=detail)

"""Events from outside, taken over HTTP and put on the `triggers` topic."""

from uuid import uuid4

from aiohttp import web

from gateway.requests import answer, event_body
from gateway.services import SERVICES, WRITER
from gateway.views import EventAccepted
from streams.errors import CallerError
from streams.payload import INLINE_LIMIT
from streams.routing import OWN_TYPES
from streams.topics import TRIGGERS
from streams.trigger import check_size, from_http, to_kafka


async def take_event(request: web.Request) -> web.Response:
    """Take an event (CloudEvents in either HTTP mode, or an older envelope): 202 once it is kept.

    An envelope without an id gets the `Idempotency-Key`, or a new one. Types of the system's own
    events are refused: they would start, cancel and end runs past the rules for these.
    """
    services = request.app[SERVICES]
    content = await event_body(request)
    fallback = request.headers.get("Idempotency-Key") or uuid4().hex
    event = from_http(request.headers, content, fallback)
    trigger = event.trigger
    if trigger.type.startswith(OWN_TYPES):
        raise CallerError(
            f"type {trigger.type!r}: types that begin with {OWN_TYPES!r} are for events that the"
            " system makes itself; use another type"
        )
    headers, value = to_kafka(event)
    # As a record it may be larger than the body (base64, escapes), and it is told here rather than
    # by a dead letter.
    check_size(len(value), services.trigger_limit)
    if len(value) > INLINE_LIMIT:
        services.blobs.check(len(value))
    place = await request.app[WRITER].write(TRIGGERS, trigger.source, value, headers)
    return answer(
        EventAccepted(
            id=trigger.id,
            source=trigger.source,
            type=trigger.type,
            project=event.project,
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
        ),
        202,
    )

"""Events from outside, taken over HTTP and put on the `triggers` topic."""

from uuid import uuid4

from aiohttp import web

from gateway.requests import answer, body
from gateway.services import WRITER
from gateway.views import EventAccepted
from streams.topics import TRIGGERS
from streams.trigger import from_http, to_kafka


async def take_event(request: web.Request) -> web.Response:
    """Take an event (CloudEvents in either HTTP mode, or an older envelope): 202 once it is kept.

    An envelope without an id gets the `Idempotency-Key`, or a new one.
    """
    content = await body(request)
    fallback = request.headers.get("Idempotency-Key") or uuid4().hex
    event = from_http(request.headers, content, fallback)
    headers, value = to_kafka(event)
    trigger = event.trigger
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

"""Events from outside: what a Kafka record or an HTTP request carries becomes a `Trigger`.

Four forms are understood, told apart in this order:
- CloudEvents 1.0, binary mode: the attributes in headers (`ce_…` in Kafka, `ce-…` in HTTP), the
  data in the body. Read by the `cloudevents` package.
- CloudEvents 1.0, structured mode: `content-type: application/cloudevents+json`, or a JSON object
  with a `specversion`. Read by the `cloudevents` package.
- the envelope `{type, payload, timestamp?, source?, id?}`;
- the envelope `{id, subject, origin, correlation_id, payload, timestamp}`: the type is `subject`,
  the source `origin`; `correlation_id` is kept as the event's subject.

Data is JSON. Data of another content type is carried as a JSON string: text as it is, anything
else in base64. What cannot be understood is a `CallerError` that says what is wrong.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
from cloudevents.core.bindings import http, kafka
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from streams.errors import CallerError, TooLargeError
from streams.records import NULL, Trigger

DEFAULT_PROJECT: Final = "default"
STRUCTURED: Final = "application/cloudevents+json"
MAX_DEPTH: Final = 200
"""Levels of nesting that an event's data may have: every later reader has to get through it."""

_FORMAT: Final = JSONFormat()
_JSON: Final = re.compile(r"(?:application|text)/(?:[\w.\-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_TEXT: Final = re.compile(r"text/.*|application/(?:[\w.\-]+\+)?(?:xml|yaml).*", re.IGNORECASE)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,127}")
_DEPTH: Final = "commandcenterdepth"
_REQUIRED: Final = ("specversion", "id", "source", "type")
_MS_FROM: Final = 100_000_000_000
"""A numeric time of at least this is in milliseconds, below in seconds."""


class ContentTypeError(CallerError):
    """The content type is none that events come in."""


class IncomingEvent(NamedTuple):
    """An event from outside, understood: what it says, whose it is, the trace it belongs to."""

    trigger: Trigger
    project: str = DEFAULT_PROJECT
    traceparent: str | None = None
    depth: int = 0
    """How many runs led to it: one that ended is itself an event."""


def from_kafka(
    headers: Iterable[tuple[str, bytes | None]], value: bytes | None, fallback_id: str
) -> IncomingEvent:
    """The event of a Kafka record.

    Args:
        headers: The record's headers.
        value: The record's value.
        fallback_id: The event's id where an envelope has none. It has to be the same when the
            record is delivered again: `topic/partition/offset`.

    Raises:
        CallerError: The record is none of the known forms; the text says why.
    """
    plain: dict[str, str] = {}
    for name, content in headers:
        if content is not None:
            try:
                plain[name.lower()] = content.decode()
            except UnicodeDecodeError as error:
                raise CallerError(f"header {name!r} is not UTF-8") from error
    return _read(plain, "ce_", value or b"", fallback_id)


def from_http(headers: Mapping[str, str], body: bytes, fallback_id: str) -> IncomingEvent:
    """The event of an HTTP request; the arguments and errors are as for `from_kafka`."""
    plain = {name.lower(): content for name, content in headers.items()}
    return _read(plain, "ce-", body, fallback_id)


def to_kafka(event: IncomingEvent) -> tuple[list[tuple[str, bytes]], bytes]:
    """Headers and value of the Kafka record (binary mode) that carries the event.

    `from_kafka` gives the same event back.
    """
    trigger = event.trigger
    named = (
        ("ce_specversion", "1.0"),
        ("ce_id", trigger.id),
        ("ce_source", trigger.source),
        ("ce_type", trigger.type),
        ("ce_subject", trigger.subject),
        ("ce_time", trigger.time),
        ("ce_project", event.project),
        ("ce_traceparent", event.traceparent),
        (f"ce_{_DEPTH}", str(event.depth) if event.depth else None),
        ("content-type", "application/json"),
    )
    return [(name, text.encode()) for name, text in named if text is not None], bytes(trigger.data)


def check_size(size: int, limit: int) -> None:
    """Raise `TooLargeError` where the value of an event's record has more bytes than may be."""
    if size > limit:
        raise TooLargeError(
            f"the event has {size:,} bytes as a record; {limit:,} may be"
            " (COMMANDCENTER_TRIGGER_LIMIT): put big data elsewhere and send its address"
        )


def json_data(data: bytes, what: str = "data") -> msgspec.Raw:
    """Foreign JSON made safe to store: checked to the last character and written anew, compactly.

    Raises:
        CallerError: It is not JSON, or no later reader could decode it.
    """
    try:
        value = msgspec.json.decode(data)
        if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
            check_depth(value, what)
        return msgspec.Raw(msgspec.json.encode(value))
    except RecursionError as error:
        raise CallerError(f"{what} is nested more than {MAX_DEPTH} levels deep") from error
    except (msgspec.MsgspecError, UnicodeError, OverflowError) as error:
        raise CallerError(f"{what} is not valid JSON: {error}") from error


def check_depth(value: Any, what: str) -> None:
    """Raise `CallerError` where decoded JSON is nested more than `MAX_DEPTH` levels deep."""
    if _depth(value) > MAX_DEPTH:
        raise CallerError(f"{what} is nested more than {MAX_DEPTH} levels deep")


def _read(headers: dict[str, str], prefix: str, body: bytes, fallback_id: str) -> IncomingEvent:
    content_type = headers.get("content-type", "")
    if any(name.startswith(prefix) for name in headers):
        return _binary(headers, prefix, body)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith("application/cloudevents") and media_type != STRUCTURED:
        raise ContentTypeError(f"content type {media_type!r} is not understood; use {STRUCTURED}")
    if content_type and media_type != STRUCTURED and not _JSON.fullmatch(content_type):
        raise ContentTypeError(
            f"content type {media_type!r} without {prefix}* headers is not an event: send JSON, or"
            f" the CloudEvents attributes as headers ({prefix}id, {prefix}source, {prefix}type, …)"
        )
    fields = _object(body)
    if media_type == STRUCTURED or "specversion" in fields:
        return _structured(fields, headers)
    return _envelope(fields, headers, fallback_id)


def _binary(headers: dict[str, str], prefix: str, body: bytes) -> IncomingEvent:
    for name in _REQUIRED:
        if prefix + name not in headers:
            raise CallerError(f"missing {prefix}{name}: a CloudEvent needs it")
    try:
        if prefix == "ce_":  # the body is read below: the package would lose numbers and type
            encoded = {name: content.encode() for name, content in headers.items()}
            event = kafka.from_binary(kafka.KafkaMessage(encoded, None, b""), _FORMAT, CloudEvent)
        else:
            event = http.from_binary(http.HTTPMessage(headers, b""), _FORMAT, CloudEvent)
    except CloudEventValidationError as error:
        raise CallerError(_validation_text(error)) from error
    except (ValueError, OverflowError) as error:
        raise _malformed(error, headers.get(prefix + "time")) from error
    data = _binary_data(body, headers.get("content-type"))
    return _event(event, headers.get(prefix + "time"), data, headers)


def _binary_data(body: bytes, content_type: str | None) -> msgspec.Raw:
    if not body:
        return NULL
    if content_type is None or _JSON.fullmatch(content_type):
        return json_data(body)
    if _TEXT.fullmatch(content_type):
        try:
            return msgspec.Raw(msgspec.json.encode(body.decode()))
        except UnicodeDecodeError as error:
            raise CallerError(f"data of type {content_type!r} is not UTF-8") from error
    return msgspec.Raw(msgspec.json.encode(b64encode(body).decode()))


def _structured(fields: dict[str, msgspec.Raw], headers: dict[str, str]) -> IncomingEvent:
    """The data goes round the package: it is kept as the JSON it is."""
    data = NULL
    if "data_base64" in fields:
        text = _text(fields, "data_base64") or ""
        try:
            body = b64decode(text, validate=True)
        except (Base64Error, ValueError) as error:
            raise CallerError("'data_base64' is not base64") from error
        data = _binary_data(body, _text(fields, "datacontenttype") or "application/octet-stream")
    elif "data" in fields:
        data = json_data(bytes(fields["data"]))
    attributes = {k: v for k, v in fields.items() if k not in ("data", "data_base64")}
    for name in _REQUIRED:
        if name not in attributes:
            raise CallerError(f"missing {name!r}: a CloudEvent needs it")
    try:
        message = http.HTTPMessage({"content-type": STRUCTURED}, msgspec.json.encode(attributes))
        event = http.from_structured(message, _FORMAT, CloudEvent)
    except CloudEventValidationError as error:
        raise CallerError(_validation_text(error)) from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise _malformed(error, _text(fields, "time")) from error
    return _event(event, _text(fields, "time"), data, headers)


def _event(
    event: Any, time: str | None, data: msgspec.Raw, headers: dict[str, str]
) -> IncomingEvent:
    trigger = Trigger(
        id=event.get_id(),
        source=event.get_source(),
        type=event.get_type(),
        subject=event.get_subject(),
        time=time,  # as it was sent: the package puts the present where there is none
        data=data,
    )
    traceparent = event.get_extension("traceparent") or headers.get("traceparent")
    project = event.get_extension("project") or DEFAULT_PROJECT
    depth = _number(event.get_extension(_DEPTH))
    return IncomingEvent(trigger, _project(project), trace_context(traceparent), depth)


def _number(value: object) -> int:
    """A small count; whatever is none is 0."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def _envelope(
    fields: dict[str, msgspec.Raw], headers: dict[str, str], fallback_id: str
) -> IncomingEvent:
    if "type" in fields:
        kind, source, about = "type", _text(fields, "source"), _text(fields, "subject")
    elif "subject" in fields:
        kind, source = "subject", _text(fields, "origin")
        about = _text(fields, "correlation_id")
    else:
        raise CallerError(
            "neither a CloudEvent nor a known envelope: there is no 'specversion', no 'type' and"
            f" no 'subject' (fields: {', '.join(sorted(fields)[:10]) or 'none'})"
        )
    event_type = _text(fields, kind)
    if not event_type:
        raise CallerError(f"{kind!r} is empty: it names the type of the event")
    payload = fields.get("payload")
    trigger = Trigger(
        id=_text(fields, "id") or fallback_id,
        source=source or "unknown",
        type=event_type,
        subject=about,
        time=_time(fields.get("timestamp")),
        data=NULL if payload is None else json_data(bytes(payload), "'payload'"),
    )
    project = _text(fields, "project") or DEFAULT_PROJECT
    return IncomingEvent(trigger, _project(project), trace_context(headers.get("traceparent")))


def _object(body: bytes) -> dict[str, msgspec.Raw]:
    if not body.strip():
        raise CallerError("an empty body is not an event")
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise CallerError("an event must be a JSON object") from error
    except RecursionError as error:
        raise CallerError(f"the event is nested more than {MAX_DEPTH} levels deep") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise CallerError(f"not valid JSON: {error}") from error


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    """A field that must be text; numbers are taken as such (ids often are)."""
    raw = fields.get(name)
    if raw is None:
        return None
    value = msgspec.json.decode(json_data(bytes(raw), repr(name)))
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise CallerError(f"{name!r} must be a string, not {type(value).__name__}")


def _time(raw: msgspec.Raw | None) -> str | None:
    """The time as RFC 3339 text; numbers are seconds or milliseconds since the epoch."""
    if raw is None:
        return None
    value = msgspec.json.decode(json_data(bytes(raw), "'timestamp'"))
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value / 1000 if abs(value) >= _MS_FROM else value
        try:
            return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        except (ValueError, OverflowError, OSError) as error:
            raise CallerError(f"'timestamp' {value} is not a time") from error
    raise CallerError(f"'timestamp' must be a string or a number, not {type(value).__name__}")


def _project(project: Any) -> str:
    if not isinstance(project, str) or not _PROJECT.fullmatch(project):
        raise CallerError(f"project {project!r} is not a name (a-z, 0-9, '_', '.', '-')")
    return project


def trace_context(value: object) -> str | None:
    """A valid W3C trace context, or None: that standard says to ignore a broken one."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def _validation_text(error: CloudEventValidationError) -> str:
    faults = dict.fromkeys(str(fault) for found in error.errors.values() for fault in found)
    return f"not a CloudEvent: {'; '.join(faults)}"


def _malformed(error: Exception, time: str | None) -> CallerError:
    """The time is the one attribute that the package reads, and it does not say which it was."""
    which = "" if time is None else f" (time is {time[:50]!r}; it has to be RFC 3339)"
    return CallerError(f"not a CloudEvent: {error}{which}")


def _depth(value: Any) -> int:
    """Levels of objects and lists, without recursion."""
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [i for c in level for i in (c.values() if isinstance(c, dict) else c)]
    return depth

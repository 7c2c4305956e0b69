import json

import msgspec
import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import CallerError
from streams.records import NULL, Trigger
from streams.trigger import (
    MAX_DEPTH,
    IncomingEvent,
    from_http,
    from_kafka,
    json_data,
    to_kafka,
)

BINARY = {
    "ce_specversion": "1.0",
    "ce_id": "e1",
    "ce_source": "/ci",
    "ce_type": "repo.push",
    "ce_subject": "main",
    "ce_time": "2025-01-02T03:04:05Z",
    "content-type": "application/json",
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def headers(**changes: str | None) -> list[tuple[str, bytes]]:
    named = {**BINARY, **{k.replace("content_type", "content-type"): v for k, v in changes.items()}}
    return [(k, v.encode()) for k, v in named.items() if v is not None]


def test_binary_mode_of_kafka() -> None:
    event = from_kafka(
        headers(ce_project="shop", ce_traceparent=TRACE), b'{ "branch": "main" }', "t/0/1"
    )
    assert event == IncomingEvent(
        Trigger(
            id="e1",
            source="/ci",
            type="repo.push",
            subject="main",
            time="2025-01-02T03:04:05Z",
            data=msgspec.Raw(b'{"branch":"main"}'),
        ),
        "shop",
        TRACE,
    )


def test_what_the_cloudevents_package_writes_is_read_in_all_four_modes() -> None:
    made = CloudEvent(
        {"id": "e1", "source": "/ci", "type": "repo.push", "datacontenttype": "application/json"},
        {"n": 1},
    )
    expected = ("e1", "/ci", "repo.push", msgspec.Raw(b'{"n":1}'))
    messages = (kafka.to_binary_event(made), kafka.to_structured_event(made))
    requests = (http.to_binary(made, JSONFormat()), http.to_structured(made, JSONFormat()))
    read = [
        *(from_kafka(list(m.headers.items()), m.value, "x") for m in messages),
        *(from_http(r.headers, r.body, "x") for r in requests),
    ]
    for event in read:
        trigger = event.trigger
        assert (trigger.id, trigger.source, trigger.type, trigger.data) == expected


def test_percent_encoding_of_http_headers_is_undone() -> None:
    named = {k.replace("ce_", "ce-"): v for k, v in BINARY.items()} | {"ce-subject": "a%20b"}
    assert from_http(named, b"{}", "x").trigger.subject == "a b"


def test_time_and_traceparent_are_optional_and_nothing_is_made_up() -> None:
    first = from_kafka(headers(ce_time=None, ce_subject=None), b"{}", "x")
    assert first.trigger.time is None
    assert first == from_kafka(headers(ce_time=None, ce_subject=None), b"{}", "y")
    assert from_kafka([*headers(), ("traceparent", TRACE.encode())], b"", "x").traceparent == TRACE
    assert from_kafka([*headers(), ("traceparent", b"nonsense")], b"", "x").traceparent is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "id": "7",
                "subject": "repo.push",
                "origin": "gitea",
                "correlation_id": "c9",
                "payload": {"n": 1},
                "timestamp": "2025-01-02T03:04:05Z",
            },
            Trigger(
                id="7",
                source="gitea",
                type="repo.push",
                subject="c9",
                time="2025-01-02T03:04:05Z",
                data=msgspec.Raw(b'{"n":1}'),
            ),
        ),
        (
            {"type": "alert.fired", "payload": [1], "timestamp": 1735787045},
            Trigger(
                id="t/3/9",
                source="unknown",
                type="alert.fired",
                time="2025-01-02T03:04:05Z",
                data=msgspec.Raw(b"[1]"),
            ),
        ),
        (
            {"type": "a", "payload": None, "source": "s", "id": 12, "timestamp": 1735787045123},
            Trigger(id="12", source="s", type="a", time="2025-01-02T03:04:05.123000Z", data=NULL),
        ),
        ({"type": "a"}, Trigger(id="t/3/9", source="unknown", type="a", data=NULL)),
    ],
)
def test_the_older_envelopes(body: dict[str, object], expected: Trigger) -> None:
    event = from_kafka([], json.dumps(body).encode(), "t/3/9")
    assert event == IncomingEvent(expected)
    assert from_http({"Content-Type": "application/json"}, json.dumps(body).encode(), "t/3/9") == (
        event
    )


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b"", b"null"),
        ("application/vnd.a+json; charset=utf-8", b"[1]", b"[1]"),
        ("text/plain", 'say "é"'.encode(), '"say \\"é\\""'.encode()),
        ("application/xml", b"<a/>", b'"<a/>"'),
        ("application/octet-stream", b"\xff\x00", b'"/wA="'),
        (None, b"12", b"12"),
    ],
)
def test_data_by_content_type(content_type: str | None, body: bytes, data: bytes) -> None:
    event = from_kafka(headers(content_type=content_type), body, "x")
    assert bytes(event.trigger.data) == data


def test_structured_mode_keeps_numbers_exactly() -> None:
    body = (
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":12345678901234567890}}'
    )
    event = from_kafka([("content-type", b"application/cloudevents+json")], body, "x")
    assert bytes(event.trigger.data) == b'{"n":12345678901234567890}'
    assert from_kafka([], body, "x") == event, "specversion alone tells it too"


def test_structured_mode_with_base64() -> None:
    body = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"eyJhIjoxfQ=="'
    event = from_kafka([], body + b',"datacontenttype":"application/json"}', "x")
    assert bytes(event.trigger.data) == b'{"a":1}'
    assert bytes(from_kafka([], body + b"}", "x").trigger.data) == b'"eyJhIjoxfQ=="'


STRUCTURED = [("content-type", b"application/cloudevents+json")]


@pytest.mark.parametrize(
    ("record", "value", "says"),
    [
        (headers(ce_type=None), b"{}", "missing ce_type"),
        (headers(ce_id=None), b"{}", "missing ce_id"),
        (headers(ce_source=""), b"{}", "'source' must not be None or empty"),
        (headers(ce_specversion="0.2"), b"{}", "'specversion' must be '1.0'"),
        (headers(ce_time="yesterday"), b"{}", "time is 'yesterday'; it has to be RFC 3339"),
        (headers(ce_project="No Way"), b"{}", "project 'No Way' is not a name"),
        (headers(), b"{", "data is not valid JSON"),
        (headers(), b'{"a":NaN}', "data is not valid JSON"),
        (headers(), b'"\\ud800"', "data is not valid JSON"),
        (headers(), b'"\xff"', "data is not valid JSON"),
        (headers(), b"1" * 6000, "data is not valid JSON"),
        (headers(), b"[" * 100_000 + b"]" * 100_000, "nested more than"),
        (headers(), b"[" * 300 + b"]" * 300, "nested more than"),
        (headers(content_type="text/plain"), b"\xff", "is not UTF-8"),
        ([("ce_id", b"\xff")], b"{}", "header 'ce_id' is not UTF-8"),
        ([], None, "an empty body"),
        ([], b"[1]", "must be a JSON object"),
        ([], b'{"a":', "not valid JSON"),
        ([], b'{"a":1}', "neither a CloudEvent nor a known envelope"),
        ([], b'{"type":""}', "'type' is empty"),
        ([], b'{"type":{}}', "'type' must be a string"),
        ([], b'{"type":"a","timestamp":true}', "'timestamp' must be"),
        ([], b'{"type":"a","timestamp":1e300}', "is not a time"),
        ([("content-type", b"text/plain")], b"{}", "'text/plain' without ce_* headers"),
        (
            [("content-type", b"application/cloudevents-batch+json")],
            b"[]",
            "'application/cloudevents-batch+json' is not understood",
        ),
        (STRUCTURED, b'{"specversion":"1.0","id":"1","source":"s"}', "missing 'type'"),
        (STRUCTURED, b"3", "must be a JSON object"),
        (
            STRUCTURED,
            b'{"specversion":"1.0","id":1,"source":"s","type":"t"}',
            "'id' must be a",
        ),
        (
            STRUCTURED,
            b'{"specversion":"1.0","id":"1","source":"s","type":"t","time":7}',
            "not a CloudEvent",
        ),
        (
            STRUCTURED,
            b'{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"*"}',
            "not base64",
        ),
    ],
)
def test_bad_events_say_what_is_wrong(
    record: list[tuple[str, bytes | None]], value: bytes | None, says: str
) -> None:
    with pytest.raises(CallerError) as raised:
        from_kafka(record, value, "x")
    assert says in str(raised.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*BINARY, "ce_x", "CE_ID", "ce_", "traceparent"]) | st.text(),
            st.none() | st.binary() | st.sampled_from([v.encode() for v in BINARY.values()]),
        )
    ),
    st.none() | st.binary() | json_values.map(lambda v: json.dumps(v).encode()),
)
def test_whatever_comes_is_an_event_or_a_callers_error(
    record: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    try:
        event = from_kafka(record, value, "t/0/0")
    except CallerError:
        return
    again_headers, again_value = to_kafka(event)
    assert from_kafka(again_headers, again_value, "other") == event


@given(json_values)
def test_what_json_data_accepts_every_later_reader_can_decode(value: object) -> None:
    try:
        data = json_data(json.dumps(value).encode())
    except CallerError:
        return
    assert msgspec.json.encode(msgspec.json.decode(data)) == bytes(data)


def test_the_depth_limit_is_exact() -> None:
    json_data(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(CallerError):
        json_data(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))

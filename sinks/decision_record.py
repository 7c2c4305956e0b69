"""A decision as the store keeps it: its head, and each event as the bytes that stood on the log.

The events are read one by one, to be projected; what is kept of them is their original text, so
the decision can be given back byte for byte.
"""

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Raw, Struct

from streams import codec
from streams.errors import UnreadableRecordError
from streams.events import Event
from streams.records import FORMAT

TIME_LIMIT: Final = 10_413_792_000_000
"""2300-01-01 in milliseconds: the store's times end there."""

COUNT_LIMIT: Final = 2**31

StatusName = Literal[
    "PENDING", "RUNNING", "WAITING_APPROVAL", "SUCCESS", "FAILED", "CANCELLED", "TIMED_OUT"
]
"""The values of `streams.records.RunStatus`: to ask an enum for one takes half a microsecond."""

_Time = Annotated[int, Meta(ge=0, lt=TIME_LIMIT)]
_Count = Annotated[int, Meta(ge=0, lt=COUNT_LIMIT)]


class DecisionHead(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """`streams.events.Decision`, field for field in its order, with its events undecoded."""

    run: str
    project: str
    workflow: str
    version: _Count
    seq: _Count
    at: _Time
    status: StatusName
    previous: StatusName
    events: Annotated[tuple[Raw, ...], Meta(min_length=1)]
    traceparent: str | None = None
    v: Literal[1] = FORMAT


class DecisionRecord(Struct, frozen=True, gc=False):
    """One record of the events topic, read."""

    partition: int
    offset: int
    head: DecisionHead
    events: tuple[Event, ...]
    payloads: tuple[str, ...]
    value: bytes

    @property
    def next_seq(self) -> int:
        """The sequence number that the run goes on with."""
        return self.head.seq + len(self.events)


_LIMITS: Final = {
    "attempt": COUNT_LIMIT,
    "item": COUNT_LIMIT - 1,
    "depth": COUNT_LIMIT,
    "nodes": COUNT_LIMIT,
    "deadline": TIME_LIMIT,
    "retry_at": TIME_LIMIT,
    "started_at": TIME_LIMIT,
    "finished_at": TIME_LIMIT,
}
_NUMBERS: Final = {
    kind: tuple((name, _LIMITS[name]) for name in kind.__struct_fields__ if name in _LIMITS)
    for kind in get_args(Event)
}

_heads: Final = codec.Reader[DecisionHead](DecisionHead, "a decision")
_events: Final = codec.Reader[Event](Event, "an event of a decision")


def read(partition: int, offset: int, value: bytes | None) -> DecisionRecord:
    """Read a record; what the store could not keep exactly is unreadable too.

    Raises:
        UnreadableRecordError: Says why.
    """
    head = _heads.decode(value)
    events = tuple([_events.decode(raw) for raw in head.events])
    try:
        payloads = tuple([str(raw, "utf-8") for raw in head.events])
    except UnicodeDecodeError as error:
        raise UnreadableRecordError(f"not a decision: {error}") from error
    for event in events:
        for name, limit in _NUMBERS[type(event)]:
            number = getattr(event, name)
            if number is not None and not 0 <= number < limit:
                raise UnreadableRecordError(f"not a decision: {name} is {number}, out of range")
    return DecisionRecord(partition, offset, head, events, payloads, value or b"")


def write(
    *,
    run: str,
    project: str,
    workflow: str,
    version: int,
    seq: int,
    at: int,
    status: StatusName,
    previous: StatusName,
    payloads: list[str],
    traceparent: str,
) -> bytes:
    """The record's value as it stood on the log, from what the store kept of it."""
    head = DecisionHead(
        run=run,
        project=project,
        workflow=workflow,
        version=version,
        seq=seq,
        at=at,
        status=status,
        previous=previous,
        events=tuple([Raw(payload.encode()) for payload in payloads]),
        traceparent=traceparent or None,
    )
    return codec.encode(head)

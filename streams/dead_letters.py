"""What cannot be processed: kept with its coordinates, its bytes and the reason (law 5).

A dead letter is on its topic before the offset of the record it is about is committed.
"""

import socket
import time
from typing import Any

import structlog
from prometheus_client import Counter

from streams import codec
from streams.ids import spread
from streams.outbox import Parcel
from streams.records import DeadLetter
from streams.topics import DEAD_LETTERS

_log = structlog.get_logger(__name__)
_count = Counter("commandcenter_dead_letters_total", "Records not processed.", ["topic", "error"])

VALUE_LIMIT = 6 * 1024 * 1024
"""Bytes of the original that a dead letter keeps; a longer value is cut, and the reason says so."""


def put(parcel: Parcel, partitions: int, record: Any, error: Exception) -> None:
    """Add the dead letter for an aiokafka `ConsumerRecord` to what is sent next."""
    value, reason = record.value, str(error) or type(error).__name__
    if value is not None and len(value) > VALUE_LIMIT:
        reason += f" (value of {len(value):,} bytes, cut to {VALUE_LIMIT:,})"
        value = value[:VALUE_LIMIT]
    name = type(error).__name__
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=int(time.time() * 1000),
        error=name,
        reason=reason,
        worker=socket.gethostname(),
        key=record.key,
        value=value,
        headers=tuple((k, v or b"") for k, v in record.headers),
    )
    where = f"{record.topic}/{record.partition}/{record.offset}"
    parcel.add(DEAD_LETTERS, spread(where, partitions), record.key, codec.encode(letter))
    _count.labels(record.topic, name).inc()
    _log.warning("dead letter", source=where, error=name, reason=reason)

"""What cannot be processed: kept with its coordinates, its bytes and the reason (law 5).

A dead letter is on its topic before the offset of the record it is about is committed. What is on
that topic besides, and how a letter is replayed, is in `streams.letters`.
"""

import socket
import time
from typing import Any, Final

import structlog
from prometheus_client import Counter

from streams import letters
from streams.ids import spread
from streams.messages import DeadLetter
from streams.outbox import Parcel
from streams.topics import DEAD_LETTERS

_log = structlog.get_logger(__name__)
_count = Counter("commandcenter_dead_letters_total", "Records not processed.", ["topic", "error"])

_KEY_BYTES: Final = 64 * 1024
"""The record on the topic has the original's key, unless that is longer; the letter has it all."""


def put(parcel: Parcel, partitions: int, record: Any, error: Exception) -> None:
    """Add the dead letter for an aiokafka `ConsumerRecord` to what is sent next."""
    name, reason = type(error).__name__, str(error) or type(error).__name__
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=int(time.time() * 1000),
        error=name,
        reason=reason,
        worker=socket.gethostname(),
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        attempts=letters.attempts_of(record.headers),
    )
    where = letters.place(letter)
    key = record.key if record.key is None or len(record.key) <= _KEY_BYTES else None
    for value in letters.write(letter):
        parcel.add(DEAD_LETTERS, spread(where, partitions), key, value)
    _count.labels(record.topic, name).inc()
    _log.warning("dead letter", source=where, error=name, reason=reason, attempt=letter.attempts)

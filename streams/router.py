"""Triggers in, starts out: every workflow that an event matches gets a start in its run's inbox.

The run id is derived from the workflow and the event, so an event that is delivered twice, or
routed by two workers, starts one run.
"""

from typing import Any

import structlog
from prometheus_client import Counter

from streams import codec, dead_letters, topics
from streams.catalog import Catalog
from streams.condition import Condition
from streams.errors import CommandCenterError, TooLargeError
from streams.faust_shell import Batch
from streams.ids import run_id
from streams.outbox import Outbox, Parcel, partition_of
from streams.records import Start
from streams.run import PAYLOAD_LIMIT
from streams.trigger import from_kafka

_log = structlog.get_logger(__name__)
_triggers = Counter("commandcenter_triggers_total", "Trigger events by outcome.", ["outcome"])


class Router:
    """Routes batches of the triggers topic."""

    def __init__(self, outbox: Outbox, partitions: int, catalog: Catalog) -> None:
        self._outbox = outbox
        self._partitions = partitions
        self._catalog = catalog

    async def process(self, batches: list[Batch]) -> None:
        """Send the starts that the batches' events make, and dead letters for what is no event."""
        parcel = Parcel()
        for batch in batches:
            for record in batch.records:
                try:
                    self._route(record, parcel)
                except Exception as error:  # noqa: BLE001  # one bad record must not stop the rest
                    if not isinstance(error, CommandCenterError):
                        _log.exception("routing failed", offset=record.offset)
                    dead_letters.put(parcel, self._partitions, record, error)
                    _triggers.labels("dead_letter").inc()
        if parcel:
            await self._outbox.deliver(parcel)

    def _route(self, record: Any, parcel: Parcel) -> None:
        if record.value is not None and len(record.value) > PAYLOAD_LIMIT:
            raise TooLargeError(
                f"the event has {len(record.value):,} bytes; a trigger may have {PAYLOAD_LIMIT:,}:"
                " put the data elsewhere and send its address"
            )
        fallback = f"{record.topic}/{record.partition}/{record.offset}"
        event = from_kafka(record.headers, record.key, record.value, fallback)
        started = 0
        for definition in self._catalog.matching(event.project, event.trigger.type):
            ...
        _triggers.labels("matched" if started else "unmatched").inc()

"""Triggers in, starts out: every workflow that an event matches gets a start in its run's inbox.

The run id is derived from the workflow and the event, so an event that is delivered twice, or
routed by two workers, starts one run.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import prometheus_client
import structlog

from streams import codec, condition, dead_letters, topics
from streams.catalog import Match
from streams.errors import CommandCenterError, TooLargeError
from streams.faust_shell import Batch
from streams.ids import run_id
from streams.outbox import Outbox, Parcel, partition_of
from streams.records import Start
from streams.run import PAYLOAD_LIMIT
from streams.tracing import traceparent_of
from streams.trigger import IncomingEvent, from_kafka

_log = structlog.get_logger(__name__)
_triggers = prometheus_client.Counter(
    "commandcenter_triggers_total", "Trigger events by outcome.", ["outcome"]
)


Matching = Callable[[str, str], Iterable[Match]]
"""(project, event type) → the workflows whose trigger's pattern it fits."""


class Router:
    """Routes batches of the triggers topic."""

    def __init__(
        self,
        outbox: Outbox,
        partitions: int,
        matching: Matching,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`catch_up` returns when every workflow that is published by now is known here."""
        self._outbox = outbox
        self._partitions = partitions
        self._matching = matching
        self._catch_up = catch_up

    async def process(self, batches: list[Batch]) -> None:
        """Send the starts that the batches' events make, and dead letters for what is no event."""
        parcel = Parcel()
        records = [record for batch in batches for record in batch.records]
        outcomes = [self._try(record, parcel) for record in records]
        unmatched = [r for r, o in zip(records, outcomes, strict=True) if o == "unmatched"]
        if unmatched:
            # Its workflow may have been published a moment before the event.
            await self._catch_up()
            outcomes = [o for o in outcomes if o != "unmatched"]
            outcomes += [self._try(record, parcel) for record in unmatched]
        for outcome, number in Counter(outcomes).items():
            _triggers.labels(outcome).inc(number)
        if parcel:
            await self._outbox.deliver(parcel)

    def _try(self, record: Any, parcel: Parcel) -> str:
        try:
            return self._route(record, parcel)
        except Exception as error:  # noqa: BLE001  # one bad record must not stop the rest
            if not isinstance(error, CommandCenterError):
                _log.exception("routing failed", offset=record.offset)
            dead_letters.put(parcel, self._partitions, record, error)
            return "dead_letter"

    def _route(self, record: Any, parcel: Parcel) -> str:
        if record.value is not None and len(record.value) > PAYLOAD_LIMIT:
            raise TooLargeError(
                f"the event has {len(record.value):,} bytes; a trigger may have {PAYLOAD_LIMIT:,}:"
                " put the data elsewhere and send its address"
            )
        fallback = f"{record.topic}/{record.partition}/{record.offset}"
        event = from_kafka(record.headers, record.value, fallback)
        started = 0
        for match in self._matching(event.project, event.trigger.type):
            if _passes(match, event):
                self._start(match, event, parcel)
                started += 1
        return "matched" if started else "unmatched"

    def _start(self, match: Match, event: IncomingEvent, parcel: Parcel) -> None:
        trigger = event.trigger
        run = run_id(event.project, match.name, trigger.source, trigger.id)
        start = Start(
            run=run,
            project=event.project,
            workflow=match.name,
            version=match.version,
            trigger=trigger,
            traceparent=event.traceparent or traceparent_of(run),
        )
        partition = partition_of(run, self._partitions)
        parcel.add(topics.INBOX, partition, run.encode(), codec.encode(start))


def _passes(match: Match, event: IncomingEvent) -> bool:
    text = match.plan.spec.trigger.filter
    if text is None:
        return True
    verdict = condition.compiled(text).check(condition.event_values(event.trigger))
    if verdict.reason:
        _log.info(
            "a filter could not be told",
            workflow=match.name,
            event=event.trigger.id,
            why=verdict.reason,
        )
    return verdict.matched

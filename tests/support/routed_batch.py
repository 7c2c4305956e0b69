"""Events as a batch of the triggers topic, for a router."""

from types import SimpleNamespace

from faust.types import TP

from streams import topics
from streams.faust_shell import Batch
from streams.trigger import IncomingEvent, to_kafka


def routed_batch(*events: IncomingEvent) -> Batch:
    """The events in one partition, from its beginning on."""
    records = []
    for offset, event in enumerate(events):
        headers, value = to_kafka(event)
        records.append(
            SimpleNamespace(
                topic=topics.TRIGGERS, partition=0, offset=offset, key=None, value=value,
                headers=headers, timestamp=0,
            )
        )  # fmt: skip
    return Batch(TP(topics.TRIGGERS, 0), 1, records)

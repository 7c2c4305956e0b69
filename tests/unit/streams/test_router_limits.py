"""What comes in on the triggers topic and is over a limit: a dead letter that names the setting."""

from pathlib import Path
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from routed_batch import routed_batch

from streams import codec, letters, topics
from streams.blob_store import BlobStore
from streams.catalog import Catalog, Definition
from streams.ending import FINISHED_TYPE
from streams.messages import DeadLetter, Occurrence, Start
from streams.outbox import Parcel
from streams.payload import INLINE_LIMIT, as_reference
from streams.records import Trigger
from streams.router import Router
from streams.run import DEFAULT_LIMITS, Limits
from streams.trigger import IncomingEvent


class Routing:
    """A router with workflows for two types of events; what it makes of the events that come."""

    def __init__(self, folder: Path, limits: Limits, kept: int = 10**6) -> None:
        catalog = Catalog()
        for name, event in (("w", "repo.push"), ("after", FINISHED_TYPE)):
            definition = b'{"name":"%s","trigger":{"event":"%s"},"nodes":[{"id":"a",%s}]}'
            node = b'"waitForEvent":{"event":"%s"}' % FINISHED_TYPE.encode()
            catalog.apply(
                Definition(
                    project="default", name=name, version=1, digest="", published_at=0,
                    definition=Raw(definition % (name.encode(), event.encode(), node)),
                )
            )  # fmt: skip
        blobs = BlobStore(str(folder), kept)
        self.starts: list[Start] = []
        self.told: list[Occurrence] = []
        self.letters: list[DeadLetter] = []
        self.router = Router(self, 1, catalog, self._caught_up, blobs, limits)  # type: ignore[arg-type]  # what it uses of an outbox

    async def _caught_up(self) -> None:
        pass

    async def deliver(self, parcel: Parcel) -> None:
        for (topic, _), records in parcel.partitions():
            for _, value, _ in records:
                found: Any = (
                    codec.messages.decode(value) if topic == topics.INBOX else letters.read(value)
                )
                kept: Any = {Start: self.starts, Occurrence: self.told, DeadLetter: self.letters}
                kept[type(found)].append(found)

    async def hear(self, *events: IncomingEvent) -> None:
        await self.router.process([routed_batch(*events)])


def push(size: int, name: str = "1") -> IncomingEvent:
    """An event with so many bytes of data."""
    data = Raw(b'"' + b"x" * (size - 2) + b'"')
    return IncomingEvent(Trigger(id=name, source="/test", type="repo.push", data=data))


def end(depth: int) -> IncomingEvent:
    """The end of a run that so many runs led to."""
    return IncomingEvent(Trigger(id="r", source="/other", type=FINISHED_TYPE), depth=depth)


async def test_an_event_over_the_limit_is_a_dead_letter_that_names_the_setting(
    tmp_path: Path,
) -> None:
    routing = Routing(tmp_path, Limits(trigger=2_000))
    await routing.hear(push(2_000), push(2_001, "2"))
    assert [start.trigger.id for start in routing.starts] == ["1"]
    [letter] = routing.letters
    assert (letter.offset, letter.error) == (1, "TooLargeError")
    assert letter.reason.startswith(
        "the event has 2,001 bytes as a record; 2,000 may be (COMMANDCENTER_TRIGGER_LIMIT)"
    )


async def test_data_that_no_payload_may_be_is_a_dead_letter_and_stops_nobody(
    tmp_path: Path,
) -> None:
    routing = Routing(tmp_path, DEFAULT_LIMITS, kept=INLINE_LIMIT + 1)
    await routing.hear(push(INLINE_LIMIT + 2), push(INLINE_LIMIT + 1, "2"))
    [start] = routing.starts
    assert start.trigger.id == "2"
    assert as_reference(start.trigger.data) is not None
    [letter] = routing.letters
    assert letter.reason == (
        "a payload of 65,538 bytes; 65,537 may be (COMMANDCENTER_PAYLOAD_LIMIT)"
    )


async def test_what_nobody_wants_is_over_the_limits_all_the_same(tmp_path: Path) -> None:
    def unwanted(size: int) -> IncomingEvent:
        event = push(size)
        return event._replace(trigger=replace(event.trigger, type="nobody.wants"))

    routing = Routing(tmp_path, Limits(trigger=100_000), kept=INLINE_LIMIT + 1)
    await routing.hear(*map(unwanted, (INLINE_LIMIT + 1, INLINE_LIMIT + 2, 100_001)))
    named = [letter.reason.partition("(")[2].partition(")")[0] for letter in routing.letters]
    assert named == ["COMMANDCENTER_PAYLOAD_LIMIT", "COMMANDCENTER_TRIGGER_LIMIT"]
    assert routing.starts == []


async def test_runs_lead_to_runs_as_often_as_the_setting_says(tmp_path: Path) -> None:
    routing = Routing(tmp_path, Limits(depth=3))
    await routing.hear(end(3), end(4))
    assert [start.depth for start in routing.starts] == [3]
    [letter] = routing.letters
    assert letter.reason == (
        "4 runs led to this event one after the other; 3 may (COMMANDCENTER_RUN_DEPTH_LIMIT):"
        " do workflows start each other in a circle?"
    )
    assert len(routing.told) == 2  # who waits for such an event starts nothing by it

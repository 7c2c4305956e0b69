"""What a reader hands over: in order, nothing twice, nothing left out unseen."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from streams import topic_reader
from streams.topic_reader import TopicReader

PLACE = TopicPartition("inbox", 0)


class Record:
    def __init__(self, offset: int) -> None:
        self.offset = offset


class Broker:
    """Stands in for aiokafka's consumer: gives what it was told, then waits for ever."""

    def __init__(self, fetches: list[list[int]]) -> None:
        self.fetches = fetches
        self.sought: list[tuple[int, int]] = []
        self.paused: set[Any] = set()
        self.stopped = False

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions: list[Any]) -> None:
        self.assigned = partitions

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought.append((place.partition, offset))

    def pause(self, *places: Any) -> None:
        self.paused |= set(places)

    def resume(self, *places: Any) -> None:
        self.paused -= set(places)

    async def getmany(self, **_: Any) -> dict[Any, list[Record]]:
        if not self.fetches:
            await asyncio.get_running_loop().create_future()
        return {PLACE: [Record(offset) for offset in self.fetches.pop(0)]}


class Reading:
    """A reader on such a broker, and what it hands over."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fetches: list[list[int]], position: int | None
    ) -> None:
        self.broker = Broker(fetches)
        monkeypatch.setattr(topic_reader, "AIOKafkaConsumer", lambda **_: self.broker)
        self.got: list[int] = []
        self.reader = TopicReader("kafka:9092", "inbox", {0: position}, self.hand_over)

    async def hand_over(self, partition: int, records: list[Any]) -> None:
        assert partition == 0
        self.got += [record.offset for record in records]

    async def until(self, *offsets: int) -> None:
        task = asyncio.create_task(self.reader.run())
        while self.got != list(offsets) or self.broker.fetches:
            await asyncio.sleep(0)
            assert not task.done(), await task
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert self.broker.stopped


@pytest.mark.timeout(10)
async def test_records_seen_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch, [[3, 4, 5], [5, 6], [6]], position=5)
    await reading.until(5, 6)
    assert reading.broker.sought == [(0, 5)]


@pytest.mark.timeout(10)
async def test_a_jump_ahead_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch, [[5], [8, 9], [6, 7, 8, 9]], position=5)
    await reading.until(5, 6, 7, 8, 9)
    assert reading.broker.sought == [(0, 5), (0, 6)]


@pytest.mark.timeout(10)
async def test_a_hole_of_the_log_is_accepted_after_one_more_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = Reading(monkeypatch, [[8, 9], [8, 9], [12]], position=5)
    reading.broker.fetches.append([12])
    await reading.until(8, 9, 12)
    assert reading.broker.sought == [(0, 5), (0, 5), (0, 10)]


@pytest.mark.timeout(10)
async def test_a_partition_without_a_position_is_taken_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = Reading(monkeypatch, [[42]], position=None)
    await reading.until(42)
    assert reading.broker.sought == []


@pytest.mark.timeout(10)
async def test_a_hold_lasts_until_its_release(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch, [[1]], position=1)
    reading.reader.hold(0)  # before the connection is there
    await reading.until(1)
    assert reading.broker.paused == {PLACE}
    reading.reader.release(0)
    assert reading.broker.paused == {PLACE}  # it ended meanwhile: nothing to resume

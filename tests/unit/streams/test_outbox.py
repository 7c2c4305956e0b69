"""What the outbox gives to the producer: record batches, in order, cut where that is allowed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams import outbox
from streams.outbox import BATCH_BYTES, REQUEST_BYTES, Outbox, Parcel


class FakeProducer:
    """Keeps what each batch says: its place, and its records with key, value and headers."""

    def __init__(self, **_: Any) -> None:
        self.sent: list[tuple[str, int, list[tuple[Any, ...]]]] = []

    def create_batch(self) -> Any:
        return BatchBuilder(REQUEST_BYTES - 64 * 1024, 0)

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        count = batch.record_count()
        told = MemoryRecords(bytes(batch._build())).next_batch()
        records = [(r.offset, r.key, r.value, r.headers) for r in told]
        assert len(records) == count
        assert [offset for offset, *_ in records] == list(range(count))
        self.sent.append((topic, partition, [record[1:] for record in records]))
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(offset=10 * len(self.sent)))
        return sent


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setattr(outbox, "AIOKafkaProducer", FakeProducer)
    return Outbox("", "test")


async def test_each_partition_gets_its_records_in_order(out: Outbox) -> None:
    parcel = Parcel()
    parcel.add("t", 1, b"k", b"1", [("h", b"x")])
    parcel.add("t", 0, None, b"2")
    parcel.extend("t", 1, [(b"gone", None), (b"k", b"3")], [("n", b"4")])
    assert await out.flush(parcel) == [10, 20]
    assert out._producer.sent == [
        (
            "t",
            1,
            [
                (b"k", b"1", [("h", b"x")]),
                (b"gone", None, [("n", b"4")]),
                (b"k", b"3", [("n", b"4")]),
            ],
        ),
        ("t", 0, [(None, b"2", [])]),
    ]


@pytest.mark.parametrize(("whole", "counts"), [(False, [2, 2, 1]), (True, [5])])
async def test_many_bytes_are_several_batches_unless_they_have_to_be_one(
    out: Outbox, whole: bool, counts: list[int]
) -> None:
    values = [bytes([n]) * (BATCH_BYTES * 2 // 5) for n in range(5)]
    parcel = Parcel()
    parcel.extend("t", 0, [(b"k", value) for value in values], [])
    firsts = await out.flush(parcel, whole=whole)
    assert len(firsts) == len(counts)
    assert [len(records) for _, _, records in out._producer.sent] == counts
    assert [value for _, _, records in out._producer.sent for _, value, _ in records] == values


async def test_a_record_over_the_limit_of_a_batch_goes_alone(out: Outbox) -> None:
    parcel = Parcel()
    for size in (1, BATCH_BYTES + 1, 1):
        parcel.add("t", 0, b"k", b"x" * size)
    await out.flush(parcel)
    assert [len(records) for _, _, records in out._producer.sent] == [1, 1, 1]


async def test_what_has_to_be_one_batch_and_cannot_is_refused(out: Outbox) -> None:
    parcel = Parcel()
    parcel.extend("t", 0, [(b"k", b"x" * BATCH_BYTES) for _ in range(9)], [])
    with pytest.raises(AssertionError, match="t is too large for one batch"):
        await out.flush(parcel, whole=True)
    assert out._producer.sent == []

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.outbox import partition_of


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 100))
def test_a_key_is_where_kafkas_default_partitioner_puts_it(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def test_a_key_whose_partition_others_have_told() -> None:
    """As Java's producer does: `Utils.murmur2` of "21" is -973932308."""
    assert partition_of("21", 1_000) == (-973932308 & 0x7FFFFFFF) % 1_000

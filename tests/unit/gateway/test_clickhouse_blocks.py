"""ClickHouse's compressed blocks, both ways."""

import pytest

from gateway.clickhouse_blocks import BLOCK_BYTES, BlockPacker, unpack
from streams.errors import CallerError

# As ClickHouse writes it: not compressed (method 0x02), which clickhouse-go 2.51 reads as well.
PLAIN = bytes.fromhex("e6a16b4f4243468cf86313b48c09390702110000000800000053454c4543542031")
ENOUGH = 10 * BLOCK_BYTES


@pytest.mark.parametrize("size", [0, 1, 1_000, BLOCK_BYTES, 2 * BLOCK_BYTES + 1])
def test_what_was_packed_comes_back(size: int) -> None:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    packer = BlockPacker()
    assert unpack(packer.compress(content) + packer.flush(), ENOUGH) == content


def test_a_block_that_is_not_compressed_is_read() -> None:
    assert unpack(PLAIN, ENOUGH) == b"SELECT 1"


@pytest.mark.parametrize("place", [0, 16, 30])
def test_a_changed_byte_is_noticed(place: int) -> None:
    packed = bytearray(BlockPacker().compress(b"SELECT 1"))
    packed[place] ^= 1
    with pytest.raises(CallerError, match=r"checksum|ends within"):
        unpack(bytes(packed), ENOUGH)


@pytest.mark.parametrize("kept", [1, 24, 30])
def test_an_end_in_the_middle_is_noticed(kept: int) -> None:
    with pytest.raises(CallerError, match=r"ends within|broken"):
        unpack(BlockPacker().compress(b"SELECT 1")[:kept], ENOUGH)


def test_what_is_too_large_is_refused_before_it_is_unpacked() -> None:
    packed = BlockPacker().compress(b"x" * 1_000)
    assert unpack(packed, 1_000) == b"x" * 1_000
    with pytest.raises(CallerError, match="larger than a query may be"):
        unpack(packed, 999)


def test_another_method_is_told() -> None:
    with pytest.raises(CallerError, match="use LZ4"):
        unpack(
            bytes.fromhex("9e4c1a39360178ba32498090c999f2c690110000000800000053454c4543542031"),
            ENOUGH,
        )

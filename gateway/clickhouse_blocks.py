"""ClickHouse's own compression (`compress=1`, `decompress=1`): a row of blocks with checksums.

A block is the CityHash128 (of ClickHouse's version, 1.0.2) of all that follows, one byte for the
method, two little-endian numbers (length from the method on, and of the content), the packed text.
"""

import struct
from typing import Final

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

from streams.errors import CallerError

BLOCK_BYTES: Final = 1024 * 1024
"""Content of one block, as ClickHouse itself has it at most by default."""

_HEAD: Final = struct.Struct("<BII")
_HASH_BYTES: Final = 16
_NONE: Final = 0x02
_LZ4: Final = 0x82


class BlockPacker:
    """Packs a stream with LZ4, piece by piece; used like `zlib.compressobj`."""

    def compress(self, content: bytes) -> bytes:
        """The blocks of a piece."""
        return b"".join(
            _packed(content[start : start + BLOCK_BYTES])
            for start in range(0, len(content), BLOCK_BYTES)
        )

    def flush(self) -> bytes:
        """Nothing: each piece is whole."""
        return b""


def unpack(blocks: bytes, limit: int) -> bytes:
    """The content of blocks, of at most `limit` bytes.

    Raises:
        CallerError: They are not whole, are packed otherwise, or hold more.
    """
    contents: list[bytes] = []
    rest = memoryview(blocks)
    while rest:
        if len(rest) < _HASH_BYTES + _HEAD.size:
            raise CallerError("The body ends within a block of ClickHouse's compression.")
        method, length, size = _HEAD.unpack_from(rest, _HASH_BYTES)
        body = bytes(rest[_HASH_BYTES : _HASH_BYTES + length])
        limit -= size
        if limit < 0:
            raise CallerError("The body is larger than a query may be, once it is decompressed.")
        if (
            length < _HEAD.size
            or len(body) < length
            or _checksum(body) != bytes(rest[:_HASH_BYTES])
        ):
            raise CallerError("A block of the body is broken: its checksum is another one.")
        contents.append(_content(method, body[_HEAD.size :], size))
        rest = rest[_HASH_BYTES + length :]
    return b"".join(contents)


def _packed(content: bytes) -> bytes:
    packed: bytes = lz4.block.compress(content, store_size=False)
    body = _HEAD.pack(_LZ4, _HEAD.size + len(packed), len(content)) + packed
    return _checksum(body) + body


def _content(method: int, packed: bytes, size: int) -> bytes:
    if method == _NONE:
        return packed
    if method != _LZ4:
        raise CallerError("The body is compressed by a method that is not known here: use LZ4.")
    try:
        content: bytes = lz4.block.decompress(packed, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise CallerError("A block of the body is broken: LZ4 cannot decompress it.") from error
    return content


def _checksum(body: bytes) -> bytes:
    found: int = CityHash128(body)
    return struct.pack("<QQ", found >> 64, found & (2**64 - 1))

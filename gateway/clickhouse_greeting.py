"""What clickhouse-go asks first, and how it is answered.

It reads this one answer in the newest protocol that it knows, where a block of Native has a head
and each column a flag; from then on it reads in the revision that it was told. A file of Native is
written in the first revision, so that is the one it is told: 0.
"""

import struct
from typing import Final

QUESTION: Final = "select displayname(), version(), revision(), timezone()"

_NAME: Final = "CommandCenter"
_REVISION: Final = 0
# Its two fields by number (no overflow, no bucket), and the end of them.
_HEAD: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_AS_USUAL: Final = b"\x00"


def is_greeting(sql: str) -> bool:
    """Whether a text is that question."""
    return " ".join(sql.lower().rstrip("; \n").split()) == QUESTION


def native(version: str, timezone: str) -> bytes:
    """The answer: one row of Native."""
    columns = (
        ("displayName()", "String", _text(_NAME)),
        ("version()", "String", _text(version)),
        ("revision()", "UInt32", struct.pack("<I", _REVISION)),
        ("timezone()", "String", _text(timezone)),
    )
    return (
        _HEAD
        + bytes((len(columns), 1))
        + b"".join(_text(name) + _text(kind) + _AS_USUAL + value for name, kind, value in columns)
    )


def _text(value: str) -> bytes:
    """A short text, with its length before it."""
    content = value.encode()[:127]  # a length of more would need a second byte
    return bytes((len(content),)) + content

"""Payloads that are too big for the log travel by reference (law 9): by the hash of their content.

A reference stands where the JSON value would: `{"$blob": "<sha256>", "size": <bytes>}`. What it
names never changes, so that reading it keeps a decision pure: `Blobs` gives the content, or raises
`MissingBlobError`, upon which the shell fetches it and decides again.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from streams.errors import TooLargeError

INLINE_LIMIT: Final = 64 * 1024
"""Bytes of JSON that travel on the log itself."""

_MARK: Final = b'{"$blob":"'
_KEY: Final = "$blob"
_LONGEST: Final = 128
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Reference(NamedTuple):
    """The content with this SHA-256 (hexadecimal) and this many bytes."""

    digest: str
    size: int

    def encode(self) -> bytes:
        """As it stands in a payload."""
        return b'{"$blob":"%s","size":%d}' % (self.digest.encode(), self.size)


def check_payload(size: int, limit: int) -> None:
    """Raise `TooLargeError` where a payload has more bytes than may be."""
    if size > limit:
        raise TooLargeError(
            f"a payload of {size:,} bytes; {limit:,} may be (COMMANDCENTER_PAYLOAD_LIMIT)"
        )


class MissingBlobError(Exception):
    """A decision needs the content of a reference that is not at hand."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"blob {reference.digest} is not at hand")
        self.reference = reference


Blobs = Callable[[Reference], bytes]
"""Gives a reference's content; `MissingBlobError` where it has to be fetched first."""


def no_blobs(reference: Reference) -> bytes:
    """Nothing is at hand."""
    raise MissingBlobError(reference)


def reference_to(content: bytes) -> Reference:
    """The reference that names this content."""
    return Reference(sha256(content).hexdigest(), len(content))


def as_reference(payload: msgspec.Raw | bytes) -> Reference | None:
    """The reference that a payload (JSON bytes) consists of; None where it is the value itself."""
    content = bytes(payload)
    if len(content) > _LONGEST or not content.startswith(_MARK):
        return None
    return reference_in(msgspec.json.decode(content))


def reference_in(value: Any) -> Reference | None:
    """The reference that a decoded value is; None where it is anything else."""
    if not isinstance(value, dict) or len(value) != 2:
        return None
    digest, size = value.get(_KEY), value.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
        return None
    # Nothing else: the digest becomes a path, and payloads are made by anybody.
    return Reference(digest, size) if _DIGEST.fullmatch(digest) else None


def same(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether two payloads are the same value, however it is written."""
    return _in_order(one) == _in_order(other)


def _in_order(payload: msgspec.Raw) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(payload), order="sorted")


def has_references(payload: msgspec.Raw | bytes) -> bool:
    """Whether there may be references anywhere inside: quick, and sometimes wrong in saying yes."""
    content = bytes(payload)
    return b"$" in content and b'"$blob"' in content  # to look for one byte is much faster

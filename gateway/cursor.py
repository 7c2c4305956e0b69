"""Where a reader of the log stands: the next offset of each partition, and its opaque text form.

A cursor belongs to one log: after the log was made anew its offsets mean nothing, so the text
carries the log's id and a cursor of another log is not understood.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

import msgspec

Vector = Mapping[int, int]
"""Partition → the next offset to read; a partition that is not in it is at 0."""

_decoder = msgspec.json.Decoder(tuple[str, dict[int, int]])


def encode(vector: Vector, log: str) -> str:
    """The vector as text for clients: letters, digits, `-` and `_`."""
    body = msgspec.json.encode((log, dict(sorted(vector.items()))))
    return urlsafe_b64encode(body).rstrip(b"=").decode()


def decode(text: object, log: str) -> dict[int, int] | None:
    """The vector of a cursor of this log, or None where the text is not one."""
    if not isinstance(text, str) or not text.isascii():
        return None
    try:
        found, vector = _decoder.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):  # msgspec's and base64's errors are ValueErrors
        return None
    if found != log or any(offset < 0 or partition < 0 for partition, offset in vector.items()):
        return None
    return vector

"""Columns as a block of ClickHouse's Native format: what the recorder hands to the store.

Rules:
- A column is written by a few calls that loop in C, however many values it has: the client's own
  writers, value by value, take three times as long.
- It has the types of the tables that rows are inserted into; another one is refused, by its name.
- Times are integers in the unit of their column. Decimals are written exactly or not at all.
"""

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from functools import cache
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple

Columns = Mapping[str, Sequence[Any]]
Write = Callable[[Sequence[Any], bytearray], None]


class _Kind(NamedTuple):
    """How a column of some type is written: what comes before its values, and its values."""

    prefix: bytes
    write: Write


class UnknownTypeError(Exception):
    """A type that this module does not write: add it to `_kind`."""


def block(columns: Columns, types: Mapping[str, str]) -> bytes:
    """One block of all rows.

    Args:
        columns: By name; a sequence of values each, all of one length and not empty.
        types: The type of each, as the store names it.

    Raises:
        UnknownTypeError: A type is none of those of the recorder's tables.
        ValueError, TypeError, OverflowError, AttributeError: A value is not of its column's type.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths: {sorted(lengths)}")
    out = bytearray(_size(len(columns)) + _size(lengths.pop()))
    for name, values in columns.items():
        kind = _kind(types[name])
        _strings((name, types[name]), out)
        out += kind.prefix
        kind.write(values, out)
    return bytes(out)


@cache
def _kind(type_name: str) -> _Kind:
    outer, _, rest = type_name.partition("(")
    inner = rest.removesuffix(")")
    if outer in _NUMBERS:
        return _Kind(b"", _numbers(_NUMBERS[outer]))
    if outer == "DateTime64":
        return _Kind(b"", _numbers("q"))
    if outer == "String":
        return _Kind(b"", _strings)
    if type_name == "LowCardinality(String)":
        return _Kind(_WORDS_VERSION, _words)
    if outer == "SimpleAggregateFunction":
        return _kind(inner.partition(", ")[2])
    if outer == "Decimal" and (digits := re.fullmatch(r"(\d+), (\d+)", inner)):
        if int(digits[1]) <= _DECIMAL64_DIGITS or int(digits[1]) > _DECIMAL128_DIGITS:
            raise UnknownTypeError(type_name)
        return _Kind(b"", _decimals(int(digits[2])))
    if outer == "Array":
        return _array(_kind(inner))
    if outer == "Tuple":
        return _tuple([_kind(part.partition(" ")[2]) for part in _parts(inner)])
    raise UnknownTypeError(type_name)


_NUMBERS: Final = {
    "Bool": "B",
    "UInt8": "B",
    "UInt16": "H",
    "UInt32": "I",
    "UInt64": "Q",
    "Int32": "i",
    "Int64": "q",
    "Float64": "d",
}
_DECIMAL64_DIGITS: Final = 18
_DECIMAL128_DIGITS: Final = 38


def _parts(inner: str) -> list[str]:
    """What stands between the commas that are in no parentheses."""
    parts, depth, begin = [], 0, 0
    for place, letter in enumerate(inner):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append(inner[begin:place].strip())
            begin = place + 1
    return [*parts, inner[begin:].strip()]


def _numbers(code: str) -> Write:
    def write(values: Sequence[Any], out: bytearray) -> None:
        out += array(code, values).tobytes()

    return write


def _size(number: int) -> bytes:
    """A number as Native writes lengths: seven bits in each byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


class _Sizes(dict[int, bytes]):
    """`_size`, remembered for lengths that are common."""

    def __missing__(self, number: int) -> bytes:
        size = _size(number)
        if number < _COMMON_LENGTH:
            self[number] = size
        return size


class _SizesAsText(dict[int, str]):
    """The same, one character for each byte."""

    def __missing__(self, number: int) -> str:
        size = _size(number).decode("latin-1")
        if number < _COMMON_LENGTH:
            self[number] = size
        return size


_COMMON_LENGTH: Final = 4_096
_sizes: Final = _Sizes()
_sizes_as_text: Final = _SizesAsText()


def _strings(values: Sequence[str], out: bytearray) -> None:
    if not any(values):
        out += bytes(len(values))
    elif all(map(str.isascii, values)):
        sizes = map(_sizes_as_text.__getitem__, map(len, values))
        text = "".join(chain.from_iterable(zip(sizes, values, strict=True)))
        out += text.encode("latin-1")
    else:
        encoded = [value.encode() for value in values]
        lengths = map(_sizes.__getitem__, map(len, encoded))
        out += b"".join(chain.from_iterable(zip(lengths, encoded, strict=True)))


class _Numbered(dict[Any, int]):
    """Values by the order of their first appearance."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self)
        return number


_WORDS_VERSION: Final = array("Q", [1]).tobytes()
_ONE_DICTIONARY: Final = 1 << 9 | 1 << 10
"""The words come with the block, and are all that its numbers refer to."""
_BYTE: Final = 0
_FOUR_BYTES: Final = 2


def _words(values: Sequence[str], out: bytearray) -> None:
    """A dictionary of the words, and the number of each value's word in it."""
    if values.count(values[0]) == len(values):
        words: Sequence[str] = values[:1]
        width, numbers = _BYTE, bytes(len(values))
    else:
        numbered = _Numbered()
        places = list(map(numbered.__getitem__, values))
        words = list(numbered)
        width = _BYTE if len(words) <= 2**8 else _FOUR_BYTES
        numbers = bytes(places) if width == _BYTE else array("I", places).tobytes()
    out += array("Q", [_ONE_DICTIONARY | width, len(words)]).tobytes()
    _strings(words, out)
    out += array("Q", [len(values)]).tobytes()
    out += numbers


class _Scaled(dict[Decimal, bytes]):
    """Decimals as the 16 bytes of an integer; those of one block repeat a lot."""

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._limit = 10**_DECIMAL128_DIGITS

    def __missing__(self, value: Decimal) -> bytes:
        scaled = value.scaleb(self._scale, _EXACT)
        number = int(scaled)
        if number != scaled or abs(number) >= self._limit:
            raise ValueError(f"{value} has more digits than the store keeps")
        written = self[value] = number.to_bytes(16, "little", signed=True)
        return written


_EXACT: Final = Context(prec=80)


def _decimals(scale: int) -> Write:
    def write(values: Sequence[Decimal], out: bytearray) -> None:
        out += b"".join(map(_Scaled(scale).__getitem__, values))

    return write


def _array(element: _Kind) -> _Kind:
    def write(values: Sequence[Sequence[Any]], out: bytearray) -> None:
        out += array("Q", accumulate(map(len, values))).tobytes()
        if elements := list(chain.from_iterable(values)):
            element.write(elements, out)

    return _Kind(element.prefix, write)


def _tuple(elements: list[_Kind]) -> _Kind:
    def write(values: Sequence[tuple[Any, ...]], out: bytearray) -> None:
        for element, column in zip(elements, zip(*values, strict=True), strict=True):
            element.write(column, out)

    return _Kind(b"".join(element.prefix for element in elements), write)

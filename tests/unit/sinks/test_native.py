"""Blocks are read back by the client's own reader of the format."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.buffer import ResponseBuffer
from clickhouse_connect.driver.transform import NativeTransform

from sinks import native


class _Source:
    last_message: bytes | None = None
    exception_tag: str | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def gen(self) -> Iterator[bytes]:
        return iter([self._data])

    def close(self) -> None:
        pass


def read(data: bytes) -> dict[str, list[Any]]:
    result = NativeTransform.parse_response(ResponseBuffer(_Source(data)))
    columns = zip(*result.result_rows, strict=True)
    return {name: list(values) for name, values in zip(result.column_names, columns, strict=True)}


MANY_WORDS = [f"word {number % 700}" for number in range(2_000)]


@pytest.mark.parametrize(
    ("type_name", "values"),
    [
        ("UInt8", [0, 255]),
        ("UInt32", [0, 2**32 - 1]),
        ("UInt64", [0, 2**64 - 1]),
        ("Int32", [-1, 2**31 - 1]),
        ("Bool", [True, False]),
        ("Float64", [0.5, -1.25]),
        ("String", ["", "", ""]),
        ("String", ["", "short", "x" * 127, "y" * 128, "z" * 100_000]),
        ("String", ["plain", "é", "日本" * 100, ""]),
        ("LowCardinality(String)", ["a", "a", "a"]),
        ("LowCardinality(String)", ["", "a", "é", "a", ""]),
        ("LowCardinality(String)", MANY_WORDS),
        ("SimpleAggregateFunction(max, LowCardinality(String))", ["x", "y"]),
        ("SimpleAggregateFunction(max, String)", ["x", ""]),
        ("Array(String)", [[], ["a", "é"], ["b"]]),
        ("SimpleAggregateFunction(max, Array(String))", [[], []]),
        ("Tuple(seq UInt32, status String)", [{"seq": 1, "status": "a"}, {"seq": 2, "status": ""}]),
        ("Decimal(38, 12)", [Decimal("0.000000000001"), Decimal(-3), Decimal("999999999999.5")]),
    ],
)
def test_what_is_written_is_read_back(type_name: str, values: list[Any]) -> None:
    given = [tuple(v.values()) if isinstance(v, dict) else v for v in values]
    data = native.block({"n": list(range(len(given))), "v": given}, {"n": "UInt32", "v": type_name})
    assert read(data) == {"n": list(range(len(given))), "v": values}


def test_times_are_integers_of_their_columns_unit() -> None:
    data = native.block({"at": [1_500]}, {"at": "DateTime64(3, 'UTC')"})
    assert read(data)["at"][0].timestamp() == 1.5


@pytest.mark.parametrize(
    ("type_name", "value", "error"),
    [
        ("Decimal(38, 12)", Decimal("0.0000000000001"), ValueError),
        ("Decimal(38, 12)", Decimal(10**26), ValueError),
        ("UInt32", -1, OverflowError),
        ("UInt32", 2**32, OverflowError),
        ("UInt32", "1", TypeError),
        ("String", 1, TypeError),
        ("Decimal(9, 2)", Decimal(1), native.UnknownTypeError),
        ("Map(String, String)", {}, native.UnknownTypeError),
    ],
)
def test_what_cannot_be_written_exactly_is_refused(
    type_name: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        native.block({"v": [value]}, {"v": type_name})


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        native.block({"a": [1], "b": [1, 2]}, {"a": "UInt8", "b": "UInt8"})

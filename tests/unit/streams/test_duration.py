"""Durations: what can be written, what it means in milliseconds, and how it is written back."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from streams.duration import Duration, parse, text

FIELD: TypeAdapter[int] = TypeAdapter(Duration)
YEAR_MS = 366 * 86_400_000


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        (" 30s ", 30_000),
        ("5m", 300_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
        ("1.5s", 1_500),
        ("0.5h", 1_800_000),
        ("366d", YEAR_MS),
        (30, 30_000),
        (0.25, 250),
        # Not exact in binary: the nearest millisecond is meant, not the one below.
        ("1.001s", 1_001),
        ("4.35m", 261_000),
        (1.001, 1_001),
    ],
)
def test_what_a_duration_means(written: Any, milliseconds: int) -> None:
    assert FIELD.validate_python(written) == milliseconds


NOT_A_TEXT = "{!r} is not a duration: write 500ms, 30s, 5m, 24h or 7d"
NOT_A_VALUE = "{!r} is not a duration: write 30s, 5m, 24h or a number of seconds"
OUTSIDE = "{0!r} is not from 1ms to 366d"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", NOT_A_TEXT),
        ("soon", NOT_A_TEXT),
        ("30", NOT_A_TEXT),
        ("30 s", NOT_A_TEXT),
        ("-5s", NOT_A_TEXT),
        ("1h30m", NOT_A_TEXT),
        ("1e3s", NOT_A_TEXT),
        ("5S", NOT_A_TEXT),
        (True, NOT_A_VALUE),
        (None, NOT_A_VALUE),
        ([30], NOT_A_VALUE),
        (0, OUTSIDE),
        ("0s", OUTSIDE),
        (-1, OUTSIDE),
        ("0.1ms", OUTSIDE),
        ("367d", OUTSIDE),
        (10**40, OUTSIDE),
    ],
)
def test_what_is_no_duration_says_why(written: Any, why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FIELD.validate_python(written)
    message = caught.value.errors()[0]["msg"].removeprefix("Value error, ")
    assert message == why.format(written)


@pytest.mark.parametrize("written", [float("inf"), float("nan"), "9" * 400 + "d"])
def test_numbers_beyond_all_bounds_are_refused_like_any_other(written: Any) -> None:
    """YAML has `.inf` and `.nan`: an author's mistake, not a crash."""
    with pytest.raises(ValidationError):
        FIELD.validate_python(written)


@pytest.mark.parametrize(
    ("milliseconds", "written"),
    [
        (1, "1ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_001, "1001ms"),
        (60_000, "1m"),
        (90_000, "90s"),
        (3_600_000, "1h"),
        (86_400_000, "1d"),
        (90_000_000, "25h"),
        (0, "0ms"),
    ],
)
def test_the_shortest_exact_text(milliseconds: int, written: str) -> None:
    assert text(milliseconds) == written


@given(st.integers(1, YEAR_MS))
def test_every_duration_survives_being_written(milliseconds: int) -> None:
    assert parse(text(milliseconds)) == milliseconds
    assert FIELD.validate_json(FIELD.dump_json(milliseconds)) == milliseconds


@given(st.text(alphabet="0123456789.smhd -", max_size=8))
def test_the_published_pattern_admits_exactly_what_is_parsed(written: str) -> None:
    published = FIELD.json_schema()["anyOf"][0]["pattern"]
    admitted = re.search(published, written) is not None
    try:
        parse(written)
    except ValueError:
        assert not admitted
    else:
        assert admitted or written != written.strip()

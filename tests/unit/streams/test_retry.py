"""Back-off: how long each wait is, and that the same task always waits the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streams.retry import RetryPolicy


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ({}, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]),
        ({"factor": 1}, [1_000, 1_000, 1_000]),
        ({"initialDelay": "10ms", "factor": 10, "maxDelay": "1s"}, [10, 100, 1_000, 1_000]),
        ({"initialDelay": "5s", "maxDelay": "2s"}, [2_000, 2_000]),
        ({"initialDelay": "3ms", "factor": 1.5}, [3, 4, 6, 10]),
    ],
)
def test_without_jitter_delays_grow_to_the_cap(policy: dict[str, Any], delays: list[int]) -> None:
    retry = RetryPolicy.model_validate({**policy, "jitter": 0})
    assert [retry.delay_ms("t", n) for n in range(1, len(delays) + 1)] == delays


def test_the_last_delay_of_the_longest_policy_is_the_cap() -> None:
    assert RetryPolicy(attempts=100, factor=10, jitter=0).delay_ms("t", 99) == 60_000


@given(st.text(), st.integers(1, 99), st.floats(0, 1))
def test_jitter_takes_off_at_most_its_share(task: str, attempt: int, jitter: float) -> None:
    full = RetryPolicy(jitter=0).delay_ms(task, attempt)
    delay = RetryPolicy(jitter=jitter).delay_ms(task, attempt)
    assert int(full * (1 - jitter)) <= delay <= full


def test_jitter_is_derived_from_the_task() -> None:
    retry = RetryPolicy(jitter=1)
    # A replay has to make the same delay, so these figures may never change.
    assert [retry.delay_ms(f"r/a/{n}", 1) for n in (1, 2, 3)] == [282, 817, 649]
    spread = [retry.delay_ms(f"run-{n}/a/1", 1) for n in range(1_000)]
    assert min(spread) < 50
    assert max(spread) > 950
    assert 400 < sum(spread) / len(spread) < 600


@pytest.mark.parametrize(
    ("fields", "path", "why"),
    [
        ({"attempts": 0}, ("attempts",), "Input should be greater than or equal to 1"),
        ({"attempts": 101}, ("attempts",), "Input should be less than or equal to 100"),
        ({"factor": 0.5}, ("factor",), "Input should be greater than or equal to 1"),
        ({"factor": float("nan")}, ("factor",), "Input should be less than or equal to 10"),
        ({"jitter": 1.1}, ("jitter",), "Input should be less than or equal to 1"),
        ({"maxDelay": 0}, ("maxDelay",), "Value error, 0 is not from 1ms to 366d"),
        ({"retries": 3}, ("retries",), "Extra inputs are not permitted"),
    ],
)
def test_policies_that_make_no_sense(
    fields: dict[str, Any], path: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        RetryPolicy.model_validate(fields)
    assert [(e["loc"], e["msg"]) for e in caught.value.errors()] == [(path, why)]

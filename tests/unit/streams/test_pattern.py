"""Event-type patterns: which are well formed, and what they match."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.pattern import check, matches

TYPES = ["repo", "repo.push", "repo.push.main", "alert.push", "repo.pushed", "x.repo.push"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("repo.push", ["repo.push"]),
        ("repo", ["repo"]),
        ("repo.*", ["repo.push", "repo.pushed"]),
        ("*.push", ["repo.push", "alert.push"]),
        ("*", ["repo"]),
        ("*.*", ["repo.push", "alert.push", "repo.pushed"]),
        ("repo.>", ["repo.push", "repo.push.main", "repo.pushed"]),
        ("*.push.>", ["repo.push.main"]),
        ("*.>", ["repo.push", "repo.push.main", "alert.push", "repo.pushed", "x.repo.push"]),
        (">", TYPES),
        ("Repo.push", []),
    ],
)
def test_what_a_pattern_matches(pattern: str, matched: list[str]) -> None:
    assert check(pattern) is None
    assert [t for t in TYPES if matches(pattern, t)] == matched


@pytest.mark.parametrize(
    ("pattern", "event_type"),
    [("a-b.c_d", "a-b.c_d"), ("urn:x/y.Z1", "urn:x/y.Z1"), ("a.*", "a.b c"), ("a.>", "a.ö.?")],
)
def test_unusual_characters_match_themselves(pattern: str, event_type: str) -> None:
    assert check(pattern) is None
    assert matches(pattern, event_type)


NO_SEGMENT = "{} is not a segment of an event-type pattern"
NOT_LAST = "'>' stands for the rest and must be the last segment"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", NO_SEGMENT.format("''")),
        ("a..b", NO_SEGMENT.format("''")),
        ("a.", NO_SEGMENT.format("''")),
        (".a", NO_SEGMENT.format("''")),
        ("a b", NO_SEGMENT.format("'a b'")),
        ("repo.pu*", NO_SEGMENT.format("'pu*'")),
        ("repo.**", NO_SEGMENT.format("'**'")),
        ("a.[b]", NO_SEGMENT.format("'[b]'")),
        ("a.b\n", NO_SEGMENT.format(r"'b\n'")),
        (">.a", NOT_LAST),
        ("a.>.>", NOT_LAST),
    ],
)
def test_malformed_patterns_say_why(pattern: str, why: str) -> None:
    assert check(pattern) == why


segments = st.lists(st.sampled_from(["a", "b", "ab", "*"]), min_size=1, max_size=4)


def _model(pattern: list[str], event_type: list[str]) -> bool:
    if pattern == [">"]:
        return bool(event_type)
    if not pattern or not event_type:
        return pattern == event_type
    return pattern[0] in ("*", event_type[0]) and _model(pattern[1:], event_type[1:])


@given(segments, st.booleans(), st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5))
def test_matching_agrees_with_a_walk_over_segments(
    pattern: list[str], rest: bool, event_type: list[str]
) -> None:
    pattern = [*pattern, ">"] if rest else pattern
    assert matches(".".join(pattern), ".".join(event_type)) == _model(pattern, event_type)

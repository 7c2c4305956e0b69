"""What holds for every workflow, whatever its agents do and in whatever order messages come.

A run of a random definition, which may use every feature there is, is fed with answers, signs of
life, approvals, events, time, pauses and cancels, stale and repeated messages, and then brought to
its end. `JudgedRun` holds every step against the laws.
"""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged_run import RUN_ENDS, SMALL, JudgedRun, effects, wire
from random_life import ENDS, bring_to_end, chaos
from random_workflow import Choose, definition

from streams import codec
from streams.lifecycle import RunState, evolve
from streams.messages import Cancel
from streams.plan import parse
from streams.run import DEFAULT_LIMITS, Limits


class Chooser:
    """Choices of hypothesis, in the form that `random_workflow` wants."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def __call__(self, options: Sequence[Any]) -> Any:
        return self._data.draw(st.sampled_from(options))


def alive(choose: Choose, limits: Limits = SMALL, most: int = 40) -> JudgedRun:
    return chaos(parse(definition(choose, "w", children=("w2",))), choose, limits, most)


slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ends = st.sampled_from(ENDS)


def comes_to_one_end(life: JudgedRun, end: str) -> None:
    bring_to_end(life, end)
    final, decided = life.state, len(life.decisions)
    for message, at in [*life.heard, (Cancel(run="r1", reason="late"), life.now)]:
        life.hear(message, at)
        life.hear(message, life.now + 10**9)
    assert life.state is final
    assert len(life.decisions) == decided
    assert sum(type(event) in RUN_ENDS for event in life.events) == 1


@settings(slow, max_examples=150)
@given(ends, st.data())
def test_every_run_comes_to_exactly_one_end_and_stays_there(end: str, data: st.DataObject) -> None:
    comes_to_one_end(alive(Chooser(data)), end)


@pytest.mark.parametrize("first", range(0, 1_000, 250))
def test_a_thousand_seeded_runs_do_so_too(first: int) -> None:
    """Many more than hypothesis has the time for, and the same ones in every test run."""
    for seed in range(first, first + 250):
        chance = random.Random(seed)
        life = alive(chance.choice, SMALL if seed % 4 else DEFAULT_LIMITS)
        try:
            comes_to_one_end(life, chance.choice(ENDS))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


@settings(slow, max_examples=50)
@given(ends, st.data())
def test_the_same_messages_make_the_same_bytes(end: str, data: st.DataObject) -> None:
    life = alive(Chooser(data))
    bring_to_end(life, end)
    # Another owner: nothing shared, everything read from the log, the plan made anew.
    plan = parse(msgspec.json.decode(life.plan.spec.canonical()))
    other = JudgedRun(plan, life.limits)
    other.blobs = dict(life.blobs)
    for message, at in life.heard:
        other.hear(codec.messages.decode(codec.encode(message)), at)
    assert [effects(o) for o in other.outcomes] == [effects(o) for o in life.outcomes]


@settings(slow, max_examples=50)
@given(st.data())
def test_replaying_the_log_gives_the_state_at_every_point(data: st.DataObject) -> None:
    life = alive(Chooser(data))
    state: RunState | None = None
    for outcome in life.outcomes:
        assert outcome.decision is not None
        assert outcome.state is not None
        state = evolve(state, codec.decisions.decode(codec.encode(outcome.decision)))
        assert wire(state) == wire(outcome.state)


@settings(slow, max_examples=50)
@given(ends, st.data())
def test_a_run_within_the_usual_limits_ends_too(end: str, data: st.DataObject) -> None:
    life = alive(Chooser(data), DEFAULT_LIMITS, most=20)
    bring_to_end(life, end)

"""Thousands of random histories of the engine, and proof that the simulator would see it fail."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import LawBrokenError
from msgspec.structs import replace
from simulated_agents import GroupConsumer
from simulated_log import SimulatedOutbox
from simulated_work import published
from simulator import Faults, World, check
from structlog.testing import capture_logs

from agents.recent_results import RecentResults
from agents.runtime import AgentRuntime
from streams import codec, orchestrator, topics
from streams.events import Event
from streams.faust_shell import Batch
from streams.messages import Cancel, Result, Task
from streams.router import Router
from streams.run import Outcome
from streams.run_store import RunStore
from streams.timers import Timers
from streams.watermark import Watermark, encode

HISTORIES = 100
FAULTS = (
    "crashes in ['batch",
    "zombie in ['batch",
    "crashes in ['router",
    "crashes in ['timers",
    "rebal",
    "is away",
)
"""What the simulator says where it hurts."""


@pytest.mark.parametrize("first", range(0, 1_300, HISTORIES))
def test_every_history_keeps_the_laws(first: int) -> None:
    _check_all(range(first, first + HISTORIES), Faults())


@pytest.mark.parametrize("first", range(0, 400, HISTORIES))
def test_histories_with_one_owner_at_a_time_keep_the_laws(first: int) -> None:
    _check_all(range(first, first + HISTORIES), Faults(zombie=0))


MIXES = st.builds(
    Faults,
    *(st.sampled_from((0.0, often, 3 * often)) for often in Faults()[:-1]),
    tear_state=st.just(False),  # it tears what Kafka writes whole
)
"""Each kind of fault not at all, as often as usual, or three times as often."""


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), faults=MIXES, data=st.data())
def test_any_workflows_under_any_mix_of_faults_keep_the_laws(
    seed: int, faults: Faults, data: st.DataObject
) -> None:
    """What fails is shrunk: to the fewest kinds of faults, and the simplest workflows."""
    check(seed, faults, workflows=published(lambda options: data.draw(st.sampled_from(options))))


def test_the_histories_are_eventful() -> None:
    """The faults happen where they hurt, and runs end in every way there is."""
    seen: Counter[str] = Counter()
    for seed in range(200):
        said: list[str] = []
        with capture_logs():
            world = World(seed, say=said.append)
            world.run()
        for text in said:
            for word in FAULTS:
                seen[word] += word in text
        known = set()
        for record in world.log.everything(topics.EVENTS):
            decision = codec.decisions.decode(record.value)
            seen["event again"] += (decision.run, decision.seq) in known
            known.add((decision.run, decision.seq))
            seen.update(type(event).__name__ for event in decision.events)
            seen["payload by reference"] += b'{"$blob"' in (record.value or b"")
            seen["step of a run"] += getattr(decision.events[0], "parent", None) is not None
            seen["event of an end"] += b'"type":"commandcenter.run.finished"' in (
                record.value or b""
            )
    started = {kind.__name__ for kind in Event.__args__} - {"NodeReused", "NodeEdited"}
    wanted = {*FAULTS, *started, "event again", "payload by reference", "step of a run"}
    wanted.add("event of an end")
    assert {word for word in wanted if seen[word] < 10} == set()


def test_a_seed_is_one_history_in_every_process() -> None:
    script = Path(__file__).with_name("simulator.py")
    traces = {
        subprocess.run(
            [sys.executable, str(script), "--from", "7", "--seeds", "3", "--trace"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.rpartition("\n3 histories")[0]
        for seed in ("1", "2")
    }
    (trace,) = traces
    assert trace.count("\n") > 300


# --- would it see a defect? -----------------------------------------------------------------------


def _state_in_parts(_: pytest.MonkeyPatch) -> Faults:
    """A write of state that is not atomic."""
    return Faults(zombie=0, tear_state=True)


def _decision_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A decision that is not the same when it is made again."""
    times = iter(range(10**9))
    decide = orchestrator.decide

    def by_the_clock(state: Any, message: Any, at: int, *rest: Any, **named: Any) -> Any:
        return decide(state, message, at + next(times), *rest, **named)

    monkeypatch.setattr(orchestrator, "decide", by_the_clock)
    return Faults(zombie=0)


def _forgotten_node(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A change of state that is not written."""
    changes = RunStore.changes

    def without_one(self: RunStore, before: Any, outcome: Any) -> Iterator[Any]:
        written = list(changes(self, before, outcome))
        yield from written[:-1] if len(written) > 2 else written

    monkeypatch.setattr(RunStore, "changes", without_one)
    return Faults(zombie=0)


def _lost_timer(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A run that is never woken."""
    monkeypatch.setattr(Timers, "set", lambda *_: None)
    return Faults(zombie=0)


def _leaked_timer(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A timer that outlives its run."""
    monkeypatch.setattr(Timers, "cancel", lambda *_: None)
    return Faults(zombie=0, clock=0)


def _state_before_outputs(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A worker that writes what it has decided before it says so."""
    deliver = SimulatedOutbox.deliver
    kept: dict[SimulatedOutbox, Any] = {}

    async def late(self: SimulatedOutbox, parcel: Any, **how: Any) -> list[None]:
        written = {topic for (topic, _), _ in parcel.partitions()}
        if topics.EVENTS in written:
            kept[self] = parcel
            return []
        sent = await deliver(self, parcel, **how)
        if topics.STATE in written and self in kept:
            await deliver(self, kept.pop(self))
        return sent

    monkeypatch.setattr(SimulatedOutbox, "deliver", late)
    return Faults(zombie=0)


def _offset_ahead(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A resume position past what the state has."""
    own = orchestrator.Orchestrator.own
    monkeypatch.setattr(orchestrator.Orchestrator, "own", lambda *given: (own(*given) or -1) + 1)
    return Faults(zombie=0, redeliver=0)


def _lost_payload(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A payload that is named before it is kept, and then is not."""

    async def nothing(*_: Any) -> None:
        pass

    monkeypatch.setattr(orchestrator.Orchestrator, "_until_kept", nothing)
    return Faults(zombie=0)


def _forgotten_items(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What a node fans out over is not written."""
    _decides(monkeypatch, lambda outcome: replace(outcome, listed=frozenset()))
    return Faults(zombie=0)


def _silent_end(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A run whose end nobody is told of."""
    _decides(monkeypatch, lambda outcome: replace(outcome, announcement=None))
    return Faults(zombie=0)


def _silent_step(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A run that does not tell the one that it is a step of."""
    _decides(monkeypatch, lambda outcome: replace(outcome, messages=()))
    return Faults(zombie=0)


def _orders_are_not_given(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Agents that are not told that their work is not wanted."""
    _decides(monkeypatch, lambda outcome: replace(outcome, cancellations=()))
    return Faults(zombie=0)


def _steps_are_not_started(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Runs that are asked for as steps, and never started."""
    _decides(monkeypatch, lambda outcome: replace(outcome, requests=()))
    return Faults(zombie=0)


def _decides(monkeypatch: pytest.MonkeyPatch, change: Callable[[Outcome], Outcome]) -> None:
    decide = orchestrator.decide

    def changed(*given: Any, **named: Any) -> Outcome:
        return change(decide(*given, **named))

    monkeypatch.setattr(orchestrator, "decide", changed)


def _cancels_of_steps_overtake(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A cancel of a step that goes straight to its inbox, where its start may not be yet."""

    def straight(outcome: Outcome) -> Outcome:
        cancels = [m for m in outcome.messages if isinstance(m, Cancel)]
        others = [m for m in outcome.messages if m not in cancels]
        direct = [replace(m, by_parent=False) for m in cancels]
        return replace(outcome, messages=(*others, *direct))

    _decides(monkeypatch, straight)
    return Faults(zombie=0)


def _offset_of_events_ahead(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Events whose offset is committed before they are routed."""
    process = Router.process

    async def ahead(self: Router, batches: Any) -> None:
        await process(self, [Batch(b.tp, 1, b.records[:-1]) for b in batches])

    monkeypatch.setattr(Router, "process", ahead)
    return Faults(zombie=0)


def _tasks_committed_before_their_results(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A worker that acknowledges a task as soon as it is finished."""
    finish = AgentRuntime._finish

    def at_once(self: AgentRuntime, place: Any, offset: int) -> None:
        finish(self, place, offset)
        self._finished.pop()
        watermark = self._watermarks.get(place)
        if watermark is not None:
            watermark.done(offset)
            self._app.batches.mark_done(*place, watermark.next_offset, watermark.note)

    monkeypatch.setattr(AgentRuntime, "_finish", at_once)
    return Faults(zombie=0)


def _tasks_committed_out_of_order(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """An offset that is committed past a task under way."""

    def past_all(self: Watermark) -> None:
        self.next_offset = self._last + 1

    monkeypatch.setattr(Watermark, "_move", past_all)
    return Faults(zombie=0)


def _too_much_is_noted(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A commit that says of a task under way that it is done."""

    def everything(self: Watermark) -> str:
        first = self.next_offset or 0
        return encode(first, [(first + 1, self._last + 1)]) if first < self._last else ""

    monkeypatch.setattr(Watermark, "note", everything)
    return Faults(zombie=0)


def _tasks_sent_twice_are_acknowledged_once(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A task with two records, of which the first is never done with."""
    conclude = AgentRuntime._conclude

    def the_last(self: AgentRuntime, task: Task, result: Result) -> None:
        del self._places[task.id][:-1]
        conclude(self, task, result)

    monkeypatch.setattr(AgentRuntime, "_conclude", the_last)
    return Faults(zombie=0)


def _results_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A finished task that is delivered again, and worked on again."""
    monkeypatch.setattr(RecentResults, "get", lambda *_: None)
    return Faults(zombie=0)


def _too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """An agent that is given more than it can do."""

    async def free(_: asyncio.Semaphore) -> bool:
        return True

    monkeypatch.setattr(asyncio.Semaphore, "acquire", free)
    return Faults(zombie=0)


def _tasks_begun_twice(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A task that is begun again while it is under way, because it came again."""
    accept = AgentRuntime.accept

    async def forgetful(self: AgentRuntime, batch: Batch) -> None:
        kept, self._places = self._places, {}
        await accept(self, batch)
        self._places = kept | self._places

    monkeypatch.setattr(AgentRuntime, "accept", forgetful)
    return Faults(zombie=0)


def _fetching_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A partition that is held while much is in hand, and never released."""
    monkeypatch.setattr(GroupConsumer, "release", lambda *_: None)
    return Faults(zombie=0)


Defect = Callable[[pytest.MonkeyPatch], Faults]
DEFECTS: list[Defect] = [
    _state_in_parts,
    _decision_by_the_wall_clock,
    _forgotten_node,
    _lost_timer,
    _leaked_timer,
    _state_before_outputs,
    _offset_ahead,
    _lost_payload,
    _forgotten_items,
    _silent_end,
    _silent_step,
    _orders_are_not_given,
    _steps_are_not_started,
    _cancels_of_steps_overtake,
    _offset_of_events_ahead,
    _tasks_committed_before_their_results,
    _tasks_committed_out_of_order,
    _too_much_is_noted,
    _tasks_sent_twice_are_acknowledged_once,
    _results_are_not_remembered,
    _too_many_at_once,
    _tasks_begun_twice,
    _fetching_does_not_go_on,
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.__name__.strip("_"))
def test_the_simulator_sees(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = defect(monkeypatch)
    with pytest.raises(LawBrokenError) as caught:
        _check_all(range(300), faults)
    assert "simulator.py --from" in caught.value.__notes__[0]


def _check_all(seeds: range, faults: Faults) -> None:
    for seed in seeds:
        check(seed, faults)

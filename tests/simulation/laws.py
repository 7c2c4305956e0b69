"""What must be true of a log, whatever happened while it was written (the design's laws 2 to 5)."""

from typing import Any, Final

from simulated_log import Log

from streams import codec, topics
from streams.lifecycle import TERMINAL, RunState, evolve
from streams.records import (
    Decision,
    NodeDispatched,
    RunCancelled,
    RunFailed,
    RunStatus,
    RunSucceeded,
    RunTimedOut,
    Start,
    Task,
)
from streams.run_store import OFFSET_KEY, RunStore, records_of

_ENDS: Final = (RunSucceeded, RunFailed, RunTimedOut, RunCancelled)


class LawBrokenError(AssertionError):
    """The engine did what it must never do."""


def check_events(log: Log) -> dict[str, RunState]:
    """No event exists in two versions, none is missing; gives the state that they make."""
    kept: dict[tuple[str, int], bytes] = {}
    states: dict[str, RunState] = {}
    ends: dict[str, int] = {}
    for record in log.everything(topics.EVENTS):
        assert record.value is not None
        decision = codec.decisions.decode(record.value)
        place = (decision.run, decision.seq)
        known = kept.setdefault(place, record.value)
        if known != record.value:
            raise LawBrokenError(f"{place} exists twice:\n  {known!r}\n  {record.value!r}")
        state = states.get(decision.run)
        expected = 0 if state is None else state.head.seq
        if decision.seq < expected:
            continue  # a duplicate; that its bytes are the same was checked above
        if decision.seq > expected:
            raise LawBrokenError(f"run {decision.run}: after {expected - 1} comes {decision.seq}")
        try:
            states[decision.run] = evolve(state, decision)
        except AssertionError as error:
            raise LawBrokenError(f"{place} cannot follow: {error}") from error
        ends[decision.run] = ends.get(decision.run, 0) + _ends(decision)
    for run, count in ends.items():
        if count > 1:
            raise LawBrokenError(f"run {run} ended {count} times")
    return states


def _ends(decision: Decision) -> int:
    return sum(isinstance(event, _ENDS) for event in decision.events)


def check_tasks(log: Log) -> None:
    """Every task that an event says was sent was sent, and was not sent in two versions."""
    sent: dict[str, bytes] = {}
    for record in log.everything(topics.TASKS_PREFIX):
        assert record.key is not None
        assert record.value is not None
        if sent.setdefault(record.key.decode(), record.value) != record.value:
            raise LawBrokenError(f"task {record.key.decode()} exists in two versions")
    said: dict[str, NodeDispatched] = {}
    for record in log.everything(topics.EVENTS):
        decision = codec.decisions.decode(record.value)
        if decision.status not in TERMINAL:
            said |= {e.task: e for e in decision.events if isinstance(e, NodeDispatched)}
    if lost := sorted(said.keys() - sent.keys()):
        raise LawBrokenError(f"tasks that were never sent: {lost}")
    for name, value in sent.items():
        task: Task = codec.tasks.decode(value)
        if name not in said or said[name].inputs != task.inputs:
            raise LawBrokenError(f"task {name} is not the one of the events")


def check_table(log: Log, states: dict[str, RunState], partition: int, table: Any) -> None:
    """The table of a partition whose inbox is read to the end is what the events say."""
    expected: dict[bytes, bytes] = {}
    for record in log.read(topics.INBOX, partition):
        run = codec.messages.decode(record.value).run
        if run in states:
            expected |= dict(records_of(states[run]))
    found = {key: value for key, value in table.items() if key != OFFSET_KEY}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise LawBrokenError(
                f"table of partition {partition}, {key.decode()}:\n"
                f"  by the events {expected.get(key)!r}\n  in the table  {found.get(key)!r}"
            )


def check_ended(log: Log, states: dict[str, RunState]) -> None:
    """Every trigger that was accepted has come to its end."""
    for record in log.everything(topics.INBOX):
        message = codec.messages.decode(record.value)
        if isinstance(message, Start):
            state = states.get(message.run)
            status = RunStatus.PENDING if state is None else state.head.status
            if status not in TERMINAL:
                raise LawBrokenError(f"run {message.run} was accepted and is {status}")


def check_timers(store: RunStore) -> None:
    """Exactly what the state waits for has a timer; of runs that have ended nothing is left."""
    states = store._runs.values()
    if ended := [state.head.run for state in states if state.head.status in TERMINAL]:
        raise LawBrokenError(f"partition {store.partition} keeps ended runs: {ended}")
    waits = sum(1 + sum(n.wake_at is not None for n in s.nodes.values()) for s in states)
    if waits != len(store.timers):
        raise LawBrokenError(
            f"partition {store.partition} waits for {waits} times, and has {len(store.timers)}"
            " timers"
        )


def check_letters(log: Log) -> None:
    """Nothing was given up: all that the world sends can be processed."""
    for record in log.everything(topics.DEAD_LETTERS):
        letter = codec.dead_letters.decode(record.value)
        raise LawBrokenError(f"dead letter: {letter.error}: {letter.reason}")

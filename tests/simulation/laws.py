"""What must be true of a log, whatever happened while it was written (the design's laws 2 to 5)."""

from typing import Any, Final

from simulated_log import Log

from streams import codec, topics
from streams.ending import FINISHED_TYPE
from streams.events import (
    Decision,
    NodeDispatched,
    NodeRequested,
    NodeStopping,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)
from streams.ids import task_id
from streams.lifecycle import TERMINAL, RunState, evolve
from streams.messages import Occurrence, Result, Start, Task
from streams.records import Parent, RunStatus
from streams.run_store import OFFSET_KEY, RunStore, records_of

_ENDS: Final = (RunSucceeded, RunFailed, RunTimedOut, RunCancelled)


NOWHERE: Final = "nowhere"
"""A workflow that does not exist."""


class LawBrokenError(AssertionError):
    """The engine did what it must never do."""


def check_events(log: Log) -> dict[str, RunState]:
    """No event exists in two versions, none is missing; gives the state that they make."""
    kept: dict[tuple[str, int], bytes] = {}
    states: dict[str, RunState] = {}
    ends: dict[str, int] = {}
    charged: set[tuple[str, str, int | None, int]] = set()
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
        for event in decision.events:
            if getattr(event, "costs", ()):
                told: Any = event
                attempt = (decision.run, told.node, told.item, told.attempt)
                if attempt in charged:
                    raise LawBrokenError(f"{place} charges {attempt} again")
                charged.add(attempt)
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
        message = codec.messages.decode(record.value)
        if not isinstance(message, Occurrence) and message.run in states:
            expected |= dict(records_of(states[message.run]))
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
    waits = [1 + sum(n.wake_at is not None for n in s.nodes.values()) for s in states]
    # Those of paused runs may have gone by: they are set again when the run is resumed.
    paused = [w for w, s in zip(waits, states, strict=True) if s.head.paused_at is not None]
    most, least = sum(waits), sum(waits) - sum(paused)
    if not least <= len(store.timers) <= most:
        raise LawBrokenError(
            f"partition {store.partition} waits for {least} to {most} times, and has"
            f" {len(store.timers)} timers"
        )


def check_letters(log: Log) -> None:
    """Nothing was given up that can be processed: all but the ends of runs that lead too deep."""
    for record in log.everything(topics.DEAD_LETTERS):
        letter = codec.dead_letters.decode(record.value)
        if letter.topic == topics.TRIGGERS and "COMMANDCENTER_RUN_DEPTH" in letter.reason:
            continue
        raise LawBrokenError(f"dead letter: {letter.error}: {letter.reason}")


def check_ends(log: Log, states: dict[str, RunState]) -> None:
    """The end of every run is told to everybody, and to the run that it is a step of."""
    told: dict[str, bytes] = {}
    for record in log.everything(topics.TRIGGERS):
        headers = dict(record.headers)
        if headers["ce_type"].decode() == FINISHED_TYPE:
            assert record.value is not None
            run = headers["ce_id"].decode()
            if told.setdefault(run, record.value) != record.value:
                raise LawBrokenError(f"the end of run {run} is told in two versions")
    ended = {run for run, state in states.items() if state.head.status in TERMINAL}
    if silent := sorted(ended - told.keys()):
        raise LawBrokenError(f"nobody was told that these runs have ended: {silent}")
    messages = [codec.messages.decode(record.value) for record in log.everything(topics.INBOX)]
    reported = {
        Parent(run=m.run, node=m.node, item=m.item, attempt=m.attempt)
        for m in messages
        if isinstance(m, Result)
    }
    for record in log.everything(topics.EVENTS):
        decision = codec.decisions.decode(record.value)
        first = decision.events[0]
        parent = first.parent if isinstance(first, RunStarted) else None
        if decision.run in ended and parent is not None and parent not in reported:
            raise LawBrokenError(f"run {parent.run} was not told that {decision.run} has ended")


def check_orders(log: Log) -> None:
    """Every agent that a run waits for to end was told to."""
    told = {record.key for record in log.everything(topics.CONTROL)}
    for record in log.everything(topics.EVENTS):
        decision = codec.decisions.decode(record.value)
        asked = {(e.node, e.item) for e in decision.events if isinstance(e, NodeRequested)}
        for event in decision.events:
            if isinstance(event, NodeStopping) and (event.node, event.item) not in asked:
                task = task_id(decision.run, event.node, event.item, event.attempt)
                if _is_task(log, task) and task.encode() not in told:
                    raise LawBrokenError(f"whoever works on {task} was not told to end")


def _is_task(log: Log, name: str) -> bool:
    return any(record.key == name.encode() for record in log.everything(topics.TASKS_PREFIX))


def check_requests(log: Log, states: dict[str, RunState]) -> None:
    """Every run that was asked for as a step exists, if there is such a workflow."""
    for record in log.everything(topics.EVENTS):
        decision = codec.decisions.decode(record.value)
        for event in decision.events:
            asked = isinstance(event, NodeRequested) and event.workflow != NOWHERE
            if asked and event.run not in states:
                raise LawBrokenError(f"run {event.run} was asked for and never started")

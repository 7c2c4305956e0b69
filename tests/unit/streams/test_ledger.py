"""The audit of the log: a sound one has no differences, and every kind of damage has its name."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from small_log import Record, SmallLog, run_of

from streams import codec, ledger, topics
from streams.ending import FINISHED_TYPE, finished_source
from streams.findings import Findings, Place
from streams.ledger import PartitionAudit
from streams.messages import Start
from streams.records import Trigger
from streams.run import DEFAULT_LIMITS, Limits
from streams.run_store import REMEMBERED_MS
from streams.state_log import StateLog
from streams.trigger import IncomingEvent, to_kafka
from streams.trigger_ledger import TriggerAudit, WorkflowHistory


def audit(
    log: SmallLog,
    *letters: Place,
    routed_to: int = 1_000,
    recorded_to: int = 1_000,
    limits: Limits = DEFAULT_LIMITS,
    **window: Any,
) -> Findings:
    findings = Findings()
    history = WorkflowHistory()
    for record in log.workflows:
        history.take(record)
    triggers = TriggerAudit(history, findings, lambda _run: 0, limits)
    for record in log.triggers:
        triggers.take(record, routed_to)
    partition = PartitionAudit(
        0,
        findings,
        triggers.expected[0],
        triggers.told_ends[0],
        recorded_to=recorded_to,
        **window,
    )
    for record in log.state:
        partition.take_state(record)
    for record in log.inbox:
        partition.take_inbox(record)
    for record in log.events:
        partition.take_event(record)
    partition.close()
    findings.excuse(letters)
    return findings


def checks(findings: Findings) -> set[str]:
    return set(findings.difference_counts)


@pytest.fixture
def log() -> SmallLog:
    return SmallLog().some_runs()


def test_a_sound_log_has_no_differences_and_says_what_is_under_way(log: SmallLog) -> None:
    found = audit(log)
    assert found.differences == []
    assert [(one.check, one.subject) for one in found.open] == [("run.unfinished", run_of("going"))]


def test_repetitions_with_the_same_bytes_are_no_difference(log: SmallLog) -> None:
    log.events[5:5] = log.events[2:5]
    log.inbox += [record._replace(offset=100 + record.offset) for record in log.inbox]
    assert audit(log).differences == []


Damage = Callable[[SmallLog], None]


def first(records: list[Record], run: str, skip: int = 0) -> int:
    return [n for n, r in enumerate(records) if (r.key or b"").startswith(run.encode())][skip]


def last_of(records: list[Record], key: str) -> int:
    return max(n for n, record in enumerate(records) if record.key == key.encode())


def edited(record: Record, **fields: Any) -> Record:
    assert record.value is not None
    return record._replace(
        value=msgspec.json.encode({**msgspec.json.decode(record.value), **fields})
    )


def no_start(log: SmallLog) -> None:
    """The router lost the trigger: nothing of the run is anywhere."""
    for records in (log.inbox, log.events, log.state):
        records[:] = [r for r in records if not (r.key or b"").startswith(run_of("good").encode())]


def start_is_lost(log: SmallLog) -> None:
    for records in (log.events, log.state):
        records[:] = [r for r in records if not (r.key or b"").startswith(run_of("good").encode())]


def nobody_started(log: SmallLog) -> None:
    del log.inbox[first(log.inbox, run_of("good"))]


def bad_trigger(log: SmallLog) -> None:
    log.append(topics.TRIGGERS, b"hello")


def large_trigger(log: SmallLog) -> None:
    log.trigger("large", b'{"branch":"main","x":"' + b"x" * 2_000_000 + b'"}')


def large_and_unwanted(log: SmallLog) -> None:
    log.trigger("large", b'{"branch":"other","x":"' + b"x" * 2_000_000 + b'"}')


def tell_end(log: SmallLog, run: str, status: str) -> None:
    """As the system tells it; whoever may write to the topic can."""
    trigger = Trigger(
        id=run,
        source=finished_source("review"),
        type=FINISHED_TYPE,
        subject=status,
        data=Raw(msgspec.json.encode({"run": run, "workflow": "review", "status": status})),
    )
    headers, value = to_kafka(IncomingEvent(trigger))
    log.append(topics.TRIGGERS, value, None, tuple(headers))


def an_end_that_was_not(log: SmallLog) -> None:
    tell_end(log, run_of("good"), "FAILED")


def an_end_of_no_run(log: SmallLog) -> None:
    tell_end(log, "made-up", "SUCCESS")


def two_ends_are_told(log: SmallLog) -> None:
    tell_end(log, run_of("good"), "SUCCESS")
    tell_end(log, run_of("good"), "CANCELLED")


def bad_message(log: SmallLog) -> None:
    log.inbox[4] = log.inbox[4]._replace(value=b"hello")


def bad_event(log: SmallLog) -> None:
    log.append(topics.EVENTS, b"hello", b"x")


def a_gap(log: SmallLog) -> None:
    del log.events[first(log.events, run_of("good"), 2)]


def a_beheaded_run(log: SmallLog) -> None:
    del log.events[first(log.events, run_of("good"))]


def a_conflict(log: SmallLog) -> None:
    again = log.events[first(log.events, run_of("good"), 1)]
    log.events.append(edited(again, at=1))


def two_ends(log: SmallLog) -> None:
    end = msgspec.json.decode(log.events[last_of(log.events, run_of("failed"))].value or b"")
    seq = end["seq"] + len(end["events"])
    again = {**end, "seq": seq, "status": "SUCCESS", "events": [{"type": "run.succeeded"}]}
    log.append(topics.EVENTS, msgspec.json.encode(again), run_of("failed").encode())


def illegal(log: SmallLog) -> None:
    """A node succeeds that was never dispatched."""
    at = first(log.events, run_of("going"), 1)
    value = (log.events[at].value or b"").replace(b'"node":"scan"', b'"node":"tell"')
    log.events[at] = log.events[at]._replace(value=value)


def wrong_status(log: SmallLog) -> None:
    at = first(log.events, run_of("going"), 1)
    value = (log.events[at].value or b"").replace(b'"status":"RUNNING"', b'"status":"PENDING"')
    log.events[at] = log.events[at]._replace(value=value)


def dispatched_twice(log: SmallLog) -> None:
    at = first(log.events, run_of("good"))
    value = (log.events[at].value or b"").replace(b"/lint/1", b"/scan/1")
    log.events[at] = log.events[at]._replace(value=value)


def attempt_ended_twice(log: SmallLog) -> None:
    at = first(log.events, run_of("good"), 4)  # the second attempt at lint succeeds
    value = (log.events[at].value or b"").replace(b'"attempt":2', b'"attempt":1', 1)
    assert value != log.events[at].value
    log.events[at] = log.events[at]._replace(value=value)


def state_differs(log: SmallLog) -> None:
    at = last_of(log.state, run_of("going"))
    log.state[at] = edited(log.state[at], open=7)


def node_is_missing(log: SmallLog) -> None:
    at = last_of(log.state, run_of("going") + "/scan")
    del log.state[at]
    log.state[:] = [r for r in log.state if r.key != (run_of("going") + "/scan").encode()]


def node_was_left(log: SmallLog) -> None:
    log.append(topics.STATE, b"{}", (run_of("good") + "/scan").encode(), (("reads", b"99"),))


def head_is_unreadable(log: SmallLog) -> None:
    at = last_of(log.state, run_of("good"))
    log.state[at] = log.state[at]._replace(value=b"hello")


def state_is_lost(log: SmallLog) -> None:
    key = run_of("good").encode()
    log.state[:] = [r for r in log.state if not (r.key or b"").startswith(key)]


def events_are_lost(log: SmallLog) -> None:
    del log.events[last_of(log.events, run_of("good"))]


def inside_a_decision(log: SmallLog) -> None:
    at = last_of(log.state, run_of("going"))
    log.state[at] = edited(log.state[at], seq=1)


def all_events_are_lost(log: SmallLog) -> None:
    log.events[:] = [r for r in log.events if r.key != run_of("good").encode()]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (no_start, {"trigger.noRun"}),
        (start_is_lost, {"start.noRun"}),
        (nobody_started, {"run.noStart"}),
        (bad_trigger, {"trigger.noLetter"}),
        (large_trigger, {"trigger.noRun"}),
        (large_and_unwanted, {"trigger.noLetter"}),
        (an_end_that_was_not, {"trigger.forged"}),
        (an_end_of_no_run, {"trigger.forged"}),
        (two_ends_are_told, {"trigger.forged"}),
        (bad_message, {"inbox.noLetter"}),
        (bad_event, {"event.noLetter"}),
        (a_gap, {"sequence.gap"}),
        (a_beheaded_run, {"sequence.gap"}),
        (a_conflict, {"sequence.conflict"}),
        (two_ends, {"run.endedTwice"}),
        (illegal, {"history.illegal"}),
        (wrong_status, {"history.illegal"}),
        (dispatched_twice, {"task.twice"}),
        (attempt_ended_twice, {"attempt.endedTwice"}),
        (state_differs, {"state.differs"}),
        (node_is_missing, {"state.differs"}),
        (node_was_left, {"state.differs"}),
        (head_is_unreadable, {"state.differs"}),
        (state_is_lost, {"state.missing"}),
        (events_are_lost, {"state.ahead"}),
        (inside_a_decision, {"state.differs"}),
        (all_events_are_lost, {"state.noEvents"}),
    ],
    ids=lambda case: case.__name__ if callable(case) else "",
)
def test_damage_is_named(log: SmallLog, damage: Damage, found: set[str]) -> None:
    damage(log)
    assert checks(audit(log)) == found


def test_the_end_of_a_run_is_told_as_it_was(log: SmallLog) -> None:
    for name, status in (("good", "SUCCESS"), ("good", "SUCCESS"), ("failed", "FAILED")):
        tell_end(log, run_of(name), status)
    assert audit(log).differences == []
    tell_end(log, run_of("going"), "SUCCESS")
    found = audit(log)
    assert found.differences == []
    assert found.open_counts["trigger.early"] == 1


def test_a_dead_letter_accounts_for_a_record(log: SmallLog) -> None:
    letters = []
    for damage, topic in (
        (bad_trigger, topics.TRIGGERS),
        (large_trigger, topics.TRIGGERS),
        (large_and_unwanted, topics.TRIGGERS),
        (bad_message, topics.INBOX),
        (bad_event, topics.EVENTS),
    ):
        damage(log)
        offset = 4 if topic == topics.INBOX else len(getattr(log, topic.split(".")[1])) - 1
        letters.append(Place(topic, 0, offset))
    assert checks(audit(log)) == {
        "trigger.noLetter", "trigger.noRun", "inbox.noLetter", "event.noLetter",
    }  # fmt: skip
    assert audit(log, *letters).differences == []


def test_what_is_over_a_limit_is_judged_by_the_settings(log: SmallLog) -> None:
    """Wanted or not. What has started its run was not over it when it came."""
    large_and_unwanted(log)
    log.start("wanted", b'{"branch":"main","x":"%s"}' % (b"x" * 2_000_000))
    assert audit(log, limits=Limits(trigger=4_000_000)).differences == []
    assert checks(audit(log, limits=Limits(trigger=1_000_000))) == {"trigger.noLetter"}
    found = audit(log, limits=Limits(trigger=4_000_000, payload=1_999_999))
    [one] = found.differences
    assert one.subject == str(Place(topics.TRIGGERS, 0, 4))
    assert "1,999,999 may be (COMMANDCENTER_PAYLOAD_LIMIT)" in one.text


def test_what_nobody_has_read_yet_is_open(log: SmallLog) -> None:
    log.triggers.append(Record(topics.TRIGGERS, 0, 4, log.at, None, b"hello"))
    routed_to = 4
    start = Start(
        run="new", project="default", workflow="review", version=1,
        trigger=Trigger(id="1", source="/", type="x"),
    )  # fmt: skip
    log.append(topics.INBOX, codec.encode(start), b"new")
    log.append(topics.INBOX, b"hello", b"new")
    bad_event(log)
    found = audit(log, routed_to=routed_to, recorded_to=len(log.events) - 2)
    assert found.differences == []
    assert set(found.open_counts) == {
        "run.unfinished", "trigger.noLetter", "start.noRun", "inbox.noLetter", "event.noLetter",
    }  # fmt: skip


def test_events_ahead_of_the_state_are_open(log: SmallLog) -> None:
    written = len(log.state)
    log.answer("going", "lint")
    log.start("newest")
    del log.state[written:]
    found = audit(log)
    assert found.differences == []
    assert found.open_counts["state.behind"] == 2


def test_a_run_is_forgotten_by_the_table_after_its_time(log: SmallLog) -> None:
    state_is_lost(log)
    log.at += REMEMBERED_MS + 60_000
    log.start("much later")
    assert audit(log).differences == []


def test_state_of_a_replaced_owner_is_ignored_as_a_restore_ignores_it(log: SmallLog) -> None:
    stale = log.state[last_of(log.state, run_of("going")) - 4]
    log.state.append(stale)
    assert audit(log).differences == []
    restored = StateLog()
    restored.restore(log.state)
    table = ledger._Table()
    for record in log.state:
        table.take(record)
    held = {k: v for records in table.runs.values() for k, v in records.items()}
    assert {**held, b"@offset": b"%d" % table.next_offset} == restored.data


class TestSince:
    """A window of the log: what began before it is left out."""

    def windowed(self, log: SmallLog, since: int) -> Findings:
        for records in (log.triggers, log.inbox, log.events):
            records[:] = [r for r in records if r.timestamp >= since]
        return audit(log, whole=False, all_starts=False, since=since)

    def test_runs_that_began_before_are_left_out(self, log: SmallLog) -> None:
        since = log.events[first(log.events, run_of("good"), 2)].timestamp
        found = self.windowed(log, since)
        assert (found.differences, found.open) == ([], [])

    def test_runs_that_began_later_are_audited(self, log: SmallLog) -> None:
        log.at += 1_000
        since = log.at
        log.start("later")
        a_gap_in = first(log.events, run_of("later"))
        assert [one.subject for one in self.windowed(log, since).open] == [run_of("later")]
        del log.events[-1]
        assert log.events == log.events[:a_gap_in]
        assert checks(self.windowed(log, since)) == {"state.noEvents"}

    def test_a_later_run_without_its_first_events_has_a_gap(self, log: SmallLog) -> None:
        log.at += 1_000
        since = log.at
        log.start("later")
        log.answer("later", "scan")
        del log.events[first(log.events, run_of("later"))]
        assert checks(self.windowed(log, since)) == {"sequence.gap"}


class TestTriggers:
    """Which runs the triggers must have started."""

    def missing(self, log: SmallLog) -> set[str]:
        return {found.subject for found in audit(log).differences}

    def test_an_event_that_the_filter_refuses_starts_nothing(self, log: SmallLog) -> None:
        log.trigger("feature", b'{"branch": "feature"}')
        assert self.missing(log) == set()
        log.trigger("main")
        assert self.missing(log) == {run_of("main")}

    def test_a_workflow_starts_nothing_before_it_is_published_nor_when_retired(self) -> None:
        log = SmallLog()
        log.trigger("between")
        log.retire(1)
        log.trigger("retired")
        assert self.missing(log) == set()
        log.publish(2, description="again")
        log.trigger("again")
        assert self.missing(log) == {run_of("again")}
        log.workflows.insert(0, log.workflows[0]._replace(value=b"hello"))
        assert self.missing(log) == {run_of("again")}

    def test_the_first_record_of_a_version_is_the_version(self) -> None:
        log = SmallLog()
        log.publish(1, trigger={"event": "repo.tag"})
        log.trigger("first")
        assert self.missing(log) == {run_of("first")}

    def test_versions_that_all_start_it_leave_no_doubt(self) -> None:
        log = SmallLog()
        log.trigger("first")
        log.publish(2, description="changed")
        assert self.missing(log) == {run_of("first")}
        log.publish(3, trigger={"event": "repo.tag"})
        assert self.missing(log) == set()

"""The runs of one partition: what is written for a change, and what a restore makes of it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from structlog.testing import capture_logs

from streams import codec
from streams.errors import UnreadableRecordError
from streams.lifecycle import RunState
from streams.messages import Cancel, Message, Result, Start, Timer
from streams.plan import parse
from streams.records import Failure, NodeStatus, Trigger
from streams.run import Outcome, decide
from streams.run_store import OFFSET_KEY, REMEMBERED_MS, RunStore, records_of
from streams.state_log import Change

T0 = 1_000_000
MINUTE = 60_000
PLAN = parse(
    {
        "name": "w",
        "timeout": "1h",
        "nodes": [
            {"id": "a", "agent": "x", "action": "y", "timeout": "1m", "retry": {"jitter": 0}},
            {"id": "b", "agent": "x", "action": "y", "timeout": "2m"},
            {"id": "c", "agent": "x", "action": "y", "timeout": "3m", "dependsOn": ["a", "b"]},
        ],
    }
)


def start(run: str) -> Start:
    trigger = Trigger(id="e", source="s", type="t", data=Raw(b"1"))
    return Start(run=run, project="default", workflow="w", version=1, trigger=trigger)


def done(run: str, node: str, attempt: int = 1) -> Result:
    return Result(
        run=run, node=node, attempt=attempt, started_at=1, finished_at=2, output=Raw(b"{}")
    )


def failed(run: str, node: str, attempt: int = 1, *, retryable: bool = True) -> Result:
    failure = Failure(kind="agent_error", message="boom", retryable=retryable)
    return Result(run=run, node=node, attempt=attempt, started_at=1, finished_at=2, failure=failure)


class Owner:
    """A store fed like the orchestrator feeds it: one message a write."""

    def __init__(self, records: dict[bytes, bytes] | None = None) -> None:
        self.records = {} if records is None else records
        self.store = RunStore(0, self.records)
        self.written: list[list[Change]] = []

    def hear(self, message: Message, at: int = T0) -> Outcome:
        before = self.store.get(message.run)
        outcome = decide(before, message, at, PLAN, 0)
        changes = list(self.store.changes(before, outcome))
        if outcome.state is not None:
            changes.append((OFFSET_KEY, b"%d" % (len(self.written) + 1)))
            self.store.take_over([(outcome.state, outcome.touched)], len(self.written) + 1)
            self.store.kept(changes, [message.run] if outcome.state.trigger is None else [])
            self.written.append(changes)
        return outcome

    def restored(self) -> "Owner":
        """Whoever reads the same records next."""
        return Owner(dict(self.records))


def wakes(store: RunStore) -> dict[tuple[str, str], int]:
    """Every timer that is set, with its slot; takes them all out."""
    found: dict[tuple[str, str], int] = {}
    while (due := store.timers.next_due) is not None:
        found |= dict.fromkeys(store.timers.pop_due(due), due)
    return found


def keys(changes: list[Change]) -> dict[str, bool]:
    """Key → whether it is written (True) or deleted."""
    return {key.decode(): value is not None for key, value in changes}


def test_an_empty_partition_has_read_nothing() -> None:
    store = RunStore(5, {})
    assert (store.partition, store.next_offset, len(store)) == (5, None, 0)
    assert store.get("r") is None
    assert store.timers.next_due is None


def test_only_what_changed_is_written() -> None:
    owner = Owner()
    owner.hear(start("r"))
    owner.hear(done("r", "a"))
    owner.hear(done("r", "b"))
    assert [keys(changes) for changes in owner.written] == [
        {"r": True, "r/@trigger": True, "r/a": True, "r/b": True, "@offset": True},
        {"r": True, "r/a": True, "@offset": True},
        {"r": True, "r/b": True, "r/c": True, "@offset": True},
    ]
    state = owner.store.get("r")
    assert state is not None
    # The trigger is in a record of its own, which is not written again.
    assert owner.records == {
        b"r": codec.encode(state.head),
        b"r/@trigger": codec.encode(state.trigger),
        b"r/a": codec.encode(state.nodes["a"]),
        b"r/b": codec.encode(state.nodes["b"]),
        b"r/c": codec.encode(state.nodes["c"]),
        OFFSET_KEY: b"3",
    }
    assert dict(records_of(state)) | {OFFSET_KEY: b"3"} == owner.records
    assert sorted(state.nodes) == ["a", "b", "c"]


ENDS: list[tuple[str, Message, int]] = [
    ("SUCCESS", done("r", "c"), T0),
    ("FAILED", failed("r", "c", retryable=False), T0),
    ("CANCELLED", Cancel(run="r", reason="x", force=True), T0),
]


@pytest.mark.parametrize(("status", "end", "at"), ENDS)
def test_an_ended_run_leaves_its_head_alone(status: str, end: Message, at: int) -> None:
    owner = Owner()
    for message in (start("other"), start("r"), done("r", "a"), done("r", "b")):
        owner.hear(message)
    outcome = owner.hear(end, at)
    assert outcome.state is not None
    assert keys(owner.written[-1]) == {
        "r": True, "r/@trigger": False, "r/a": False, "r/b": False, "r/c": False, "@offset": True,
    }  # fmt: skip
    assert sorted(owner.records) == [
        *(OFFSET_KEY, b"other", b"other/@trigger", b"other/a", b"other/b"),
        b"r",
    ]
    assert outcome.state.head.status.value == status
    # Known by its head from now on, here and after a restore, and no timer is left of it.
    for store in (owner.restored().store, owner.store):
        assert store.get("r") == RunState(outcome.state.head)
        assert len(store) == 1
        assert {run for run, _ in wakes(store)} == {"other"}


def test_a_run_that_begins_and_ends_in_one_decision_is_one_record() -> None:
    owner = Owner()
    before = None
    outcome = decide(before, start("r"), T0, PLAN, 0)
    assert outcome.state is not None
    ended = decide(outcome.state, Cancel(run="r", reason="x", force=True), T0, PLAN, 0)
    assert ended.state is not None
    # A batch that heard both: the later change of a key is the one that is written.
    changes = dict(owner.store.changes(None, outcome))
    changes.update(owner.store.changes(outcome.state, ended))
    owner.store.take_over([(ended.state, frozenset())], 2)
    owner.store.kept(changes.items(), ["r"])
    assert owner.records == {b"r": codec.encode(ended.state.head)}
    assert (len(owner.store), wakes(owner.store)) == (0, {})


def test_a_message_that_is_ignored_writes_nothing() -> None:
    owner = Owner()
    owner.hear(start("r"))
    before = owner.store.get("r")
    ignored = decide(before, start("r"), T0, PLAN, 0)
    assert list(owner.store.changes(before, ignored)) == []


def test_timers_follow_the_state() -> None:
    owner = Owner()
    owner.hear(start("r"))
    deadline = {("r", ""): T0 + 60 * MINUTE}
    assert wakes(owner.restored().store) == {
        **deadline, ("r", "a"): T0 + MINUTE, ("r", "b"): T0 + 2 * MINUTE,
    }  # fmt: skip
    owner.hear(failed("r", "a"), T0 + 100)
    owner.hear(done("r", "b"))
    expected = {**deadline, ("r", "a"): T0 + 1_100}
    assert wakes(owner.restored().store) == expected
    assert wakes(owner.store) == expected


@pytest.mark.parametrize(
    ("node", "now", "due"),
    [
        ("a", T0 + MINUTE - 1, None),
        ("a", T0 + MINUTE, T0 + MINUTE),
        ("a", T0 + 9 * MINUTE, T0 + MINUTE),
        ("b", T0 + 9 * MINUTE, None),  # has ended
        ("c", T0 + 9 * MINUTE, None),  # has not begun
        ("nope", T0 + 9 * MINUTE, None),
        ("", T0 + 60 * MINUTE - 1, None),
        ("", T0 + 60 * MINUTE, T0 + 60 * MINUTE),
    ],
)
def test_what_is_due(node: str, now: int, due: int | None) -> None:
    owner = Owner()
    owner.hear(start("r"))
    owner.hear(done("r", "b"))
    assert owner.store.due(("r", node), now) == due
    assert owner.store.due(("nobody", node), now) is None


def test_a_restore_resumes_where_the_state_says() -> None:
    owner = Owner()
    owner.hear(start("r"))
    owner.hear(done("r", "a"))
    assert owner.store.next_offset == 2
    again = owner.restored()
    assert again.store.next_offset == 2
    assert again.store.get("r") == owner.store.get("r")
    # … and goes on as if nothing had been.
    assert again.hear(done("r", "b")) == owner.hear(done("r", "b"))


@pytest.mark.parametrize("key", [b"r", b"r/a"])
def test_a_record_that_cannot_be_read_is_said_and_does_not_stop_the_others(key: bytes) -> None:
    owner = Owner()
    for run in ("r", "s"):
        owner.hear(start(run))
    records = {**owner.records, key: b'{"v":9}'}
    with capture_logs() as logs:
        store = RunStore(0, records)
    (log,) = logs
    assert (log["log_level"], log["event"]) == ("error", "a run's state cannot be read")
    assert "format version 9, only 1 is known" in log["why"]
    assert store.get("s") == owner.store.get("s")
    assert len(store) == 1
    assert {run for run, _ in wakes(store)} == {"s"}
    assert records[key] == b'{"v":9}'  # left for whoever can


def test_a_head_that_cannot_be_read_is_not_taken_for_no_run() -> None:
    with capture_logs():
        store = RunStore(0, {b"r": b"{"})
    with pytest.raises(UnreadableRecordError):
        store.get("r")


messages = st.one_of(
    st.builds(start, st.sampled_from("rs")),
    st.builds(done, st.sampled_from("rs"), st.sampled_from("abc"), st.integers(1, 3)),
    st.builds(failed, st.sampled_from("rs"), st.sampled_from("abc"), st.integers(1, 3)),
    st.builds(
        lambda run, node: Timer(run=run, node=node, due=T0 + 30_000 * MINUTE),
        st.sampled_from("rs"),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    st.builds(lambda run: Cancel(run=run, reason="x"), st.sampled_from("rs")),
)


@settings(deadline=None)
@given(st.lists(messages, max_size=25))
def test_a_restored_store_is_the_same_store(heard: list[Message]) -> None:
    owner = Owner()
    for step, message in enumerate([start("r"), start("s"), *heard]):
        owner.hear(message, T0 + step)
        again = owner.restored()
        states: list[Any] = [[o.store.get(run) for run in "rs"] for o in (owner, again)]
        assert states[0] == states[1]
        assert len(again.store) == len(owner.store)
        assert len(again.store.timers) == len(owner.store.timers)
    live = {state.head.run for state in states[0] if not state.head.finished_at}
    expected = {(run, "") for run in live} | {
        (state.head.run, node.node)
        for state in states[0]
        for node in state.nodes.values()
        if node.status in (NodeStatus.RUNNING, NodeStatus.RETRYING)
    }
    assert wakes(owner.store) == wakes(again.store)
    assert set(wakes(owner.restored().store)) == expected


def test_an_ended_run_is_forgotten_after_a_week() -> None:
    owner = Owner()
    for message in (start("r"), Cancel(run="r", reason="x", force=True)):
        owner.hear(message)
    for store in (owner.store, owner.restored().store):
        assert store.forgotten(T0 + REMEMBERED_MS) == []
        assert store.forgotten(T0 + REMEMBERED_MS + 1) == [(b"r", None)]
        assert store.forgotten(T0 + 2 * REMEMBERED_MS) == []

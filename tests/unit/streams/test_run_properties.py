"""What holds for every workflow, whatever its agents do and in whatever order messages come.

A life is fed with results, time-outs, cancels, stale and repeated messages, then brought to its
end. The legal moves are written out here again, so that a change of the tables has to be meant.
"""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from streams import codec
from streams.lifecycle import RunState, evolve
from streams.plan import Plan, parse
from streams.records import (
    Cancel,
    Decision,
    Failure,
    Message,
    NodeCancelled,
    NodeDispatched,
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    NodeSucceeded,
    Result,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunStatus,
    RunSucceeded,
    RunTimedOut,
    Start,
    Task,
    Timer,
    Trigger,
)
from streams.run import Outcome, decide

T0 = 1_700_000_000_000
ENDED = {"SUCCESS", "FAILED", "SKIPPED", "CANCELLED"}
BECOMES: dict[type, str] = {
    NodeDispatched: "RUNNING",
    NodeSucceeded: "SUCCESS",
    NodeRetrying: "RETRYING",
    NodeFailed: "FAILED",
    NodeSkipped: "SKIPPED",
    NodeCancelled: "CANCELLED",
}
NODE_MOVES = {
    ("PENDING", "RUNNING"),
    ("PENDING", "FAILED"),
    ("PENDING", "SKIPPED"),
    ("PENDING", "CANCELLED"),
    ("RUNNING", "SUCCESS"),
    ("RUNNING", "RETRYING"),
    ("RUNNING", "FAILED"),
    ("RUNNING", "CANCELLED"),
    ("RETRYING", "RUNNING"),
    ("RETRYING", "CANCELLED"),
}
RUN_ENDS: dict[type, RunStatus] = {
    RunSucceeded: RunStatus.SUCCESS,
    RunFailed: RunStatus.FAILED,
    RunTimedOut: RunStatus.TIMED_OUT,
    RunCancelled: RunStatus.CANCELLED,
}
OUTPUTS = [b'{"x":{"y":[1,2.5,"z"]}}', b'{"x":null}', b"{}", b"[]", b'"text"', b"null"]

Heard = tuple[Message, int]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any graph of up to six nodes, with references that may or may not lead somewhere."""
    nodes = []
    above: dict[str, set[str]] = {}
    for n in range(draw(st.integers(1, 6))):
        name = f"n{n}"
        depends = draw(st.lists(st.sampled_from(sorted(above)), unique=True)) if above else []
        above[name] = set(depends).union(*(above[d] for d in depends))
        targets = ["context.a", "context.b", "event.type"]
        targets += [f"nodes.{d}.output{path}" for d in above[name] for path in ("", ".x", ".x.y.0")]
        inputs = {
            str(k): draw(st.sampled_from(["{{ %s }}", "text {{ %s }}"])) % target
            for k, target in enumerate(draw(st.lists(st.sampled_from(sorted(targets)), max_size=2)))
        }
        nodes.append(
            {
                "id": name,
                "agent": "x",
                "action": "y",
                "dependsOn": depends,
                "inputs": inputs,
                "timeout": draw(st.sampled_from(["1ms", "1s", "10m"])),
                "retry": {
                    "attempts": draw(st.integers(1, 3)),
                    "initialDelay": draw(st.sampled_from(["1ms", "3s"])),
                    "jitter": draw(st.sampled_from([0, 1])),
                },
            }
        )
    order = draw(st.permutations(nodes))
    return parse({"name": "w", "timeout": draw(st.sampled_from(["5s", "1d"])), "nodes": order})


class Life:
    """A run under test: everything it heard and decided, checked at every step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: RunState | None = None
        self.heard: list[Heard] = []
        self.decisions: list[Decision] = []
        self.tasks: dict[str, Task] = {}
        self.now = T0
        self.seq = 0
        self.nodes = dict.fromkeys(plan.nodes, "PENDING")
        self.status = RunStatus.PENDING

    @property
    def ended(self) -> bool:
        return self.status in RUN_ENDS.values()

    def hear(self, message: Message, at: int | None = None) -> None:
        at = self.now if at is None else at
        self.heard.append((message, at))
        before = self.state
        outcome = decide(before, message, at, self.plan, 0)
        if outcome.decision is None:
            assert outcome == Outcome(None, None, ignored=outcome.ignored)
            assert outcome.ignored
            return
        assert outcome.state is not None
        assert not self.ended, "a run that has ended decided something"
        assert outcome.ignored == ""
        self._follow(outcome.decision)
        self._agrees(before, outcome)
        self.decisions.append(outcome.decision)
        self.state = outcome.state

    def _follow(self, decision: Decision) -> None:
        """Take the decision's events one by one, as a reader of the log would."""
        assert decision.seq == self.seq
        assert decision.previous == self.status
        assert decision.events
        self.seq += len(decision.events)
        for event in decision.events:
            assert not self.ended, "an event after the run's end"
            if isinstance(event, RunStarted):
                assert self.status is RunStatus.PENDING
                self.status = RunStatus.RUNNING
                assert event.nodes == len(self.nodes)
            elif type(event) in RUN_ENDS:
                assert self.status is RunStatus.RUNNING
                assert set(self.nodes.values()) <= ENDED, "the run ended before its nodes"
                self.status = RUN_ENDS[type(event)]
                self._justified()
            else:
                self._move(event)
        assert decision.status == self.status

    def _move(self, event: Any) -> None:
        before, after = self.nodes[event.node], BECOMES[type(event)]
        assert (before, after) in NODE_MOVES, f"{event.node}: {before} → {after}"
        if after == "RUNNING":
            needs = self.plan.nodes[event.node].spec.depends_on
            assert {self.nodes[d] for d in needs} <= {"SUCCESS"}, "begun before its dependencies"
            assert event.task == f"r1/{event.node}/{event.attempt}"
        self.nodes[event.node] = after

    def _justified(self) -> None:
        ends = set(self.nodes.values())
        if self.status is RunStatus.SUCCESS:
            assert ends == {"SUCCESS"}
        elif self.status is RunStatus.FAILED:
            assert "FAILED" in ends
            assert "CANCELLED" not in ends
        else:
            assert "CANCELLED" in ends

    def _agrees(self, before: RunState | None, outcome: Outcome) -> None:
        """The state is what the events say, and what replaying them gives, byte for byte."""
        state, decision = outcome.state, outcome.decision
        assert state is not None
        assert decision is not None
        assert wire(evolve(before, decision)) == wire(state)
        assert evolve(before, codec.decisions.decode(codec.encode(decision))) == state
        head = state.head
        assert (head.seq, head.status) == (self.seq, self.status)
        if self.ended:
            assert (state.nodes, head.open, outcome.tasks) == ({}, 0, ())
            assert head.finished_at == decision.at
        else:
            assert {n: s.status.value for n, s in state.nodes.items()} == {
                n: s for n, s in self.nodes.items() if s != "PENDING"
            }
            assert head.open == sum(s not in ENDED for s in self.nodes.values())
            old = {} if before is None else before.nodes
            assert outcome.touched == {n for n, s in state.nodes.items() if old.get(n) is not s}
            sent = [e for e in decision.events if isinstance(e, NodeDispatched)]
            assert [(t.id, t.inputs) for t in outcome.tasks] == [(e.task, e.inputs) for e in sent]
            assert all(n.wake_at is None for n in state.nodes.values() if n.status.value in ENDED)
        for task in outcome.tasks:
            assert task.id not in self.tasks, "a task id was used twice"
            self.tasks[task.id] = task


def wire(state: RunState) -> list[bytes]:
    """The bytes of a state's records, in the order of their keys."""
    return [
        codec.encode(state.head),
        *(codec.encode(node) for _, node in sorted(state.nodes.items())),
    ]


def start() -> Start:
    trigger = Trigger(id="e", source="s", type="t", data=Raw(b'{"a":{"deep":[1.50]}}'))
    return Start(run="r1", project="default", workflow="w", version=1, trigger=trigger)


def answer(node: str, attempt: int, outcome: str, output: bytes = b"{}") -> Result:
    """What an agent makes of a task."""
    where: dict[str, Any] = {
        "run": "r1", "node": node, "attempt": attempt, "started_at": 1, "finished_at": 2,
    }  # fmt: skip
    if outcome == "succeeds":
        return Result(**where, output=Raw(output))
    if outcome == "says nothing":
        return Result(**where)
    failure = Failure(kind="agent_error", message="boom", retryable=outcome == "fails")
    return Result(**where, failure=failure)


outcomes = st.sampled_from(["succeeds", "succeeds", "fails", "fails for good", "says nothing"])
attempts = st.integers(0, 3)


def _result(life: Life, data: st.DataObject) -> Heard:
    """An answer to a task that was dispatched at some time."""
    task = life.tasks[data.draw(st.sampled_from(sorted(life.tasks)))]
    output = data.draw(st.sampled_from(OUTPUTS))
    return answer(task.node, task.attempt, data.draw(outcomes), output), life.now


def _any_result(life: Life, data: st.DataObject) -> Heard:
    """An answer that may fit nothing: any node, any attempt."""
    node = data.draw(st.sampled_from([*sorted(life.nodes), "nope"]))
    return answer(node, data.draw(attempts), data.draw(outcomes)), life.now


def _due(life: Life, _: st.DataObject) -> Heard:
    """The next timer of the run, when it is due."""
    return next_timer(life)


def _any_timer(life: Life, data: st.DataObject) -> Heard:
    """A timer that may be early, late, or nobody's."""
    node = data.draw(st.sampled_from([*sorted(life.nodes), "nope", ""]))
    due = life.now + data.draw(st.integers(-10_000, 10_000))
    return Timer(run="r1", node=node, due=due), life.now


def _again(life: Life, data: st.DataObject) -> Heard:
    """Something heard before: delivered again (same time) or sent again (now)."""
    message, at = data.draw(st.sampled_from(life.heard))
    return message, data.draw(st.sampled_from([at, life.now]))


def _start(life: Life, _: st.DataObject) -> Heard:
    return start(), life.now


def _cancel(life: Life, _: st.DataObject) -> Heard:
    return Cancel(run="r1", reason="enough"), life.now


Step = Callable[[Life, st.DataObject], Heard]
STEPS: list[Step] = [
    *[_result] * 5, *[_due] * 2, *[_again] * 2, _any_result, _any_timer, _start, _cancel,
]  # fmt: skip


def next_timer(life: Life) -> Heard:
    """The timer that the state says is due first; the clock goes there."""
    assert life.state is not None
    wakes = [(n.wake_at, name) for name, n in life.state.nodes.items() if n.wake_at is not None]
    due, node = min([*wakes, (life.state.head.deadline, "")])
    life.now = max(life.now, due)
    return Timer(run="r1", node=node, due=due), life.now


def chaos(plan: Plan, data: st.DataObject) -> Life:
    """A life of up to thirty messages, perhaps not at its end yet."""
    life = Life(plan)
    life.hear(start())
    for _ in range(data.draw(st.integers(0, 30))):
        steps = [s for s in STEPS if life.tasks or s is not _result]
        step = data.draw(st.sampled_from(steps), label="step")
        if step is _due and life.ended:
            continue
        message, at = step(life, data)
        life.hear(message, at)
        life.now += data.draw(st.sampled_from([0, 1, 700, 60_000, -500]))
    return life


def bring_to_end(life: Life, outcome: str) -> None:
    """Answer every attempt alike; where nobody answers, time passes."""
    for _ in range(100):
        if life.ended:
            return
        assert life.state is not None
        running = [n for n in life.state.nodes.values() if n.status.value == "RUNNING"]
        if running and outcome != "hangs":
            life.hear(answer(running[0].node, running[0].attempt, outcome))
        else:
            life.hear(*next_timer(life))
    raise AssertionError("the run does not come to its end")


ends = st.sampled_from(["succeeds", "fails", "fails for good", "says nothing", "hangs"])


@settings(max_examples=200, deadline=None)
@given(plans(), ends, st.data())
def test_every_run_comes_to_exactly_one_end_and_stays_there(
    plan: Plan, end: str, data: st.DataObject
) -> None:
    life = chaos(plan, data)
    bring_to_end(life, end)
    final, decided = life.state, len(life.decisions)
    for message, at in [*life.heard, (Cancel(run="r1", reason="late"), life.now)]:
        life.hear(message, at)
        life.hear(message, life.now + 10**9)
    assert life.state is final
    assert len(life.decisions) == decided
    ended = [e for d in life.decisions for e in d.events if type(e) in RUN_ENDS]
    assert len(ended) == 1


@settings(max_examples=100, deadline=None)
@given(plans(), ends, st.data())
def test_the_same_messages_make_the_same_bytes(plan: Plan, end: str, data: st.DataObject) -> None:
    life = chaos(plan, data)
    bring_to_end(life, end)
    # Another owner: nothing shared, everything read from the log, the plan made anew.
    other = Life(parse(plan.spec.model_dump(by_alias=True, mode="json")))
    for message, at in life.heard:
        other.hear(codec.messages.decode(codec.encode(message)), at)
    assert [codec.encode(d) for d in other.decisions] == [codec.encode(d) for d in life.decisions]
    assert {k: codec.encode(t) for k, t in other.tasks.items()} == {
        k: codec.encode(t) for k, t in life.tasks.items()
    }
    assert life.state is not None
    assert other.state is not None
    assert wire(other.state) == wire(life.state)


@settings(max_examples=100, deadline=None)
@given(plans(), st.data())
def test_replaying_the_log_gives_the_state_at_every_point(plan: Plan, data: st.DataObject) -> None:
    life = chaos(plan, data)
    state: RunState | None = None
    for decision in life.decisions:
        state = evolve(state, codec.decisions.decode(codec.encode(decision)))
    assert state is not None
    assert life.state is not None
    assert wire(state) == wire(life.state)

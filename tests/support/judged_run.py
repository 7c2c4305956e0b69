"""A run under test: everything that it hears and decides is held against the laws, at every step.

The laws are written out here again, from the events alone, as a reader of the log would see them:
so a change of the core's tables has to be meant. The run's table and timers are the real ones
(`RunStore`), so that a run that is never woken again is seen as what it is: one that hangs.
"""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import UNSET, Raw, json

from streams import codec
from streams.cost import Cost
from streams.events import (
    Decision,
    Event,
    NodeApprovalRequested,
    NodeApproved,
    NodeAwaiting,
    NodeCancelled,
    NodeCharged,
    NodeDispatched,
    NodeEdited,
    NodeFailed,
    NodeFannedOut,
    NodeProgressed,
    NodeRejected,
    NodeRequested,
    NodeRetrying,
    NodeReused,
    NodeSkipped,
    NodeSleeping,
    NodeStarted,
    NodeStopping,
    NodeSucceeded,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
)
from streams.ids import COMPENSATION, attempt_key, node_key
from streams.lifecycle import TERMINAL, RunState, evolve
from streams.messages import Message, Result, RunRequest, Start, Task, Timer
from streams.payload import MissingBlobError, Reference, reference_in, reference_to
from streams.plan import Plan
from streams.records import Parent, RunStatus, Trigger
from streams.run import Limits, Outcome, decide
from streams.run_store import RunStore, records_of
from streams.timers import SLOT_MS

T0: Final = 1_700_000_000_000
ENDED: Final = frozenset({"SUCCESS", "FAILED", "SKIPPED", "CANCELLED"})
UNDER_WAY: Final = frozenset({"RUNNING", "RETRYING"})
MOVES: Final[dict[type, tuple[frozenset[str], str]]] = {
    NodeReused: (frozenset({"PENDING"}), "SUCCESS"),
    NodeEdited: (frozenset({"PENDING"}), "PENDING"),
    NodeDispatched: (frozenset({"PENDING", "WAITING_APPROVAL", "RETRYING"}), "RUNNING"),
    NodeRequested: (frozenset({"PENDING", "WAITING_APPROVAL", "RETRYING"}), "RUNNING"),
    NodeStarted: (frozenset({"RUNNING"}), "RUNNING"),
    NodeProgressed: (frozenset({"RUNNING"}), "RUNNING"),
    NodeStopping: (frozenset({"RUNNING"}), "RUNNING"),
    NodeApprovalRequested: (frozenset({"PENDING", "RUNNING"}), "WAITING_APPROVAL"),
    NodeApproved: (frozenset({"WAITING_APPROVAL"}), "WAITING_APPROVAL"),
    NodeRejected: (frozenset({"WAITING_APPROVAL"}), "WAITING_APPROVAL"),
    NodeSleeping: (frozenset({"PENDING", "WAITING_APPROVAL"}), "RUNNING"),
    NodeAwaiting: (frozenset({"PENDING", "WAITING_APPROVAL"}), "RUNNING"),
    NodeFannedOut: (frozenset({"PENDING", "WAITING_APPROVAL"}), "RUNNING"),
    NodeSucceeded: (frozenset({"RUNNING"}), "SUCCESS"),
    NodeRetrying: (frozenset({"RUNNING"}), "RETRYING"),
    NodeFailed: (frozenset({"PENDING", "WAITING_APPROVAL", "RUNNING", "RETRYING"}), "FAILED"),
    NodeSkipped: (frozenset({"PENDING"}), "SKIPPED"),
    NodeCancelled: (frozenset({"PENDING", "WAITING_APPROVAL", "RUNNING", "RETRYING"}), "CANCELLED"),
}
"""What a node may be before an event, and is after it."""
BEGINS: Final = (NodeDispatched, NodeRequested, NodeSleeping, NodeAwaiting, NodeFannedOut)
RUN_ENDS: Final[dict[type, RunStatus]] = {
    RunSucceeded: RunStatus.SUCCESS,
    RunFailed: RunStatus.FAILED,
    RunTimedOut: RunStatus.TIMED_OUT,
    RunCancelled: RunStatus.CANCELLED,
}
SMALL: Final = Limits(inline=48, payload=2_000, decision=150, events=400, depth=2, items=6)
"""Limits that random runs come up against."""


class JudgedRun:
    """A run with its table, its timers and its blobs. `hear` breaks where a law is broken."""

    def __init__(self, plan: Plan, limits: Limits = SMALL) -> None:
        self.plan = plan
        self.limits = limits
        self.now = T0
        self.state: RunState | None = None
        self.store = RunStore(0, {})
        self.blobs: dict[str, bytes] = {}
        self.heard: list[tuple[Message, int]] = []
        self.outcomes: list[Outcome] = []
        self.ignored: list[str] = []
        self.tasks: dict[str, Task] = {}
        self.requests: dict[str, RunRequest] = {}
        # What a reader of the events knows.
        self.seq = 0
        self.nodes: dict[str, str] = dict.fromkeys((n.id for n in plan.spec.nodes), "PENDING")
        self.items: dict[str, int] = {}
        self.failures: set[str] = set()
        self.charged: dict[str, tuple[Cost, ...]] = {}
        self.status = RunStatus.PENDING
        self.stage = ""
        self.paused = False
        self.undo: list[str] = []
        self.undone: frozenset[str] = frozenset()
        """What was undone before the run, and is only there to be referred to."""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def events(self) -> list[Event]:
        return [e for d in self.decisions for e in d.events]

    @property
    def decisions(self) -> list[Decision]:
        return [o.decision for o in self.outcomes if o.decision is not None]

    # --- hearing ---

    def hear(self, message: Message, at: int | None = None) -> Outcome:
        at = self.now if at is None else at
        self.heard.append((message, at))
        before = self.state
        in_time = before is not None
        had_ended = self.ended
        outcome = self.decided(before, message, at)
        self._is_pure(message, at, outcome)
        # What is over the limit is not kept: the run would never hear of what was to become of it.
        assert all(len(content) <= self.limits.payload for content in outcome.blobs)
        if outcome.decision is None or outcome.state is None:
            assert outcome == Outcome(None, None, ignored=outcome.ignored)
            assert outcome.ignored
            self.ignored.append(outcome.ignored)
            self._is_charged(message, in_time)
            return outcome
        if self.ended:
            kinds = [type(event) for event in outcome.decision.events]
            assert kinds == [NodeCharged], "a run that has ended decided something"
        assert outcome.ignored == ""
        self.blobs |= {reference_to(content).digest: content for content in outcome.blobs}
        if before is None and isinstance(message, Start):
            self.undone = frozenset(each.node for each in message.undone)
        self._follow(outcome.decision)
        self._replays(before, outcome)
        self._counts(outcome.state)
        self._effects_are_the_events(outcome, had_ended)
        self._new_records_are_told(before, outcome)
        self._lives(outcome.state)
        self.outcomes.append(outcome)
        self.state = outcome.state
        self._is_stored(before, outcome)
        self._is_charged(message, in_time)
        return outcome

    def decided(self, state: RunState | None, message: Message, at: int) -> Outcome:
        """The decision, by a worker that fetches each payload when it turns out to be needed."""
        at_hand: dict[str, bytes] = {}

        def blobs(reference: Reference) -> bytes:
            if reference.digest not in at_hand:
                raise MissingBlobError(reference)
            return at_hand[reference.digest]

        while True:
            try:
                return decide(state, message, at, self.plan, 0, limits=self.limits, blobs=blobs)
            except MissingBlobError as missing:
                digest = missing.reference.digest
                assert digest not in at_hand, "asked for what was given"
                at_hand[digest] = self.blobs[digest]

    def _is_charged(self, message: Message, in_time: bool) -> None:
        """What an attempt cost is charged, whenever the run hears of it."""
        if isinstance(message, Result) and message.costs and in_time:
            key = attempt_key(message.node, message.item, message.attempt)
            assert self.charged.get(key) == message.costs, f"{key} was not charged"

    def _is_pure(self, message: Message, at: int, outcome: Outcome) -> None:
        """Another worker, which read it all from the log, decides the same, to the byte."""
        state = None
        if self.state is not None:
            store = RunStore(0, dict(records_of(self.state)))
            state = store.get(self.state.head.run)
            assert state is not None
            assert wire(state) == wire(self.state)
        other = self.decided(state, codec.messages.decode(codec.encode(message)), at)
        assert effects(other) == effects(outcome)

    # --- the laws ---

    def _follow(self, decision: Decision) -> None:
        assert decision.seq == self.seq
        assert decision.previous == self._status_now()
        assert decision.events
        self.seq += len(decision.events)
        for event in decision.events:
            assert not self.ended or type(event) is NodeCharged, f"after the run's end: {event}"
            if type(event) in RUN_ENDS:
                self._end(event)
            elif isinstance(event, RunStarted):
                assert self.status is RunStatus.PENDING
                assert event.nodes == len(self.nodes)
                self.status = RunStatus.RUNNING
            elif isinstance(event, RunPaused):
                assert not self.paused
                assert self.stage == ""
                self.paused = True
            elif isinstance(event, RunResumed):
                assert self.paused
                self.paused = False
            elif isinstance(event, RunEnding):
                self._enter(event)
            else:
                self._move(event)
            if costs := getattr(event, "costs", ()):
                key = attempt_key(event.node, getattr(event, "item", None), event.attempt)
                assert key not in self.charged, f"{key} was charged twice"
                self.charged[key] = costs
        assert decision.status == self._status_now()

    def _enter(self, event: RunEnding) -> None:
        order = ("", "stopping", "compensating", "handling")
        assert order.index(event.stage) > order.index(self.stage), "stages only go on"
        if event.stage != "stopping":
            assert set(self._top().values()) <= ENDED, f"{event.stage} while nodes are open"
        if event.stage == "compensating":
            self.undo = list(event.undo)
            self.nodes |= dict.fromkeys((n + COMPENSATION for n in event.undo), "PENDING")
        if event.stage == "handling":
            handlers = [n.id for n in self.plan.spec.on_failure]
            assert event.outcome in (RunStatus.FAILED, RunStatus.TIMED_OUT)
            self.nodes |= dict.fromkeys(handlers, "PENDING")
        self.stage = event.stage
        self.paused = False

    def _move(self, event: Any) -> None:
        item = getattr(event, "item", None)
        key = node_key(event.node, item)
        known = item is not None or isinstance(event, NodeEdited)  # of a handler, before its stage
        before = self.nodes.get(key, "PENDING" if known else "unknown")
        if isinstance(event, NodeCharged):
            assert before != "PENDING", f"{key} was never begun"
            assert event.costs
            return
        legal, after = MOVES[type(event)]
        assert before in legal, f"{key} is {before}, and then {type(event).__name__}"
        if isinstance(event, BEGINS) or (
            isinstance(event, NodeApprovalRequested) and event.cause == "workflow"
        ):
            self._may_begin(event, item, before)
        if key in self.nodes or item is not None:
            self.nodes[key] = after
        if isinstance(event, NodeFannedOut):
            self.items[event.node] = event.count
            assert event.count <= self.limits.items
        if isinstance(event, NodeFailed):
            self.failures.add(key)
        if isinstance(event, NodeRetrying):
            self._may_retry(event)
        if item is not None and event.node in self.items and after in ("RUNNING", "RETRYING"):
            spec = self.plan.nodes[event.node].spec
            active = [k for k, s in self._items_of(event.node) if s not in ENDED]
            assert len(active) <= spec.max_parallel
            assert item < self.items[event.node]

    def _may_begin(self, event: Any, item: int | None, before: str) -> None:
        name: str = event.node
        assert not self.paused, f"{name} begins while the run is paused"
        assert self.stage != "stopping", f"{name} begins while the run is stopping"
        assert (self.stage == "compensating") == name.endswith(COMPENSATION)
        if name.endswith(COMPENSATION):
            first = next(n for n in self.undo if self.nodes[n + COMPENSATION] not in ENDED)
            assert name == first + COMPENSATION, "undone out of order"
            return
        plan = self.plan.nodes[name]
        assert plan.handler == (self.stage == "handling")
        if item is not None:
            assert self.nodes[name] == "RUNNING"
        if item is None and before == "PENDING":
            needs = plan.spec.depends_on
            assert all(self.nodes[n] in ENDED for n in needs), "begun before its dependencies"
            if plan.spec.run_if == "allSuccess":
                assert all(self.nodes[n] == "SUCCESS" or self._tolerated(n) for n in needs)
            if plan.spec.run_if == "anyFailed":
                assert any(self.nodes[n] == "FAILED" for n in needs)

    def _may_retry(self, event: NodeRetrying) -> None:
        """Of `retry.attempts` every failure uses up one, and a question none."""
        plan = self.plan.nodes[event.node.removesuffix(COMPENSATION)]
        undo = plan.compensation if event.node.endswith(COMPENSATION) else None
        failed = event.attempt - sum(
            isinstance(e, NodeApprovalRequested) and e.attempt > 0
            for e in self.events
            if (getattr(e, "node", ""), getattr(e, "item", None)) == (event.node, event.item)
        )
        assert failed < (plan.spec.retry if undo is None else undo.retry).attempts

    def _tolerated(self, node: str) -> bool:
        return self.nodes[node] == "FAILED" and self.plan.nodes[node].spec.on_failure == "continue"

    def _end(self, event: Any) -> None:
        assert set(self._top().values()) <= ENDED, "the run ended before its nodes"
        for node in self.items:
            assert all(status in ENDED for _, status in self._items_of(node))
        self.status = RUN_ENDS[type(event)]
        lost = [n for n in self._to_undo() if self.nodes.get(n + COMPENSATION) != "SUCCESS"]
        if self.status is RunStatus.SUCCESS:
            assert not self.undo or not lost
            main = [n.id for n in self.plan.spec.nodes]
            bad = [n for n in main if self.nodes[n] in ("FAILED", "CANCELLED")]
            assert all(self._tolerated(n) for n in bad)
        else:
            assert sorted(event.uncompensated) == sorted(lost)

    def _to_undo(self) -> list[str]:
        """What the run did and, where it does not succeed, undoes or names."""
        nodes = [n.id for n in self.plan.spec.nodes if n.compensate is not None]
        return [
            node
            for node in nodes
            if node not in self.undone
            and (
                self.nodes[node] == "SUCCESS"
                or any(status == "SUCCESS" for _, status in self._items_of(node, began=False))
            )
        ]

    def _top(self) -> dict[str, str]:
        """Nodes and compensations, without items."""
        items = {key for node in self.items for key, _ in self._items_of(node)}
        return {key: s for key, s in self.nodes.items() if key not in items and not _is_item(key)}

    def _items_of(self, node: str, *, began: bool = True) -> Iterator[tuple[str, str]]:
        """Its items; of a node that has not fanned out those taken over, unless it has to have."""
        for index in range(self.items.get(node, 0 if began else self.limits.items)):
            key = node_key(node, index)
            if key in self.nodes:
                yield key, self.nodes[key]

    def _status_now(self) -> RunStatus:
        if self.status is not RunStatus.RUNNING:
            return self.status
        top = self._top().values()
        waits = "WAITING_APPROVAL" in top and not UNDER_WAY & set(top)
        return RunStatus.WAITING_APPROVAL if waits else RunStatus.RUNNING

    def _counts(self, state: RunState) -> None:
        """What the head counts is what the nodes are."""
        head = state.head
        assert (head.seq, head.status) == (self.seq, self._status_now())
        top = list(self._top().values())
        assert head.open == sum(s not in ENDED for s in top)
        assert head.running == sum(s in UNDER_WAY for s in top)
        assert head.waiting == top.count("WAITING_APPROVAL")
        assert (head.paused_at is not None) == self.paused or self.ended
        if self.ended:
            assert (len(state.nodes), len(state.lists), head.ending) == (0, 0, None)
            assert head.finished_at is not None
            return
        retries = sum(isinstance(e, NodeRetrying) for e in self.events)
        assert head.retries >= retries
        known = {key: s for key, s in self.nodes.items() if s != "PENDING"}
        assert {k: s.status.value for k, s in state.nodes.items() if s.status != "PENDING"} == known
        for node, count in self.items.items():
            mine = state.nodes[node]
            ends = [s for _, s in self._items_of(node) if s in ENDED]
            active = [s for _, s in self._items_of(node) if s not in ENDED]
            assert (mine.items, mine.done) == (count, len(ends))
            assert mine.failed == sum(s != "SUCCESS" for s in ends)
            assert mine.status.value in ENDED or mine.active == len(active)

    def _replays(self, before: RunState | None, outcome: Outcome) -> None:
        assert outcome.decision is not None
        assert outcome.state is not None
        read = codec.decisions.decode(codec.encode(outcome.decision))
        assert wire(evolve(before, read)) == wire(outcome.state)

    def _effects_are_the_events(self, outcome: Outcome, had_ended: bool) -> None:
        assert outcome.decision is not None
        events = outcome.decision.events
        sent = [e for e in events if isinstance(e, NodeDispatched)]
        asked = [e for e in events if isinstance(e, NodeRequested)]
        if not self.ended:
            assert [(t.id, t.inputs) for t in outcome.tasks] == [(e.task, e.inputs) for e in sent]
            assert [(r.run, r.inputs) for r in outcome.requests] == [
                (e.run, e.inputs) for e in asked
            ]
        for task in outcome.tasks:
            assert task.id not in self.tasks, "a task id was used twice"
            self.tasks[task.id] = task
        for request in outcome.requests:
            assert request.run not in self.requests, "a run was asked for twice"
            self.requests[request.run] = request
        for order in outcome.cancellations:
            assert order.task in self.tasks, f"{order.task} is called off, and was never sent"
        for message in outcome.messages:
            if message.run != "parent":
                assert message.run in self.requests, "a run is cancelled that was never asked for"
        tells = [m for m in outcome.messages if m.run == "parent"]
        ends = self.ended and not had_ended
        assert len(tells) == (ends and self._has_parent())
        assert (outcome.announcement is not None) == ends
        for payload in payloads(outcome):
            self._can_be_read(payload)

    def _has_parent(self) -> bool:
        start = self.heard[0][0]
        return isinstance(start, Start) and start.parent is not None

    def _can_be_read(self, payload: Raw) -> None:
        """Inline payloads are small, and every reference leads somewhere."""
        content = bytes(payload)
        assert len(content) <= 20 * self.limits.inline or b"$blob" in content
        for reference in _references(json.decode(content)):
            assert len(self.blobs[reference.digest]) == reference.size

    def _new_records_are_told(self, before: RunState | None, outcome: Outcome) -> None:
        after = outcome.state
        assert after is not None
        if self.ended:
            return
        old = {} if before is None else before.nodes
        new = {key for key, s in after.nodes.items() if old.get(key) is not s}
        assert outcome.touched == new
        lists = {} if before is None else before.lists
        assert outcome.listed == {k for k, i in after.lists.items() if lists.get(k) is not i}
        assert set(old) <= set(after.nodes)

    def _lives(self, state: RunState) -> None:
        """Whatever is open will go on: something is due, or somebody has to act."""
        if self.ended:
            return
        for key, node in state.nodes.items():
            if node.status.value in ENDED or node.status == "PENDING":
                assert node.wake_at is None
            elif node.items is not None:
                assert node.wake_at is None
                room = node.active < self.plan.nodes[key].spec.max_parallel
                assert node.active or self.paused, f"{key} has nothing under way"
                spec = self.plan.nodes[key].spec
                stopped = self.stage == "stopping" or (spec.item_failure == "stop" and node.failed)
                left = node.done + node.active < (node.items or 0)
                assert self.paused or stopped or not (room and left), f"{key} could begin an item"
            elif node.status == "WAITING_APPROVAL" and node.approved:
                assert self.paused, f"{key} is approved and does not begin"
                assert node.wake_at is None
            else:
                assert node.wake_at is not None, f"{key} waits for nothing"
        if self.paused:
            return
        assert state.head.open, "nothing is open, and the run goes on"
        if self.stage == "stopping":
            assert "PENDING" not in self._top().values()
            assert UNDER_WAY & set(self._top().values())
        elif self.stage == "compensating":
            undoing = [s for k, s in self._top().items() if k.endswith(COMPENSATION)]
            assert sum(s in UNDER_WAY for s in undoing) == 1
        else:
            self._all_that_may_begin_has(state)

    def _all_that_may_begin_has(self, state: RunState) -> None:
        for key, status in self._top().items():
            if status == "PENDING":
                needs = self.plan.nodes[key].spec.depends_on
                assert any(self.nodes[n] not in ENDED for n in needs), f"{key} never begins"

    def _is_stored(self, before: RunState | None, outcome: Outcome) -> None:
        """The table is what the state says, and there is a timer for whatever is due."""
        state = outcome.state
        assert state is not None
        changes = list(self.store.changes(before, outcome))
        self.store.take_over([(state, outcome.touched)], None)
        self.store.kept(changes, [] if state.trigger is not None else [state.head.run])
        assert self.store._records == dict(records_of(state))

    # --- time ---

    def wake(self, behind: int = 0) -> bool:
        """Let time pass until the next timer; False where none is set.

        The clock that stamps messages is `behind` the one that fires timers.
        """
        due = self.store.timers.next_due
        if due is None:
            return False
        self.now = max(self.now, due)
        for run, node in sorted(self.store.timers.pop_due(self.now)):
            at = self.store.due((run, node), self.now)
            if at is not None:
                self.hear(Timer(run=run, node=node, due=at), self.now - behind)
        self.now -= behind
        self.is_woken()
        return True

    def is_woken(self) -> None:
        """Whatever is due has a timer; in a pause some may have gone by."""
        if self.state is None or self.ended or self.paused:
            return
        wakes = {("r1", ""): self.state.head.deadline}
        wakes |= {("r1", k): n.wake_at for k, n in self.state.nodes.items() if n.wake_at}
        for wake, due in wakes.items():
            assert wake in self.store.timers._slots.get(-(-due // SLOT_MS), ()), f"{wake} sleeps on"


def _is_item(key: str) -> bool:
    return key.rpartition(".")[2].isdigit()


def _references(value: Any) -> Iterator[Reference]:
    reference = reference_in(value)
    if reference is not None:
        yield reference
    elif isinstance(value, dict):
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def payloads(outcome: Outcome) -> Iterator[Raw]:
    """Every payload that the decision and its effects carry."""
    events = () if outcome.decision is None else outcome.decision.events
    carriers = (*events, *outcome.tasks, *outcome.requests, *outcome.messages)
    for carrier in carriers:
        for field in ("inputs", "output", "items"):
            payload = getattr(carrier, field, UNSET)
            if isinstance(payload, Raw):
                yield payload


def wire(state: RunState) -> list[tuple[bytes, bytes]]:
    """The bytes of a state's records, in the order of their keys."""
    return sorted(records_of(state))


def effects(outcome: Outcome) -> dict[str, Any]:
    """An outcome as bytes."""
    return {
        "state": None if outcome.state is None else wire(outcome.state),
        "decision": json.encode(outcome.decision),
        "tasks": [codec.encode(task) for task in outcome.tasks],
        "touched": outcome.touched,
        "ignored": outcome.ignored,
        "cancellations": [codec.encode(order) for order in outcome.cancellations],
        "messages": [codec.encode(message) for message in outcome.messages],
        "requests": [json.encode(request) for request in outcome.requests],
        "announcement": json.encode(outcome.announcement),
        "blobs": outcome.blobs,
        "listed": outcome.listed,
    }


def start(**fields: Any) -> Start:
    """The start of the run `r1`."""
    trigger = Trigger(
        id="e",
        source="s",
        type="t",
        data=Raw(b'{"a":1,"list":["one","two",{"r":3}],"when":"2023-11-14T22:13:22Z"}'),
    )
    return Start(run="r1", project="default", workflow="w", version=1, trigger=trigger, **fields)


PARENT: Final = Parent(run="parent", node="p", attempt=1)

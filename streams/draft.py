"""A decision being made: the events so far, the state that they make, and the effects they ask for.

What a message does to a run is in `streams.run` (what is heard), `streams.steps` (how nodes begin
and end) and `streams.ending` (how the run does); all of them write into one `Draft`.
"""

from collections import deque
from typing import Final, NamedTuple

import msgspec

from streams.events import Decision, Event, RunEnding
from streams.ids import COMPENSATION
from streams.lifecycle import Fold, RunState
from streams.messages import RunMessage, RunRequest, Task, TaskCancellation
from streams.payload import INLINE_LIMIT, Blobs, Reference, reference_to
from streams.plan import NodePlan, Plan
from streams.records import Failure, RunStatus, Trigger
from streams.run_state import Ending, NodeState, RunHead
from streams.scope import RunScope

PAYLOAD_LIMIT: Final = 1024 * 1024
"""Bytes that what comes from outside may have, unless a setting says otherwise."""


class Limits(NamedTuple):
    """What a run may take; what is over a limit fails with a sentence that names it.

    `inline`: bytes of a payload on the log; more travels by reference. `payload`: bytes of the
    inputs of one node, or of a run's output. `decision`: bytes of payloads inline in one record.
    `events`: of one run. `depth`: of runs that start runs. `items`: of one fan-out. `trigger`:
    bytes of an event that comes in.
    """

    inline: int = INLINE_LIMIT
    payload: int = 64 * 1024 * 1024
    decision: int = 4 * 1024 * 1024
    events: int = 200_000
    depth: int = 8
    items: int = 20_000
    trigger: int = PAYLOAD_LIMIT


class Outcome(msgspec.Struct, frozen=True):
    """What a message decided.

    `decision` and `state` are None, and `ignored` says why, where it changed nothing. The effects:
    `tasks` for agents, `cancellations` of such, `messages` to the inboxes of other runs,
    `requests` for new runs, `announcement` of the run's end, `blobs` to keep before all of these.
    `touched` are the keys of the nodes whose state is new, `listed` those that fanned out.
    """

    decision: Decision | None
    state: RunState | None
    tasks: tuple[Task, ...] = ()
    touched: frozenset[str] = frozenset()
    ignored: str = ""
    cancellations: tuple[TaskCancellation, ...] = ()
    messages: tuple[RunMessage, ...] = ()
    requests: tuple[RunRequest, ...] = ()
    announcement: Trigger | None = None
    blobs: tuple[bytes, ...] = ()
    listed: frozenset[str] = frozenset()

    @property
    def tells(self) -> bool:
        """Whether others than agents are to hear of it."""
        return bool(self.cancellations or self.messages or self.requests or self.announcement)


class _Payloads:
    """The content of references: what this decision has packed, nobody else knows yet."""

    __slots__ = ("_blobs", "packed")

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.packed: dict[str, bytes] = {}

    def get(self, reference: Reference) -> bytes:
        packed = self.packed.get(reference.digest)
        return self._blobs(reference) if packed is None else packed


class Draft:
    """Every event is applied as soon as it is emitted. `queue` are nodes that may begin now."""

    __slots__ = (
        "_inline_bytes",
        "_payloads",
        "announcement",
        "at",
        "blob_of",
        "blobs",
        "cancellations",
        "events",
        "fold",
        "forced",
        "head",
        "limits",
        "listed",
        "messages",
        "partition",
        "plan",
        "queue",
        "requests",
        "scope",
        "tasks",
        "trigger",
        "verdict",
        "verdict_failure",
    )

    def __init__(
        self, before: RunState, at: int, plan: Plan, partition: int, limits: Limits, blobs: Blobs
    ) -> None:
        self.at = at
        self.plan = plan
        self.partition = partition
        self.limits = limits
        # Of its own, so that the draft and its scope do not hold each other: cycles wait for the
        # garbage collector, which took a tenth of a worker's time.
        self._payloads = _Payloads(blobs)
        self.blob_of: Blobs = self._payloads.get
        if before.trigger is None:
            raise AssertionError(f"run {before.head.run} has ended: nothing is decided any more")
        self.head: RunHead = before.head
        """The run's head before this decision."""
        self.trigger: Trigger = before.trigger
        self.fold = fold = Fold(before)
        self.scope = RunScope(before.head, before.trigger, fold.nodes, self.blob_of)
        if before.head.ending is not None:
            self.scope.failure = self._why()
        self.queue: deque[str] = deque()
        self.events: list[Event] = []
        self.tasks: list[Task] = []
        self.cancellations: list[TaskCancellation] = []
        self.messages: list[RunMessage] = []
        self.requests: list[RunRequest] = []
        self.listed: set[str] = set()
        self.verdict: Ending | None = None
        """How the run ends, before an event has said so."""
        self.verdict_failure: Failure | None = None
        self.forced = False
        self.announcement: Trigger | None = None
        self.blobs: list[bytes] = []
        self._inline_bytes = 0

    @property
    def stage(self) -> str:
        """What the run does: `` its nodes, or what is left to do before it ends."""
        return "" if self.fold.ending is None else self.fold.ending.stage

    @property
    def paused(self) -> bool:
        """Whether nothing may begin."""
        return self.fold.paused_at is not None

    def emit(self, event: Event) -> None:
        """Add an event."""
        self.events.append(event)
        self.fold.apply(event)
        if type(event) is RunEnding:
            self.scope.failure = self._why()

    def _why(self) -> Failure | None:
        """What made the run end as it does, for templates; None before it is settled."""
        ending = self.fold.ending
        if ending is None:
            return None
        if ending.outcome is RunStatus.CANCELLED:
            text = ending.reason or "the run was cancelled"
            return Failure(kind="cancelled", message=text, retryable=False)
        if self.fold.failure is None:
            text = "the work of another run is undone"
            return Failure(kind="compensation", message=text, retryable=False)
        return self.fold.failure

    def node_plan(self, node: str) -> NodePlan | None:
        """The plan of a node, or of the one that a compensation undoes."""
        plan = self.plan.nodes.get(node)
        return plan or self.plan.nodes.get(node.removesuffix(COMPENSATION))

    def state(self, key: str) -> NodeState | None:
        """A node's or item's state; None while it is PENDING."""
        return self.fold.nodes.get(key)

    def pack(self, content: bytes) -> msgspec.Raw:
        """The payload as it travels: itself, or a reference where it is big."""
        size = len(content)
        if size <= self.limits.inline and self._inline_bytes + size <= self.limits.decision:
            self._inline_bytes += size
            return msgspec.Raw(content)
        reference = reference_to(content)
        self.blobs.append(content)
        self._payloads.packed[reference.digest] = content
        return msgspec.Raw(reference.encode())

    def outcome(self) -> Outcome:
        """The decision and its effects."""
        head = self.head
        decision = Decision(
            run=head.run,
            project=head.project,
            workflow=head.workflow,
            version=head.version,
            seq=head.seq,
            at=self.at,
            status=self.fold.status,
            previous=head.status,
            events=tuple(self.events),
            traceparent=head.traceparent,
        )
        ended = self.fold.ended is not None
        return Outcome(
            decision,
            self.fold.state(decision),
            () if ended else tuple(self.tasks),
            frozenset(self.fold.touched),
            "",
            tuple(self.cancellations),
            tuple(self.messages),
            () if ended else tuple(self.requests),
            self.announcement,
            tuple(self.blobs),
            frozenset(self.listed),
        )

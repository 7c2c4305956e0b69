"""The shell around the run core: inbox batches in, decisions, tasks and state out (law 3).

For each batch: decide every message; publish the decisions and tasks and await the broker
(`decide`); then write the changed state together with the inbox offset it reflects, as one record
batch to the table's changelog, and acknowledge (`write`). A crash anywhere re-delivers, and the
same messages make the same outputs.

The next batch is decided while the state of the last is being written, in order: it goes on from
the state in memory (docs/decisions/020).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import prometheus_client
import structlog
from msgspec import Raw
from prometheus_client import Gauge, Histogram

from streams import codec, dead_letters, topics
from streams.blob_store import BlobStore, MissingContentError
from streams.errors import CommandCenterError, OperatorError
from streams.faust_shell import Batch
from streams.ids import request_source, spread
from streams.lifecycle import TERMINAL, RunState
from streams.messages import Cancel, Message, Occurrence, RunMessage, RunRequest, Start, Timer
from streams.outbox import BATCH_BYTES, Header, Outbox, Parcel, partition_of
from streams.payload import MissingBlobError, Reference
from streams.plan import Plan
from streams.records import RunStatus, Trigger
from streams.routing import CALLED_OFF_TYPE, REQUESTED_TYPE
from streams.run import DEFAULT_LIMITS, Limits, Outcome, decide
from streams.run_state import RunHead
from streams.run_store import OFFSET_KEY, RunStore
from streams.state_log import READS, Change
from streams.template import LostPayloadError
from streams.tracing import Tracing
from streams.trigger import IncomingEvent, to_kafka

_log = structlog.get_logger(__name__)

_messages = prometheus_client.Counter(
    "commandcenter_inbox_messages_total", "Inbox messages decided.", ["type"]
)
_ignored = prometheus_client.Counter(
    "commandcenter_inbox_ignored_total", "Inbox messages that changed nothing.", ["reason"]
)
_finished = prometheus_client.Counter(
    "commandcenter_runs_finished_total", "Runs by final status.", ["status"]
)
_active = Gauge("commandcenter_runs_active", "Runs under way in this worker.")
_batch_seconds = Histogram(
    "commandcenter_decision_batch_seconds",
    "From inbox batch to acknowledged state.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)

_clock_ahead = Gauge(
    "commandcenter_clock_ahead_seconds", "How early the last timer came, by the broker's clock."
)

_CLOCK_AHEAD_S: Final = 1.0
ERRORS_TO_LETTERS: Final = frozenset({"unknown_run", "unknown_node"})
_BLOB_AGAIN_S: Final = 1.0

PlanOf = Callable[[str, str, int], Awaitable[Plan | None]]
"""(project, workflow, version) → its plan; None where no such version was ever published."""


class ChangelogPosition(Protocol):
    """What the owner of partitions has to know before it writes their state, and tells after it."""

    async def may_write(self) -> bool:
        """False once the partitions are somebody else's."""

    def to_mend(self, partition: int, reads: int) -> set[bytes]:
        """Keys to write again with the state as of the inbox offset `reads`; told once."""

    def written(self, partition: int, first: int | None, count: int, reads: int) -> None:
        """So many records are written from offset `first` on, with the inbox read to `reads`."""


class UnknownRunError(CommandCenterError):
    """A message is addressed to a run, or a node of a run, that does not exist."""


class ReplacedError(Exception):
    """The group has given the partitions to another worker."""


class UnknownWorkflowError(CommandCenterError):
    """A message needs a workflow version that was never published."""


_Told = tuple[str, int, bytes, bytes, Sequence[Header]]
"""A record: topic, partition, key, value and headers."""


class _Draft:
    """What one inbox batch changes in one partition, before anything of it is written."""

    __slots__ = (
        "at", "bytes", "changes", "finished", "heard", "next_offset", "states", "store", "touched",
    )  # fmt: skip

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.states: dict[str, RunState] = {}
        self.touched: dict[str, AbstractSet[str]] = {}
        self.changes: dict[bytes, bytes | None] = {}
        self.next_offset = store.next_offset
        self.bytes = 0
        self.at = 0
        self.heard: Counter[type[Message]] = Counter()
        self.finished: Counter[RunStatus] = Counter()

    def get(self, run: str) -> RunState | None:
        return self.states.get(run) or self.store.get(run)

    def waiting(self, occurrence: Occurrence) -> list[str]:
        """The runs that may wait for the event: by what is decided, or changed in this batch."""
        return sorted({*self.store.waiting(occurrence), *self.states})

    def take_over(self) -> None:
        """Let the next messages be decided from what these made."""
        states = [(state, self.touched[run]) for run, state in self.states.items()]
        self.store.take_over(states, self.next_offset)

    def kept(self, changes: Sequence[Change]) -> None:
        """The changelog has it: the table too, and the metrics of what was heard and ended."""
        ended = [run for run, state in self.states.items() if state.trigger is None]
        self.store.kept(changes, ended)
        for kind, number in self.heard.items():
            _messages.labels(kind.__name__.lower()).inc(number)
        for status, runs in self.finished.items():
            _finished.labels(status.value).inc(runs)


class Decided(NamedTuple):
    """Batches that are decided, with their outputs published.

    `drafts` are still to be written: one after the other, each for all of its partitions at once.
    """

    batches: Sequence[Batch]
    drafts: Sequence[Sequence[_Draft]]
    began: float


class Orchestrator:
    """Decides for the partitions that this worker owns. One batch at a time."""

    def __init__(
        self,
        outbox: Outbox,
        changelog: Outbox,
        partitions: int,
        plan_of: PlanOf,
        prepare_agent: Callable[[str], Awaitable[None]],
        blobs: BlobStore,
        *,
        limits: Limits = DEFAULT_LIMITS,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make one that owns nothing yet.

        Args:
            outbox: Takes decisions, tasks and timers.
            changelog: Takes the state; another producer, because one sends a single request at a
                time, and an agent's result should not wait for the state to be written.
            partitions: Of the inbox, and of each task topic.
            plan_of: Gives the plans of workflow versions.
            prepare_agent: Makes sure that an agent's task topic exists.
            blobs: Keeps payloads that travel by reference.
            limits: What a run may take.
            tracing: Makes a span of each run that ends.
            clock: Seconds since the epoch, for timers.
        """
        self._changelog = changelog
        self._blobs = blobs
        self._limits = limits
        self._tracing = tracing
        self._outbox = outbox
        self._partitions = partitions
        self._plan_of = plan_of
        self._prepare_agent = prepare_agent
        self._clock = clock
        self.changelog: ChangelogPosition | None = None
        """What is known of the changelog; the engine sets it."""
        self._stores: dict[int, RunStore] = {}
        self._plans: dict[tuple[str, str, int], Plan] = {}
        self._prepared: set[str] = set()
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._releasing = False
        self._timers_changed = asyncio.Event()
        self._sleeping_until = float("inf")
        self._clock_is_ahead = False

    # --- ownership ---

    def own(self, partition: int, records: dict[bytes, bytes]) -> int:
        """Begin on a restored partition; gives the inbox offset to resume from."""
        store = self._stores[partition] = RunStore(partition, records)
        self._timers_changed.set()
        _log.info(
            "partition restored", partition=partition, runs=len(store), offset=store.next_offset
        )
        return store.next_offset or 0

    async def release(self) -> None:
        """Finish what is in hand, its writes too, then own nothing. Nothing more is begun."""
        self._releasing = True
        try:
            while self._at_work:
                await self._idle.wait()
            self._stores.clear()
        finally:
            self._releasing = False

    # --- batches ---

    async def decide(self, batches: list[Batch]) -> Decided:
        """Decide these batches and publish what follows; `write` has to be called with the result.

        Batches of partitions that were revoked are left out.
        """
        self._begin()
        try:
            return await self._decide_batches(batches)
        except BaseException:
            self._end()
            raise

    async def write(self, decided: Decided) -> Sequence[Batch]:
        """Write the state of what was decided, in the order of that; gives the batches now done."""
        try:
            for drafts in decided.drafts:
                # What was decided behind a refused write lacks it. It must not be written, not even
                # when the group has taken this worker back by now.
                if any(self._stores.get(d.store.partition) is not d.store for d in drafts):
                    return ()
                await self._write(drafts)
        except ReplacedError:
            _log.warning("another worker has the partitions: nothing more is written")
            self._stores.clear()
            return ()
        except BaseException:
            self._stores.clear()  # nothing that was decided behind it is written either
            raise
        else:
            return decided.batches
        finally:
            self._end()
            _batch_seconds.observe(time.perf_counter() - decided.began)
            _active.set(sum(map(len, self._stores.values())))

    def _begin(self) -> None:
        self._at_work += 1
        self._idle.clear()

    def _end(self) -> None:
        self._at_work -= 1
        if not self._at_work:
            self._idle.set()

    async def _decide_batches(self, batches: list[Batch]) -> Decided:
        began = time.perf_counter()
        outputs = Parcel()
        drafts: dict[int, _Draft] = {}
        made: list[Sequence[_Draft]] = []
        # As of now: the write of an earlier batch may find meanwhile that we are replaced.
        stores = {} if self._releasing else dict(self._stores)
        mine = [b for b in batches if b.tp.partition in stores]
        for batch in mine:
            partition = batch.tp.partition
            draft = drafts.get(partition)
            if draft is None:
                draft = drafts[partition] = _Draft(stores[partition])
            for record in batch.records:
                if draft.next_offset is not None and record.offset < draft.next_offset:
                    continue  # the state has it already
                await self._decide(record, draft, outputs)
                draft.next_offset = record.offset + 1
                draft.at = record.timestamp
                if draft.bytes > BATCH_BYTES:
                    made.append(await self._publish(outputs, drafts))
                    outputs, draft = Parcel(), _Draft(draft.store)
                    drafts = {partition: draft}
        made.append(await self._publish(outputs, drafts))
        return Decided(mine, made, began)

    async def _publish(self, outputs: Parcel, drafts: dict[int, _Draft]) -> list[_Draft]:
        """Send the outputs, then go on from what made them. Gives what is to be written."""
        if outputs:
            await self._outbox.deliver(outputs)
        made = [draft for draft in drafts.values() if draft.next_offset != draft.store.next_offset]
        for draft in made:
            draft.take_over()
            due = draft.store.timers.next_due
            if due is not None and due < self._sleeping_until:
                self._timers_changed.set()
        return made

    async def _decide(self, record: Any, draft: _Draft, outputs: Parcel) -> None:
        try:
            message = codec.messages.decode(record.value)
            if isinstance(message, Occurrence):
                await self._tell(message, record, draft, outputs)
            else:
                await self._decide_message(message, record, draft, outputs)
        except Exception as error:  # noqa: BLE001  # one bad record must not stop the partition
            self._give_up(record, error, outputs)

    def _give_up(self, record: Any, error: Exception, outputs: Parcel) -> None:
        if not isinstance(error, CommandCenterError):
            _log.error("a decision failed", offset=record.offset, exc_info=error)
        dead_letters.put(outputs, self._partitions, record, error)

    async def _tell(
        self, occurrence: Occurrence, record: Any, draft: _Draft, outputs: Parcel
    ) -> None:
        """Let every run that may wait for the event hear of it; the fault of one is its own."""
        fault: Exception | None = None
        for run in draft.waiting(occurrence):
            before = draft.get(run)
            if before is None or before.head.project != occurrence.project:
                continue
            try:
                version = _version_of(before.head)
                plan = self._plans.get(version) or await self._plan(version)
                await self._apply(occurrence, before, plan, record, draft, outputs)
            except Exception as error:  # noqa: BLE001  # the other runs wait for it too
                fault = fault or error
        if fault is not None:
            self._give_up(record, fault, outputs)

    async def _decide_message(
        self, message: RunMessage, record: Any, draft: _Draft, outputs: Parcel
    ) -> None:
        if type(message) is Timer:
            self._look_at_clock((message.due - record.timestamp) / 1000)
        before = draft.get(message.run)
        if before is not None:
            known: RunHead | Start = before.head
        elif isinstance(message, Start):
            known = message
        elif isinstance(message, Cancel) and message.by_parent:
            _ignored.labels("unknown_run").inc()  # it was refused: there is no such workflow
            return
        else:
            raise UnknownRunError(f"no run {message.run}: nothing started it here")
        version = _version_of(known)
        plan = self._plans.get(version) or await self._plan(version)
        ignored = await self._apply(message, before, plan, record, draft, outputs)
        if ignored in ERRORS_TO_LETTERS:
            raise UnknownRunError(f"run {message.run}: {ignored.replace('_', ' ')}")

    def _look_at_clock(self, ahead: float) -> None:
        """Say that a timer came early, in seconds by the broker: who sent it has a clock ahead."""
        _clock_ahead.set(max(0.0, ahead))
        if ahead > _CLOCK_AHEAD_S and not self._clock_is_ahead:
            _log.warning("the clock of a worker is ahead of the broker's", seconds=round(ahead, 1))
        self._clock_is_ahead = ahead > _CLOCK_AHEAD_S

    async def _apply(
        self,
        message: Message,
        before: RunState | None,
        plan: Plan,
        record: Any,
        draft: _Draft,
        outputs: Parcel,
    ) -> str:
        """Decide, and put what follows into the outputs; why nothing does, if nothing does."""
        partition = draft.store.partition
        try:
            outcome = decide(
                before, message, record.timestamp, plan, partition, limits=self._limits
            )
        except MissingBlobError:
            outcome = await self._decide_with_blobs(message, before, record, plan, partition)
        draft.heard[type(message)] += 1
        if outcome.decision is None or outcome.state is None:
            _ignored.labels(outcome.ignored).inc()
            return outcome.ignored
        head = outcome.state.head
        run = head.run
        for content in outcome.blobs:
            await self._until_kept(head.project, content)
        # All that may fail comes first: events whose state is not kept would be made twice.
        tasks = []
        for task in outcome.tasks:
            if task.agent not in self._prepared:
                await self._prepare_agent(task.agent)
                self._prepared.add(task.agent)
            tasks.append((task, codec.encode(task)))
        event = codec.encode(outcome.decision)
        changes = draft.store.changes(before, outcome)
        told = self._told(outcome, head) if outcome.tells else ()
        outputs.add(topics.EVENTS, partition, run.encode(), event)
        for topic, place, key, value, headers in told:
            outputs.add(topic, place, key, value, headers)
        for task, value in tasks:
            place = spread(task.id, self._partitions)
            outputs.add(topics.tasks(task.agent), place, task.id.encode(), value)
        draft.changes.update(changes)
        draft.bytes += sum([len(content) for _, content in changes if content])
        draft.states[run] = outcome.state
        touched = draft.touched.get(run)
        draft.touched[run] = outcome.touched if touched is None else touched | outcome.touched
        if outcome.state.trigger is None and outcome.decision.previous not in TERMINAL:
            draft.finished[head.status] += 1
            if self._tracing is not None:
                self._tracing.run_ended(head)
        return ""

    def _told(self, outcome: Outcome, head: RunHead) -> list[_Told]:
        """What goes to others than agents: other runs, workers, and whoever reads triggers."""
        told: list[_Told] = []
        # Before the cancels: a run may be asked for and called off by one decision.
        asked = [_requested(request) for request in outcome.requests]
        for message in outcome.messages:
            if isinstance(message, Cancel):
                asked.append(_called_off(message, head))
            else:
                place = partition_of(message.run, self._partitions)
                told.append((topics.INBOX, place, message.run.encode(), codec.encode(message), ()))
        told += [
            (topics.CONTROL, 0, order.task.encode(), codec.encode(order), ())
            for order in outcome.cancellations
        ]
        if outcome.announcement is not None:
            asked.append(IncomingEvent(outcome.announcement, head.project, None, head.depth + 1))
        for event in asked:
            headers, value = to_kafka(event)
            source = event.trigger.source
            place = partition_of(source, self._partitions)
            told.append((topics.TRIGGERS, place, source.encode(), value, headers))
        return told

    async def _decide_with_blobs(
        self, message: Message, before: RunState | None, record: Any, plan: Plan, partition: int
    ) -> Outcome:
        """The decision, made again and again until each payload that it needs is fetched.

        One that is gone for good is the run's to bear: the node that needs it fails.
        """
        known = before.head if before is not None else message
        project = getattr(known, "project", "")
        fetched: dict[str, bytes] = {}
        lost: dict[str, str] = {}

        def blobs(reference: Reference) -> bytes:
            if reference.digest in lost:
                raise LostPayloadError(lost[reference.digest])
            found = fetched.get(reference.digest) or self._blobs.at_hand(project, reference)
            if found is None:
                raise MissingBlobError(reference)
            return found

        while True:
            try:
                return decide(
                    before, message, record.timestamp, plan, partition,
                    limits=self._limits, blobs=blobs,
                )  # fmt: skip
            except MissingBlobError as missing:
                reference = missing.reference
                try:
                    fetched[reference.digest] = await self._until_given(project, reference)
                except MissingContentError as error:
                    _log.error("a payload is lost", project=project, why=str(error))
                    lost[reference.digest] = str(error)

    async def _until_given(self, project: str, reference: Reference) -> bytes:
        while True:
            try:
                return await self._blobs.get(project, reference)
            except OperatorError as error:
                _log.warning("a payload is waited for", why=str(error))
                await asyncio.sleep(_BLOB_AGAIN_S)

    async def _until_kept(self, project: str, content: bytes) -> None:
        while True:
            try:
                await self._blobs.put(project, content)
            except OperatorError as error:
                _log.warning("a payload cannot be kept; trying again", why=str(error))
                await asyncio.sleep(_BLOB_AGAIN_S)
            else:
                return

    async def _plan(self, version: tuple[str, str, int]) -> Plan:
        """The plan of a version, kept: a version never changes."""
        plan = await self._plan_of(*version)
        if plan is None:
            project, workflow, number = version
            raise UnknownWorkflowError(
                f"workflow {workflow!r} has no version {number} in project {project!r}:"
                " publish it, then send the event again"
            )
        self._plans[version] = plan
        return plan

    async def _write(self, drafts: Sequence[_Draft]) -> None:
        if not drafts:
            return
        if self.changelog is not None and not await self.changelog.may_write():
            raise ReplacedError
        written = []
        parcel = Parcel()
        for draft in drafts:
            partition, reads = draft.store.partition, draft.next_offset or 0
            changes: list[Change] = [*draft.store.forgotten(draft.at), *draft.changes.items()]
            if self.changelog is not None:
                lost = self.changelog.to_mend(partition, reads) - draft.changes.keys()
                changes[:0] = [(k, draft.store.record(k)) for k in sorted(lost - {OFFSET_KEY})]
            changes.append((OFFSET_KEY, b"%d" % reads))
            # By the header a restore knows what an owner wrote that had been replaced already.
            parcel.extend(topics.STATE, partition, changes, [(READS, b"%d" % reads)])
            written.append((draft, changes))
        firsts = await self._changelog.deliver(parcel, whole=True)
        for (draft, changes), first in zip(written, firsts, strict=True):
            if self.changelog is not None:
                self.changelog.written(
                    draft.store.partition, first, len(changes), draft.next_offset or 0
                )
            draft.kept(changes)

    # --- timers ---

    async def run_timers(self) -> None:
        """Send a timer message for whatever becomes due, until cancelled."""
        while True:
            now = int(self._clock() * 1000)
            await self._fire(now)
            dues = [d for s in self._stores.values() if (d := s.timers.next_due) is not None]
            self._sleeping_until = min(dues, default=float("inf"))
            self._timers_changed.clear()
            try:
                delay = (self._sleeping_until - now) / 1000 if dues else None
                await asyncio.wait_for(self._timers_changed.wait(), delay)
            except TimeoutError:
                continue

    async def _fire(self, now: int) -> None:
        parcel = Parcel()
        for partition, store in self._stores.items():
            for wake in store.timers.pop_due(now):
                due = store.due(wake, now)
                if due is not None:
                    run, node = wake
                    message = Timer(run=run, node=node, due=due)
                    parcel.add(topics.INBOX, partition, run.encode(), codec.encode(message))
        if parcel:
            await self._outbox.deliver(parcel)


def _version_of(known: RunHead | Start) -> tuple[str, str, int]:
    return known.project, known.workflow, known.version


def _requested(request: RunRequest) -> IncomingEvent:
    """The event that has the router start a run as a step of another one."""
    return IncomingEvent(
        Trigger(
            id=request.run,
            source=request_source(request.parent.run),
            type=REQUESTED_TYPE,
            data=Raw(msgspec.json.encode(request)),
        ),
        request.project,
        request.traceparent,
        request.depth,
    )


def _called_off(cancel: Cancel, parent: RunHead) -> IncomingEvent:
    """The event that has the router cancel a run which is a step of another one."""
    return IncomingEvent(
        Trigger(
            id=f"{cancel.run}/calledOff",
            source=request_source(parent.run),
            type=CALLED_OFF_TYPE,
            data=Raw(codec.encode(cancel)),
        ),
        parent.project,
        parent.traceparent,
        parent.depth + 1,
    )

"""The audit of the log: what was accepted against what was decided, and that against the state.

Rules:
- Records in, findings out: nothing here reads anything. What concerns a run is in one partition of
  `inbox`, `events` and `state`, so a partition is audited at a time, its state read first, then its
  inbox, then its events: what is read later has all that was written before (law 3).
- A difference breaks a law whatever happens next. What may only be late (a run under way, a record
  that nobody has read yet) is `open`; whoever knows that all work is done counts it as a
  difference too.
- A record with a dead letter is accounted for. Letters are read last, so what they could excuse is
  kept until then.
- Events are taken by what all of them have (`attempt`, `task`, `finished_at`) and by `evolve`, not
  by a list of their types.
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from streams import codec
from streams.errors import UnreadableRecordError
from streams.events import Decision, NodeCharged
from streams.findings import Findings, LogRecord, Place
from streams.lifecycle import TERMINAL, RunState, evolve
from streams.messages import Start
from streams.run_state import RunHead
from streams.run_store import OFFSET_KEY, REMEMBERED_MS, records_of
from streams.state_log import reads_of

_SHOWN: Final = 60


class Expected(NamedTuple):
    """A run that a trigger must have started; `late` where the trigger may not be routed yet."""

    place: Place
    workflow: str
    late: bool


class TellsEnd(NamedTuple):
    """An event on the triggers topic that tells of a run's end, and with which status."""

    place: Place
    status: str


class Fresh(NamedTuple):
    """A decision that stands on the log for the first time.

    `state` is the run's after it, None where its history is broken. A run that is `older` began
    before what is audited: whether its decisions are repetitions is not known for sure.
    """

    record: LogRecord
    decision: Decision
    state: RunState | None
    older: bool = False


class _Table:
    """The state's changelog folded as a worker restores it."""

    def __init__(self) -> None:
        self._reads = 0
        self.runs: dict[str, dict[bytes, bytes]] = {}
        self.next_offset = 0

    def take(self, record: LogRecord) -> None:
        reads = reads_of(record)
        if reads < self._reads:
            return  # written by an owner that had been replaced already
        self._reads = reads
        key, value = record.key or b"", record.value
        if key == OFFSET_KEY:
            self.next_offset = int(value or b"0")
            return
        run = key.partition(b"/")[0].decode(errors="replace")
        if value is not None:
            self.runs.setdefault(run, {})[key] = value
        elif run in self.runs:
            self.runs[run].pop(key, None)
            if not self.runs[run]:
                del self.runs[run]

    def head(self, run: str) -> RunHead | None:
        """The run's head; None where there is none, or none that can be read."""
        value = self.runs.get(run, {}).get(run.encode())
        if value is None:
            return None
        try:
            return codec.heads.decode(value)
        except UnreadableRecordError:
            return None


class _Account:
    """One run as its decisions tell it; little is kept of one that has ended."""

    __slots__ = (
        "broken",
        "compared",
        "ended",
        "ends",
        "finished_at",
        "marks",
        "next_seq",
        "older",
        "state",
        "table_seq",
        "tasks",
    )

    def __init__(self, table_seq: int | None) -> None:
        self.table_seq = table_seq
        self.next_seq = 0
        self.marks = array("q")  # of each decision its sequence number and the hash of its bytes
        self.state: RunState | None = None
        self.tasks: set[str] = set()
        self.ends: set[tuple[str, int | None, int]] = set()
        self.ended = ""
        self.finished_at = 0
        self.older = False
        self.broken = False
        self.compared = False

    def mark(self, seq: int) -> int | None:
        for number in range(0, len(self.marks), 2):
            if self.marks[number] == seq:
                return self.marks[number + 1]
        return None


class PartitionAudit:
    """One partition of `state`, `inbox` and `events`, taken in this order, then closed.

    Args:
        partition: Its number.
        findings: Takes what is found.
        expected: The runs that triggers must have started in this partition.
        told_ends: By run, the event that tells of its end.
        whole: The events are read from the beginning of all. Otherwise runs that began before
            `since` are left out.
        all_starts: The inbox is read from the beginning of all.
        since: Milliseconds; from when on the records are read, where they are not `whole`.
        recorded_to: The last offset of the events that the store has; -1 where it has none.
    """

    def __init__(
        self,
        partition: int,
        findings: Findings,
        expected: Mapping[str, Expected],
        told_ends: Mapping[str, TellsEnd] = MappingProxyType({}),
        *,
        whole: bool = True,
        all_starts: bool = True,
        since: int = 0,
        recorded_to: int = -1,
    ) -> None:
        self.partition = partition
        self.counts: Counter[str] = Counter()
        self._findings = findings
        self._expected = expected
        self._told_ends = told_ends
        self._whole = whole
        self._all_starts = all_starts
        self._since = since
        self._recorded_to = recorded_to
        self._table = _Table()
        self._starts: dict[str, Place] = {}
        self._accounts: dict[str, _Account] = {}
        self._latest = 0

    # --- records in ---

    def take_state(self, record: LogRecord) -> None:
        """The next record of the changelog."""
        self._table.take(record)

    def take_inbox(self, record: LogRecord) -> None:
        """The next record of the inbox."""
        self.counts["messages"] += 1
        self._latest = max(self._latest, record.timestamp)
        place = _place(record)
        try:
            message = codec.messages.decode(record.value)
        except UnreadableRecordError as error:
            late = record.offset >= self._table.next_offset
            text = f"cannot be read and has no dead letter: {error}"
            self._findings.unless_letter(place, "inbox.noLetter", place, text, late=late)
            return
        if isinstance(message, Start):
            self.counts["starts"] += 1
            self._starts.setdefault(message.run, place)

    def take_event(self, record: LogRecord) -> Fresh | None:
        """The next record of the events; None where it is a repetition or cannot be read."""
        try:
            decision = codec.decisions.decode(record.value)
        except UnreadableRecordError as error:
            place = _place(record)
            late = record.offset > self._recorded_to
            text = f"cannot be read and has no dead letter: {error}"
            self._findings.unless_letter(place, "event.noLetter", place, text, late=late)
            return None
        self.counts["decisions"] += 1
        self._latest = max(self._latest, decision.at)
        account = self._accounts.get(decision.run) or self._open(decision)
        mark = hash(record.value)
        if decision.seq < account.next_seq:
            self._repeated(account, decision, mark, record)
            return None
        self.counts["events"] += len(decision.events)
        if not account.older:
            self._follows(account, decision, record)
        account.marks.extend((decision.seq, mark))
        account.next_seq = decision.seq + len(decision.events)
        state = account.state
        if decision.status in TERMINAL and not account.ended and not account.older:
            self._end(account, decision)
        return Fresh(record, decision, None if account.broken else state, account.older)

    def _open(self, decision: Decision) -> _Account:
        head = self._table.head(decision.run)
        account = _Account(None if head is None else head.seq)
        self._accounts[decision.run] = account
        if decision.seq and not self._whole and (not head or head.started_at < self._since):
            account.older = account.broken = True
            account.next_seq = decision.seq
        else:
            self.counts["runs"] += 1
        return account

    def _repeated(
        self, account: _Account, decision: Decision, mark: int, record: LogRecord
    ) -> None:
        if account.mark(decision.seq) == mark:
            self.counts["repetitions"] += 1
            return
        self._findings.differ(
            "sequence.conflict",
            decision.run,
            f"the decision of event {decision.seq} stands at {_place(record)} once more, with other"
            " bytes than before",
        )

    def _follows(self, account: _Account, decision: Decision, record: LogRecord) -> None:
        run, seq = decision.run, decision.seq
        if seq > account.next_seq:
            missing = f"{account.next_seq} to {seq - 1}"
            text = f"events {missing} are missing before {_place(record)}"
            self._findings.differ("sequence.gap", run, text)
            account.broken = True
        if account.ended and any(type(event) is not NodeCharged for event in decision.events):
            self._findings.differ(
                "run.endedTwice",
                run,
                f"ended as {account.ended}, and event {seq} at {_place(record)} makes it"
                f" {decision.status.value}",
            )
            account.broken = True
        self._effects(account, decision)
        if not account.broken:
            self._evolve(account, decision, record)

    def _effects(self, account: _Account, decision: Decision) -> None:
        for event in decision.events:
            task = getattr(event, "task", None)
            if isinstance(task, str):
                if task in account.tasks:
                    text = f"the task {task} was dispatched twice"
                    self._findings.differ("task.twice", decision.run, text)
                account.tasks.add(task)
            attempt = getattr(event, "attempt", 0)
            if attempt and hasattr(event, "finished_at"):
                end = (getattr(event, "node", ""), getattr(event, "item", None), attempt)
                if end in account.ends:
                    node = end[0] if end[1] is None else f"{end[0]}.{end[1]}"
                    text = f"attempt {attempt} at node {node} ended twice"
                    self._findings.differ("attempt.endedTwice", decision.run, text)
                account.ends.add(end)

    def _evolve(self, account: _Account, decision: Decision, record: LogRecord) -> None:
        try:
            account.state = evolve(account.state, decision)
        except Exception as error:  # noqa: BLE001  # damage may show as any error of the fold
            text = f"the decision at {_place(record)} does not follow from those before: {error}"
            self._findings.differ("history.illegal", decision.run, text)
            account.broken = True
            return
        head = account.state.head
        if head.status is not decision.status:
            text = f"the decision at {_place(record)} says {decision.status.value}, its events make"
            self._findings.differ("history.illegal", head.run, f"{text} {head.status.value}")
        if account.table_seq == head.seq:
            account.compared = True
            self._compare(account.state)

    def _compare(self, state: RunState) -> None:
        run = state.head.run
        told = dict(records_of(state))
        held = self._table.runs[run]
        if told == held:
            return
        keys = sorted(key for key in told.keys() | held.keys() if told.get(key) != held.get(key))
        shown = ", ".join(_differs(key, told.get(key), held.get(key)) for key in keys[:3])
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        self._findings.differ(
            "state.differs",
            run,
            f"its events up to {state.head.seq - 1} make another state than the table has: {shown}"
            f"{more}",
        )

    def _end(self, account: _Account, decision: Decision) -> None:
        account.ended = decision.status.value
        account.finished_at = decision.at
        # Costs of attempts that were given up may follow; of all other runs nothing is kept.
        if account.state is not None and not account.state.head.unpaid:
            account.state = None
        account.tasks = set()
        account.ends = set()
        self.counts[f"ended.{account.ended}"] += 1

    # --- when all is read ---

    def close(self) -> None:
        """Everything of the partition has been taken."""
        for run, account in self._accounts.items():
            if not account.older:
                self._close_account(run, account)
        for run, place in self._starts.items():
            if run not in self._accounts and run not in self._table.runs:
                late = place.offset >= self._table.next_offset
                text = f"the start at {place} has no run"
                self._findings.unless_letter(place, "start.noRun", run, text, late=late)
        for run in self._table.runs:
            if run not in self._accounts:
                self._only_in_table(run)
        for run, (place, workflow, late) in self._expected.items():
            if not any(run in known for known in (self._starts, self._accounts, self._table.runs)):
                text = f"the trigger at {place} started no run of {workflow}"
                self._findings.unless_letter(place, "trigger.noRun", run, text, late=late)

        for run, told in self._told_ends.items():
            self._close_told_end(run, told)

    def _close_told_end(self, run: str, told: TellsEnd) -> None:
        """The events of a run come before the one that tells everybody of its end, or with it."""
        account = self._accounts.get(run)
        text = f"the event at {told.place} tells that it ended as {told.status}"
        if account is None:
            if self._whole:
                self._findings.differ("trigger.forged", run, f"{text}, and there is no such run")
        elif account.older or account.broken:
            return
        elif not account.ended:
            self._findings.wait("trigger.early", run, f"{text}, and its own events do not yet")
        elif account.ended != told.status:
            self._findings.differ("trigger.forged", run, f"{text}, and it ended as {account.ended}")

    def _close_account(self, run: str, account: _Account) -> None:
        if not account.ended:
            text = f"has not ended; {account.next_seq} events so far"
            self._findings.wait("run.unfinished", run, text)
        if self._all_starts and run not in self._starts:
            self._findings.differ("run.noStart", run, "nothing in the inbox started it")
        if not account.broken:
            self._close_state(run, account)

    def _close_state(self, run: str, account: _Account) -> None:
        reached = account.table_seq
        if reached is None:
            if run in self._table.runs:
                text = "the table has records of it, but no head that can be read"
                self._findings.differ("state.differs", run, text)
            elif account.ended and account.finished_at < self._latest - REMEMBERED_MS:
                self.counts["forgotten"] += 1
            elif run in self._starts and self._starts[run].offset >= self._table.next_offset:
                self._findings.wait("state.behind", run, "the table does not have it yet")
            else:
                self._findings.differ("state.missing", run, "the table does not have it")
        elif reached > account.next_seq:
            text = f"the table has events up to {reached - 1}, the log up to {account.next_seq - 1}"
            self._findings.differ("state.ahead", run, text)
        elif not account.compared:
            text = f"the table stands at event {reached}, inside of a decision"
            self._findings.differ("state.differs", run, text)
        elif reached < account.next_seq:
            text = f"the table has events up to {reached - 1}, the log up to {account.next_seq - 1}"
            self._findings.wait("state.behind", run, text)

    def _only_in_table(self, run: str) -> None:
        head = self._table.head(run)
        if self._whole or (head is not None and head.started_at >= self._since):
            self._findings.differ("state.noEvents", run, "the table has it, the log has no events")


def _place(record: LogRecord) -> Place:
    return Place(record.topic, record.partition, record.offset)


def _differs(key: bytes, told: bytes | None, held: bytes | None) -> str:
    """What differs, without payloads: they may be long, and are nobody's to read here."""
    name = key.decode(errors="replace")
    if told is None:
        return f"{name} should not be there"
    if held is None:
        return f"{name} is missing"
    right, found = _fields(told), _fields(held)
    fields = [
        f for f in (*right, *(f for f in found if f not in right)) if right.get(f) != found.get(f)
    ]
    shown = (f"{f} {_shown(found.get(f))} instead of {_shown(right.get(f))}" for f in fields[:3])
    return f"{name} has {', '.join(shown) or 'other bytes'}"


def _fields(value: bytes) -> dict[str, object]:
    try:
        fields = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = str(value) if isinstance(value, (str, int)) else "…"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

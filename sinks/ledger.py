"""The audit of the store: it has exactly the events of the log, and its runs and attempts agree.

Rules:
- Records in, rows in, findings out: nothing here reads anything. The store is audited up to its
  own watermark, which was asked before the log was read; so all that it must have has been seen.
- Events are compared by sums of digests over ranges of offsets, which the engine makes as fast as
  it reads; only a range that differs is looked at row by row.
- Runs are what `streams.lifecycle.evolve` makes of the events, not what the recorder makes of them.
  Attempts are the recorder's own projection, folded as the store folds it.
- What a run costs is the sum over its events, exact, and so it is in the store. Costs say the same
  of workflow, agent, model, time and all else: so sums by any of these are those of the events.
- A run that had not ended at the watermark may be further in the store by now.
- What retention may have removed is neither expected nor looked at.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal
from hashlib import md5
from typing import Any, Final, NamedTuple

from sinks import decision_record, known_runs
from sinks.decision_record import DecisionRecord
from sinks.projection import AGENT_RUN_COLUMNS, EVENT_COLUMNS, project
from streams.cost import Cost
from streams.errors import UnreadableRecordError
from streams.events import RunStarted
from streams.findings import Findings, Place
from streams.ledger import Fresh
from streams.lifecycle import TERMINAL, RunState

WIDTH: Final = 1_000
"""Offsets of a range whose events are summed up together."""

_EXACT: Final = Context(prec=60)

RUNS_AT_ONCE: Final = 1_000

_TYPE: Final = EVENT_COLUMNS.index("type")
_BEGAN: Final = EVENT_COLUMNS.index("run_started_at")
_KEY: Final = tuple(AGENT_RUN_COLUMNS.index(name) for name in ("node", "item_number", "attempt"))
_RUN: Final = AGENT_RUN_COLUMNS.index("run_id")
_DISPATCHED: Final = AGENT_RUN_COLUMNS.index("dispatched_at")
_OUTCOME: Final = AGENT_RUN_COLUMNS.index("outcome")
_FINISHED: Final = AGENT_RUN_COLUMNS.index("finished_at")
_CANCELLED: Final = AGENT_RUN_COLUMNS.index("cancelled_at")
_OUTCOMES: Final = ("SUCCESS", "FAILED", "CANCELLED", "RUNNING")

Row = Mapping[str, Any]


class Range(NamedTuple):
    """Offsets of one partition, both ends included."""

    first: int
    last: int


class RunSpan(NamedTuple):
    """Some runs that follow each other on the log: what bounds the question about them."""

    first: int
    last: int
    started_from: int
    started_to: int
    runs: tuple[str, ...]


class _Attempts(NamedTuple):
    """The attempts of a run, summed up: by status, and the times (ms) of their ends added up."""

    by_status: tuple[int, ...]
    finished: int


class _Sum(NamedTuple):
    """Costs in one currency: how many entries, their sum, and digests of what they say."""

    entries: int = 0
    amount: Decimal = Decimal(0)
    digest: int = 0

    def __str__(self) -> str:
        return f"{_text(self.amount)} in {self.entries} entries"


_NOTHING: Final = _Sum()


class _Run:
    """What the store must have of one run."""

    __slots__ = (
        "attempts",
        "costs",
        "finished_at",
        "offset",
        "open",
        "started_at",
        "status",
        "tags",
        "version",
    )

    def __init__(self, offset: int, started_at: int, version: int) -> None:
        self.offset = offset
        self.started_at = started_at
        self.version = version
        self.tags: list[str] = []
        self.status: str | None = ""
        self.finished_at = 0
        self.open: dict[tuple[Any, ...], tuple[int, str, int, int]] = {}
        self.attempts: _Attempts | None = None
        self.costs: dict[str, _Sum] = {}


class StoreAudit:
    """One partition of the events against what the store has of it.

    Args:
        topic: The events topic.
        partition: Its number.
        recorded_to: The last offset that the store has, -1 for none.
        findings: Takes what is found.
        kept_from: Milliseconds; the store need not have runs that began before.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        recorded_to: int,
        findings: Findings,
        *,
        kept_from: int = 0,
    ) -> None:
        self.recorded_to = recorded_to
        self.kept_from = kept_from
        self.counts: Counter[str] = Counter()
        self._topic = topic
        self._partition = partition
        self._findings = findings
        self._known = known_runs.KnownRuns()
        self._offsets = array("q")
        self._seqs = array("q")
        self._digests = array("Q")
        self._names: list[str] = []
        self._runs: dict[str, _Run] = {}
        self._older: set[str] = set()
        self._behind = 0

    # --- decisions in ---

    def take(self, fresh: Fresh) -> None:
        """The next decision of the log; in order, without repetitions."""
        record = fresh.record
        if record.offset > self.recorded_to:
            self._behind += 1
            return
        try:
            decision = decision_record.read(record.partition, record.offset, record.value)
        except UnreadableRecordError as error:
            place = Place(record.topic, record.partition, record.offset)
            text = f"the store cannot keep it, and there is no dead letter: {error}"
            self._findings.unless_letter(place, "event.noLetter", place, text, late=False)
            return
        rows = project([decision], self._known, self._topic)
        if any(row[_BEGAN] < self.kept_from for row in rows.events):
            return
        for number, row in enumerate(rows.events):
            self._offsets.append(record.offset)
            self._seqs.append(decision.head.seq + number)
            self._digests.append(_digest(decision, number, row[_TYPE]))
            self._names.append(decision.head.run)
        if fresh.older:
            self._older.add(decision.head.run)
            return
        self._take_run(decision, fresh.state)
        run = self._runs[decision.head.run]
        for seq, event in enumerate(decision.events, decision.head.seq):
            if isinstance(event, RunStarted):
                run.tags = list(event.tags)
            if costs := getattr(event, "costs", ()):
                _add_costs(run.costs, decision, seq, event, costs)
        for row in rows.agent_runs:
            key = tuple(row[number] for number in _KEY)
            dispatched, outcome, finished, cancelled = run.open.get(key, (0, "", 0, 0))
            run.open[key] = (
                max(dispatched, row[_DISPATCHED]),
                max(outcome, row[_OUTCOME]),
                max(finished, row[_FINISHED]),
                max(cancelled, row[_CANCELLED]),
            )
        if decision.head.status in TERMINAL and run.attempts is None:
            run.attempts = _summed(run.open)
            run.open = {}

    def _take_run(self, decision: DecisionRecord, state: RunState | None) -> None:
        head = decision.head
        run = self._runs.get(head.run)
        if run is None:
            run = self._runs[head.run] = _Run(decision.offset, head.at, head.version)
        if state is None:
            run.status = None  # its history is broken, which is said already
        elif run.status is not None:
            run.status = state.head.status.value
            run.finished_at = state.head.finished_at or 0

    # --- events ---

    def differing(self, rows: Iterable[Row], asked: Range) -> list[Range]:
        """The ranges whose sums are not those of the log.

        Args:
            rows: `bucket` (offset // WIDTH), `events`, `digest`.
            asked: The range that they are the answer about.
        """
        counts: Counter[int] = Counter()
        sums: Counter[int] = Counter()
        for offset, digest in zip(self._offsets, self._digests, strict=True):
            if asked.first <= offset <= asked.last:
                counts[offset // WIDTH] += 1
                sums[offset // WIDTH] += digest
        told = {bucket: (counts[bucket], sums[bucket] % 2**64) for bucket in counts}
        held = {int(row["bucket"]): (int(row["events"]), int(row["digest"])) for row in rows}
        self.counts["recorded events"] += sum(number for number, _ in held.values())
        return [
            Range(max(bucket * WIDTH, asked.first), min((bucket + 1) * WIDTH - 1, asked.last))
            for bucket in sorted(told.keys() | held.keys())
            if told.get(bucket) != held.get(bucket)
        ]

    def compare_events(self, asked: Range, rows: Iterable[Row]) -> None:
        """Name what differs in a range.

        Args:
            asked: One of `differing`.
            rows: Each event of it: `offset`, `seq`, `run_id`, `digest`.
        """
        held: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            held.setdefault((int(row["offset"]), int(row["seq"])), []).append(row)
        for offset, seq, digest, run in zip(
            self._offsets, self._seqs, self._digests, self._names, strict=True
        ):
            if not asked.first <= offset <= asked.last:
                continue
            found = held.pop((offset, seq), [])
            place = f"event {seq} at {self._topic}/{self._partition}/{offset}"
            if not found and run in self._older:
                continue  # perhaps a repetition of what stands before
            if not found:
                self._findings.differ("store.eventMissing", run, f"the store has no {place}")
            elif len(found) > 1:
                text = f"the store has {place} {len(found)} times"
                self._findings.differ("store.eventTwice", run, text)
            elif int(found[0]["digest"]) != digest:
                text = f"the store has {place} with other contents"
                self._findings.differ("store.eventDiffers", run, text)
        for (offset, seq), rest in held.items():
            place = f"event {seq} at {self._topic}/{self._partition}/{offset}"
            run = str(rest[0]["run_id"])
            self._findings.differ(
                "store.eventUnknown", run, f"the store has {place}, which the log has not"
            )

    # --- runs and attempts ---

    def spans(self) -> Iterator[RunSpan]:
        """The runs that the store must have, some at a time."""
        names = list(self._runs)
        for begin in range(0, len(names), RUNS_AT_ONCE):
            some = names[begin : begin + RUNS_AT_ONCE]
            runs = [self._runs[name] for name in some]
            started = [run.started_at for run in runs]
            yield RunSpan(runs[0].offset, runs[-1].offset, min(started), max(started), tuple(some))

    def compare_runs(self, span: RunSpan, rows: Iterable[Row], attempts: Iterable[Row]) -> None:
        """Compare the store's runs and attempts.

        Args:
            span: Of the runs that were asked for; rows of others are ignored.
            rows: `run_id`, `status`, `version`, `tags`, `started_ms`, `finished_ms` (0 for none).
            attempts: `run_id`, `succeeded`, `failed`, `cancelled`, `running`, `finished`.
        """
        held_runs = {str(row["run_id"]): row for row in rows}
        held_attempts = {str(row["run_id"]): row for row in attempts}
        for name in span.runs:
            run, row = self._runs[name], held_runs.get(name)
            self.counts["recorded runs"] += 1
            if row is None:
                self._findings.differ("store.runMissing", name, "the store has no row of the run")
                continue
            self._compare_run(name, run, row)
            if run.attempts is not None and run.status is not None:
                self._compare_attempts(name, run.attempts, held_attempts.get(name))

    def compare_costs(self, span: RunSpan, rows: Iterable[Row]) -> None:
        """Compare what the runs cost; of those that have not ended the store may know more by now.

        Args:
            span: Of the runs that were asked for; rows of others are ignored.
            rows: `run_id`, `currency`, `entries`, `amount` (a decimal number as text), `digest`.
        """
        held: dict[str, dict[str, _Sum]] = {}
        for row in rows:
            found = _Sum(int(row["entries"]), Decimal(row["amount"]), int(row["digest"]))
            held.setdefault(str(row["run_id"]), {})[str(row["currency"])] = found
        for name in span.runs:
            run = self._runs[name]
            self.counts["costs"] += sum(told.entries for told in run.costs.values())
            if run.attempts is None:
                continue
            had = held.get(name, {})
            for currency in sorted(run.costs.keys() | had.keys()):
                told, has = run.costs.get(currency, _NOTHING), had.get(currency, _NOTHING)
                if told != has:
                    text = f"the store has costs of {currency} {has}, the events {told}"
                    if told[:2] == has[:2]:
                        text += ": they say other things of agent, model, time or the like"
                    self._findings.differ("store.costsDiffer", name, text)

    def _compare_run(self, name: str, run: _Run, row: Row) -> None:
        told: dict[str, Any] = {
            "started_ms": run.started_at,
            "version": run.version,
            "tags": run.tags,
        }
        if run.finished_at:
            told |= {"status": run.status, "finished_ms": run.finished_at}
        wrong = [
            f"{field} {row[field]} instead of {value}"
            for field, value in told.items()
            if row[field] != value
        ]
        if wrong and run.status is not None:
            text = f"the store's row of the run has {', '.join(wrong)}"
            self._findings.differ("store.runDiffers", name, text)

    def _compare_attempts(self, name: str, told: _Attempts, row: Row | None) -> None:
        held = _Attempts((0,) * len(_OUTCOMES), 0)
        if row is not None:
            numbers = (row["succeeded"], row["failed"], row["cancelled"], row["running"])
            held = _Attempts(tuple(int(number) for number in numbers), int(row["finished"]))
        if told != held:
            self._findings.differ(
                "store.attemptsDiffer",
                name,
                f"the store has attempts {_said(held)}, the events make {_said(told)}",
            )

    def close(self) -> None:
        """All of the partition has been compared."""
        if self._behind:
            self._findings.wait(
                "store.behind",
                f"{self._topic}/{self._partition}",
                f"{self._behind} decisions after offset {self.recorded_to} are not recorded yet",
            )


def _digest(decision: DecisionRecord, number: int, kind: str) -> int:
    """What `halfMD5` gives of the same fields: see `ledger_sums.sql`."""
    head = decision.head
    return _half_md5(
        (
            head.run,
            str(head.seq + number),
            kind,
            str(head.at),
            head.project,
            head.workflow,
            str(head.version),
            head.status,
            head.previous,
            head.traceparent or "",
            decision.payloads[number],
        )
    )


def _add_costs(
    sums: dict[str, _Sum], decision: DecisionRecord, seq: int, event: Any, costs: tuple[Cost, ...]
) -> None:
    """What an event charges. The fields are those that `ledger_costs.sql` makes digests of."""
    head = decision.head
    # As the recorder tells who worked: whoever is paid for the compute.
    agent = next((cost.source for cost in costs if cost.kind == "compute"), "")
    item = -1 if event.item is None else event.item
    place = (head.project, head.workflow, str(head.version), event.node, str(item))
    for entry, cost in enumerate(costs):
        digest = _half_md5(
            (
                *(str(seq), str(entry), str(head.at), *place, str(event.attempt), agent),
                *(cost.kind, cost.source, cost.model, _text(cost.quantity), cost.unit),
                *(_text(cost.unit_price), _text(cost.amount), cost.price_version),
            )
        )
        known = sums.get(cost.currency, _NOTHING)
        sums[cost.currency] = _Sum(
            known.entries + 1,
            _EXACT.add(known.amount, cost.amount),
            (known.digest + digest) % 2**64,
        )


def _text(number: Decimal) -> str:
    """A decimal number as ClickHouse writes it."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _half_md5(fields: Iterable[str]) -> int:
    text = "\x1f".join(fields)
    return int.from_bytes(md5(text.encode(), usedforsecurity=False).digest()[:8], "big")


def _summed(attempts: Mapping[tuple[Any, ...], tuple[int, str, int, int]]) -> _Attempts:
    """As the view `agent_runs` tells an attempt's status and end."""
    numbers: Counter[str] = Counter()
    finished_at = 0
    for dispatched, outcome, finished, cancelled in attempts.values():
        if not dispatched:  # no attempt: a node that sleeps ends too
            continue
        numbers[outcome or ("CANCELLED" if cancelled else "RUNNING")] += 1
        finished_at += finished if outcome else cancelled
    return _Attempts(tuple(numbers[outcome] for outcome in _OUTCOMES), finished_at)


def _said(attempts: _Attempts) -> str:
    numbers = zip(_OUTCOMES, attempts.by_status, strict=True)
    said = ", ".join(f"{number} {outcome}" for outcome, number in numbers if number)
    return f"{said or 'none'} (ends adding up to {attempts.finished})"

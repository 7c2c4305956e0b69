"""A log of one partition as a worker leaves it, made by the real core, for audits to look at."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec import UNSET, Raw

from streams import codec, topics
from streams.catalog import Definition, Retirement
from streams.cost import Cost
from streams.events import Decision
from streams.ids import run_id
from streams.lifecycle import RunState
from streams.messages import Cancel, Result, RunMessage, Start, Timer
from streams.plan import parse
from streams.records import Failure, Trigger
from streams.run import decide
from streams.run_store import OFFSET_KEY, RunStore
from streams.trigger import IncomingEvent, to_kafka

BEGAN = 1_700_000_000_000
SPEC: dict[str, Any] = {
    "name": "review",
    "trigger": {"event": "repo.push", "filter": "event.data.branch == 'main'"},
    "nodes": [
        {"id": "scan", "agent": "scanner", "action": "scan", "inputs": {"é": "{{ event.data }}"}},
        {"id": "lint", "agent": "linter", "action": "lint", "retry": {"attempts": 2}},
        {"id": "tell", "agent": "notifier", "action": "send", "dependsOn": ["scan", "lint"]},
    ],
}
PLAN = parse(SPEC)
WANTED = b'{"branch": "main"}'
"""What its trigger lets through."""
NO = Failure(kind="agent_error", message="boom", retryable=False)


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def run_of(name: str) -> str:
    return run_id("default", "review", "/test", name)


def costs_of(node: str, attempt: int) -> tuple[Cost, ...]:
    """What an attempt costs there: compute, and the linter's first one something in euros."""
    minute = Decimal(attempt) / 3
    minutes = minute.quantize(Decimal("0.000000001"))
    worked = Cost(
        kind="compute",
        source=node,
        quantity=minutes,
        unit="minute",
        unit_price=Decimal("0.01"),
        amount=minutes * Decimal("0.01"),
        price_version="default",
    )
    if (node, attempt) != ("lint", 1):
        return (worked,)
    asked = Cost(
        kind="tokens",
        source="provider",
        model="small",
        quantity=Decimal(1234),
        unit="input_token",
        unit_price=Decimal("0.0000000001"),
        amount=Decimal("0.0000001234"),
        currency="EUR",
        price_version="2026-11-01",
    )
    return (worked, asked)


@dataclass
class SmallLog:
    """What is on each topic; `hear` lets a worker decide one message and write what it makes."""

    workflows: list[Record] = field(default_factory=list)
    triggers: list[Record] = field(default_factory=list)
    inbox: list[Record] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)
    state: list[Record] = field(default_factory=list)
    at: int = BEGAN

    def __post_init__(self) -> None:
        self._store = RunStore(0, {})
        self.publish(1)

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> Record:
        records: list[Record] = getattr(self, topic.removeprefix(topics.PREFIX))
        record = Record(topic, 0, len(records), self.at, key, value, headers)
        records.append(record)
        return record

    def publish(self, version: int, **changes: Any) -> None:
        spec = parse({**SPEC, **changes}).spec
        record = Definition(
            project="default",
            name="review",
            version=version,
            digest=spec.digest,
            published_at=self.at,
            definition=Raw(spec.canonical()),
        )
        self.append(topics.WORKFLOWS, codec.encode(record))
        self.at += 10_000

    def retire(self, version: int) -> None:
        record = Retirement(project="default", name="review", version=version, retired_at=self.at)
        self.append(topics.WORKFLOWS, codec.encode(record))
        self.at += 10_000

    def trigger(self, name: str, data: bytes = WANTED) -> Trigger:
        trigger = Trigger(id=name, source="/test", type="repo.push", data=Raw(data))
        headers, value = to_kafka(IncomingEvent(trigger))
        self.append(topics.TRIGGERS, value, None, tuple(headers))
        return trigger

    def hear(self, message: RunMessage) -> Decision | None:
        key = message.run.encode()
        heard = self.append(topics.INBOX, codec.encode(message), key)
        before = self._store.get(message.run)
        outcome = decide(before, message, heard.timestamp, PLAN, 0)
        states: list[tuple[RunState, frozenset[str]]] = []
        changes: list[tuple[bytes, bytes | None]] = []
        if outcome.decision is not None and outcome.state is not None:
            self.append(topics.EVENTS, codec.encode(outcome.decision), key)
            changes += self._store.changes(before, outcome)
            states.append((outcome.state, outcome.touched))
        offset = b"%d" % (heard.offset + 1)
        changes.append((OFFSET_KEY, offset))
        for changed, value in changes:
            self.append(topics.STATE, value, changed, (("reads", offset),))
        self._store.take_over(states, heard.offset + 1)
        self._store.kept(changes, [s.head.run for s, _ in states if s.trigger is None])
        self.at += 10
        return outcome.decision

    def start(self, name: str, data: bytes = WANTED) -> None:
        self.hear(
            Start(
                run=run_of(name),
                project="default",
                workflow="review",
                version=1,
                trigger=self.trigger(name, data),
            )
        )

    def answer(
        self, name: str, node: str, attempt: int = 1, failure: Failure | None = None
    ) -> None:
        self.hear(
            Result(
                run=run_of(name),
                node=node,
                attempt=attempt,
                started_at=self.at - 5,
                finished_at=self.at - 2,
                worker="w",
                failure=failure,
                output=UNSET if failure else Raw(b'{"n": 1}'),
                costs=costs_of(node, attempt),
            )
        )

    def some_runs(self) -> "SmallLog":
        """`good`, `failed` and `cancelled` have ended, `going` has not."""
        names = ("good", "failed", "cancelled", "going")
        for name in names:
            self.start(name)
        for name in names:
            self.answer(name, "scan")
        self.answer("good", "lint", failure=Failure(kind="agent_error", message="not yet"))
        self.answer("good", "lint")  # late: the attempt has been given up
        self.hear(Timer(run=run_of("good"), node="lint", due=self.at + 3_600_000))
        self.answer("good", "lint", 2)
        self.answer("good", "tell")
        self.answer("failed", "lint", failure=NO)
        self.hear(Cancel(run=run_of("cancelled"), reason="not wanted", force=True))
        return self

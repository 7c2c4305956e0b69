"""A generated history of two weeks: two workflows, retries, failures, approvals and costs.

In its second week the reviews have a new version, and so has their scanner.

It is made by the real core, decision by decision, and recorded as the recorder does; every number
follows from the place of the run, so that each history is the same.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from story import Story

from sinks.recording import Recording
from sinks.store import Store
from streams import codec, topics
from streams.cost import Cost
from streams.records import Failure

BEGAN = 1_760_000_000_000
DAY = 86_400_000
DAYS = 14
ODD_DAY = 10
TRANSIENT = Failure(kind="agent_error", message="the network broke", retryable=True)
REVIEW: dict[str, Any] = {
    "name": "review",
    "trigger": {"event": "order.placed"},
    "nodes": [
        {"id": "scan", "agent": "scanner", "action": "scan", "retry": {"attempts": 3}},
        {"id": "lint", "agent": "linter", "action": "lint"},
        {"id": "judge", "agent": "judge", "action": "ask", "dependsOn": ["scan", "lint"]},
    ],
}
RELEASE: dict[str, Any] = {
    "name": "release",
    "trigger": {"event": "order.placed"},
    "nodes": [
        {"id": "build", "agent": "builder", "action": "build"},
        {
            "id": "ship",
            "agent": "shipper",
            "action": "ship",
            "dependsOn": ["build"],
            "approvalRequired": True,
        },
    ],
}


@dataclass(slots=True)
class Record:
    offset: int
    value: bytes | None
    partition: int = 0
    topic: str = topics.EVENTS
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def stories() -> list[Story]:
    """Four reviews and a release each day; on `ODD_DAY` the reviews are slow and fail."""
    reviews = [_review(day, turn) for day in range(DAYS) for turn in range(4)]
    return reviews + [_release(day) for day in range(DAYS)]


async def record(store: Store) -> int:
    """Record the history; how many decisions it has."""
    decisions = sorted((d for s in stories() for d in s.decisions), key=lambda d: (d.at, d.run))
    recording = Recording(store, topics.EVENTS, _no_letters)
    await recording.resume([0])
    values = [codec.encode(decision) for decision in decisions]
    await recording.record([Record(offset, value) for offset, value in enumerate(values)])
    assert recording.counts.gaps == recording.counts.conflicts == 0
    return len(values)


async def _no_letters(record: Any, error: Exception) -> None:
    raise AssertionError(f"offset {record.offset} is unreadable: {error}")


def _review(day: int, turn: int) -> Story:
    odd = day == ODD_DAY
    story = Story(REVIEW, event=f"r-{day}-{turn}", at=BEGAN + day * DAY + turn * 3_600_000)
    is_second_week = day >= DAYS // 2
    scanner = "1.1.0" if is_second_week else "1.0.0"
    story.start({}, version=2 if is_second_week else 1)
    attempt = 1
    if turn == 1 or odd:
        half = (_compute("scanner", "0.5"),)
        story.answer("scan", attempt=1, failure=TRANSIENT, costs=half, version=scanner)
        story.wake("scan", after=2_000)
        attempt = 2
    story.at += 30_000 if odd else 400 + 100 * turn
    costs = (_compute("scanner", "1.5"),)
    story.answer("scan", {}, attempt=attempt, costs=costs, version=scanner)
    story.answer("lint", {}, costs=(_compute("linter", "0.25"),))
    if odd:
        return story.fail("judge")
    tokens = 1_000 * (1 + turn) * (40 if (day, turn) == (5, 3) else 1)
    model = "large" if is_second_week else "small"
    return story.answer("judge", {}, costs=(_tokens(model, tokens), _compute("judge", "0.1")))


def _release(day: int) -> Story:
    story = Story(RELEASE, event=f"d-{day}", at=BEGAN + day * DAY + 50_000_000)
    story.start({}).answer("build", {}, costs=(_compute("builder", "2"),))
    story.at += 60_000 * (1 + day % 3)
    if day % 7 == 6:
        return story.reject("ship")
    return story.approve("ship").answer("ship", {}, costs=(_compute("shipper", "1"),))


def _compute(agent: str, minutes: str) -> Cost:
    return _cost("compute", agent, "", Decimal(minutes), "minute", Decimal("0.01"))


def _tokens(model: str, number: int) -> Cost:
    price = Decimal("0.000002") if model == "large" else Decimal("0.0000005")
    return _cost("tokens", "provider", model, Decimal(number), "input_token", price)


def _cost(kind: str, source: str, model: str, quantity: Decimal, unit: str, price: Decimal) -> Cost:
    return Cost(
        kind=kind,
        source=source,
        model=model,
        quantity=quantity,
        unit=unit,
        unit_price=price,
        amount=quantity * price,
        currency="USD",
        price_version="2025-10-01",
    )

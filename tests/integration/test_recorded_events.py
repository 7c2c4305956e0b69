"""What the store says of runs with every kind of node and event: rows, attempts, approvals."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import generated_history
import pytest
import pytest_asyncio
from msgspec import Raw
from msgspec.structs import replace
from story import BEGIN, Story, order

from gateway.reads import StoreReads, milliseconds
from gateway.run_costs import RunCost, costs_of
from gateway.run_detail import decoded, tell_all
from gateway.run_items import ItemPage, page_of_items
from gateway.run_reading import read_run
from gateway.run_views import AgentRunView
from infra.verification import ask_store, of_store
from sinks import schema
from sinks.clickhouse import open_store
from sinks.history import ApprovalFilter, History, RunFilter
from sinks.ledger import StoreAudit
from sinks.recording import Recording
from sinks.store import Store
from streams import codec, topics
from streams.cost import Cost
from streams.findings import Findings
from streams.ledger import PartitionAudit
from streams.messages import Approval, Cancel, Occurrence, Pause, Progress, Result, Resume, Timer
from streams.payload import reference_to
from streams.records import Failure, NodeStatus, Origin, Parent, Reused, Trigger

TOPIC = topics.EVENTS


@dataclass(slots=True)
class Record:
    offset: int
    value: bytes | None
    partition: int = 0
    topic: str = TOPIC
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    store = await open_store(f"chdb://{tmp_path_factory.mktemp('store')}")
    try:
        await schema.apply(store)
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(engine: Store) -> Store:
    for table in ("events", "runs_log", "agent_runs_log", "costs_log"):
        await engine.command(f"TRUNCATE TABLE {table}")
    return engine


async def _no_letters(record: Any, error: Exception) -> None:
    raise AssertionError(f"offset {record.offset} is unreadable: {error}")


async def recorded(store: Store, *stories: Story) -> History:
    """Record the stories' decisions, one record a batch, the first half of them twice."""
    decisions = sorted((d for s in stories for d in s.decisions), key=lambda d: (d.at, d.run))
    values = [codec.encode(decision) for decision in decisions]
    values += values[: len(values) // 2]
    recording = Recording(store, TOPIC, _no_letters)
    await recording.resume([0])
    for offset, value in enumerate(values):
        await recording.record([Record(offset, value)])
    assert recording.counts.gaps == recording.counts.conflicts == 0
    return History(store, TOPIC)


async def attempts(history: History, run: str) -> list[tuple[Any, ...]]:
    names = ("node", "item", "attempt", "status", "agent", "error_kind")
    return [tuple(row[name] for name in names) for row in await history.agent_runs(run)]


def dispatched(story: Story) -> Story:
    """The order goes on: its carrier is asked to book."""
    story.wake("nap", after=1_000)
    event = Trigger(id="p", source="/bank", type="payment.received", data=Raw(b'{"sum":3}'))
    story.hear(Occurrence(project="default", trigger=event))
    for by in ("ann", "bob"):
        story.hear(Approval(run=story.run, node="book", approved=True, by=by, roles=("lead",)))
    return story


def finished() -> Story:
    """An order that comes to its end."""
    story = dispatched(order())
    story.answer("book", {"ref": 1}).answer("pack", "A", item=0)
    story.hear(Pause(run=story.run)).answer("pack", "B", item=1).hear(Resume(run=story.run))
    story.answer("pack", "C", item=2)
    return story.answer("invoice", {"no": 7}).answer("send", None)


async def test_history_tells_of_runs_what_the_views_do(store: Store) -> None:
    paused = order(event="paused")
    paused.hear(Pause(run=paused.run))
    working, cancelled = (dispatched(order(event=event)) for event in ("working", "cancelled"))
    cancelled.hear(Cancel(run=cancelled.run, reason="not wanted", force=True))
    odd = 4 * generated_history.ODD_DAY
    reviews = generated_history.stories()[odd : odd + 2]  # tried again, and failed
    told = (finished(), paused, working, cancelled, *reviews)
    history = await recorded(store, *told)

    runs = (await store.query("SELECT * FROM runs ORDER BY started_at DESC, run_id DESC")).dicts()
    assert {run["status"] for run in runs} >= {"SUCCESS", "FAILED", "CANCELLED"}
    assert any(run["paused"] for run in runs)
    assert await history.runs() == runs
    failed = RunFilter(statuses=("FAILED",))
    assert await history.runs(failed) == [run for run in runs if run["status"] == "FAILED"]
    seen = set()
    for story in told:
        sql = "SELECT * FROM agent_runs WHERE run_id = {run:String} ORDER BY dispatched_at, node"
        attempts = (await store.query(sql, {"run": story.run})).dicts()
        assert await history.agent_runs(story.run) == attempts
        seen |= {attempt["status"] for attempt in attempts}
    assert seen == {"SUCCESS", "FAILED", "CANCELLED", "RUNNING"}


SPENT = Cost(
    kind="api", source="s", quantity=Decimal(1), unit="request", unit_price=Decimal(2),
    amount=Decimal(2),
)  # fmt: skip


def given_up() -> Story:
    """A run that fails as its step is over its time, and then hears what that has cost."""
    node = {"id": "n", "agent": "a", "action": "x", "timeout": "1m", "retry": {"attempts": 1}}
    story = Story({"name": "slow", "nodes": [node]}).start().wake("n", after=60_000)
    return story.answer("n", costs=(SPENT,))


async def test_only_what_was_dispatched_is_an_attempt(store: Store) -> None:
    story = finished()
    history = await recorded(store, story)
    assert await attempts(history, story.run) == [
        ("book", -1, 1, "SUCCESS", "carrier", ""),
        ("pack", 0, 1, "SUCCESS", "packer", ""),
        ("pack", 1, 1, "SUCCESS", "packer", ""),
        ("pack", 2, 1, "SUCCESS", "packer", ""),
        ("invoice", -1, 1, "SUCCESS", "", ""),
        ("send", -1, 1, "SUCCESS", "carrier", ""),
    ]
    rows = await history.agent_runs(story.run)
    assert [row["output"] for row in rows][1:4] == ['"A"', '"B"', '"C"']
    assert [row["inputs"] for row in rows][1:4] == [f'{{"line":"{line}"}}' for line in "abc"]
    assert [row["task_id"].removeprefix(story.run) for row in rows][3:5] == [
        "/pack.2/1",
        "/invoice/1",
    ]
    assert [bool(row["child_run"]) for row in rows] == [False] * 4 + [True, False]


async def test_the_ledger_counts_attempts_as_the_store_does(store: Store) -> None:
    stories = [finished(), order("waits"), given_up()]
    await recorded(store, *stories)
    decisions = sorted((d for s in stories for d in s.decisions), key=lambda d: (d.at, d.run))
    findings = Findings()
    partition = PartitionAudit(0, Findings(), {}, recorded_to=len(decisions) - 1)
    held = StoreAudit(TOPIC, 0, len(decisions) - 1, findings)
    for offset, decision in enumerate(decisions):
        fresh = partition.take_event(Record(offset, codec.encode(decision)))
        assert fresh is not None
        held.take(fresh)
    await ask_store(of_store(store), held, 0, 0, findings)
    assert findings.differences == []
    assert held.counts["costs"] == 1


async def test_a_run_that_has_ended_is_charged_and_stays_as_it_was(store: Store) -> None:
    story = given_up()
    history = await recorded(store, story)
    [row] = await history.runs()
    ended_at = story.decisions[-2].at
    assert (row["status"], row["error_kind"]) == ("FAILED", "node_failed")
    assert milliseconds(row["finished_at"]) == ended_at
    [attempt] = await history.agent_runs(story.run)
    assert (attempt["status"], attempt["error_kind"]) == ("FAILED", "timeout")
    detail = tell_all(await StoreReads(history).run_events(story.run), story.plan, {}).detail
    assert detail.finished_at is not None
    assert milliseconds(detail.finished_at) == ended_at
    assert [total.amount for total in detail.cost] == ["2"]


async def test_events_name_the_item_that_they_are_about(store: Store) -> None:
    story = finished()
    await recorded(store, story)
    rows = await store.query_readonly(
        "SELECT item, count() FROM events WHERE node = 'pack' GROUP BY item ORDER BY item"
    )
    assert rows.rows == [(-1, 2), (0, 2), (1, 2), (2, 2)]


async def test_a_run_says_whether_it_is_paused_and_what_it_belongs_to(store: Store) -> None:
    paused, resumed, ended = order("paused"), order("resumed"), order("ended")
    for story in (paused, resumed, ended):
        story.hear(Pause(run=story.run))
    resumed.hear(Resume(run=resumed.run))
    ended.hear(Cancel(run=ended.run, reason="no"))
    child = Story(resumed.plan.spec.model_dump(by_alias=True, exclude_defaults=True), event="child")
    child.start(
        {"to": "Rome", "lines": []},
        depth=2,
        parent=Parent(run="p", node="n", attempt=1),
        origin=Origin(run="o", kind="retry"),
    )
    history = await recorded(store, paused, resumed, ended, child)
    told = {row["run_id"]: row for row in await history.runs()}
    assert [told[s.run]["paused"] for s in (paused, resumed, ended)] == [True, False, False]
    names = ("depth", "parent_run", "origin_run", "origin_kind")
    assert tuple(told[child.run][name] for name in names) == (2, "p", "o", "retry")
    assert tuple(told[paused.run][name] for name in names) == (0, "", "", "")
    assert await history.repetitions("o", BEGIN) == [child.run]
    assert await history.repetitions("o", child.at + 1) == []
    assert await history.repetitions(paused.run, BEGIN) == []


WAITS = {
    "name": "deploy",
    "nodes": [
        {
            "id": "deploy",
            "agent": "deployer",
            "action": "deploy",
            "approvalRequired": {"roles": ["lead"]},
            "inputs": {"to": "{{ context.to }}"},
        }
    ],
}


async def test_the_status_of_a_run_goes_to_waiting_and_back(store: Store) -> None:
    story = Story(WAITS).start({"to": "prod"})
    history = await recorded(store, story)
    assert [row["status"] for row in await history.runs()] == ["WAITING_APPROVAL"]
    await store.command("TRUNCATE TABLE events")
    story.hear(Approval(run=story.run, node="deploy", approved=True, by="ann", roles=("lead",)))
    history = await recorded(store, story)
    assert [row["status"] for row in await history.runs()] == ["RUNNING"]


async def test_approvals_are_told_from_the_events(store: Store) -> None:
    stories = {
        name: Story(WAITS, event=name, at=BEGIN + 1_000 * n).start({"to": name})
        for n, name in enumerate(("waits", "approved", "rejected", "expired", "cancelled"))
    }
    approved, rejected = stories["approved"], stories["rejected"]
    approved.hear(
        Approval(
            run=approved.run,
            node="deploy",
            approved=True,
            by="ann",
            notes="go",
            roles=("lead",),
            inputs=Raw(b'{"to":"stage"}'),
        )
    ).fail("deploy")
    rejected.hear(
        Approval(
            run=rejected.run, node="deploy", approved=False, by="bob", notes="no", roles=("lead",)
        )
    )
    stories["expired"].wake("deploy", after=86_400_000)
    cancelled = stories["cancelled"]
    cancelled.hear(Cancel(run=cancelled.run, reason="x"))
    history = await recorded(store, *stories.values())

    rows = await history.approvals()
    by_run = {story.run: name for name, story in stories.items()}
    assert [(by_run[row["run_id"]], row["status"]) for row in rows] == [
        ("waits", "PENDING"),
        ("cancelled", "CANCELLED"),
        ("expired", "EXPIRED"),
        ("rejected", "REJECTED"),
        ("approved", "APPROVED"),
    ]
    waits, told = rows[0], rows[4]
    assert waits["id"] == f"{stories['waits'].run}:deploy"
    assert (waits["roles"], waits["needed"], waits["cause"]) == (["lead"], 1, "workflow")
    assert (waits["inputs"], waits["on_deadline"]) == ('{"to":"waits"}', "reject")
    assert (waits["decided_at"], told["waited_ms"]) == (None, 10)
    assert (told["deadline"] - told["requested_at"]).days == 1
    assert ['"by":"ann"' in answer["event"] for answer in told["answers"]] == [True]

    pages: list[dict[str, Any]] = []
    while page := await history.approvals(limit=2, before=_key(pages)):
        pages += page
    assert pages == rows
    assert len(await history.approvals(ApprovalFilter(state="pending"))) == 1
    assert len(await history.approvals(ApprovalFilter(state="decided", workflow="deploy"))) == 4
    assert await history.approvals(ApprovalFilter(workflow="other")) == []
    one = await history.approvals(ApprovalFilter(run=rows[0]["run_id"]))
    assert one == [row for row in rows if row["run_id"] == rows[0]["run_id"]]
    assert len(one) < len(rows)


def _key(rows: list[dict[str, Any]]) -> tuple[bool, int, str] | None:
    if not rows:
        return None
    last = rows[-1]
    at = round(last["requested_at"].timestamp() * 1000)
    return (last["status"] == "PENDING", at, last["id"])


async def test_an_agent_that_will_not_act_alone_has_ended_its_attempt(store: Store) -> None:
    definition = {"name": "w", "nodes": [{"id": "n", "agent": "a", "action": "do"}]}
    refuses = Failure(kind="approval_required", message="ask somebody", retryable=False)
    asked = Story(definition, event="asked").start().answer("n", failure=refuses)
    no = Story(definition, event="no").start().answer("n", failure=refuses).reject("n")
    yes = Story(definition, event="yes").start().answer("n", failure=refuses).approve("n")
    yes.answer("n", 1, attempt=2)
    history = await recorded(store, asked, no, yes)
    refused = ("n", -1, 1, "CANCELLED", "a", "approval_required")
    assert await attempts(history, asked.run) == [refused]
    assert await attempts(history, no.run) == [refused]
    assert await attempts(history, yes.run) == [refused, ("n", -1, 2, "SUCCESS", "a", "")]


async def test_what_undoes_a_node_is_an_attempt_of_its_own(store: Store) -> None:
    story = order()
    for by in ("ann", "bob"):
        story.hear(Approval(run=story.run, node="book", approved=True, by=by, roles=("lead",)))
    story.answer("book", {"ref": 1}).hear(Cancel(run=story.run, reason="no"))
    for item in (0, 1):
        failure = Failure(kind="cancelled", message="stopped", retryable=False)
        story.answer("pack", item=item, failure=failure)
    story.answer("book.compensate", None)
    history = await recorded(store, story)
    assert (await attempts(history, story.run))[-1] == (
        "book.compensate",
        -1,
        1,
        "SUCCESS",
        "carrier",
        "",
    )
    [run] = await history.runs()
    assert (run["status"], run["error_kind"]) == ("CANCELLED", "cancelled")


async def test_attempts_and_events_come_in_pages(store: Store) -> None:
    story = finished()
    history = await recorded(store, story)
    reads = StoreReads(history)
    whole = list(await reads.agent_runs(story.run, None, 100))
    paged: list[AgentRunView] = []
    after = None
    while page := await reads.agent_runs(story.run, after, 2):
        paged += page
        last = paged[-1]
        item = -1 if last.item is None else last.item
        after = (milliseconds(last.dispatched_at), last.node, item, last.attempt)
    assert (paged, len(paged)) == (whole, 6)
    events = [row.seq for row in await reads.run_events(story.run)]
    assert [r.seq for r in await reads.run_events_page(story.run, 3, 2)] == events[3:5]
    assert [r.seq for r in await reads.newest_run_events(story.run, 5, 2)] == [4, 3]
    assert [r.seq for r in await reads.newest_run_events(story.run, None, 1)] == events[-1:]


async def test_the_costs_of_a_run_come_in_pages_up_to_any_of_its_events(store: Store) -> None:
    """Every entry once: a batch that is recorded again is there twice until it is merged."""
    story = fleet()
    reads = StoreReads(await recorded(store, story, fleet_of_others()))
    await store.command("INSERT INTO costs_log SELECT * FROM costs_log")
    told = [
        (row.seq, entry, event.node, event.item, cost.amount)
        for row, event in decoded(await reads.run_events(story.run))
        for entry, cost in enumerate(costs_of(event))
    ]
    assert len(told) == 5
    for until in (told[0][0], told[2][0], 10**6):
        due = [each for each in told if each[0] <= until]
        paged: list[RunCost] = []
        after = None
        while page := await reads.run_costs(story.run, until, after, 2):
            paged += page
            after = page[-1].seq, page[-1].entry
        assert [
            (it.seq, it.entry, it.view.node, it.view.item, Decimal(it.view.amount)) for it in paged
        ] == due
        sums = await reads.run_cost_sums(story.run, until)
        assert sums == [("USD", "compute", sum(each[4] for each in due))]
    [view] = [it.view for it in await reads.run_costs(story.run, told[0][0], None, 2)]
    assert (view.kind, view.source, view.model, view.unit) == ("compute", "a", None, "minute")
    assert (view.quantity, view.unit_price, view.amount) == ("1", "0.1", "0.1")


async def test_a_payload_is_found_by_the_event_that_refers_to_it(store: Store) -> None:
    reference = reference_to(b'"' + b"y" * 200 + b'"')
    story = Story({"name": "w", "nodes": [{"id": "n", "agent": "a", "action": "x"}]}).start()
    story.hear(
        Result(
            run=story.run,
            node="n",
            attempt=1,
            started_at=1,
            finished_at=2,
            output=Raw(reference.encode()),
        )
    )
    history = await recorded(store, story)
    reads = StoreReads(history)
    [row] = await reads.events_naming(story.run, reference.digest)
    assert (row.type, reference.encode() in row.payload) == ("node.succeeded", True)
    assert await reads.events_naming(story.run, "0" * 64) == []
    assert await reads.events_naming("other", reference.digest) == []


def shipment() -> Story:
    """Items in every state: done, failed, retried, waiting, under way, reused, not begun."""
    node = {"id": "n", "agent": "a", "action": "x", "forEach": "{{ context }}", "maxParallel": 4}
    story = Story({"name": "w", "nodes": [node], "project": "default"})
    origin = Origin(run="r0", kind="retry")
    reuse = (Reused(node="n", item=1, output=Raw(b'"old"')),)
    story.start(list("abcdefghij"), origin=origin, reuse=reuse)
    story.answer("n", "A", item=0).fail("n", item=2)
    asks = Failure(kind="approval_required", message="may I?")
    story.answer("n", item=3, failure=asks)
    assert story.state is not None
    due = story.state.nodes["n.4"].wake_at
    assert due is not None
    # It is over its time, and what it cost is told later: that leaves its status alone.
    return story.hear(Timer(run=story.run, node="n.4", due=due)).answer("n", item=4, costs=(SPENT,))


def fleet_of_others() -> Story:
    """A run beside it that costs something too."""
    story = Story({"name": "w", "nodes": [{"id": "n", "agent": "a", "action": "x"}]}).start()
    return story.answer("n", 1, costs=(SPENT,))


def fleet() -> Story:
    """Fan-outs: small and done, large and under way, with signs of life, costs, and questions."""
    story = Story(
        {
            "name": "fleet",
            "nodes": [
                {"id": "few", "agent": "a", "action": "x", "forEach": [1, 2]},
                {"id": "many", "agent": "a", "action": "x", "forEach": list(range(300))},
                {"id": "long", "agent": "a", "action": "x", "heartbeatTimeout": "1h"},
                {"id": "asks", "agent": "a", "action": "x", "approvalRequired": True},
            ],
        }
    ).start()
    cost = Cost(
        kind="compute",
        source="a",
        quantity=Decimal(1),
        unit="minute",
        unit_price=Decimal("0.1"),
        amount=Decimal("0.1"),
    )
    for percent in (10, 20):
        story.hear(Progress(run=story.run, node="long", attempt=1, percent=percent))
        story.hear(Progress(run=story.run, node="many", item=1, attempt=1, percent=percent))
    asks = Failure(kind="approval_required", message="may I?")
    story.answer("few", "A", item=0, costs=(cost,)).answer("many", item=3, failure=asks)
    story.answer("few", "B", item=1, costs=(cost, cost)).answer("many", item=2, failure=asks)
    story.answer("long", 1, costs=(cost,)).approve("asks").answer("asks", 2)
    return story.answer("many", "C", item=5, costs=(cost,)).hear(
        Approval(run=story.run, node="many", item=3, approved=True, by="ann")
    )


@pytest.mark.parametrize("make", [finished, shipment, fleet])
async def test_a_run_is_read_as_all_of_its_events_tell_it(
    store: Store, make: Callable[[], Story]
) -> None:
    """However far it had come, and whatever has been recorded since."""
    story = make()
    reads = StoreReads(await recorded(store, story))
    events = await reads.run_events(story.run)
    for end in range(1, len(events) + 1):
        told = tell_all(events[:end], story.plan, {0: 1}).detail
        read = (await read_run(reads, events[end - 1], story.plan, {0: 1})).detail
        assert sorted(read.waiting_for) == sorted(told.waiting_for)
        assert replace(read, waiting_for=()) == replace(told, waiting_for=())


async def test_what_an_item_asks_is_read_with_its_run(store: Store) -> None:
    story = fleet()
    reads = StoreReads(await recorded(store, story))
    events = await reads.run_events(story.run)
    told = tell_all(events, story.plan, {}).nodes
    for item in (2, 3, 5):
        read = (await read_run(reads, events[-1], story.plan, {}, [("many", item)])).nodes
        assert read.approval("many", item) == told.approval("many", item)


async def test_a_page_of_items_is_what_all_events_tell_of_them(store: Store) -> None:
    story = shipment()
    history = await recorded(store, story)
    reads = StoreReads(history)
    told = tell_all(await reads.run_events(story.run), story.plan, {}).nodes
    assert [total.amount for total in told.cost.totals()] == ["2"]
    everything = list(told.items("n", range(10)))
    [last] = await reads.newest_run_events(story.run, None, 1)

    async def page(status: NodeStatus | None, start: int, limit: int) -> ItemPage:
        return await page_of_items(
            reads,
            last,
            story.plan,
            "n",
            run=story.run,
            status=status,
            start=start,
            limit=limit,
        )

    never = {NodeStatus.SKIPPED, NodeStatus.CANCELLED}
    assert {item.status for item in everything} == set(NodeStatus) - never
    for status in (None, *NodeStatus):
        wanted = [item for item in everything if status in (None, item.status)]
        found, start = [], 0
        while True:
            part = await page(status, start, 2)
            assert part.counts == told.counts("n")
            found += part.items
            if part.next is None:
                break
            start = part.next
        assert found == wanted


async def test_reused_results_are_no_attempts(store: Store) -> None:
    story = order("again")
    again = Story(story.plan.spec.model_dump(by_alias=True, exclude_defaults=True), event="re")
    again.start(
        {"to": "Rome", "lines": ["a"]},
        origin=Origin(run=story.run, kind="retry"),
        reuse=(
            Reused(node="book", output=Raw(b"1")),
            Reused(node="pack", item=0, output=Raw(b"2")),
        ),
    )
    history = await recorded(store, again)
    assert [row[0] for row in await attempts(history, again.run)] == ["invoice"]

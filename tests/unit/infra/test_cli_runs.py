"""What people see of runs on the command line, and what they do with them."""

import getpass
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import FakeGateway, Socket, commandcenter
from msgspec import Raw
from story import Story, order

from gateway.run_detail import tell_all
from infra.commands.following import RunRow, lines_of, row_of
from infra.commands.sentences import sentence
from streams import codec
from streams.cost import Cost
from streams.events import Event
from streams.messages import Approval, Cancel, Occurrence, Pause, Progress, Resume
from streams.records import Edit, Origin, Parent, Reused, Trigger

WORK = {"agent": "scanner", "action": "scan"}


def told(story: Story) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        msgspec.json.encode(tell_all(story.rows(), story.plan, {}).detail)
    )
    return found


async def shown(gateway: FakeGateway, capsys: pytest.CaptureFixture[str], story: Story) -> str:
    gateway.says(f"/api/runs/{story.run}", told(story))
    assert await commandcenter("runs", "show", story.run) == 0
    return capsys.readouterr().out


def lead(story: Story, by: str, **said: Any) -> Story:
    return story.hear(
        Approval(run=story.run, node="book", approved=True, by=by, roles=("lead",), **said)
    )


async def test_a_run_that_waits_says_for_what_and_how_to_answer(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    story = lead(order(), "ann", notes="fine")
    out = await shown(gateway, capsys, story)
    assert "nap\tsleep\tRUNNING\t1\t\t\tuntil " in out
    assert "paid\twait for an event\tRUNNING\t1\t\t\twaits for payment.received until " in out
    assert "invoice\trun of invoice\tPENDING\t0" in out
    assert "book waits. The workflow asks for approval by 1 of 2 people with the role lead" in out
    assert "ann approved: fine" in out
    assert 'inputs: {"to": "Rome"}' in out
    assert f"commandcenter runs approve {story.run} book --role lead" in out


async def test_a_run_with_items_a_pause_and_a_past_says_so(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(order().plan.spec.model_dump(by_alias=True, exclude_defaults=True))
    story.start(
        {"to": "Rome", "lines": ["a", "b", "c"]},
        origin=Origin(run="o1", kind="rerun", requested_by="ann"),
        parent=Parent(run="p1", node="ship", item=3, attempt=1),
        reuse=(Reused(node="nap", output=Raw(b"null")),),
    )
    edited = lead(lead(story, "ann"), "bob", inputs=Raw(b'{"to":"Milan"}'))
    lead(edited, "ann").answer("book", 1)
    story.hear(Pause(run=story.run, reason="lunch", requested_by="ann"))
    story.fail("pack", item=0)
    out = await shown(gateway, capsys, story)
    assert "Status    RUNNING, paused since " in out
    assert "by ann (lunch)" in out
    assert "Repeats   run o1 (rerun, wanted by ann)" in out
    assert "Step of   run p1, ship.3" in out
    assert "nap\tsleep\tSUCCESS\t0\t\t\tresult of run o1" in out
    assert "approved by ann; approved by bob, inputs edited; approved by ann" in out
    assert "3 items: 1 failed, 1 running, 1 pending" in out
    story.hear(Cancel(run=story.run, reason="x", force=True))
    assert "paused since" not in await shown(gateway, capsys, story)


async def test_a_run_that_could_not_be_undone_says_how_to_try_again(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [{"id": "a", **WORK, "compensate": WORK}, {"id": "b", **WORK, "dependsOn": ["a"]}]
    story = Story({"name": "w", "nodes": nodes}).start().answer("a", 1).fail("b")
    assert ", compensating, then FAILED" in await shown(gateway, capsys, story)
    out = await shown(gateway, capsys, story.fail("a.compensate"))
    assert f"To undo   a: commandcenter runs retry {story.run} --compensation" in out
    assert "could not be undone: boom" in out


async def test_a_result_and_the_time_for_approval_are_told(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = {
        "name": "w",
        "output": {"got": "{{ nodes.n.output }}"},
        "nodes": [{"id": "n", **WORK, "approvalRequired": True}],
    }
    story = Story(definition).start()
    story.at += 5_000
    out = await shown(gateway, capsys, story.approve("n").answer("n", 5))
    assert "Duration  5.02 s, 5.01 s of it for approval" in out
    assert 'Output    {"got": 5}' in out


async def test_a_run_is_shown_with_the_steps_of_all_pages(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [{"id": name, **WORK, "approvalRequired": True} for name in "abc"]
    detail = told(Story({"name": "w", "nodes": nodes}).start())
    more = {"waitingFor": [f"{detail['id']}:{name}" for name in "abcde"], "moreWaiting": True}
    pages = {
        None: {**detail, **more, "steps": detail["steps"][:2], "next": "x"},
        "x": {**detail, **more, "steps": detail["steps"][2:], "next": None},
    }
    gateway.says(f"/api/runs/{detail['id']}", lambda query: pages[query.get("cursor")])
    assert await commandcenter("runs", "show", detail["id"]) == 0
    out = capsys.readouterr().out
    assert [line[:2] for line in out.splitlines() if "scanner scan" in line] == [
        "a\t",
        "b\t",
        "c\t",
    ]
    assert f"more than 2 of them: see `commandcenter approvals list --run {detail['id']}`" in out


async def test_items_are_listed_over_several_pages(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    item = {"index": 0, "status": "SUCCESS", "attempts": 1, "durationMs": 3, "item": "a"}
    big = {"$blob": "d" * 64, "size": 70_000}
    page = {"node": "n", "counts": {"total": 2}, "next": None, "watermark": {}}
    gateway.says("/api/runs/r1/nodes/n/items", {**page, "items": [{**item, "output": big}]})
    assert await commandcenter("runs", "items", "r1", "n", "--status", "SUCCESS") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("0\tSUCCESS\t1\t3 ms\ta\t70,000 bytes, payload ddd")
    assert gateway.asked[-1][1] == {"status": "SUCCESS", "limit": "50"}

    gateway.says("/api/runs/r1/nodes/n/items", {**page, "items": [item] * 200, "next": "more"})
    assert await commandcenter("runs", "items", "r1", "n", "--limit", "300", "--json") == 0
    assert [asked[1] for asked in gateway.asked[1:]] == [
        {"limit": "200"},
        {"limit": "100", "cursor": "more"},
    ]


ME = getpass.getuser()
REPEATED = {"workflowRunId": "r2", "originRun": "r1", "reused": 3, "status": "PENDING", "kind": ""}


@pytest.mark.parametrize(
    ("command", "path", "body", "says"),
    [
        (
            ["cancel", "r1", "--force"],
            "runs/r1/cancel",
            {"reason": "cancelled on the command line", "force": True, "requestedBy": ME},
            "is being cancelled (it was RUNNING)",
        ),
        (
            ["pause", "r1", "--reason", "lunch", "--by", "ann"],
            "runs/r1/pause",
            {"reason": "lunch", "requestedBy": "ann"},
            "is being paused",
        ),
        (["resume", "r1"], "runs/r1/resume", {"requestedBy": ME}, "goes on"),
        (
            ["retry", "r1"],
            "runs/r1/retry",
            {"mode": "failed", "requestedBy": ME},
            "Run r2 repeats run r1; 3 results are taken over.",
        ),
        (
            ["retry", "r1", "--whole"],
            "runs/r1/retry",
            {"mode": "whole", "requestedBy": ME},
            "Run r2",
        ),
        (
            ["retry", "r1", "--compensation"],
            "runs/r1/retry",
            {"mode": "compensation", "requestedBy": ME},
            "Run r2",
        ),
        (
            ["rerun", "r1", "--from", "b", "--inputs", '{"k": 1}'],
            "runs/r1/rerun",
            {"from": "b", "inputs": {"b": {"k": 1}}, "requestedBy": ME},
            "Run r2",
        ),
        (
            ["approve", "r1", "b.3", "--role", "dev", "--role", "lead", "--inputs", '{"k": 1}'],
            "approvals/r1:b.3/decision",
            {
                "decision": "approve",
                "notes": "",
                "inputs": {"k": 1},
                "roles": ["dev", "lead"],
                "respondedBy": ME,
            },
            f"b.3 of run r1 is approved by {ME}.",
        ),
        (
            ["reject", "r1", "--notes", "no", "--by", "bob"],
            "approvals/r1:b.3/decision",
            {"decision": "reject", "notes": "no", "roles": [], "respondedBy": "bob"},
            "b.3 of run r1 is rejected by bob.",
        ),
    ],
)
async def test_orders(
    gateway: FakeGateway,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    path: str,
    body: dict[str, Any],
    says: str,
) -> None:
    answer = {"approval": "r1:b.3", "decision": body.get("decision"), "workflowRunId": "r1"}
    is_new = path.endswith(("retry", "rerun"))
    accepted = REPEATED if is_new else {**answer, "status": "RUNNING"}
    gateway.says("/api/runs/r1", {"waitingFor": ["r1:b.3"]})
    gateway.says(f"/api/{path}", accepted, 202)
    assert await commandcenter("runs", *command) == 0
    assert says in capsys.readouterr().out
    assert gateway.asked[-1] == (f"POST /api/{path}", {}, body)
    assert await commandcenter("runs", *command, "--json") == 0
    assert json.loads(capsys.readouterr().out) == accepted


@pytest.mark.parametrize(("status", "code"), [("SUCCESS", 0), ("FAILED", 1)])
@pytest.mark.parametrize("command", [("retry", "r1"), ("rerun", "r1", "--from", "n")])
async def test_a_repetition_is_waited_for(
    gateway: FakeGateway,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    status: str,
    code: int,
) -> None:
    new = REPEATED["workflowRunId"]
    gateway.says(f"/api/runs/r1/{command[0]}", REPEATED, 202)
    gateway.says(f"/api/runs/{new}", {"id": new, "status": status, "steps": []})

    async def tell(socket: Socket, _: Any) -> None:
        await socket.send_json({"type": "snapshot", "id": 0, "run": None, "cursor": "a"})
        end = {"run": new, "workflow": "w", "at": 1, "status": status, "events": []}
        await socket.send_json({"type": "events", "id": 0, "cursor": "b", "decisions": [end]})
        await socket.receive()

    gateway.sockets.append(tell)
    assert await commandcenter("runs", *command, "--wait", "--timeout", "20", "--json") == code
    assert gateway.subscribed[0]["filter"] == {"run": new}
    said = capsys.readouterr()
    assert json.loads(said.out) == {"runs": [{"id": new, "status": status, "steps": []}]}
    assert f"Run {new} repeats run" in said.err


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"reused": 0}, "Run r2 repeats run r1."),
        ({"reused": 1}, "Run r2 repeats run r1; 1 result is taken over."),
        ({"kind": "compensation"}, "Run r2 undoes what run r1 could not undo."),
        ({"status": "FAILED"}, "That is run r2 already; it is FAILED."),
        (
            {"status": "RUNNING", "kind": "compensation"},
            "That is run r2 already; it is RUNNING.",
        ),
        (
            {"status": "FAILED", "kind": "compensation"},
            (
                "That is run r2 already; it is FAILED. What it could not undo:"
                " commandcenter runs retry r2 --compensation"
            ),
        ),
    ],
)
async def test_what_repeats_a_run_is_said(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], answer: dict[str, Any], says: str
) -> None:
    gateway.says("/api/runs/r1/retry", {**REPEATED, **answer}, 202)
    assert await commandcenter("runs", "retry", "r1") == 0
    assert capsys.readouterr().out == f"{says}\n"


@pytest.mark.parametrize(
    ("waiting", "says"), [([], "waits for no approval"), (["r1:a", "r1:b.3"], "a, b.3")]
)
async def test_which_approval_is_meant_must_be_clear(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], waiting: list[str], says: str
) -> None:
    gateway.says("/api/runs/r1", {"waitingFor": waiting})
    assert await commandcenter("runs", "approve", "r1") == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("reject", "r1"),
        ("rerun", "r1"),
        ("rerun", "r1", "--from", "a", "--inputs", "{"),
        ("retry", "r1", "--whole", "--compensation"),
    ],
)
async def test_wrong_orders_ask_nobody(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert await commandcenter("runs", *command) == 2
    assert "Error" in capsys.readouterr().err
    assert gateway.asked == []


async def test_approvals_are_listed(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    story = lead(order(), "ann", notes="fine")
    [approval] = [s["approval"] for s in told(story)["steps"] if s["approval"]]
    gateway.says("/api/approvals", {"approvals": [approval], "next": None})
    assert await commandcenter("approvals", "list", "--run", story.run) == 0
    row = capsys.readouterr().out.splitlines()[1].split("\t")
    assert row[:6] == [story.run, "book", "order", "PENDING", "lead", "1 of 2"]
    assert row[7:] == ["ann yes: fine", '{"to": "Rome"}']
    assert gateway.asked[-1][1] == {"status": "pending", "run": story.run, "limit": "20"}
    assert await commandcenter("approvals", "list", "--status", "all", "--json") == 0
    assert gateway.asked[-1][1] == {"limit": "20"}


SPENT = Cost(
    kind="api",
    source="s",
    quantity=Decimal(1),
    unit="request",
    unit_price=Decimal(2),
    amount=Decimal(2),
)


def a_long_story() -> list[Story]:
    """Runs in which events of every type happen."""
    story = lead(order(), "ann")
    story.hear(Pause(run=story.run, reason="lunch")).hear(Resume(run=story.run))
    lead(story, "bob")
    story.wake("nap", after=1_000)
    event = Trigger(id="p", source="/bank", type="payment.received")
    story.hear(Occurrence(project="default", trigger=event))
    story.answer("book", 1)
    for item in range(3):
        story.answer("pack", item, item=item)
    story.answer("invoice").answer("send")
    rejected = order("rejected")
    rejected.hear(
        Approval(run=rejected.run, node="book", approved=False, by="b", roles=("lead",), notes="no")
    )
    rejected.hear(Cancel(run=rejected.run, reason="x"))
    beats = {"id": "n", **WORK, "heartbeatTimeout": "10s", "retry": {"attempts": 2}}
    other = Story({"name": "w", "nodes": [beats, {"id": "m", **WORK}], "timeout": "1h"})
    other.start(
        reuse=(Reused(node="m", output=Raw(b"1")),),
        edits=(Edit(node="n", inputs=Raw(b"{}")),),
    )
    other.hear(Progress(run=other.run, node="n", attempt=1))
    other.hear(Progress(run=other.run, node="n", attempt=1, percent=40, message="half way"))
    other.wake("n", after=10_000)
    other.answer("n", costs=(SPENT,))
    other.hear(Cancel(run=other.run, reason="no"))
    stopped = Story({"name": "w", "nodes": [{"id": "n", **WORK}]}).start()
    stopped.hear(Cancel(run=stopped.run, reason="no"))
    failed = Story({"name": "w", "nodes": [{"id": "n", **WORK}]}, event="f").start().fail("n")
    late = Story({"name": "w", "timeout": "1h", "nodes": [{"id": "n", "delay": "2h"}]})
    late.start().wake(after=3_600_000)
    return [story, rejected, other, stopped, failed, late]


def test_signs_of_life_that_say_nothing_are_not_shown_to_who_watches() -> None:
    story = Story({"name": "w", "nodes": [{"id": "n", **WORK, "heartbeatTimeout": "10s"}]}).start()
    for said in ({}, {}, {"percent": 2.9e-06}, {"percent": 33.333}, {"message": "half way"}):
        story.hear(Progress(run=story.run, node="n", attempt=1, **said))
    lines = [line for d in story.decisions for line in lines_of(json.loads(codec.encode(d)))]
    assert [line.partition("  w  ")[2] for line in lines[2:]] == [
        "n was begun",
        "n goes on: 0 %",
        "n goes on: 33.3 %",
        "n goes on: half way",
    ]


async def test_a_step_of_the_failure_handler_is_marked(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = {"name": "w", "nodes": [{"id": "n", **WORK}], "onFailure": [{"id": "h", **WORK}]}
    out = await shown(gateway, capsys, Story(definition).start().fail("n"))
    [handler] = [line for line in out.splitlines() if line.startswith("h\t")]
    assert handler.endswith("failure handler")


def events(stories: list[Story]) -> list[dict[str, Any]]:
    return [json.loads(row.payload) for story in stories for row in story.rows()]


def test_every_event_is_told_in_a_sentence() -> None:
    told = {event["type"]: sentence(event) for event in events(a_long_story())}
    known = {str(kind.__struct_config__.tag) for kind in Event.__args__}
    assert known == set(told)
    assert not [text for kind, text in told.items() if kind in text]
    assert told["run.ending"] == "run is going to be CANCELLED: agents at work are told to end"
    assert told["node.progressed"] == "n goes on: 40 %: half way"
    assert told["node.charged"] == "attempt 1 of n has told what it cost"
    assert told["node.reused"] == "m keeps its result of run "
    assert told["node.rejected"] == "book was rejected by b: no"
    assert told["node.fannedOut"] == "pack has 3 items"
    assert told["run.timedOut"].startswith("run timed out: timeout: ")
    assert sentence({"type": "node.teleported", "node": "n", "item": 2}) == "node.teleported n[2]"


def test_a_failure_handler_is_no_step_of_the_progress() -> None:
    steps = [{"id": "a", "status": "FAILED"}, {"id": "b", "status": "SUCCESS", "handler": True}]
    row = row_of({"id": "r", "workflow": "w", "status": "FAILED", "nodes": 1, "steps": steps})
    assert row.progress == "1/1"


def test_progress_counts_nodes_and_not_their_items() -> None:
    story = a_long_story()[0]
    row = RunRow(story.run)
    seen = set()
    for decision in story.decisions:
        line = json.loads(codec.encode(decision))
        row.apply(line)
        assert len(list(lines_of(line))) == len(decision.events)
        seen.add((len(decision.events), row.doing, row.progress))
    assert (row.progress, row.status) == ("6/6", "SUCCESS")
    assert {progress for _, doing, progress in seen if doing.startswith("pack")} == {"3/6"}


def test_a_cost_that_is_told_after_the_end_moves_no_end() -> None:
    node = {"id": "n", **WORK, "timeout": "1m", "retry": {"attempts": 1}}
    story = Story({"name": "w", "nodes": [node]}).start().wake("n", after=60_000)
    story.answer("n", costs=(SPENT,))
    row = RunRow(story.run)
    for decision in story.decisions:
        row.apply(json.loads(codec.encode(decision)))
    assert (row.status, row.finished_at) == ("FAILED", story.decisions[-2].at)

"""A run as its events tell it: nodes and items of every kind, people, pauses, endings."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from story import BEGIN, ORDER, Story, order

from gateway.run_detail import tell
from streams.cost import Cost
from streams.messages import Approval, Cancel, Occurrence, Pause, Progress, Result, Resume
from streams.payload import reference_to
from streams.records import Edit, Failure, Origin, Parent, Reused, Trigger
from streams.run import Limits

WORK = {"agent": "scanner", "action": "scan"}


def told(story: Story) -> dict[str, Any]:
    """The detail as a client gets it."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(tell(story.rows(), story.plan, {0: 7})))
    return found


def step(story: Story, node: str) -> dict[str, Any]:
    return next(each for each in told(story)["steps"] if each["id"] == node)


def one(**node: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": [{"id": "n", **node}]}


def agree(story: Story, node: str, by: str) -> Story:
    return story.hear(
        Approval(run=story.run, node=node, approved=True, by=by, roles=("lead",), notes="fine")
    )


def test_a_node_that_sleeps_says_until_when_and_is_no_work_of_an_agent() -> None:
    story = order()
    nap = step(story, "nap")
    assert (nap["status"], nap["kind"]) == ("RUNNING", "delay")
    assert nap["sleepingUntil"] == "2023-11-14T22:13:21Z"
    nap = step(story.wake("nap", after=1_000), "nap")
    assert (nap["status"], nap["durationMs"], nap["worker"]) == ("SUCCESS", 1_010, None)


def test_a_node_that_waits_for_an_event_says_for_which() -> None:
    story = order()
    paid = step(story, "paid")
    assert (paid["status"], paid["kind"]) == ("RUNNING", "waitForEvent")
    assert paid["awaiting"] == {
        "event": "payment.received",
        "deadline": "2023-11-14T23:13:20Z",
    }
    event = Trigger(id="p", source="/bank", type="payment.received", data=Raw(b'{"sum":3}'))
    story.hear(Occurrence(project="default", trigger=event))
    paid = step(story, "paid")
    assert (paid["status"], paid["output"]["data"]) == ("SUCCESS", {"sum": 3})


def test_an_approval_says_who_asks_who_may_and_who_said_what() -> None:
    story = order()
    story.hear(
        Approval(
            run=story.run,
            node="book",
            approved=True,
            by="ann",
            roles=("lead",),
            notes="but to Milan",
            inputs=Raw(b'{"to":"Milan"}'),
        )
    )
    book = step(story, "book")
    assert (book["status"], book["attempts"]) == ("WAITING_APPROVAL", 0)
    approval = book["approval"]
    assert approval["id"] == f"{story.run}:book"
    assert (approval["status"], approval["needed"], approval["missing"]) == ("PENDING", 2, 1)
    assert (approval["cause"], approval["roles"]) == ("workflow", ["lead"])
    assert (approval["inputs"], book["inputs"]) == ({"to": "Rome"}, {"to": "Milan"})
    assert (approval["deadline"], approval["onDeadline"]) == ("2023-11-15T22:13:20Z", "reject")
    assert told(story)["waitingFor"] == [approval["id"]]

    approval = step(agree(story, "book", "bob"), "book")["approval"]
    assert (approval["status"], approval["waitedMs"]) == ("APPROVED", 20)
    assert [(a["by"], a["notes"], a["inputs"]) for a in approval["answers"]] == [
        ("ann", "but to Milan", {"to": "Milan"}),
        ("bob", "fine", None),
    ]
    assert told(story)["waitingFor"] == []


def test_waiting_for_people_is_no_work_of_node_or_run() -> None:
    story = Story(one(**WORK, approvalRequired=True)).start()
    assert told(story)["status"] == "WAITING_APPROVAL"
    story.at = BEGIN + 60_000
    story.approve("n").answer("n", 1)
    detail = told(story)
    assert (detail["durationMs"], detail["waitedMs"]) == (60_010, 60_000)
    assert detail["steps"][0]["durationMs"] == 3


def test_a_rejection_fails_the_node_and_is_no_attempt() -> None:
    story = Story(one(**WORK, approvalRequired=True)).start().reject("n")
    node = step(story, "n")
    assert (node["status"], node["attempts"], node["durationMs"]) == ("FAILED", 0, None)
    assert node["approval"]["status"] == "REJECTED"
    assert node["approval"]["answers"][0]["notes"] == "too risky"
    assert node["error"]["kind"] == "rejected"


def test_an_approval_ends_with_its_deadline_and_with_its_run() -> None:
    definition = one(**WORK, approvalRequired=True)
    late = Story(definition).start().wake("n", after=86_400_000)
    assert step(late, "n")["approval"]["status"] == "EXPIRED"
    agreed = one(**WORK, approvalRequired={"onDeadline": "approve"})
    taken = Story(agreed).start().wake("n", after=86_400_000)
    approval = step(taken, "n")["approval"]
    assert (approval["status"], approval["answers"][0]["by"]) == ("APPROVED", "")
    story = Story(definition).start()
    story.hear(Cancel(run=story.run, reason="no need"))
    assert step(story, "n")["approval"]["status"] == "CANCELLED"
    assert told(story)["error"] == {"kind": "cancelled", "message": "no need", "node": None}


def test_an_agent_that_asks_for_approval_worked_until_it_asked() -> None:
    refuses = Failure(kind="approval_required", message="ask", retryable=False)
    story = Story(one(**WORK)).start().answer("n", failure=refuses)
    node = step(story, "n")
    assert (node["status"], node["attempts"], node["durationMs"]) == ("WAITING_APPROVAL", 1, 10)
    assert (node["approval"]["cause"], node["approval"]["attempt"]) == ("agent", 1)
    story.at += 5_000
    assert step(story.reject("n"), "n")["durationMs"] == 10


EACH = one(**WORK, forEach="{{ context }}", inputs={"x": "{{ item }}"}, maxParallel=2)


def test_a_node_with_items_shows_their_counts_and_gives_the_items() -> None:
    story = Story(EACH).start(["a", "b", "c", "d"])
    story.answer("n", 1, item=1).fail("n", item=0)
    counts = step(story, "n")["items"]
    assert {name: count for name, count in counts.items() if count} == {
        "total": 4,
        "running": 2,
        "succeeded": 1,
        "failed": 1,
    }
    story.answer("n", 3, item=2).answer("n", 4, item=3)
    node = step(story, "n")
    assert (node["status"], node["durationMs"], node["output"]) == ("FAILED", 40, None)
    assert node["inputs"] is None


def test_the_output_of_a_small_fan_out_is_composed() -> None:
    story = Story(EACH).start(["a", "b"]).answer("n", {"k": 1}, item=1).answer("n", None, item=0)
    assert step(story, "n")["output"] == [None, {"k": 1}]
    big = Story(EACH).start(["a", "b"]).answer("n", "x" * 40_000, item=1)
    big.answer("n", "y" * 40_000, item=0)
    assert (step(big, "n")["status"], step(big, "n")["output"]) == ("SUCCESS", None)


def test_a_step_that_is_a_run_links_to_it() -> None:
    story = Story(one(workflow="invoice")).start()
    node = step(story, "n")
    assert (node["kind"], node["status"], node["agent"]) == ("workflow", "RUNNING", None)
    assert node["child"]["workflow"] == "invoice"
    assert len(node["child"]["run"]) == 36
    assert step(story.answer("n", {"no": 7}), "n")["output"] == {"no": 7}


def test_a_run_says_what_it_belongs_to_and_what_it_gave() -> None:
    definition = {**one(**WORK), "output": {"got": "{{ nodes.n.output }}"}}
    story = Story(definition).start(
        depth=1,
        parent=Parent(run="p", node="x", attempt=2),
        origin=Origin(run="o", kind="rerun", requested_by="ann"),
    )
    detail = told(story.answer("n", 5))
    assert detail["output"] == {"got": 5}
    assert (detail["depth"], detail["parentRun"], detail["originRun"]) == (1, "p", "o")
    assert detail["parent"] == {"run": "p", "node": "x", "item": None, "attempt": 2}
    assert detail["origin"] == {"run": "o", "kind": "rerun", "requestedBy": "ann"}


def test_reused_results_and_edited_inputs_say_so() -> None:
    definition = {"name": "w", "nodes": [{"id": "a", **WORK}, {"id": "b", **WORK}]}
    story = Story(definition).start(
        origin=Origin(run="o", kind="rerun"),
        reuse=(Reused(node="a", output=Raw(b"1")),),
        edits=(Edit(node="b", inputs=Raw(b'{"k":2}')),),
    )
    a, b = told(story)["steps"]
    assert (a["status"], a["output"], a["reusedFrom"], a["attempts"]) == ("SUCCESS", 1, "o", 0)
    assert (b["status"], b["inputs"], b["edited"]) == ("RUNNING", {"k": 2}, True)


def test_a_paused_run_says_since_when_and_who_said_so() -> None:
    story = Story(one(**WORK)).start()
    story.hear(Pause(run=story.run, reason="lunch", requested_by="ann"))
    detail = told(story)
    assert detail["paused"] is True
    assert detail["pause"] == {
        "at": "2023-11-14T22:13:20.010000Z",
        "reason": "lunch",
        "requestedBy": "ann",
    }
    detail = told(story.hear(Resume(run=story.run)))
    assert (detail["paused"], detail["pause"]) == (False, None)


def test_an_agent_at_work_says_how_far_it_is() -> None:
    story = Story(one(**WORK, heartbeatTimeout="10s")).start()
    story.hear(Progress(run=story.run, node="n", attempt=1, worker="w7"))
    story.hear(Progress(run=story.run, node="n", attempt=1, percent=40, message="half way"))
    node = step(story, "n")
    assert node["worker"] == "w7"
    assert (node["progress"]["percent"], node["progress"]["message"]) == (40, "half way")
    retried = {**WORK, "heartbeatTimeout": "10s", "retry": {"attempts": 2}}
    story = Story(one(**retried)).start()
    story.hear(Progress(run=story.run, node="n", attempt=1))
    story.hear(Progress(run=story.run, node="n", attempt=1, percent=40))
    story.wake("n", after=10_000).wake("n", after=60_000)
    assert step(story, "n")["progress"] is None


UNDO = {
    "name": "w",
    "nodes": [
        {"id": "a", **WORK, "compensate": {**WORK, "inputs": {"why": "{{ failure.message }}"}}},
        {"id": "b", **WORK, "dependsOn": ["a"]},
    ],
    "onFailure": [{"id": "tell", **WORK}],
}


def test_a_run_that_ends_says_what_is_left_to_do() -> None:
    story = Story(UNDO).start().answer("a", 1).fail("b")
    detail = told(story)
    assert (detail["status"], detail["ending"]["stage"]) == ("RUNNING", "compensating")
    assert (detail["ending"]["outcome"], detail["ending"]["undo"]) == ("FAILED", ["a"])
    assert detail["ending"]["error"]["kind"] == "node_failed"
    undoing = detail["steps"][0]["compensation"]
    assert (undoing["status"], undoing["agent"]) == ("RUNNING", "scanner")
    assert detail["steps"][0]["status"] == "SUCCESS"

    story.fail("a.compensate")
    detail = told(story)
    assert (detail["ending"]["stage"], detail["ending"]["undo"]) == ("handling", [])
    assert detail["steps"][0]["compensation"]["error"]["message"] == "boom"
    assert [(s["id"], s["handler"]) for s in detail["steps"]][-1] == ("tell", True)

    detail = told(story.answer("tell", None))
    assert (detail["status"], detail["ending"]) == ("FAILED", None)
    assert detail["uncompensated"] == ["a"]


def test_an_agent_that_is_told_to_stop_shows_that() -> None:
    story = Story(one(**WORK)).start()
    story.hear(Cancel(run=story.run, reason="no"))
    detail = told(story)
    assert (detail["ending"]["stage"], detail["steps"][0]["stopping"]) == ("stopping", True)
    assert detail["steps"][0]["deadline"] == "2023-11-14T22:13:30.010000Z"
    stopped = Failure(kind="cancelled", message="stopped", retryable=False)
    detail = told(story.answer("n", failure=stopped))
    assert (detail["status"], detail["steps"][0]["status"]) == ("CANCELLED", "CANCELLED")


def test_big_payloads_show_as_what_they_are() -> None:
    story = Story(one(**WORK), limits=Limits(inline=100)).start("x" * 50)
    output = reference_to(b'"' + b"y" * 200 + b'"')
    story.hear(
        Result(
            run=story.run,
            node="n",
            attempt=1,
            started_at=1,
            finished_at=2,
            output=Raw(output.encode()),
        )
    )
    assert step(story, "n")["output"] == {"$blob": output.digest, "size": 202}


def test_what_the_definition_does_not_say_comes_from_the_events() -> None:
    """A definition that this release cannot read."""
    story = Story(ORDER).start({"to": "Rome", "lines": []})
    detail = tell(story.rows(), None, {})
    assert [node.id for node in detail.steps] == ["nap", "paid", "book"]


@pytest.fixture
async def shown(gateway: Any) -> Any:
    """The gateway, with a run of 5 items of which 3 have begun."""
    story = Story(EACH).start(["a", "b", "c", "d", "e"]).answer("n", 1, item=1)
    gateway.reads.rows[story.run] = story.rows()
    gateway.story = story
    return gateway


async def items(gateway: Any, query: str = "") -> dict[str, Any]:
    response = await gateway.client.get(f"/api/runs/{gateway.story.run}/nodes/n/items{query}")
    assert response.status == 200, await response.text()
    found: dict[str, Any] = await response.json()
    return found


async def test_items_come_in_pages(shown: Any) -> None:
    page = await items(shown, "?limit=2")
    assert [(i["index"], i["item"], i["status"]) for i in page["items"]] == [
        (0, "a", "RUNNING"),
        (1, "b", "SUCCESS"),
    ]
    assert page["items"][1]["output"] == 1
    assert page["counts"]["total"] == 5
    rest = await items(shown, f"?cursor={page['next']}")
    assert [(i["index"], i["status"]) for i in rest["items"]] == [
        (2, "RUNNING"),
        (3, "PENDING"),
        (4, "PENDING"),
    ]
    assert rest["next"] is None


async def test_items_are_narrowed_by_status(shown: Any) -> None:
    page = await items(shown, "?status=PENDING&limit=1")
    assert [i["index"] for i in page["items"]] == [3]
    page = await items(shown, f"?status=PENDING&cursor={page['next']}")
    assert [i["index"] for i in page["items"]] == [4]


async def test_a_node_without_items_says_so(shown: Any) -> None:
    response = await shown.client.get(f"/api/runs/{shown.story.run}/nodes/x/items")
    assert response.status == 404
    assert "with items: n" in (await response.json())["detail"]


async def test_a_payload_is_given_to_who_names_a_run_that_refers_to_it(gateway: Any) -> None:
    content = b'"' + b"y" * 200 + b'"'
    reference = await gateway.blobs.put("default", content)
    foreign = await gateway.blobs.put("default", b'"secret"')
    story = Story(one(**WORK)).start()
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
    gateway.reads.rows[story.run] = story.rows()
    address = f"/api/runs/{story.run}/payloads"
    response = await gateway.client.get(f"{address}/{reference.digest}")
    assert (response.status, await response.read()) == (200, content)
    assert response.content_type == "application/json"
    for digest in (foreign.digest, "nonsense", "..%2f..%2fetc"):
        assert (await gateway.client.get(f"{address}/{digest}")).status == 404


async def test_a_payload_that_is_gone_says_so(gateway: Any) -> None:
    reference = reference_to(b"gone")
    story = Story(one(**WORK)).start()
    story.answer("n", {"$blob": reference.digest, "size": 4})
    gateway.reads.rows[story.run] = story.rows()
    address = f"/api/runs/{story.run}/payloads/{reference.digest}"
    response = await gateway.client.get(address)
    assert response.status == 404
    assert "is not in the blob store" in (await response.json())["detail"]


async def test_a_blob_of_an_output_is_given_as_bytes_of_any_kind(gateway: Any) -> None:
    blob = await gateway.blobs.put("default", b"<script>")
    story = Story(one(**WORK)).start()
    said = {"blob": blob.digest, "size": 8, "mediaType": "text/html", "name": "a.html"}
    story.answer("n", {"report": said})
    gateway.reads.rows[story.run] = story.rows()
    response = await gateway.client.get(f"/api/runs/{story.run}/payloads/{blob.digest}")
    assert (response.status, await response.read()) == (200, b"<script>")
    assert response.content_type == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


# --- costs ---


def cost(amount: str, kind: Any = "compute", currency: str = "USD") -> Cost:
    number = Decimal(amount)
    return Cost(
        kind=kind,
        source="scanner",
        quantity=Decimal(1),
        unit="minute",
        unit_price=number,
        amount=number,
        currency=currency,
    )


NOT_YET = Failure(kind="agent_error", message="not yet")


async def test_what_a_run_costs_counts_every_attempt_and_item(gateway: Any) -> None:
    story = Story(
        {
            "name": "w",
            "nodes": [
                {"id": "a", **WORK, "retry": {"attempts": 2}},
                {"id": "b", **WORK, "forEach": "{{ context }}", "inputs": {}},
                {"id": "c", **WORK, "dependsOn": ["b"], "onFailure": "continue"},
            ],
        }
    ).start(["x", "y"])
    story.answer("a", failure=NOT_YET, costs=(cost("0.0000001"), cost("1.5", "tokens")))
    story.wake("a", after=3_600_000)
    story.answer("a", attempt=2, costs=(cost("0.2"),))
    story.answer("b", item=0, costs=(cost("0.00"),))
    story.answer("b", item=1, costs=(cost("0.3", "api"), cost("7", "api", "EUR")))
    no = Failure(kind="timeout", message="late", retryable=False)
    story.answer("c", failure=no, costs=(cost("1"),))
    run = told(story)
    assert run["status"] == "SUCCESS"
    assert run["cost"] == [
        {"currency": "EUR", "amount": "7", "compute": "0", "tokens": "0", "api": "7"},
        {
            "currency": "USD",
            "amount": "3.0000001",
            "compute": "1.2000001",
            "tokens": "1.5",
            "api": "0.3",
        },
    ]
    amounts = {s["id"]: [c["amount"] for c in s["cost"]] for s in run["steps"]}
    assert amounts == {"a": ["1.7000001"], "b": ["7", "0.3"], "c": ["1"]}

    gateway.reads.rows[story.run] = story.rows()
    items = await (await gateway.client.get(f"/api/runs/{story.run}/nodes/b/items")).json()
    assert [[c["amount"] for c in item["cost"]] for item in items["items"]] == [["0"], ["7", "0.3"]]
    listed = await (await gateway.client.get(f"/api/runs/{story.run}/costs")).json()
    assert listed["totals"] == run["cost"]
    assert listed["costs"][0] == {
        "node": "a",
        "item": None,
        "attempt": 1,
        "kind": "compute",
        "source": "scanner",
        "model": None,
        "quantity": "1",
        "unit": "minute",
        "unitPrice": "0.0000001",
        "amount": "0.0000001",
        "currency": "USD",
        "priceVersion": None,
    }
    assert len(listed["costs"]) == 7


def test_what_is_stopped_in_order_still_says_what_it_cost() -> None:
    story = Story(one(**WORK)).start()
    story.hear(Cancel(run=story.run, reason="enough"))
    called_off = Failure(kind="cancelled", message="enough", retryable=False)
    story.answer("n", failure=called_off, costs=(cost("0.4"),))
    run = told(story)
    assert (run["status"], run["cost"][0]["amount"]) == ("CANCELLED", "0.4")


def test_waiting_for_people_is_free() -> None:
    story = Story(one(**WORK, approvalRequired=True)).start()
    story.approve("n")
    story.answer("n", costs=(cost("0.4"),))
    assert [total["amount"] for total in told(story)["cost"]] == ["0.4"]
    undone = order()
    assert told(undone)["cost"] == []


async def test_a_large_run_is_shown_without_the_events_of_its_items(gateway: Any) -> None:
    node = {"id": "n", "agent": "a", "action": "x", "forEach": list(range(300))}
    story = Story({"name": "w", "nodes": [node]}).start()
    for item in range(280):
        story.answer("n", item, item=item)
    gateway.reads.rows[story.run] = story.rows()
    whole = told(story)
    answer = await (await gateway.client.get(f"/api/runs/{story.run}")).json()
    [step] = answer["steps"]
    assert (step["items"]["succeeded"], step["items"]["running"]) == (280, 20)
    assert step["items"] == whole["steps"][0]["items"]
    assert answer["seq"] == whole["seq"] == 581
    assert ("all", story.run) not in gateway.reads.asked

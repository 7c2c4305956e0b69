"""Approvals over REST: what waits, who may decide, what is refused and how that is said."""

import json
from typing import Any

import pytest
from msgspec import UNSET, Raw, UnsetType, structs
from story import Story, order

from gateway.run_detail import tell_all
from gateway.run_views import ApprovalView
from streams import codec
from streams.messages import Approval
from streams.payload import as_reference
from streams.records import Failure, Origin, Reused
from streams.topics import INBOX

ASKS: dict[str, Any] = {
    "name": "deploy",
    "nodes": [
        {
            "id": "deploy",
            "agent": "scanner",
            "action": "scan",
            "approvalRequired": {"roles": ["lead"]},
        }
    ],
}
YES = {"decision": "approve", "respondedBy": "ann", "roles": ["dev", "lead"]}


def shown(gateway: Any, story: Story) -> Story:
    """Record the story's events."""
    gateway.reads.rows[story.run] = story.rows()
    return story


async def decide(gateway: Any, name: str, **said: Any) -> tuple[int, dict[str, Any]]:
    response = await gateway.client.post(f"/api/approvals/{name}/decision", json=said)
    return response.status, await response.json()


async def test_a_decision_is_written_to_the_runs_inbox(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=ASKS)
    run = shown(gateway, Story(ASKS).start()).run
    status, body = await decide(gateway, f"{run}:deploy", **YES, notes="go", inputs={"to": "stage"})
    assert (status, body) == (
        202,
        {"approval": f"{run}:deploy", "workflowRunId": run, "decision": "approve"},
    )
    [(topic, key, value, _)] = gateway.writer.written
    assert (topic, key) == (INBOX, run)
    assert codec.messages.decode(value) == Approval(
        run=run,
        node="deploy",
        approved=True,
        by="ann",
        roles=("dev", "lead"),
        notes="go",
        inputs=Raw(b'{"to":"stage"}'),
    )


async def test_big_inputs_of_a_person_travel_by_reference(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=ASKS)
    run = shown(gateway, Story(ASKS).start()).run
    inputs = {"notes": "x" * 70_000}
    assert (await decide(gateway, f"{run}:deploy", **YES, inputs=inputs))[0] == 202
    message = codec.messages.decode(gateway.writer.written[0][2])
    assert isinstance(message, Approval)
    assert isinstance(message.inputs, Raw)
    reference = as_reference(message.inputs)
    assert reference is not None
    assert json.loads(await gateway.blobs.get("default", reference)) == inputs


async def test_what_the_run_would_pass_over_is_refused_with_the_reason(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=ASKS)
    run = shown(gateway, Story(ASKS).start()).run
    name = f"{run}:deploy"
    no = {"decision": "reject", "respondedBy": "ann", "roles": ["lead"]}
    for said, expected, says in (
        ({**YES, "roles": ["dev"]}, 403, "roles lead may decide (given: dev)"),
        ({**YES, "roles": "lead"}, 400, "list"),
        ({**YES, "decision": "maybe"}, 400, "approve, reject"),
        ({**YES, "respondedBy": " "}, 400, "who decides"),
        ({**YES, "inputs": [1]}, 400, "JSON object"),
        ({**YES, "colour": "red"}, 400, "unknown field 'colour'"),
        (no, 400, "say why"),
        ({**no, "notes": "no", "inputs": {}}, 400, "go with an approval"),
    ):
        status, body = await decide(gateway, name, **said)
        assert (status, says in body["detail"]) == (expected, True), body
    for wrong in (
        f"{run}:other",
        "nobody:deploy",
        "nonsense",
        f"{run}:deploy.x",
        f"{run}:deploy.4",
    ):
        assert (await decide(gateway, wrong, **YES))[0] == 404, wrong
    assert gateway.writer.written == []


async def test_what_was_decided_cannot_be_decided_again(gateway: Any) -> None:
    story = Story(ASKS).start()
    story.hear(Approval(run=story.run, node="deploy", approved=True, by="bob", roles=("lead",)))
    name = f"{shown(gateway, story).run}:deploy"
    status, body = await decide(gateway, name, **YES)
    assert (status, body["detail"]) == (409, "it was decided already: APPROVED by bob")


def agree(story: Story, by: str, inputs: Raw | UnsetType = UNSET) -> Story:
    """Somebody who may agrees."""
    return story.hear(
        Approval(run=story.run, node="book", approved=True, by=by, roles=("lead",), inputs=inputs)
    )


async def test_who_decided_is_who_agreed_to_what_was_done(gateway: Any) -> None:
    story = agree(agree(agree(order(), "ann"), "bob", Raw(b'{"x":1}')), "cy")
    status, body = await decide(gateway, f"{shown(gateway, story).run}:book", **YES)
    assert (status, body["detail"]) == (409, "it was decided already: APPROVED by bob, cy")


async def test_an_approval_that_expired_was_decided_by_nobody(gateway: Any) -> None:
    story = agree(order(), "ann").wake("book", after=2 * 86_400_000)
    status, body = await decide(gateway, f"{shown(gateway, story).run}:book", **YES)
    assert (status, body["detail"]) == (409, "it was decided already: EXPIRED")


async def test_inputs_that_the_action_does_not_take_are_refused(gateway: Any) -> None:
    schema = {"properties": {"depth": {"type": "integer"}, "text": {"type": "string"}}}
    gateway.serve_agent("scanner", "scan", inputSchema=schema)
    await gateway.client.post("/api/workflows", json=ASKS)
    name = f"{shown(gateway, Story(ASKS).start()).run}:deploy"
    status, body = await decide(gateway, name, **YES, inputs={"depth": "deep"})
    why = "'scan' of 'scanner' does not take these inputs: 'deep' is not of type 'integer'"
    assert (status, body["detail"]) == (400, f"inputs.depth: {why}")
    big = {"$blob": "0" * 64, "size": 70_000}  # what it names is seen where it is fetched
    assert (await decide(gateway, name, **YES, inputs={"depth": 2, "text": big}))[0] == 202


async def test_each_of_several_people_decides_once(gateway: Any) -> None:
    story = order()
    story.hear(Approval(run=story.run, node="book", approved=True, by="ann", roles=("lead",)))
    name = f"{shown(gateway, story).run}:book"
    status, body = await decide(gateway, name, **YES)
    assert (status, body["detail"]) == (409, "ann has approved it already; 1 more must")
    assert (await decide(gateway, name, **{**YES, "respondedBy": "bob"}))[0] == 202


async def test_an_item_has_an_approval_of_its_own(gateway: Any) -> None:
    each = {"id": "n", "agent": "scanner", "action": "scan", "forEach": [1, 2]}
    refuses = Failure(kind="approval_required", message="ask", retryable=False)
    story = Story({"name": "w", "nodes": [each]}).start().answer("n", item=1, failure=refuses)
    run = shown(gateway, story).run
    assert (await decide(gateway, f"{run}:n.1", **YES))[0] == 202
    message = codec.messages.decode(gateway.writer.written[0][2])
    assert isinstance(message, Approval)
    assert (message.node, message.item) == ("n", 1)
    assert (await decide(gateway, f"{run}:n", **YES))[0] == 404
    assert (await decide(gateway, f"{run}:n.0", **YES))[0] == 404


async def test_who_approves_a_fan_out_may_change_its_list(gateway: Any) -> None:
    each = {"id": "n", "agent": "scanner", "action": "scan", "forEach": [1, 2]}
    definition = {"name": "w", "nodes": [{**each, "approvalRequired": True}]}
    await gateway.client.post("/api/workflows", json=definition)
    run = shown(gateway, Story(definition).start()).run
    status, body = await decide(gateway, f"{run}:n", **YES, inputs={"a": 1})
    assert (status, "a list" in body["detail"]) == (400, True)
    status, body = await decide(gateway, f"{run}:n", **YES, inputs=list(range(20_001)))
    assert (status, "COMMANDCENTER_FAN_OUT_LIMIT" in body["detail"]) == (400, True)
    assert (await decide(gateway, f"{run}:n", **YES, inputs=[1]))[0] == 202

    kept = Reused(node="n", item=0, output=Raw(b"1"))
    repeated = Story(definition, event="e-2")
    repeated.start(reuse=(kept,), origin=Origin(run="r", kind="retry"))
    run = shown(gateway, repeated).run
    status, body = await decide(gateway, f"{run}:n", **YES, inputs=[1])
    assert (status, "taken over from run r" in body["detail"]) == (409, True)
    assert (await decide(gateway, f"{run}:n", **YES, inputs=[1, 2]))[0] == 202  # the same list


async def test_what_a_stream_has_shown_can_be_answered(gateway: Any) -> None:
    """The run waits since a moment ago: the tail has it, the store not yet."""
    story = Story(ASKS).start()
    value = codec.encode(story.decisions[0])
    gateway.services.tail.on_records(0, [_Record(0, value)])
    reads = 0

    async def recorded_at_the_third_look() -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            gateway.reads.recorded = {0: 1}
            shown(gateway, story)

    gateway.reads.on_watermark = recorded_at_the_third_look
    assert (await decide(gateway, f"{story.run}:deploy", **YES))[0] == 202


async def test_what_a_stream_has_shown_is_in_the_list(gateway: Any) -> None:
    gateway.services.tail.on_records(
        0, [_Record(0, codec.encode(Story(ASKS).start().decisions[0]))]
    )

    async def recorded() -> None:
        if not gateway.reads.recorded:
            gateway.reads.recorded = {0: 1}
        else:
            gateway.reads.approval_views = approvals()

    gateway.reads.on_watermark = recorded
    page = await (await gateway.client.get("/api/approvals")).json()
    assert len(page["approvals"]) == 3


class _Record:
    def __init__(self, offset: int, value: bytes) -> None:
        self.offset = offset
        self.value = value


def approvals() -> list[ApprovalView]:
    story = order()
    found = tell_all(story.rows(), story.plan, {}).nodes.approval("book", None)
    assert found is not None
    return [structs.replace(found, id=f"a-{n}") for n in range(3)]


async def test_pages_of_approvals(gateway: Any) -> None:
    gateway.reads.approval_views = approvals()
    response = await gateway.client.get("/api/approvals?status=pending&run=r1&limit=2")
    page = await response.json()
    assert [each["id"] for each in page["approvals"]] == ["a-0", "a-1"]
    query = gateway.reads.asked[-1]
    assert (query.state, query.run) == ("pending", "r1")
    await gateway.client.get("/api/approvals", params={"cursor": page["next"]})
    assert gateway.reads.asked[-1].before == (True, 1_700_000_000_000, "a-1")


@pytest.mark.parametrize("query", ["status=PENDING", "cursor=zzz", "limit=0", "colour=1"])
async def test_a_wrong_question_is_refused(gateway: Any, query: str) -> None:
    assert (await gateway.client.get(f"/api/approvals?{query}")).status == 400


async def test_edited_inputs_need_the_agreement_of_those_who_had_agreed_before(
    gateway: Any,
) -> None:
    story = order()
    for person, inputs in (("ann", {}), ("bob", {"inputs": Raw(b'{"to":"Milan"}')})):
        roles = ("lead",)
        story.hear(
            Approval(run=story.run, node="book", approved=True, by=person, roles=roles, **inputs)
        )
    name = f"{shown(gateway, story).run}:book"
    assert (await decide(gateway, name, **YES))[0] == 202

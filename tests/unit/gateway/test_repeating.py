"""Retry and rerun over REST: what is taken over, what is done again, what is refused."""

from typing import Any

from msgspec import Raw
from story import Story

from streams import codec
from streams.ids import run_id
from streams.messages import Approval, Cancel, Start
from streams.payload import as_reference
from streams.records import Edit, Origin, Reused

WORK = {"agent": "scanner", "action": "scan"}


def chain(**more: dict[str, Any]) -> dict[str, Any]:
    """a, b after it, c after b, and d on its own."""
    nodes = [
        {"id": "a", **WORK},
        {"id": "b", **WORK, "dependsOn": ["a"]},
        {"id": "c", **WORK, "dependsOn": ["b"]},
        {"id": "d", **WORK},
    ]
    return {"name": "w", "nodes": [{**node, **more.get(node["id"], {})} for node in nodes]}


async def known(gateway: Any, definition: dict[str, Any], story: Story) -> Story:
    response = await gateway.client.post("/api/workflows", json=definition)
    assert response.status in (200, 201), await response.text()
    gateway.reads.rows[story.run] = story.rows()
    return story


async def again(
    gateway: Any, run: str, what: str, key: str = "k", **said: Any
) -> tuple[int, dict[str, Any]]:
    response = await gateway.client.post(
        f"/api/runs/{run}/{what}", json=said, headers={"Idempotency-Key": key}
    )
    return response.status, await response.json()


def started(gateway: Any) -> Start:
    message = codec.messages.decode(gateway.writer.written[-1][2])
    assert isinstance(message, Start)
    return message


def reused(gateway: Any) -> dict[Any, bytes]:
    """What the new run takes over: node (or node and item) → output."""
    return {
        each.node if each.item is None else (each.node, each.item): bytes(each.output)
        for each in started(gateway).reuse
    }


def replayed(gateway: Any, definition: dict[str, Any]) -> Story:
    """The new run, as the core begins it."""
    start = started(gateway)
    story = Story(definition)
    story.run = start.run
    return story.hear(start)


def at_work(story: Story) -> set[str]:
    assert story.state is not None
    return {key for key, state in story.state.nodes.items() if state.status == "RUNNING"}


async def test_what_failed_is_done_again_and_the_rest_is_taken_over(gateway: Any) -> None:
    definition = chain()
    story = Story(definition).start({"p": 1}).answer("a", {"k": 1}).answer("d", "D").fail("b")
    await known(gateway, definition, story)
    status, body = await again(gateway, story.run, "retry", requestedBy="ann")
    new = run_id("default", "w", f"/api/runs/{story.run}/retry", "k")
    assert (status, body) == (
        202,
        {
            "workflowRunId": new,
            "status": "PENDING",
            "originRun": story.run,
            "kind": "retry",
            "reused": 2,
        },
    )
    start = started(gateway)
    assert start.origin == Origin(run=story.run, kind="retry", requested_by="ann")
    assert (start.version, start.trigger.id, bytes(start.trigger.data)) == (1, "e-1", b'{"p":1}')
    assert start.reuse == (
        Reused(node="a", output=Raw(b'{"k":1}')),
        Reused(node="d", output=Raw(b'"D"')),
    )
    assert at_work(replayed(gateway, definition)) == {"b"}
    shown = await (await gateway.client.get(f"/api/runs/{new}")).json()
    assert (shown["status"], shown["originRun"]) == ("PENDING", story.run)


async def test_the_same_key_gives_the_same_run(gateway: Any) -> None:
    story = await known(gateway, chain(), Story(chain()).start().fail("a").answer("d"))
    first = (await again(gateway, story.run, "retry"))[1]["workflowRunId"]
    assert (await again(gateway, story.run, "retry"))[1]["workflowRunId"] == first
    assert (await again(gateway, story.run, "retry", key="x"))[1]["workflowRunId"] != first
    response = await gateway.client.post(f"/api/runs/{story.run}/retry")
    assert (await response.json())["workflowRunId"] != first


async def test_a_retry_of_the_whole_takes_nothing_over(gateway: Any) -> None:
    story = Story(chain()).start().answer("a").answer("b").answer("c").answer("d")
    await known(gateway, chain(), story)
    assert (await again(gateway, story.run, "retry", mode="whole"))[0] == 202
    assert started(gateway).reuse == ()
    status, body = await again(gateway, story.run, "retry", mode="failed")
    assert (status, "nothing failed" in body["detail"]) == (409, True)


async def test_what_ran_because_something_failed_is_done_again(gateway: Any) -> None:
    definition = chain(b={"onFailure": "continue"}, c={"runIf": "always"}, d={"dependsOn": ["c"]})
    story = Story(definition).start().answer("a", 1).fail("b").answer("c", 3).fail("d")
    await known(gateway, definition, story)
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {"a": b"1"}


async def test_what_was_undone_is_done_again_with_all_that_depends_on_it(gateway: Any) -> None:
    definition = chain(a={"compensate": WORK})
    story = Story(definition).start().answer("d", 4).answer("a", 1).answer("b", 2).fail("c")
    story.answer("a.compensate")
    await known(gateway, definition, story)
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {"d": b"4"}


EACH: dict[str, Any] = {
    "name": "w",
    "nodes": [
        {"id": "n", **WORK, "forEach": "{{ context }}", "inputs": {"x": "{{ item }}"}},
        {"id": "end", **WORK, "dependsOn": ["n"], "inputs": {"all": "{{ nodes.n.output }}"}},
    ],
}


async def test_items_that_succeeded_are_not_done_again(gateway: Any) -> None:
    story = Story(EACH).start(["a", "b", "c"])
    story.answer("n", "A", item=0).fail("n", item=1).answer("n", "C", item=2)
    await known(gateway, EACH, story)
    assert (await again(gateway, story.run, "retry"))[1]["reused"] == 2
    assert reused(gateway) == {("n", 0): b'"A"', ("n", 2): b'"C"'}
    new = replayed(gateway, EACH)
    assert at_work(new) == {"n", "n.1"}
    new.answer("n", "B", item=1)
    assert new.state is not None
    assert at_work(new) == {"end"}
    assert b'{"all":["A","B","C"]}' in codec.encode(new.decisions[-1])


async def test_items_are_done_again_where_their_list_may_be_another(gateway: Any) -> None:
    story = Story(EACH).start(["a", "b"]).answer("n", "A", item=0).fail("n", item=1)
    await known(gateway, EACH, story)
    await again(gateway, story.run, "rerun", **{"from": "n"})
    assert reused(gateway) == {}

    first = {"id": "list", **WORK, "onFailure": "continue"}
    each = {**EACH["nodes"][0], "forEach": [1, 2], "dependsOn": ["list"]}
    definition = {"name": "v", "nodes": [first, each]}
    story = Story(definition).start().fail("list").answer("n", 1, item=0).fail("n", item=1)
    await known(gateway, definition, story)
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {}

    definition = {"name": "u", "nodes": [EACH["nodes"][0], {"id": "z", **WORK}]}
    story = Story(definition).start(["a", "b"]).answer("n", "A", item=0).fail("n", item=1)
    await known(gateway, definition, story.answer("z", 1))
    await again(gateway, story.run, "rerun", **{"from": "z", "inputs": {"n": ["y", "b"]}})
    assert reused(gateway) == {}


async def test_a_list_that_was_edited_stays_with_the_items_that_were_done(gateway: Any) -> None:
    asked = {**EACH["nodes"][0], "approvalRequired": True}
    definition = {"name": "w", "nodes": [{"id": "z", **WORK}, {**asked, "dependsOn": ["z"]}]}
    story = Story(definition).start(["a", "b", "c"]).answer("z").approve("n", inputs=["b", "c"])
    await known(gateway, definition, story.answer("n", "B", item=0).fail("n", item=1))
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {"z": b"null", ("n", 0): b'"B"'}
    assert started(gateway).edits == (Edit(node="n", inputs=Raw(b'["b","c"]')),)
    assert at_work(replayed(gateway, definition).approve("n")) == {"n", "n.1"}

    # Of what comes before, something may come to something else.
    await again(gateway, story.run, "rerun", **{"from": "z"})
    assert (reused(gateway), started(gateway).edits) == ({}, ())


async def test_inputs_that_were_rejected_do_not_stay(gateway: Any) -> None:
    definition = chain(a={"approvalRequired": {"count": 2}})
    story = Story(definition).start().approve("a", inputs={"x": 1}).reject("a").answer("d")
    await known(gateway, definition, story)
    await again(gateway, story.run, "retry")
    assert started(gateway).edits == ()


async def test_what_a_condition_skipped_makes_nothing_be_done_again(gateway: Any) -> None:
    definition = chain(b={"when": "false"}, c={"runIf": "noneFailed"})
    story = Story(definition).start().answer("a", 1).answer("c", 3).fail("d")
    await known(gateway, definition, story)
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {"a": b"1", "c": b"3"}


async def test_a_fan_out_that_succeeded_is_taken_over_as_one_list(gateway: Any) -> None:
    big = b'"' + b"x" * 2_000 + b'"'
    reference = await gateway.blobs.put("default", big)
    story = Story(EACH).start(["a", "b"]).answer("n", "A", item=0)
    story.blobs[reference.digest] = big
    story.answer("n", {"$blob": reference.digest, "size": reference.size}, item=1).fail("end")
    await known(gateway, EACH, story)
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {"n": b'["A",' + big + b"]"}
    assert at_work(replayed(gateway, EACH)) == {"end"}


async def test_a_rerun_begins_at_a_node_with_other_inputs(gateway: Any) -> None:
    story = Story(chain()).start().answer("a", 1).answer("b", 2).answer("c", 3).answer("d", 4)
    await known(gateway, chain(), story)
    status, body = await again(
        gateway, story.run, "rerun", **{"from": "b", "inputs": {"c": {"k": 2}}}
    )
    assert (status, body["kind"], body["reused"]) == (202, "rerun", 2)
    assert reused(gateway) == {"a": b"1", "d": b"4"}
    assert started(gateway).edits == (Edit(node="c", inputs=Raw(b'{"k":2}')),)
    new = replayed(gateway, chain())
    assert at_work(new) == {"b"}
    new.answer("b", 5)
    assert b'"inputs":{"k":2}' in codec.encode(new.decisions[-1])


async def test_a_run_of_reused_results_can_be_repeated_too(gateway: Any) -> None:
    story = Story(chain())
    story.start(
        origin=Origin(run="o", kind="rerun"),
        reuse=(Reused(node="a", output=Raw(b"1")),),
        edits=(Edit(node="b", inputs=Raw(b'{"k":2}')),),
    )
    story.answer("d", 4).fail("b")
    await known(gateway, chain(), story)
    await again(gateway, story.run, "retry")
    assert reused(gateway) == {"a": b"1", "d": b"4"}
    assert started(gateway).edits == (Edit(node="b", inputs=Raw(b'{"k":2}')),)


async def test_what_a_rerun_cannot_mean_is_refused(gateway: Any) -> None:
    definition = chain(d={"agent": None, "action": None, "delay": "1s"})
    definition["nodes"][3] = {"id": "d", "delay": "1s", "dependsOn": ["b"]}
    story = Story(definition).start().answer("a").answer("b").fail("c").wake("d", after=1_000)
    await known(gateway, definition, story)
    for said, says in (
        ({"from": "x"}, "a node of the run (a, b, c, d)"),
        ({}, "a node of the run"),
        ({"from": "c", "inputs": {"a": {}}}, "'a' is not done again (done again: c)"),
        ({"from": "b", "inputs": {"d": {}}}, "neither asks an agent"),
        ({"from": "b", "inputs": {"c": [1]}}, "must be a JSON object"),
        ({"from": "b", "inputs": [1]}, "node → its inputs"),
        ({"from": "b", "colour": "red"}, "unknown field"),
    ):
        status, body = await again(gateway, story.run, "rerun", **said)
        assert (status, says in body["detail"]) == (400, True), body
    assert (await again(gateway, story.run, "retry", mode="half"))[0] == 400
    assert gateway.writer.written == []


async def test_only_a_run_that_has_ended_is_repeated(gateway: Any) -> None:
    story = await known(gateway, chain(), Story(chain()).start())
    for what, said in (("retry", {}), ("rerun", {"from": "a"})):
        status, body = await again(gateway, story.run, what, **said)
        assert (status, "goes on (RUNNING)" in body["detail"]) == (409, True)
        assert (await again(gateway, "nobody", what, **said))[0] == 404


async def test_what_could_not_be_undone_is_undone_by_a_run_of_its_own(gateway: Any) -> None:
    inputs = {"ref": "{{ nodes.a.output }}", "seat": "{{ nodes.b.output.seat }}"}
    undo = {**WORK, "inputs": inputs}
    definition = chain(a={"compensate": undo}, b={"compensate": WORK})
    story = Story(definition).start().answer("a", 1).answer("b", {"seat": 2}).answer("d", 4)
    story.fail("c").answer("b.compensate").fail("a.compensate")
    await known(gateway, definition, story)
    assert (await again(gateway, story.run, "retry", mode="compensation"))[0] == 202
    first = started(gateway)
    assert first.compensate
    assert (await again(gateway, story.run, "retry", mode="compensation"))[0] == 202
    assert started(gateway).run == first.run  # a refund is not paid twice
    assert reused(gateway) == {"a": b"1", "d": b"4"}
    new = replayed(gateway, definition)
    assert at_work(new) == {"a.compensate"}
    new.answer("a.compensate")
    assert new.state is not None
    assert new.state.head.status == "SUCCESS"
    gateway.reads.rows[new.run] = new.rows()
    written = len(gateway.writer.written)
    _, body = await again(gateway, story.run, "retry", mode="compensation")
    assert (body["workflowRunId"], body["status"]) == (first.run, "SUCCESS")
    assert len(gateway.writer.written) == written

    fine = await known(gateway, definition, Story(definition, event="e-2").start())
    fine.hear(Cancel(run=fine.run, reason="no", force=True))
    gateway.reads.rows[fine.run] = fine.rows()
    status, body = await again(gateway, fine.run, "retry", mode="compensation")
    assert (status, "left nothing" in body["detail"]) == (409, True)


async def undone(gateway: Any, story: Story, definition: dict[str, Any]) -> Story:
    """The run that undoes what the story's could not undo, as it begins."""
    status, body = await again(gateway, story.run, "retry", mode="compensation")
    assert status == 202, body
    return replayed(gateway, definition)


UNDO = {"compensate": {**WORK, "retry": {"attempts": 1}}}


async def test_what_was_undone_after_the_end_is_not_taken_over(gateway: Any) -> None:
    definition = chain(a=UNDO, b=UNDO)
    story = Story(definition).start().answer("a", 1).answer("b", 2).answer("d", 4).fail("c")
    story.fail("b.compensate").fail("a.compensate")
    await known(gateway, definition, story)
    first = await undone(gateway, story, definition)
    gateway.reads.rows[first.run] = first.rows()
    for what, said in (("retry", {}), ("rerun", {"from": "d"})):
        status, body = await again(gateway, story.run, what, **said)
        assert (status, f"run {first.run} is undoing" in body["detail"]) == (409, True)
    first.answer("b.compensate").fail("a.compensate")
    gateway.reads.rows[first.run] = first.rows()
    assert (await again(gateway, story.run, "retry"))[0] == 202
    assert reused(gateway) == {"a": b"1", "d": b"4"}

    second = await undone(gateway, first, definition)
    second.answer("a.compensate")
    gateway.reads.rows[second.run] = second.rows()
    assert (await again(gateway, story.run, "rerun", **{"from": "d"}))[0] == 202
    assert reused(gateway) == {}


def record(gateway: Any, *stories: Story) -> None:
    for story in stories:
        gateway.reads.rows[story.run] = story.rows()


async def test_what_is_only_referred_to_is_not_undone_again(gateway: Any) -> None:
    undo = {"agent": "scanner", "action": "scan", "inputs": {"seat": "{{ nodes.b.output }}"}}
    definition = chain(a={"compensate": undo}, b=UNDO)
    story = Story(definition).start().answer("a").answer("b", 2).answer("d").fail("c")
    await known(gateway, definition, story.answer("b.compensate").fail("a.compensate"))
    first = await undone(gateway, story, definition)
    assert at_work(first) == {"a.compensate"}
    record(gateway, first.fail("a.compensate"))
    second = await undone(gateway, first, definition)
    assert at_work(second) == {"a.compensate"}
    record(gateway, second.fail("a.compensate"))
    del gateway.reads.rows[story.run]  # not recorded any more
    assert at_work(await undone(gateway, second, definition)) == {"a.compensate"}


async def test_items_that_no_repetition_came_to_are_undone_all_the_same(gateway: Any) -> None:
    asked = {**EACH["nodes"][0], **UNDO, "approvalRequired": True}
    definition = {"name": "w", "nodes": [asked]}
    story = Story(definition).start(["a", "b", "c"]).approve("n").answer("n", "B", item=1)
    await known(gateway, definition, story.hear(Cancel(run=story.run, reason="no", force=True)))
    await again(gateway, story.run, "retry")
    new = replayed(gateway, definition)
    record(gateway, new.hear(Cancel(run=new.run, reason="no", force=True)))
    assert at_work(await undone(gateway, new, definition)) == {"n.compensate"}
    assert reused(gateway) == {"n": b'[null,"B"]'}


async def repeat(gateway: Any, story: Story, definition: dict[str, Any], key: str) -> Story:
    """A rerun of the story from c on, as it begins."""
    assert (await again(gateway, story.run, "rerun", key, **{"from": "c"}))[0] == 202
    return replayed(gateway, definition)


async def test_what_a_repetition_has_undone_is_not_taken_over_again(gateway: Any) -> None:
    definition = chain(a=UNDO, b=UNDO)
    story = Story(definition).start().answer("a", 1).answer("b", 2).answer("c", 3).answer("d", 4)
    await known(gateway, definition, story)
    first = await repeat(gateway, story, definition, "1")
    assert reused(gateway) == {"a": b"1", "b": b"2", "d": b"4"}
    record(gateway, first.fail("c").answer("b.compensate").fail("a.compensate"))
    second = await repeat(gateway, story, definition, "2")
    assert reused(gateway) == {"a": b"1", "d": b"4"}
    # Of what the second one did itself, nothing was undone by others.
    record(gateway, second.answer("b", 5).answer("c", 6))
    await repeat(gateway, second, definition, "3")
    assert reused(gateway) == {"a": b"1", "d": b"4", "b": b"5"}


async def test_what_a_repetition_has_undone_is_not_undone_again(gateway: Any) -> None:
    definition = chain(a=UNDO, b=UNDO)
    story = Story(definition).start().answer("a", 1).answer("b", 2).answer("d", 4)
    story.hear(Cancel(run=story.run, reason="no", force=True))
    await known(gateway, definition, story)
    first = await repeat(gateway, story, definition, "1")
    record(gateway, first)
    status, body = await again(gateway, story.run, "retry", mode="compensation")
    assert (status, f"run {first.run} goes on with results" in body["detail"]) == (409, True)
    record(gateway, first.fail("c").answer("b.compensate").fail("a.compensate"))

    undoing = await undone(gateway, story, definition)
    assert reused(gateway) == {"a": b"1", "d": b"4"}
    record(gateway, undoing)
    status, body = await again(gateway, first.run, "retry", mode="compensation")
    assert (status, f"run {undoing.run} is undoing" in body["detail"]) == (409, True)
    record(gateway, undoing.answer("a.compensate"))
    status, body = await again(gateway, first.run, "retry", mode="compensation")
    assert (status, "left nothing" in body["detail"]) == (409, True)


async def test_a_run_that_only_undoes_has_no_work_to_repeat(gateway: Any) -> None:
    definition = chain(a=UNDO)
    story = Story(definition).start().answer("a", 1).answer("d", 4).fail("b")
    story.fail("a.compensate")
    await known(gateway, definition, story)
    undoing = await undone(gateway, story, definition)
    undoing.fail("a.compensate")
    gateway.reads.rows[undoing.run] = undoing.rows()
    for what, said in (("retry", {}), ("retry", {"mode": "whole"}), ("rerun", {"from": "a"})):
        status, body = await again(gateway, undoing.run, what, **said)
        assert (status, f"only undoes what run {story.run} had done" in body["detail"]) == (
            409,
            True,
        )
    assert (await again(gateway, undoing.run, "retry", mode="compensation"))[0] == 202


async def test_inputs_that_an_action_does_not_take_are_refused(gateway: Any) -> None:
    schema = {"properties": {"depth": {"type": "integer"}}}
    gateway.serve_agent("scanner", "scan", inputSchema=schema)
    story = Story(chain()).start().answer("a", 1).answer("d", 4).fail("b")
    await known(gateway, chain(), story)
    said = {"from": "b", "inputs": {"b": {"depth": "deep"}}}
    status, body = await again(gateway, story.run, "rerun", **said)
    assert status == 400
    assert body["detail"].startswith("inputs.depth: 'scan' of 'scanner' does not take")
    said["inputs"] = {"b": {"depth": 2}}
    assert (await again(gateway, story.run, "rerun", **said))[0] == 202


async def test_big_payloads_of_a_start_travel_by_reference(gateway: Any) -> None:
    story = Story(chain()).start({"p": 1}).answer("a", 1).answer("d", 4).fail("b")
    await known(gateway, chain(), story)
    inputs = {"b": {"x": "y" * 70_000}, "c": {"x": 1}}
    assert (await again(gateway, story.run, "rerun", **{"from": "b"}, inputs=inputs))[0] == 202
    edits = {edit.node: edit.inputs for edit in started(gateway).edits}
    assert edits["c"] == Raw(b'{"x":1}')
    reference = as_reference(edits["b"])
    assert reference is not None
    content = await gateway.blobs.get("default", reference)
    assert content == b'{"x":"' + b"y" * 70_000 + b'"}'


async def test_a_start_that_would_be_too_large_has_its_payloads_elsewhere(gateway: Any) -> None:
    story = Story(chain()).start({"text": "t" * 1_200_000})
    story.answer("a", "x" * 500_000).answer("d", "small").fail("b")
    await known(gateway, chain(), story)
    assert (await again(gateway, story.run, "retry"))[0] == 202
    start = started(gateway)
    assert len(codec.encode(start)) < 2_000
    outputs = {each.node: each.output for each in start.reuse}
    assert bytes(outputs["d"]) == b'"small"'
    assert as_reference(outputs["a"]) is not None
    reference = as_reference(start.trigger.data)
    assert reference is not None
    content = await gateway.blobs.get("default", reference)
    assert content == b'{"text":"' + b"t" * 1_200_000 + b'"}'


async def test_approvals_are_asked_for_again_where_the_work_is_done_again(gateway: Any) -> None:
    definition = chain(a={"approvalRequired": True}, b={"approvalRequired": True})
    story = Story(definition).start().approve("a").answer("a", 1).answer("d", 4)
    story.hear(Approval(run=story.run, node="b", approved=True, by="ann")).fail("b")
    await known(gateway, definition, story)
    await again(gateway, story.run, "retry")
    new = replayed(gateway, definition)
    assert new.state is not None
    assert new.state.head.status == "WAITING_APPROVAL"
    assert new.state.nodes["b"].status == "WAITING_APPROVAL"

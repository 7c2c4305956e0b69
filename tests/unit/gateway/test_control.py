"""Orders to runs over REST: cancel, pause, resume."""

from typing import Any

from story import Story

from streams import codec
from streams.messages import Cancel, Message, Pause, Resume

DEFINITION: dict[str, Any] = {
    "name": "w",
    "nodes": [{"id": "n", "agent": "scanner", "action": "scan"}],
}


def shown(gateway: Any, story: Story) -> Story:
    gateway.reads.rows[story.run] = story.rows()
    return story


async def order(gateway: Any, run: str, what: str, **said: Any) -> tuple[int, dict[str, Any]]:
    response = await gateway.client.post(f"/api/runs/{run}/{what}", json=said)
    return response.status, await response.json()


def written(gateway: Any) -> list[Message]:
    return [codec.messages.decode(value) for _, _, value, _ in gateway.writer.written]


async def test_orders_reach_the_run(gateway: Any) -> None:
    story = shown(gateway, Story(DEFINITION).start())
    run = story.run
    status, body = await order(gateway, run, "pause", reason="lunch", requestedBy="ann")
    assert (status, body) == (202, {"workflowRunId": run, "status": "RUNNING"})
    assert (await order(gateway, run, "cancel", force=True))[0] == 202
    shown(gateway, story.hear(Pause(run=run)))
    assert (await order(gateway, run, "resume", requestedBy="bob"))[0] == 202
    assert written(gateway) == [
        Pause(run=run, reason="lunch", requested_by="ann"),
        Cancel(run=run, reason="cancelled by request", force=True),
        Resume(run=run, requested_by="bob"),
    ]


async def test_an_order_that_does_not_fit_is_refused(gateway: Any) -> None:
    story = shown(gateway, Story(DEFINITION).start())
    run = story.run
    status, body = await order(gateway, run, "resume")
    assert (status, body["detail"]) == (409, f"run {run} is not paused")
    assert (await order(gateway, run, "cancel", force="yes"))[0] == 400
    assert (await order(gateway, run, "pause", colour="red"))[0] == 400
    shown(gateway, story.hear(Pause(run=run)))
    assert (await order(gateway, run, "pause"))[0] == 409
    shown(gateway, story.hear(Cancel(run=run, reason="no")))
    status, body = await order(gateway, run, "pause")
    assert (status, "is ending (stopping)" in body["detail"]) == (409, True)
    assert (await order(gateway, run, "cancel"))[0] == 202  # the same again: nothing is written
    assert written(gateway) == []
    assert (await order(gateway, run, "cancel", force=True))[0] == 202
    shown(gateway, story.hear(Cancel(run=run, reason="now", force=True)))
    for what in ("cancel", "pause", "resume"):
        status, body = await order(gateway, run, what)
        assert (status, body["detail"]) == (409, f"run {run} has ended already: CANCELLED")
        assert (await order(gateway, "nobody", what))[0] == 404
    assert written(gateway) == [Cancel(run=run, reason="cancelled by request", force=True)]


async def test_a_run_that_ends_for_another_reason_is_cancelled_by_force_only(gateway: Any) -> None:
    undo = {"agent": "scanner", "action": "undo"}
    story = Story(
        {
            "name": "w",
            "nodes": [
                {"id": "a", "agent": "scanner", "action": "scan", "compensate": undo},
                {"id": "b", "agent": "scanner", "action": "scan", "dependsOn": ["a"]},
            ],
        }
    ).start()
    story.answer("a", 1)
    story.fail("b")
    run = shown(gateway, story).run
    status, body = await order(gateway, run, "cancel")
    why = f"run {run} is ending already (compensating, then FAILED)"
    assert (status, body["detail"]) == (409, f"{why}: cancel it by force to end it at once")
    assert (await order(gateway, run, "cancel", force=True))[0] == 202

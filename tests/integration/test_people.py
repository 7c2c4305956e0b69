"""What people do with runs, over REST on the real stack: approve, pause, retry, rerun."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from system import System, define
from watching import detail_where, end_of, get

from streams.plan import parse

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


def echo(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    work = {"agent": "trouble", "action": "echo", "inputs": {"value": "{{ context.value }}"}}
    return {"id": name, "dependsOn": list(needs), **work, **more}


WORKFLOWS: dict[str, list[dict[str, Any]]] = {
    "asks": [echo("act", approvalRequired={"roles": ["lead"]})],
    "fails": [
        echo("one"),
        echo("each", forEach=[1, 2, 3], inputs={"value": "{{ item }}"}),
        {
            "id": "bad",
            "agent": "trouble",
            "action": "fail",
            "dependsOn": ["one", "each"],
            "retry": {"attempts": 1},
        },
    ],
    "counts": [echo("one"), echo("two", "one", inputs={"value": "{{ nodes.one.output.value }}"})],
    "stays": [echo("gate", approvalRequired=True), echo("after", "gate")],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[aiohttp.ClientSession]:
    system = System(tmp_path_factory.mktemp("people"), agents=Path(__file__).parent)
    await system.start_kafka()
    await asyncio.gather(system.worker("trouble_agent:trouble"), system.start("gateway"))
    for name, nodes in WORKFLOWS.items():
        await define(system.bootstrap, parse({"name": name, "nodes": nodes}))
    async with aiohttp.ClientSession(system.url) as session:
        yield session
    await system.stop()


async def post(
    session: aiohttp.ClientSession, path: str, body: Any, expected: int = 202
) -> dict[str, Any]:
    async with session.post(path, json=body) as response:
        answer = await response.json()
        assert response.status == expected, answer
    return dict(answer)


async def begin(session: aiohttp.ClientSession, workflow: str, value: int = 7) -> str:
    answer = await post(session, f"/api/workflows/{workflow}/trigger", {"value": value})
    return str(answer["workflowRunId"])


def outputs(detail: dict[str, Any]) -> dict[str, Any]:
    return {step["id"]: step["output"] for step in detail["steps"]}


async def test_a_step_is_approved_with_other_inputs(session: aiohttp.ClientSession) -> None:
    run = await begin(session, "asks")
    detail = await detail_where(session, run, lambda d: d["status"] == "WAITING_APPROVAL")
    [name] = detail["waitingFor"]
    listed = await get(session, "/api/approvals", status="pending", workflow="asks")
    assert [each["id"] for each in listed["approvals"]] == [name]
    runs = await get(session, "/api/runs", status="WAITING_APPROVAL", workflow="asks")
    assert [each["id"] for each in runs["runs"]] == [run]

    address = f"/api/approvals/{name}/decision"
    yes = {"decision": "approve", "respondedBy": "ann", "inputs": {"value": 8}}
    refused = await post(session, address, yes, 403)
    assert "lead" in refused["detail"]
    await post(session, address, {**yes, "roles": ["lead"]})
    detail = await end_of(session, run)
    assert (detail["status"], outputs(detail)) == ("SUCCESS", {"act": {"value": 8}})
    await post(session, address, {**yes, "roles": ["lead"]}, 409)
    listed = await get(session, "/api/approvals", status="decided", workflow="asks")
    [approval] = listed["approvals"]
    assert (approval["status"], approval["answers"][0]["by"]) == ("APPROVED", "ann")


async def test_a_rejection_fails_the_run_with_its_reason(session: aiohttp.ClientSession) -> None:
    run = await begin(session, "asks")
    detail = await detail_where(session, run, lambda d: d["waitingFor"])
    address = f"/api/approvals/{detail['waitingFor'][0]}/decision"
    no = {"decision": "reject", "respondedBy": "bob", "roles": ["lead"]}
    await post(session, address, no, 400)
    await post(session, address, {**no, "notes": "not on a Friday"})
    detail = await end_of(session, run)
    assert detail["status"] == "FAILED"
    assert "not on a Friday" in detail["error"]["message"]


async def test_a_retry_does_what_failed_and_reuses_the_rest(
    session: aiohttp.ClientSession,
) -> None:
    run = await begin(session, "fails")
    assert (await end_of(session, run))["status"] == "FAILED"
    answer = await post(session, f"/api/runs/{run}/retry", {"requestedBy": "ann"})
    new = answer["workflowRunId"]
    assert (await get(session, f"/api/runs/{new}"))["originRun"] == run  # at once
    detail = await end_of(session, new)
    assert outputs(detail)["each"] == [{"value": 1}, {"value": 2}, {"value": 3}]
    attempts = await get(session, f"/api/runs/{new}/agent-runs")
    assert [each["node"] for each in attempts["agentRuns"]] == ["bad"]
    assert [s["reusedFrom"] for s in detail["steps"]] == [run, run, None]
    listed = await get(session, "/api/runs", workflow="fails")
    assert {(each["id"], each["originRun"]) for each in listed["runs"]} == {(run, None), (new, run)}


async def test_a_rerun_begins_at_a_node_with_edited_inputs(
    session: aiohttp.ClientSession,
) -> None:
    run = await begin(session, "counts")
    assert outputs(await end_of(session, run)) == {"one": {"value": 7}, "two": {"value": 7}}
    body = {"from": "two", "inputs": {"two": {"value": 9}}, "requestedBy": "ann"}
    new = (await post(session, f"/api/runs/{run}/rerun", body))["workflowRunId"]
    detail = await end_of(session, new)
    assert (detail["status"], outputs(detail)) == (
        "SUCCESS",
        {"one": {"value": 7}, "two": {"value": 9}},
    )
    attempts = await get(session, f"/api/runs/{new}/agent-runs")
    assert [each["node"] for each in attempts["agentRuns"]] == ["two"]


async def test_a_paused_run_begins_nothing_until_it_is_resumed(
    session: aiohttp.ClientSession,
) -> None:
    run = await begin(session, "stays")
    detail = await detail_where(session, run, lambda d: d["waitingFor"])
    await post(session, f"/api/runs/{run}/pause", {"reason": "lunch", "requestedBy": "ann"})
    paused = await detail_where(session, run, lambda d: d["paused"])
    assert paused["pause"]["reason"] == "lunch"
    yes = {"decision": "approve", "respondedBy": "ann"}
    await post(session, f"/api/approvals/{detail['waitingFor'][0]}/decision", yes)
    approved = await detail_where(
        session, run, lambda d: d["steps"][0]["approval"]["status"] == "APPROVED"
    )
    assert [step["attempts"] for step in approved["steps"]] == [0, 0]
    await post(session, f"/api/runs/{run}/pause", {}, 409)
    await post(session, f"/api/runs/{run}/resume", {"requestedBy": "ann"})
    assert (await end_of(session, run))["status"] == "SUCCESS"

"""Every example of docs/workflows.md does on the real stack what its head says."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from system import System
from watching import end_of, frames, get

from infra.kafka_broker import free_port
from streams.ids import child_run_id, run_id

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "workflows"
APP = str(ROOT / "examples" / "vulnerable-app")
UNREACHABLE = "json://127.0.0.1:9"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    port = free_port()
    system = System(
        tmp_path_factory.mktemp("examples"),
        env={"COMMANDCENTER_OUTBOUND_ALLOW": f"127.0.0.1:{port}"},
    )
    system.port = port
    await system.start_kafka()
    await asyncio.gather(system.worker(), system.start("gateway"))
    yield system
    await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(system: System) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(system.url) as session:
        for file in sorted(EXAMPLES.glob("*.yaml")):
            async with session.post(
                "/api/workflows",
                data=file.read_bytes(),
                headers={"content-type": "application/yaml"},
            ) as response:
                assert response.status == 201, await response.text()
        yield session


async def publish(
    session: aiohttp.ClientSession, kind: str, data: dict[str, Any], number: str
) -> None:
    event = {
        "specversion": "1.0", "id": number, "source": "/test", "type": kind, "data": data,
    }  # fmt: skip
    async with session.post(
        "/api/events", json=event, headers={"content-type": "application/cloudevents+json"}
    ) as response:
        assert response.status == 202, await response.text()


async def begin(
    session: aiohttp.ClientSession, name: str, data: dict[str, Any], number: str = "1"
) -> str:
    """Publish the event that the example waits for; gives the run that it starts."""
    definition = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    number = f"{name}-{number}"
    await publish(session, definition["trigger"]["event"], data, number)
    return run_id("default", name, "/test", number)


async def run(
    session: aiohttp.ClientSession, name: str, data: dict[str, Any], number: str = "1"
) -> dict[str, Any]:
    return await end_of(session, await begin(session, name, data, number))


async def until(
    session: aiohttp.ClientSession, run: str, there: Callable[[dict[str, Any]], bool]
) -> None:
    """Wait for an event of the run."""
    async for frame in frames(session, run):
        decisions = frame.get("decisions", ())
        if any(there(event) for each in decisions for event in each["events"]):
            return
        if frame["type"] == "snapshot" and frame.get("run"):
            events = (await get(session, f"/api/runs/{run}/events"))["events"]
            if any(there(each["event"]) for each in events):
                return


def statuses(detail: dict[str, Any]) -> dict[str, str]:
    return {step["id"]: step["status"] for step in detail["steps"]}


@pytest.mark.parametrize(("channel", "warned"), [("console", "SUCCESS"), (UNREACHABLE, "FAILED")])
async def test_conditions(session: aiohttp.ClientSession, channel: str, warned: str) -> None:
    detail = await run(session, "release-check", {"path": APP, "channel": channel}, channel)
    assert detail["status"] == "SUCCESS"
    assert statuses(detail) == {
        "scan": "SUCCESS",
        "warn": warned,
        "tell": "SUCCESS",
        "never": "SKIPPED",
    }
    assert detail["output"] == {"findings": 5, "warned": warned}


async def test_a_step_whose_condition_is_false(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (tmp_path / "clean.txt").write_text("nothing to hide\n")
    detail = await run(session, "release-check", {"path": str(tmp_path), "channel": "console"}, "3")
    assert detail["status"] == "SUCCESS"
    assert statuses(detail)["warn"] == "SKIPPED"
    assert detail["output"] == {"findings": 0, "warned": "SKIPPED"}


async def test_a_saga_and_the_event_of_its_end(session: aiohttp.ClientSession) -> None:
    detail = await run(session, "order", {"order": 1, "courier": "console"})
    assert detail["status"] == "SUCCESS"
    detail = await run(session, "order", {"order": 2, "courier": UNREACHABLE}, "2")
    assert detail["status"] == "FAILED"
    assert detail["error"]["node"] == "ship"
    events = (await get(session, f"/api/runs/{detail['id']}/events"))["events"]
    undone = [
        each["event"]["node"]
        for each in events
        if each["type"] == "node.succeeded" and ".compensate" in each["event"]["node"]
    ]
    assert undone == ["charge.compensate", "reserve.compensate"]
    assert statuses(detail)["apologise"] == "SUCCESS"
    follower = run_id(
        "default", "failed-orders", "commandcenter/workflows/order", str(detail["id"])
    )
    assert (await end_of(session, follower))["status"] == "SUCCESS"
    others = await get(session, "/api/workflows/failed-orders/runs")
    assert [each["id"] for each in others["runs"]] == [follower]


async def asked_for(session: aiohttp.ClientSession) -> dict[str, Any]:
    """The one approval that is waited for, once the stream has told of it."""
    (asked,) = (await get(session, "/api/approvals", status="pending"))["approvals"]
    return dict(asked)


async def test_two_people_have_to_agree(session: aiohttp.ClientSession) -> None:
    data = {"service": "checkout", "version": "1.2.3"}
    waiting = await begin(session, "deployment", data)
    await until(session, waiting, lambda e: e["type"] == "node.approvalRequested")
    asked = await asked_for(session)
    assert (await get(session, f"/api/runs/{waiting}"))["status"] == "WAITING_APPROVAL"
    for person in ("ann", "bob"):
        async with session.post(
            f"/api/approvals/{asked['id']}/decision",
            json={"decision": "approve", "respondedBy": person, "roles": ["sre"]},
        ) as response:
            assert response.status == 202, await response.text()
        by = person
        await until(
            session, waiting, lambda e, by=by: e["type"] == "node.approved" and e["by"] == by
        )
    detail = await end_of(session, waiting)
    assert detail["status"] == "SUCCESS"
    assert statuses(detail) == {"deploy": "SUCCESS", "done": "SUCCESS"}


async def test_one_step_for_each_item(session: aiohttp.ClientSession) -> None:
    paths = [APP, "/nowhere/at/all", APP]
    data = {"repositories": [{"path": path} for path in paths]}
    detail = await run(session, "fleet-scan", data)
    assert detail["status"] == "SUCCESS"
    assert detail["output"] == {"first": 5}
    attempts = (await get(session, f"/api/runs/{detail['id']}/agent-runs"))["agentRuns"]
    ended = {each["item"]: each["status"] for each in attempts if each["node"] == "scan"}
    assert ended == {0: "SUCCESS", 1: "FAILED", 2: "SUCCESS"}


async def test_one_region_after_the_other_from_a_time_on(session: aiohttp.ClientSession) -> None:
    begins = datetime.now(UTC) + timedelta(seconds=2)
    channels = ["console", UNREACHABLE, "console"]
    data = {
        "at": begins.isoformat(),
        "version": "1.2.3",
        "regions": [{"name": "eu", "channel": channel} for channel in channels],
    }
    detail = await run(session, "rollout", data)
    assert detail["status"] == "FAILED"
    assert statuses(detail) == {"window": "SUCCESS", "regions": "FAILED", "report": "SUCCESS"}
    attempts = (await get(session, f"/api/runs/{detail['id']}/agent-runs"))["agentRuns"]
    told = [each for each in attempts if each["node"] == "regions"]
    assert {each["item"]: each["status"] for each in told} == {0: "SUCCESS", 1: "FAILED"}
    window = next(step for step in detail["steps"] if step["id"] == "window")
    assert datetime.fromisoformat(window["finishedAt"]) >= begins - timedelta(milliseconds=1)


async def test_the_payment_that_is_meant(session: aiohttp.ClientSession) -> None:
    waiting = await begin(session, "payment", {"order": 7})
    await until(session, waiting, lambda e: e["type"] == "node.awaiting")
    for order in (8, 7):
        data = {"order": order, "by": f"card {order}"}
        await publish(session, "payment.received", data, f"paid-{order}")
    detail = await end_of(session, waiting)
    assert detail["status"] == "SUCCESS"
    paid = next(step for step in detail["steps"] if step["id"] == "paid")
    assert paid["output"]["data"] == {"order": 7, "by": "card 7"}


async def test_a_workflow_as_a_step(session: aiohttp.ClientSession) -> None:
    detail = await run(session, "incident", {"service": "checkout", "summary": "down"})
    assert detail["status"] == "SUCCESS"
    child = child_run_id("default", "on-call", detail["id"], f"{detail['id']}/page/1")
    below = await end_of(session, child)
    assert below["status"] == "SUCCESS"
    assert detail["output"] == below["output"]
    assert detail["output"]["messageId"]


async def test_every_limit_of_time(session: aiohttp.ClientSession) -> None:
    detail = await run(session, "patient-scan", {"path": APP})
    assert detail["status"] == "SUCCESS"
    events = (await get(session, f"/api/runs/{detail['id']}/events"))["events"]
    assert "node.started" in [each["type"] for each in events]


async def test_the_other_examples(session: aiohttp.ClientSession) -> None:
    data = {"repository": {"name": "shop", "path": APP}, "branch": "main"}
    assert (await run(session, "security-review", data))["status"] == "SUCCESS"
    definition = yaml.safe_load((EXAMPLES / "alert-notification.yaml").read_text())
    assert definition["trigger"]["event"] == "alert.>"
    data = {"severity": "critical", "service": "checkout", "summary": "down"}
    await publish(session, "alert.fired", data, "alert")
    alert = run_id("default", "alert-notification", "/test", "alert")
    assert (await end_of(session, alert))["status"] == "SUCCESS"


async def test_a_service_a_script_and_a_model(
    session: aiohttp.ClientSession, system: System
) -> None:
    url = f"{system.url}/api/health"
    detail = await run(session, "status-report", {"url": url})
    assert detail["status"] == "SUCCESS", detail
    assert detail["output"]["line"].startswith(f"{url} answered HTTP 200 after about ")
    assert detail["output"]["report"]


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


async def test_a_patch_that_a_person_has_agreed_to_is_there(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("requests==2.31.0\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    branches = git(tmp_path, "branch")
    waiting = await begin(
        session,
        "dependency-bump",
        {
            "path": str(tmp_path),
            "manifest": "requirements.txt",
            "package": "requests",
            "version": "2.32.4",
        },
    )
    await until(session, waiting, lambda e: e["type"] == "node.approvalRequested")
    asked = await asked_for(session)
    assert git(tmp_path, "branch") == branches
    async with session.post(
        f"/api/approvals/{asked['id']}/decision",
        json={"decision": "approve", "respondedBy": "ann"},
    ) as response:
        assert response.status == 202, await response.text()
    detail = await end_of(session, waiting)
    assert detail["status"] == "SUCCESS", detail
    branch = detail["output"]["branch"]
    assert git(tmp_path, "show", f"{branch}:requirements.txt") == "requests==2.32.4\n"
    assert (tmp_path / "requirements.txt").read_text() == "requests==2.31.0\n"
    assert git(tmp_path, "status", "--porcelain") == ""

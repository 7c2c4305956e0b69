"""Everything is killed in the middle of the work; afterwards every view shows every run once."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from chaos import AGENT, Log, Triggers, chain, sql, verify
from system import System, define

from streams.lifecycle import TERMINAL

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

HERE = Path(__file__).parent


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    system = System(tmp_path, agents=HERE)
    await system.start_kafka()
    yield system
    await system.stop()


async def test_a_worker_then_everything_is_killed_with_500_runs_in_progress(
    system: System,
) -> None:
    log = Log(lambda: system.bootstrap)
    await define(system.bootstrap, chain("slow"))
    worker = await system.worker(AGENT)
    await system.start_gateway()
    async with log.followed(), Triggers(system.bootstrap) as triggers:
        await triggers.send(720)
        await log.until_in_progress(500)
        await system.kill(worker)
        await system.worker(AGENT)
        await log.until_more_end(1)  # the next worker is in the middle of the work
        assert log.in_progress >= 500
    await system.kill_everything()

    await system.start_kafka()
    await system.worker(AGENT)
    await system.start_gateway()
    async with log.followed():
        await log.until_ended(triggers.accepted)
    log.check()
    await verify(system, triggers.accepted)
    await all_views_agree(system.url, triggers.accepted, len(log.decisions))


async def all_views_agree(url: str, runs: set[str], decisions: int) -> None:
    """REST, SQL and the websocket show the same runs in the same state, each once."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(url))
        live = await ended_on_websocket(session, runs)
        assert live == dict.fromkeys(runs, "SUCCESS")
        assert await listed(session) == live
        rows = await sql(session, "SELECT run_id, status FROM runs")
        assert sorted(rows) == sorted([run, "SUCCESS"] for run in runs)
        counted = await sql(session, "SELECT count(), uniqExact(run_id, seq) FROM events")
        assert counted[0][0] == counted[0][1]
        terminal = await sql(
            session, "SELECT count() FROM events WHERE type LIKE 'run.%' AND type != 'run.started'"
        )
        assert terminal == [[len(runs)]]
        assert decisions >= len(runs)


async def ended_on_websocket(session: aiohttp.ClientSession, runs: set[str]) -> dict[str, str]:
    """Each run's last status as a websocket client learns it, one subscription a run."""
    statuses: dict[str, str] = {}
    async with session.ws_connect("/api/stream") as socket:
        for number, run in enumerate(sorted(runs)):
            await socket.send_json({"type": "subscribe", "id": number, "filter": {"run": run}})
            status = ""
            while status not in TERMINAL:
                frame = await socket.receive_json(timeout=30)
                if frame.get("id") != number:
                    continue
                if frame["type"] == "snapshot" and frame.get("run"):
                    status = frame["run"]["status"]
                for decision in frame.get("decisions", ()):
                    status = decision["status"]
            statuses[run] = status
            await socket.send_json({"type": "unsubscribe", "id": number})
    return statuses


async def listed(session: aiohttp.ClientSession) -> dict[str, str]:
    """Every run of the list, page by page."""
    found: dict[str, str] = {}
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        async with session.get("/api/runs", params=query) as response:
            assert response.status == 200, await response.text()
            page = await response.json()
        for run in page["runs"]:
            assert run["id"] not in found, "a run is listed twice"
            found[run["id"]] = run["status"]
        cursor = page["next"]
    return found

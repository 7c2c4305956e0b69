"""`?atLeast=`: what it takes, how long it waits, and what is said where it is not reached."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway import cursor
from gateway.run_detail import EventRow
from gateway.watermark import WITHIN_S
from sinks.store import Rows

RUN = "0b5c7f6e-9d1c-5f0e-8a51-2f7b9f1c0d3a"
STARTED = EventRow(
    RUN, "default", "review", 1, 0, "run.started", datetime(2026, 1, 1, tzinfo=UTC), "RUNNING", b""
)
ASKED = ("/api/runs", "/api/costs", "/api/workflows/review/runs", "sql", "/clickhouse")


class AskedStore:
    """A store that answers every question with one number."""

    async def query_readonly(self, _sql: str, _parameters: object = None) -> Rows:
        return Rows(("n",), [(1,)])

    async def export_readonly(self, _sql: str, _parameters: object = None, **given: Any) -> None:
        given["file"].write_bytes(b"1\n")


class Clock:
    """Stands still, or goes a second with each look."""

    def __init__(self) -> None:
        self.now, self.step = 1_800_000_000.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def gateway(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("gateway.watermark._LOOK_AGAIN_S", 0)
    object.__setattr__(gateway.services, "clock", Clock())
    object.__setattr__(gateway.services, "store", AskedStore())
    gateway.reads.recorded = {0: 17, 3: 4}
    return gateway


async def ask(gateway: Any, path: str, at_least: str) -> tuple[int, str]:
    if path == "sql":
        asked = gateway.client.post(
            "/api/sql", params={"atLeast": at_least}, json={"query": "SELECT 1"}
        )
    elif path == "/clickhouse":
        asked = gateway.client.get(path, params={"atLeast": at_least, "query": "SELECT 1"})
    else:
        asked = gateway.client.get(path, params={"atLeast": at_least})
    async with asked as response:
        return response.status, await response.text()


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "wanted",
    [
        "0:17",
        "0:17,3:4",
        "3:0",
        "9:0",
        cursor.encode({0: 17, 3: 4}, "log"),
        cursor.encode({}, "log"),
    ],
)
async def test_what_is_recorded_is_answered_at_once(gateway: Any, path: str, wanted: str) -> None:
    status, text = await ask(gateway, path, wanted)
    assert status == 200, text


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "wanted",
    [
        "soon",
        "17",
        "0:",
        "0:-1",
        "0:1,",
        "0:1;3:4",
        RUN.upper(),
        RUN[:-1],
        cursor.encode({0: 1}, "another log"),
    ],
)
async def test_what_it_is_not_is_told(gateway: Any, path: str, wanted: str) -> None:
    status, text = await ask(gateway, path, wanted)
    assert status == 400
    assert "no watermark (such as 0:17,3:4), no cursor of this log and no id of a run" in text


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("0:18", "atLeast=0:18"),
        (cursor.encode({0: 17, 1: 1}, "log"), "atLeast=0:17,1:1"),
        (RUN, f"run {RUN}"),
    ],
)
async def test_what_is_not_reached_in_time_is_a_503_with_where_it_stands(
    gateway: Any, path: str, wanted: str, named: str
) -> None:
    clock: Any = gateway.services.clock
    clock.step = WITHIN_S / 4
    status, text = await ask(gateway, path, wanted)
    assert status == 503
    assert f"After 10 s {named} is not recorded; the history stands at 0:17,3:4" in text


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("wanted", ["0:18", RUN])
async def test_what_is_recorded_meanwhile_is_waited_for(
    gateway: Any, path: str, wanted: str
) -> None:
    looks = []

    async def record() -> None:
        looks.append(None)
        if len(looks) == 3:
            gateway.reads.recorded = {0: 18}
            gateway.reads.rows = {RUN: [STARTED]}

    gateway.reads.on_watermark = record
    status, text = await ask(gateway, path, wanted)
    assert (status, len(looks)) == (200, 3), text

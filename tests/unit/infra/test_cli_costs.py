"""`commandcenter costs …`: sums as a table, the export as a file, and budgets."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from command_line import FakeGateway, commandcenter

AMOUNTS = {"currency": "USD", "amount": "12.5", "compute": "2.5", "tokens": "10", "api": "0"}
BUDGET = {
    "name": "reviews", "project": "default", "workflow": "review", "tag": None, "amount": "100",
    "currency": "USD", "month": "2026-11", "monthToDate": "40", "forecast": "120.000001",
    "usedPercent": "40", "state": "AT_RISK",
}  # fmt: skip


async def test_sums_are_shown_by_what_was_asked(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    group = {"key": {"workflow": "review", "model": ""}, **AMOUNTS, "entries": 3}
    answer = {"groupBy": ["workflow", "model"], "groups": [group], "totals": [AMOUNTS]}
    gateway.says("/api/costs", {**answer, "more": True})
    assert await commandcenter("costs", "--by", "workflow,model", "--from", "2026-11-01") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "workflow\tmodel\tcurrency\tcompute\ttokens\tapi\tamount",
        "review\t-\tUSD\t2.5\t10\t0\t12.5",
    ]
    assert "more than 1000 groups" in shown.err
    asked = {"groupBy": "workflow,model", "from": "2026-11-01", "limit": "1000"}
    assert gateway.asked == [("GET /api/costs", asked, None)]


async def test_without_groups_the_totals_are_shown(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/costs", {"groupBy": [], "groups": [], "totals": [AMOUNTS], "more": False})
    assert await commandcenter("costs", "--by", "", "--tag", "nightly") == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["USD\t2.5\t10\t0\t12.5"]
    assert gateway.asked[0][1]["tag"] == "nightly"


async def test_an_export_is_a_whole_file_or_none(
    tmp_path: Path,
) -> None:
    file = tmp_path / "costs.csv"

    async def cut_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"BilledCost\r\n")
        if request.query["from"] == "2026-11-02":
            assert request.transport is not None
            request.transport.abort()
        return response

    app = web.Application()
    app.router.add_get("/api/costs/export", cut_off)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        command: list[Any] = ["costs", "export", "-o", file, "--url", url, "--from"]
        assert await commandcenter(*command, "2026-11-01") == 0
        assert file.read_bytes() == b"BilledCost\r\n"
        file.unlink()
        assert await commandcenter(*command, "2026-11-02") == 3
        assert not file.exists()
    finally:
        await runner.cleanup()


async def test_budgets_are_set_listed_and_removed(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/budgets/reviews", BUDGET)
    gateway.says("/api/budgets", {"budgets": [BUDGET]})
    assert (
        await commandcenter("costs", "budget", "set", "reviews", "100", "--workflow", "review") == 0
    )
    assert await commandcenter("costs", "budget", "list") == 0
    row = "reviews\tworkflow review\t2026-11\t100\t40\t40 %\t120.00\tUSD\tAT_RISK"
    assert capsys.readouterr().out.splitlines()[1::2] == [row, row]
    assert await commandcenter("costs", "budget", "remove", "reviews") == 0
    assert capsys.readouterr().out == "Budget reviews is removed.\n"
    body = {"amount": "100", "currency": "USD", "workflow": "review", "tag": None}
    assert gateway.asked == [
        ("PUT /api/budgets/reviews", {"project": "default"}, body),
        ("GET /api/budgets", {}, None),
        ("DELETE /api/budgets/reviews", {"project": "default"}, None),
    ]


async def test_a_forecast_of_less_than_a_cent_is_not_nothing(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {**BUDGET, "monthToDate": "0.0002", "forecast": "0.0003"}
    gateway.says("/api/budgets", {"budgets": [small]})
    assert await commandcenter("costs", "budget", "list") == 0
    assert "\t0.0003\t" in capsys.readouterr().out


async def test_what_the_gateway_refuses_is_said(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/costs/export", {"title": "x", "detail": "from is not before to"}, 400)
    assert await commandcenter("costs", "export") == 2
    assert "from is not before to" in capsys.readouterr().err

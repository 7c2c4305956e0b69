"""The command line against a gateway of the test's own, that answers as the real one does."""

import getpass
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import FakeGateway, Socket, commandcenter

from streams.ids import run_id

DEFINITION = """\
name: review
nodes:
  - id: scan
    agent: security-scanner
    action: scan
    inputs: {repositoryPath: /srv}
"""
RUN = {
    "id": "r1",
    "project": "default",
    "workflow": "review",
    "version": 2,
    "status": "SUCCESS",
    "trigger": {"id": "1", "source": "ci", "type": "repo.push", "subject": "shop"},
    "startedAt": "2026-01-02T03:04:05.678Z",
    "finishedAt": "2026-01-02T03:04:07.088Z",
    "durationMs": 1410,
    "nodes": 1,
    "error": None,
    "cost": [
        {"currency": "USD", "amount": "0.03", "compute": "0.01", "tokens": "0.02", "api": "0"}
    ],
    "steps": [
        {
            "id": "scan",
            "status": "SUCCESS",
            "agent": "security-scanner",
            "action": "scan",
            "attempts": 1,
            "durationMs": 38,
            "cost": [{"currency": "USD", "amount": "0.03"}],
        }
    ],
}


def decision(run: str, status: str, *events: dict[str, Any]) -> dict[str, Any]:
    return {"run": run, "workflow": "review", "status": status, "at": 1_000, "events": events}


async def test_help_says_whole_sentences_and_the_version_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await commandcenter("--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "worker Run one more worker: router, orchestrator, and agents, the built-in" in said
    assert "..." not in said.partition("Commands:")[2]
    assert await commandcenter("--version") == 0
    assert re.fullmatch(r"CommandCenter \d+\.\d+\.\d+\n", capsys.readouterr().out)


async def test_a_list_is_tab_separated_in_a_pipe_and_json_on_request(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = {**RUN, "error": {"kind": "x", "message": "red \x1b[31m\nand more"}}
    gateway.says("/api/runs", {"runs": [evil], "next": None})
    assert await commandcenter("runs", "list", "--status", "SUCCESS", "--limit", "5") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split("\t")[:3] == ["run", "workflow", "status"]
    cells = row.split("\t")
    assert cells[:3] == ["r1", "review v2", "SUCCESS"]
    assert cells[4:] == ["1.41 s", "repo.push", "red \N{REPLACEMENT CHARACTER}[31m and more"]
    assert gateway.asked[-1][1] == {"status": "SUCCESS", "limit": "5"}

    assert await commandcenter("runs", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"] == [evil]


async def test_a_run_is_shown_with_its_steps(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/runs/r1", RUN)
    assert await commandcenter("runs", "show", "r1") == 0
    out = capsys.readouterr().out
    assert "Trigger   repo.push from ci about shop" in out
    assert "Cost      0.03 USD (compute 0.01, tokens 0.02)" in out
    assert "scan\tsecurity-scanner scan\tSUCCESS\t1\t38 ms\t0.03 USD" in out


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (404, 2), (409, 2), (413, 2), (422, 2), (500, 1), (503, 3)]
)
async def test_a_refusal_is_one_message_and_an_exit_code(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    gateway.says("/api/runs", {"title": "No", "detail": "because of this"}, status)
    assert await commandcenter("runs", "list") == code
    said = capsys.readouterr()
    assert said.err.startswith("Error: because of this")
    assert said.err.count("\n") == 1
    assert said.out == ""


async def test_what_is_no_gateway_is_out_of_reach(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/runs", ["not", "a", "problem"], 502)
    assert await commandcenter("runs", "list") == 3
    assert "is not CommandCenter" in capsys.readouterr().err


async def test_nobody_there_is_out_of_reach(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.socket()) as taken:  # bound, and not listened on
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for command in (("runs", "list"), ("runs", "watch"), ("trigger", "a.b", "--wait")):
            assert await commandcenter(*command, "--url", url) == 3
            said = capsys.readouterr().err
            assert f"does not answer at {url}: Connection refused. Start it with" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("runs", "show"),
        ("runs", "list", "--limit", "0"),
        ("runs", "list", "--url", "ftp://x"),
        ("trigger", "a.b", "--data", "{"),
        ("trigger", "a.b", "--data", "@/dev/null/nothing"),
        ("workflow", "trigger", "review", "--data", "[1]"),
        ("workflow", "apply", "/dev/null/nothing"),
        ("sql", "SELECT 1", "--param", "x"),
        ("worker", "--agents", "nonsense"),
        ("demo", "--repo", "/dev/null/nothing"),
    ],
)
async def test_bad_input_is_exit_code_2_without_a_stack_trace(
    gateway: FakeGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("COMMANDCENTER_KAFKA", "127.0.0.1:9")
    assert await commandcenter(*arguments) == 2
    said = capsys.readouterr().err
    assert "Error" in said
    assert "Traceback" not in said
    assert gateway.asked == []


async def test_a_wrong_setting_is_bad_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMANDCENTER_PORT", "many")
    assert await commandcenter("doctor") == 2
    assert "COMMANDCENTER_PORT" in capsys.readouterr().err


async def test_apply_publishes_every_definition(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("b.yaml", "a.yml"):
        (tmp_path / name).write_text(DEFINITION.replace("review", f"review-{name[0]}"))
    (tmp_path / "notes.txt").write_text("not a workflow")
    published = {"name": "x", "project": "default", "version": 3, "created": True}
    gateway.says("/api/workflows", published, 201)
    assert await commandcenter("workflow", "apply", tmp_path) == 0
    assert [(body["name"], query) for _, query, body in gateway.asked] == [
        ("review-a", {"check": "true"}),
        ("review-b", {"check": "true"}),
        ("review-a", {}),
        ("review-b", {}),
    ]
    assert capsys.readouterr().out == "x v3 published\n" * 2


async def test_nothing_is_published_if_a_file_is_wrong(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(DEFINITION)
    bad.write_text(DEFINITION + "    dependsOn: [nobody]\n")
    assert await commandcenter("workflow", "apply", good, bad) == 2
    assert f"{bad}:7:17: node 'scan' depends on 'nobody'" in capsys.readouterr().err
    assert gateway.asked == []


async def test_what_the_gateway_refuses_has_its_line(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(DEFINITION)
    errors = [{"path": "nodes[0].agent", "message": "no agent is called that"}]
    problem = {"title": "No", "detail": "refused", "errors": errors}
    gateway.says("/api/workflows", problem, 422)
    assert await commandcenter("workflow", "apply", file) == 2
    assert capsys.readouterr().err == f"Error: {file}:4:12: no agent is called that\n"
    assert [query for _, query, _ in gateway.asked] == [{"check": "true"}]


async def test_a_definition_that_is_too_large_is_told_with_its_file(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(DEFINITION)
    gateway.says("/api/workflows", {"title": "No", "detail": "300 bytes, 200 may be"}, 413)
    assert await commandcenter("workflow", "apply", file) == 2
    assert capsys.readouterr().err == f"Error: {file}: 300 bytes, 200 may be\n"


async def test_validate_knows_the_built_in_agents_and_those_of_a_gateway(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(DEFINITION)
    assert await commandcenter("workflow", "validate", file, "--url", "http://127.0.0.1:9") == 0
    file.write_text(DEFINITION.replace("agent: security-scanner", "agent: pager"))
    gateway.says("/api/agents", {"agents": []})
    assert await commandcenter("workflow", "validate", file) == 2
    assert f"{file}:4:12: no agent is called 'pager'" in capsys.readouterr().err
    descriptor = {"actions": [{"name": "scan"}]}
    gateway.says("/api/agents", {"agents": [{"name": "pager", "descriptor": descriptor}]})
    assert await commandcenter("workflow", "validate", file) == 0


async def test_validate_holds_inputs_against_what_the_action_takes(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    undo = "    compensate: {agent: pager, action: page, inputs: {}}\n"
    file.write_text(DEFINITION.replace("/srv", "/srv, maxFindings: 0") + undo)
    schema = {"type": "object", "required": ["who"]}
    descriptor = {"actions": [{"name": "page", "inputSchema": schema}, {"name": "old"}]}
    gateway.says("/api/agents", {"agents": [{"name": "pager", "descriptor": descriptor}]})
    assert await commandcenter("workflow", "validate", file) == 2
    lines = capsys.readouterr().err.removeprefix("Error: ").splitlines()
    said = "does not take these inputs: "
    assert lines == [
        f"{file}:6:49: 'scan' of 'security-scanner' {said}0 is less than the minimum of 1",
        f"{file}:7:46: 'page' of 'pager' {said}'who' is a required property",
    ]


async def test_validate_knows_how_big_a_definition_may_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(DEFINITION)
    monkeypatch.setenv("COMMANDCENTER_DEFINITION_LIMIT", "1024")
    command = ("workflow", "validate", file, "--url", "http://127.0.0.1:9")
    assert await commandcenter(*command) == 0
    file.write_text(DEFINITION + f"description: {'x' * 1024}\n")
    assert await commandcenter(*command) == 2
    said = capsys.readouterr().err
    assert f"{file}:1:1: the definition of 'review' has 1," in said
    assert "1,024 may be (COMMANDCENTER_DEFINITION_LIMIT)" in said


async def test_validate_knows_how_long_a_list_may_be_and_what_cannot_go_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.yaml"
    each = "    forEach: [1, 2, 3]\n"
    file.write_text(DEFINITION + each)
    command = ("workflow", "validate", file, "--url", "http://127.0.0.1:9")
    assert await commandcenter(*command) == 0
    monkeypatch.setenv("COMMANDCENTER_FAN_OUT_LIMIT", "2")
    file.write_text(DEFINITION + each + '    when: "1"\noutput: "{{ run.id.x }}"\n')
    assert await commandcenter(*command) == 2
    lines = capsys.readouterr().err.removeprefix("Error: ").splitlines()
    assert lines == [
        f"{file}:7:5: 3 items, 2 may be (COMMANDCENTER_FAN_OUT_LIMIT)",
        f"{file}:8:11: the expression gave int, not true or false",
        f"{file}:9:9: '{{{{ run.id.x }}}}' points nowhere: run.id has no parts",
    ]


async def test_validate_gives_faults_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: [\n")
    assert await commandcenter("workflow", "validate", file, "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert [(fault["line"], fault["column"]) for fault in answer["faults"]] == [(2, 1)]


async def test_an_event_is_published_as_a_cloudevent(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.says("/api/events", {"id": "7"}, 202)
    data = tmp_path / "data.json"
    data.write_text('{"branch": "main"}')
    options = ("--data", f"@{data}", "--source", "ci", "--id", "7", "--subject", "shop")
    assert await commandcenter("trigger", "repo.push", *options) == 0
    assert gateway.asked[-1][2] == {
        "specversion": "1.0",
        "id": "7",
        "source": "ci",
        "type": "repo.push",
        "subject": "shop",
        "project": "default",
        "datacontenttype": "application/json",
        "data": {"branch": "main"},
    }


@pytest.mark.parametrize(("status", "code"), [("SUCCESS", 0), ("FAILED", 1), ("TIMED_OUT", 1)])
async def test_trigger_waits_for_exactly_the_runs_that_the_event_starts(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    def workflow(name: str, event: str | None, filter_: str | None = None) -> dict[str, Any]:
        return {"name": name, "event": event, "filter": filter_}

    run = run_id("default", "review", "ci", "7")
    workflows = [
        workflow("review", "repo.*", "event.data.branch == 'main'"),
        workflow("other", "repo.*", "event.data.branch == 'dev'"),
        workflow("alert", "alert.>"),
        workflow("manual", None),
    ]
    gateway.says("/api/workflows", {"workflows": workflows})
    gateway.says("/api/events", {"id": "7"}, 202)
    gateway.says(f"/api/runs/{run}", {**RUN, "id": run, "status": status})

    async def tell(socket: Socket, _: Any) -> None:
        snapshot = {"type": "snapshot", "id": 0, "run": None, "cursor": "a"}
        await socket.send_json(snapshot)
        await gateway.posted.wait()
        for now in ("RUNNING", status):
            frame = {"type": "events", "id": 0, "cursor": "b", "decisions": [decision(run, now)]}
            await socket.send_json(frame)
        await socket.receive()

    gateway.sockets.append(tell)
    options = (
        "--data",
        '{"branch": "main"}',
        "--source",
        "ci",
        "--id",
        "7",
        "--wait",
        "--timeout",
        "20",
        "--json",
    )
    assert await commandcenter("trigger", "repo.push", *options) == code
    assert [frame["filter"] for frame in gateway.subscribed] == [{"run": run}]
    assert [found["id"] for found in json.loads(capsys.readouterr().out)["runs"]] == [run]


async def test_trigger_does_not_wait_for_what_nothing_starts(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/workflows", {"workflows": []})
    gateway.says("/api/events", {"id": "7"}, 202)
    assert await commandcenter("trigger", "repo.push", "--wait") == 2
    assert "no workflow" in capsys.readouterr().err


async def test_waiting_has_an_end(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.says("/api/workflows/review/trigger", {"workflowRunId": "r1", "status": "PENDING"}, 202)

    async def silent(socket: Socket, _: Any) -> None:
        await socket.receive()

    gateway.sockets.append(silent)
    options = ("workflow", "trigger", "review", "--wait", "--timeout", "0.2")
    assert await commandcenter(*options) == 1
    assert "not ended yet: r1" in capsys.readouterr().err


async def test_watching_goes_on_where_the_connection_broke(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    started = {"type": "run.started", "nodes": 1, "trigger": RUN["trigger"]}
    ended = {"type": "node.succeeded", "node": "scan", "startedAt": 10, "finishedAt": 48}

    async def breaks(socket: Socket, _: Any) -> None:
        await socket.send_json({"type": "snapshot", "id": 0, "run": None, "cursor": "a"})
        told = [decision("r1", "RUNNING", started)]
        await socket.send_json({"type": "events", "id": 0, "cursor": "b", "decisions": told})

    async def goes_on(socket: Socket, _: Any) -> None:
        await socket.send_json({"type": "resumed", "id": 0, "cursor": "b"})
        told = [decision("r1", "SUCCESS", ended)]
        await socket.send_json({"type": "events", "id": 0, "cursor": "c", "decisions": told})
        await socket.receive()

    gateway.sockets += [breaks, goes_on]
    assert await commandcenter("runs", "watch", "r1") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("review  run started by repo.push from ci")
    assert second.endswith("review  scan succeeded in 38 ms")
    assert [frame.get("cursor") for frame in gateway.subscribed] == [None, "b"]


async def test_watching_a_run_that_failed_before_is_a_failure(gateway: FakeGateway) -> None:
    async def tell(socket: Socket, _: Any) -> None:
        failed = {**RUN, "status": "FAILED"}
        await socket.send_json({"type": "snapshot", "id": 0, "run": failed, "cursor": "a"})
        await socket.receive()

    gateway.sockets.append(tell)
    assert await commandcenter("runs", "watch", "r1", "--json") == 1


async def test_a_filter_that_the_stream_refuses_is_bad_input(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(socket: Socket, _: Any) -> None:
        await socket.send_json({"type": "error", "id": 0, "detail": "no such status"})
        await socket.receive()

    gateway.sockets.append(refuse)
    assert await commandcenter("runs", "watch", "--status", "LATE") == 2
    assert "no such status" in capsys.readouterr().err


LETTER = {
    "id": "2-17",
    "at": "2026-01-02T03:04:05.678Z",
    "state": "OPEN",
    "topic": "commandcenter.inbox",
    "partition": 1,
    "offset": 4,
    "attempts": 2,
    "error": "UnknownRunError",
    "reason": "no run x",
    "replayedTo": "commandcenter.inbox/1/9",
}


async def test_dead_letters_are_listed_and_all_open_ones_replayed_oldest_first(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("/api/dead-letters", {"deadLetters": [LETTER], "open": 1, "next": None})
    assert await commandcenter("dead-letters", "list", "--error", "X", "--since", "2026-01-01") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split("\t")[:3] == ["id", "when", "state"]
    assert row.split("\t")[3:] == ["commandcenter.inbox/1/4", "2", "UnknownRunError", "no run x"]
    assert gateway.asked[-1][1] == {"limit": "20", "error": "X", "since": "2026-01-01"}

    newer = {**LETTER, "id": "0-1"}
    gateway.says("/api/dead-letters", {"deadLetters": [newer, LETTER], "open": 2, "next": None})
    gateway.says("/api/dead-letters/2-17/replay", LETTER, 202)
    gateway.says("/api/dead-letters/0-1/replay", {"title": "No", "detail": "done before"}, 409)
    assert await commandcenter("dead-letters", "replay", "--all", "--topic", "t") == 1
    assert capsys.readouterr().out.splitlines() == [
        "2-17\treplayed to commandcenter.inbox/1/9",
        "0-1\trefused: done before",
    ]
    assert gateway.asked[-3][1] == {"limit": "200", "state": "OPEN", "topic": "t"}
    assert gateway.asked[-1][2] == {"again": False, "requestedBy": getpass.getuser()}


async def test_a_gateway_that_is_not_ready_ends_a_replay(gateway: FakeGateway) -> None:
    gateway.says("/api/dead-letters/0-1/replay", {"title": "No", "detail": "Kafka is away"}, 503)
    assert await commandcenter("dead-letters", "replay", "0-1", "0-2") == 3
    assert len(gateway.asked) == 1


async def test_a_purge_needs_a_reason(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await commandcenter("dead-letters", "purge", "2-17") == 2
    assert await commandcenter("dead-letters", "purge", "2-17", "--reason", " ") == 2
    assert gateway.asked == []
    gateway.says("/api/dead-letters/2-17/purge", LETTER)
    capsys.readouterr()
    assert await commandcenter("dead-letters", "purge", "2-17", "--reason", "x", "--json") == 0
    [result] = json.loads(capsys.readouterr().out)
    assert (result["id"], result["done"]) == ("2-17", True)
    assert gateway.asked[-1][2] == {"reason": "x", "purgedBy": getpass.getuser()}
    command = ("dead-letters", "purge", "2-17", "--reason", "x", "--by", "ann")
    assert await commandcenter(*command) == 0
    assert gateway.asked[-1][2] == {"reason": "x", "purgedBy": "ann"}


async def test_a_long_dead_letter_is_shown_in_part(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    letter = {**LETTER, "value": "eA==", "valueText": "x" * 5_000_000, "headers": {}}
    gateway.says("/api/dead-letters/2-17", letter)
    assert await commandcenter("dead-letters", "show", "2-17") == 0
    out = capsys.readouterr().out
    assert len(out) < 2_000
    assert "xxx… (--json shows it all)" in out
    assert await commandcenter("dead-letters", "show", "2-17", "--json") == 0
    assert json.loads(capsys.readouterr().out) == letter


async def test_lists_are_shown_with_all_their_pages(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    def page_of(entries: str, *all_of_them: Any) -> Any:
        """One entry a page."""

        def page(query: Any) -> Any:
            number = int(query.get("cursor", "0"))
            following = str(number + 1) if number + 1 < len(all_of_them) else None
            return {entries: [all_of_them[number]], "next": following, "name": "w", "active": True}

        return page

    workflows = [
        {"name": f"w{n}", "version": 1, "event": None, "filter": None, "nodes": 1,
         "publishedAt": "2026-01-02T03:04:05Z", "description": ""}
        for n in range(3)
    ]  # fmt: skip
    agents = [
        {"name": f"a{n}", "version": "1", "workers": [], "alive": False, "descriptor": {}}
        for n in range(3)
    ]
    gateway.says("/api/workflows", page_of("workflows", *workflows))
    gateway.says("/api/agents", page_of("agents", *agents))
    gateway.says("/api/budgets", page_of("budgets", {"name": "b0"}, {"name": "b1"}))
    for command, entries, names in (
        (("workflow", "list", "--project", "p"), "workflows", ["w0", "w1", "w2"]),
        (("agents", "list"), "agents", ["a0", "a1", "a2"]),
        (("costs", "budget", "list"), "budgets", ["b0", "b1"]),
    ):
        assert await commandcenter(*command, "--json") == 0
        assert [each["name"] for each in json.loads(capsys.readouterr().out)[entries]] == names
    assert gateway.asked[2][1] == {"project": "p", "cursor": "2"}


async def test_waiting_for_the_runs_of_an_event_knows_the_workflows_of_all_pages(
    gateway: FakeGateway,
) -> None:
    def page(query: Any) -> Any:
        far = "cursor" in query
        event = "repo.push" if far else "other"
        return {
            "workflows": [{"name": "w", "event": event, "filter": None}],
            "next": None if far else "more",
        }

    async def silent(socket: Socket, _: Any) -> None:
        await socket.receive()

    gateway.says("/api/workflows", page)
    gateway.says("/api/events", {"id": "7"}, 202)
    gateway.sockets.append(silent)
    await commandcenter("trigger", "repo.push", "--wait", "--timeout", "0.2")
    assert len(gateway.subscribed) == 1


async def test_the_difference_of_two_versions(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "--- review v1\n+++ review v2\n@@ -1 +1 @@\n-timeout: 1h\n+timeout: 2h\n"
    answer = {"from": 1, "to": 2, "diff": text, "changes": []}
    gateway.says("/api/workflows/review/diff", answer)
    assert await commandcenter("workflow", "diff", "review", "--from", "1") == 0
    assert capsys.readouterr().out == text
    assert gateway.asked[-1][1] == {"project": "default", "from": "1"}
    assert await commandcenter("workflow", "diff", "review", "--json") == 0
    assert json.loads(capsys.readouterr().out) == answer
    gateway.says("/api/workflows/review/diff", {**answer, "diff": ""})
    assert await commandcenter("workflow", "diff", "review") == 0
    assert capsys.readouterr().out == "review v1 and v2 are the same.\n"


async def test_sql_keeps_the_columns_in_their_order(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"b": None, "a": {"x": 1}}
    gateway.says("/api/sql", {"columns": ["b", "a"], "rows": [row], "rowCount": 1})
    assert await commandcenter("sql", "SELECT {n:UInt8}", "--param", "n=1=1") == 0
    assert capsys.readouterr().out == 'b\ta\n\t{"x": 1}\n'
    assert gateway.asked[-1][2] == {"query": "SELECT {n:UInt8}", "parameters": {"n": "1=1"}}


async def test_sql_writes_other_formats_as_they_come(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.says("/api/sql", {"whatever": "comes"})
    file = tmp_path / "answer"
    assert await commandcenter("sql", "SELECT 1", "--parquet", "--output", file) == 0
    assert gateway.asked[-1][2] == {"query": "SELECT 1", "parameters": {}, "format": "Parquet"}
    assert json.loads(file.read_bytes()) == {"whatever": "comes"}
    assert await commandcenter("sql", "SELECT 1", "--csv", "--json") == 2
    assert await commandcenter("sql", "SELECT 1", "--output", file) == 2


async def test_doctor_names_sources_and_masks_passwords(
    gateway: FakeGateway,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COMMANDCENTER_CLICKHOUSE", "clickhouse://me:geheim@db:8123/x")
    gateway.says("/readyz", {"ready": False, "parts": {"kafka": "ok", "store": "gone"}}, 503)
    assert await commandcenter("doctor", "--data-dir", tmp_path, "--json") == 1
    out = capsys.readouterr().out
    assert "geheim" not in out
    answer = json.loads(out)
    sources = {line["variable"]: line["source"] for line in answer["settings"]}
    assert sources["COMMANDCENTER_DATA"] == "flag"
    assert sources["COMMANDCENTER_CLICKHOUSE"] == "environment"
    assert sources["COMMANDCENTER_PORT"] == "default"
    checks = {check["check"]: (check["state"], check["text"]) for check in answer["checks"]}
    assert checks["gateway"] == ("fault", f"{gateway.url} is not ready: store: gone")
    assert checks["Kafka"][0] == "note"
    assert checks["git"][1].startswith("/")
    assert checks["sandbox"][0] in ("ok", "note")
    assert checks["sandbox"][1].startswith("process, ")


@pytest.mark.parametrize(
    ("sandbox", "state", "says"),
    [("inline", "note", "nothing is confined"), ("docker", "fault", "docker needs an engine")],
)
async def test_doctor_says_what_the_sandbox_keeps(
    sandbox: str,
    state: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COMMANDCENTER_SANDBOX", sandbox)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    await commandcenter("doctor", "--data-dir", tmp_path, "--json")
    checks = {it["check"]: it for it in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["sandbox"]["state"] == state
    assert says in checks["sandbox"]["text"]


@pytest.mark.parametrize(("version", "state"), [("2.36.1", "note"), ("2.37.0", "ok")])
async def test_doctor_knows_an_old_git(
    version: str,
    state: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\necho git version {version}\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    await commandcenter("doctor", "--data-dir", tmp_path, "--json")
    checks = {it["check"]: it for it in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["git"]["state"] == state


async def test_a_worker_needs_a_kafka(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert await commandcenter("worker", "--data-dir", tmp_path) == 3
    assert "COMMANDCENTER_KAFKA" in capsys.readouterr().err


def test_a_taken_port_is_found_before_anything_starts(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = ("up", "--data-dir", str(tmp_path / "data"), "--port", port)
        done = subprocess.run(
            (sys.executable, "-m", "infra", *command), capture_output=True, text=True, check=False
        )
    assert done.returncode == 3
    assert f"Port {port} on 127.0.0.1 cannot be listened on" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_process_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody, closing(socket.socket()) as free:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        free.bind(("127.0.0.1", 0))
        kafka, port = f"127.0.0.1:{nobody.getsockname()[1]}", str(free.getsockname()[1])
        free.close()
        done = subprocess.run(
            (sys.executable, "-m", "infra", "up", "--data-dir", str(tmp_path), "--port", port),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COMMANDCENTER_KAFKA": kafka},
        )
    assert done.returncode == 3
    assert "did not start (exit code 3). It said: Kafka at " + kafka in done.stderr
    assert f"Its log is {tmp_path}/logs/" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = "pydantic aiohttp aiokafka faust chdb clickhouse_connect cel yaml rich structlog agents"
    code = f"import sys, infra.cli; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

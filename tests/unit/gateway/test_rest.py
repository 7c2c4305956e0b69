"""The REST interface over fakes: what is accepted, what is refused, and how that is said."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import msgspec
import pytest

from gateway.routes import ROUTES
from gateway.run_detail import EventRow
from gateway.run_views import AgentRunView, RunView, TriggerView
from streams import codec
from streams.catalog import Definition
from streams.events import (
    NodeDispatched,
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    NodeSucceeded,
    RunFailed,
    RunStarted,
)
from streams.ids import run_id
from streams.messages import Cancel, Start
from streams.payload import as_reference
from streams.records import Failure, NodeStatus, RunStatus, Trigger
from streams.topics import INBOX, TRIGGERS, WORKFLOWS
from streams.trigger import from_kafka

DEFINITION: dict[str, Any] = {
    "name": "review",
    "trigger": {"event": "repo.push"},
    "nodes": [
        {"id": "scan", "agent": "scanner", "action": "scan", "inputs": {"path": "{{ context.p }}"}},
        {"id": "tell", "agent": "scanner", "action": "scan", "dependsOn": ["scan"]},
    ],
}
YAML = """
name: review
trigger: {event: repo.push}
nodes:
  - {id: scan, agent: scanner, action: scan, inputs: {path: "{{ context.p }}"}}
  - {id: tell, agent: scanner, action: scan, dependsOn: [scan]}
"""
AT = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = "6a1f2c5a-2f0b-5a43-9d0e-3d1c3b0a7c51"


async def problem(response: Any, status: int) -> dict[str, Any]:
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    found: dict[str, Any] = json.loads(text)
    assert found["status"] == status
    assert found["title"]
    assert "Traceback" not in text
    return found


async def test_inputs_and_outputs_that_an_action_has_not_are_refused(gateway: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "depth": {"type": "integer"}},
        "required": ["path"],
    }
    gives = {"type": "object", "properties": {"total": {}}, "additionalProperties": False}
    gateway.serve_agent("scanner", "scan", inputSchema=schema, outputSchema=gives)
    node = {"id": "scan", "agent": "scanner", "action": "scan"}

    async def published(*nodes: dict[str, Any], **fields: Any) -> Any:
        return await gateway.client.post(
            "/api/workflows", json={"name": "w", "nodes": list(nodes), **fields}
        )

    fine = {**node, "inputs": {"path": "/", "depth": "{{ context.depth }}"}}
    undone = {**fine, "compensate": {"agent": "scanner", "action": "scan", "inputs": {"path": 1}}}
    refused = await published(undone, onFailure=[{**node, "id": "tell"}])
    errors = (await problem(refused, 422))["errors"]
    said = "'scan' of 'scanner' does not take these inputs: "
    assert [(error["path"], error["message"]) for error in errors] == [
        ("nodes[0].compensate.inputs.path", said + "1 is not of type 'string'"),
        ("onFailure[0].inputs", said + "'path' is a required property"),
    ]
    wrong = await published(fine, output="{{ nodes.scan.output.totl }}")
    assert (await problem(wrong, 422))["errors"] == [
        {
            "path": "output",
            "message": "'{{ nodes.scan.output.totl }}' points nowhere:"
            " nodes.scan.output has total, not 'totl'",
        }
    ]
    assert (await published(fine, output="{{ nodes.scan.output.total }}")).status == 201


async def test_what_people_have_to_agree_to_undoes_nothing(gateway: Any) -> None:
    gateway.serve_agent("cleaner", "remove", risk="APPROVAL_REQUIRED")
    risky = {"agent": "cleaner", "action": "remove"}
    node = {"id": "a", **risky, "compensate": risky}
    refused = await gateway.client.post("/api/workflows", json={"name": "w", "nodes": [node]})
    [error] = (await problem(refused, 422))["errors"]
    assert error["path"] == "nodes[0].compensate.action"
    assert "nobody is asked whether to undo" in error["message"]


async def test_a_definition_is_published_once_and_in_versions(gateway: Any) -> None:
    client = gateway.client
    checked = await client.post("/api/workflows", json=DEFINITION, params={"check": "true"})
    assert checked.status == 200
    would_be = {"name": DEFINITION["name"], "project": "default", "version": 1, "created": True}
    assert await checked.json() == would_be
    assert (await (await client.get("/api/workflows")).json())["workflows"] == []
    assert (
        await client.post("/api/workflows", json=DEFINITION, params={"check": "1"})
    ).status == 400
    first = await client.post("/api/workflows", json=DEFINITION)
    assert first.status == 201
    assert await first.json() == {
        "name": "review",
        "project": "default",
        "version": 1,
        "created": True,
    }
    same = await client.post(
        "/api/workflows", data=YAML, headers={"Content-Type": "application/yaml"}
    )
    assert same.status == 200
    assert (await same.json())["version"] == 1
    other = await client.put("/api/workflows/review", json={**DEFINITION, "description": "new"})
    assert (await other.json())["version"] == 2
    detail = await (await client.get("/api/workflows/review")).json()
    assert [v["version"] for v in detail["versions"]] == [2, 1]
    assert detail["definition"]["description"] == "new"
    older = await (await client.get("/api/workflows/review?version=1")).json()
    assert "description" not in older["definition"]
    assert not older["active"]
    listed = await (await client.get("/api/workflows")).json()
    assert [(w["name"], w["version"], w["event"]) for w in listed["workflows"]] == [
        ("review", 2, "repo.push")
    ]
    topic, key, value = gateway.writer.fake_producer.sent[0]
    assert topic == WORKFLOWS
    assert key.startswith(b"default/review@1#")
    assert isinstance(codec.catalog.decode(value), Definition)


async def test_what_changed_between_two_versions(gateway: Any) -> None:
    client = gateway.client
    path = "/api/workflows/review/diff"
    await problem(await client.get(path), 404)
    for timeout in ("1h", "2h", "3h"):
        assert (await client.post("/api/workflows", json={**DEFINITION, "timeout": timeout})).ok
        if timeout == "1h":
            told = await problem(await client.get(path), 404)
            assert "no version before 1" in told["detail"]
    answer = await (await client.get(path)).json()
    assert {name: answer[name] for name in ("name", "project", "from", "to")} == {
        "name": "review",
        "project": "default",
        "from": 2,
        "to": 3,
    }
    assert answer["changes"] == [{"path": "timeout", "change": "changed", "from": "2h", "to": "3h"}]
    assert answer["diff"].startswith("--- review v2\n+++ review v3\n")
    assert "-timeout: 2h\n+timeout: 3h\n" in answer["diff"]

    back = await (await client.get(path, params={"from": "3", "to": "1"})).json()
    assert back["changes"] == [{"path": "timeout", "change": "changed", "from": "3h", "to": "1h"}]
    assert (await (await client.get(path, params={"to": "2"})).json())["from"] == 1
    same = await (await client.get(path, params={"from": "2", "to": "2"})).json()
    assert (same["diff"], same["changes"]) == ("", [])
    await problem(await client.get(path, params={"from": "9"}), 404)
    told = await problem(await client.get(path, params={"to": "x"}), 400)
    assert "to='x'" in told["detail"]


async def test_a_publisher_who_comes_second_takes_the_next_version(gateway: Any) -> None:
    take = gateway.catalog.take

    def overtaken(topic: str, value: bytes) -> None:
        gateway.writer.fake_producer.on_send = take
        record = codec.catalog.decode(value)
        assert isinstance(record, Definition)
        rival = msgspec.structs.replace(record, digest="rival")
        take(topic, codec.encode(rival))
        take(topic, value)

    gateway.writer.fake_producer.on_send = overtaken
    response = await gateway.client.post("/api/workflows", json=DEFINITION)
    assert (await response.json())["version"] == 2


async def test_a_retired_workflow_is_gone_and_can_come_back(gateway: Any) -> None:
    client = gateway.client
    await client.post("/api/workflows", json=DEFINITION)
    retired = await client.delete("/api/workflows/review")
    assert (await retired.json())["version"] == 1
    await problem(await client.post("/api/workflows/review/trigger", json={}), 404)
    await problem(await client.delete("/api/workflows/review"), 404)
    again = await client.post("/api/workflows", json=DEFINITION)
    assert (await again.json()) == {
        "name": "review",
        "project": "default",
        "version": 2,
        "created": True,
    }


def node(**more: Any) -> dict[str, Any]:
    return {"id": "a", "agent": "scanner", "action": "scan", **more}


@pytest.mark.parametrize(
    ("definition", "path", "says"),
    [
        ({"nodes": [node(dependsOn=["a"])]}, "nodes[0].dependsOn", "cycle"),
        ({"nodes": [node(), node()]}, "nodes[1].id", "already used"),
        ({"nodes": [node(agent="nobody")]}, "nodes[0].agent", "(agents: scanner)"),
        ({"nodes": [node(action="jump")]}, "nodes[0].action", "(it has: scan)"),
        (
            {"nodes": [node(inputs={"x": "{{ nodes.b.output }}"})]},
            "nodes[0].inputs",
            "not a node",
        ),
        (
            {"trigger": {"event": "a", "filter": "event.x =="}, "nodes": [node()]},
            "trigger.filter",
            "not a CEL expression",
        ),
        ({"nodes": [node(colour="red")]}, "nodes[0].colour", "no such field"),
        ({"nodes": []}, "nodes", "at least 1 item"),
        ({"nodes": [node(forEach="abc")]}, "nodes[0].forEach", "a text is no list"),
    ],
)
async def test_a_wrong_definition_is_refused_with_paths(
    gateway: Any, definition: dict[str, Any], path: str, says: str
) -> None:
    response = await gateway.client.post("/api/workflows", json={"name": "w", **definition})
    found = await problem(response, 422)
    assert path in [fault["path"] for fault in found["errors"]]
    assert says in " ".join(fault["message"] for fault in found["errors"])
    assert gateway.writer.fake_producer.sent == []


async def test_definitions_have_limits_that_are_settings(gateway: Any) -> None:
    object.__setattr__(gateway.services, "nodes_limit", 2)
    object.__setattr__(gateway.services, "definition_limit", 400)
    three = {"name": "w", "nodes": [node(), node(id="b")], "onFailure": [node(id="c")]}
    found = await problem(await gateway.client.post("/api/workflows", json=three), 422)
    assert found["errors"][0]["path"] == "nodes"
    assert "3 nodes (with those of onFailure), 2 may be" in found["detail"]
    assert "COMMANDCENTER_NODES_LIMIT" in found["detail"]
    object.__setattr__(gateway.services, "fan_out_limit", 3)
    listed = {"name": "w", "nodes": [*three["nodes"], node(id="d", forEach=[1, 2, 3, 4])]}
    found = await problem(await gateway.client.post("/api/workflows", json=listed), 422)
    assert [(fault["path"], fault["message"][:25]) for fault in found["errors"]] == [
        ("nodes", "3 nodes (with those of on"),
        ("nodes[2].forEach", "4 items, 3 may be (COMMAN"),
    ]
    long = {"name": "w", "nodes": [node(description="x" * 400)]}
    found = await problem(await gateway.client.post("/api/workflows", json=long), 413)
    assert "400 may be (COMMANDCENTER_DEFINITION_LIMIT)" in found["detail"]
    assert gateway.writer.fake_producer.sent == []
    fits = {"name": "w", "nodes": [node(), node(id="b", forEach=[1, 2, 3])]}
    assert (await gateway.client.post("/api/workflows", json=fits)).status == 201


async def test_a_definition_that_is_no_body_any_more_is_told_of_its_limit(gateway: Any) -> None:
    definition = BytesIO(json.dumps({"name": "w", "description": "x" * 2**20}).encode())
    headers = {"Content-Type": "application/json"}
    refused = await gateway.client.post("/api/workflows", data=definition, headers=headers)
    found = await problem(refused, 413)
    assert "262,144 as JSON (COMMANDCENTER_DEFINITION_LIMIT)" in found["detail"]


@pytest.mark.parametrize(
    ("headers", "content", "size"),
    [
        (
            {"Content-Type": "application/json"},
            b'"' + b"x" * 2_999 + b'"',
            "the limit of 2,000 bytes",
        ),
        ({"Content-Type": "application/octet-stream"}, b"x" * 1_600, "2,138 bytes as a record"),
    ],
    ids=["the body", "the record that the body makes"],
)
async def test_the_size_of_an_event_has_a_limit_that_is_a_setting(
    gateway: Any, headers: dict[str, str], content: bytes, size: str
) -> None:
    object.__setattr__(gateway.services, "trigger_limit", 2_000)
    event = {"ce-id": "1", "ce-source": "/x", "ce-type": "t", "ce-specversion": "1.0", **headers}
    refused = await gateway.client.post("/api/events", data=content, headers=event)
    said = (await problem(refused, 413))["detail"]
    assert size in said
    assert "COMMANDCENTER_TRIGGER_LIMIT" in said
    assert gateway.writer.written == []
    taken = await gateway.client.post("/api/events", data=content[:1] + content[-1:], headers=event)
    assert taken.status == 202


async def test_an_event_that_no_payload_may_be_is_refused(gateway: Any) -> None:
    gateway.blobs.limit = 70_000
    event = {"type": "t", "payload": "x" * 70_000}
    said = await problem(await gateway.client.post("/api/events", json=event), 413)
    assert "70,000 may be (COMMANDCENTER_PAYLOAD_LIMIT)" in said["detail"]
    assert gateway.writer.written == []


async def test_a_big_context_travels_by_reference_and_has_a_limit(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=DEFINITION)
    path = "/api/workflows/review/trigger"
    assert (await gateway.client.post(path, json={"p": "x" * 70_000})).status == 202
    start = codec.messages.decode(gateway.writer.written[-1][2])
    assert isinstance(start, Start)
    reference = as_reference(start.trigger.data)
    assert reference is not None
    kept = await gateway.blobs.get("default", reference)
    assert json.loads(kept) == {"p": "x" * 70_000}
    object.__setattr__(gateway.services, "trigger_limit", 70_000)
    refused = await gateway.client.post(path, json={"p": "x" * 70_000})
    assert "70,000 bytes (COMMANDCENTER_TRIGGER_LIMIT)" in (await problem(refused, 413))["detail"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "says"),
    [
        ("POST", "/api/workflows", {"Content-Type": "application/json"}, b"{", 400, "not valid"),
        ("POST", "/api/workflows", {"Content-Type": "application/json"}, b"[]", 400, "object"),
        ("POST", "/api/workflows", {"Content-Type": "text/html"}, b"{}", 415, "application/yaml"),
        (
            "POST",
            "/api/workflows",
            {"Content-Type": "application/yaml"},
            b"a: [",
            400,
            "body:1:5: not valid YAML",
        ),
        ("POST", "/api/workflows", {"Content-Type": "text/yaml"}, b"a: &x 1\nb: *x", 400, "alias"),
        ("POST", "/api/workflows", {"Content-Type": "text/yaml"}, b"? [1]\n: 2", 400, "1:3: a key"),
        (
            "POST",
            "/api/workflows",
            {"Content-Type": "text/yaml"},
            b"a: 1\na: 2",
            400,
            "given twice",
        ),
        (
            "POST",
            "/api/workflows",
            {"Content-Type": "text/yaml"},
            b"a: 1\n---\na: 2",
            400,
            "one at",
        ),
        (
            "POST",
            "/api/workflows",
            {"Content-Type": "text/yaml"},
            b"name: on",
            422,
            "workflow 'on'",
        ),
        ("PUT", "/api/workflows/x", {"Content-Type": "text/yaml"}, b"name: y", 400, "named 'y'"),
        ("GET", "/api/workflows/none", {}, b"", 404, "no workflow 'none'"),
        ("GET", "/api/workflows?colour=1", {}, b"", 400, "unknown parameter 'colour'"),
        ("POST", "/api/workflows/none/trigger", {}, b"", 404, "(workflows: none)"),
        ("GET", "/api/agents/none", {}, b"", 404, "(agents: scanner)"),
        ("GET", "/api/runs/none", {}, b"", 404, "no run 'none'"),
        ("GET", "/api/runs/none/events", {}, b"", 404, "no run 'none'"),
        ("GET", "/api/runs/none/events?order=up", {}, b"", 400, "oldest, newest"),
        ("GET", "/api/runs/none/events?cursor=LTE", {}, b"", 400, "cursor"),
        ("GET", "/api/runs/none/agent-runs", {}, b"", 404, "no run 'none'"),
        ("POST", "/api/runs/none/cancel", {}, b"", 404, "no run 'none'"),
        ("GET", "/api/runs?status=GREEN", {}, b"", 400, "PENDING, RUNNING"),
        ("GET", "/api/runs?limit=0", {}, b"", 400, "from 1 to 200"),
        ("GET", "/api/runs?limit=9999999999999", {}, b"", 400, "from 1 to 200"),
        ("GET", "/api/runs?cursor=zzz", {}, b"", 400, "cursor"),
        ("GET", "/api/events?cursor=%C3%B6", {}, b"", 400, "cursor"),
        ("GET", "/api/nothing", {}, b"", 404, "nothing at this address"),
        ("PATCH", "/api/runs", {}, b"", 405, "use GET"),
        ("POST", "/api/sql", {"Content-Type": "application/json"}, b"{}", 400, "'query'"),
        (
            "POST",
            "/api/sql",
            {"Content-Type": "application/json"},
            b'{"query":"SELECT 1","format":"Exe"}',
            400,
            "not one of JSON",
        ),
        ("POST", "/api/events", {"Content-Type": "application/json"}, b"{", 400, "not valid JSON"),
        ("POST", "/api/events", {"Content-Type": "application/json"}, b"", 400, "empty body"),
        ("POST", "/api/events", {"Content-Type": "text/plain"}, b"x", 415, "without ce-* headers"),
        ("POST", "/api/events", {"ce-id": "1"}, b"{}", 400, "missing ce-specversion"),
        (
            "POST",
            "/api/events",
            {"Content-Type": "application/json"},
            b'{"type":"a","payload":"' + b"x" * 5_000_000 + b'"}',
            413,
            "limit of 1,048,576 bytes",
        ),
        *(
            ("POST", "/api/events", headers, body, 400, "for events that the system makes itself")
            for headers, body in (
                (
                    {
                        "ce-id": "1",
                        "ce-source": "/x",
                        "ce-type": "commandcenter.run.calledOff",
                        "ce-specversion": "1.0",
                        "Content-Type": "application/json",
                    },
                    b"{}",
                ),
                (
                    {"Content-Type": "application/cloudevents+json"},
                    b'{"specversion":"1.0","id":"1","source":"/x","type":"commandcenter.x"}',
                ),
                (
                    {"Content-Type": "application/json"},
                    b'{"type":"commandcenter.run.finished","payload":{}}',
                ),
                (
                    {"Content-Type": "application/json"},
                    b'{"subject":"commandcenter.x","id":"1","origin":"o","payload":{},"timestamp":1}',
                ),
            )
        ),
        ("GET", "/api/events/stream?subject=a..b", {}, b"", 400, "subject"),
        ("GET", "/api/events/stream?cursor=x", {}, b"", 400, "cursor"),
        ("GET", "/ui/..%2Fapp.py", {}, b"", 404, ""),
    ],
)
async def test_bad_input(
    gateway: Any,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    says: str,
) -> None:
    response = await gateway.client.request(method, path, headers=headers, data=BytesIO(body))
    found = await problem(response, status)
    assert says in found.get("detail", "")
    assert gateway.writer.written == []
    assert (await gateway.client.get("/api/health")).status == 200


async def test_a_run_is_triggered_by_name(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=DEFINITION)
    response = await gateway.client.post(
        "/api/workflows/review/trigger", json={"p": "/src"}, headers={"Idempotency-Key": "k1"}
    )
    assert response.status == 202
    run = run_id("default", "review", "/api/workflows/review/trigger", "k1")
    assert await response.json() == {"workflowRunId": run, "status": "PENDING"}
    assert response.headers["Location"] == f"/api/runs/{run}"
    ((topic, key, value, _),) = gateway.writer.written
    assert (topic, key) == (INBOX, run)
    assert codec.messages.decode(value) == Start(
        run=run,
        project="default",
        workflow="review",
        version=1,
        trigger=Trigger(
            id="k1",
            source="/api/workflows/review/trigger",
            type="commandcenter.manual",
            data=msgspec.Raw(b'{"p":"/src"}'),
        ),
    )


async def test_a_run_that_nobody_has_decided_on_yet_is_pending(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=DEFINITION)
    response = await gateway.client.post("/api/workflows/review/trigger")
    run = (await response.json())["workflowRunId"]
    ticks = itertools.count(step=3)  # no second look: time flies
    object.__setattr__(gateway.services, "clock", lambda: next(ticks))
    found = await (await gateway.client.get(f"/api/runs/{run}")).json()
    assert found["status"] == "PENDING"
    assert [(step["id"], step["status"]) for step in found["steps"]] == [
        ("scan", "PENDING"),
        ("tell", "PENDING"),
    ]


def rows(*events: tuple[Any, RunStatus]) -> list[EventRow]:
    return [
        EventRow(
            run=RUN,
            project="default",
            workflow="review",
            version=1,
            seq=seq,
            type=event.__struct_config__.tag,
            at=AT + timedelta(seconds=seq),
            status=status,
            payload=msgspec.json.encode(event),
        )
        for seq, (event, status) in enumerate(events)
    ]


def dispatched(node: str, attempt: int) -> NodeDispatched:
    return NodeDispatched(
        node=node,
        attempt=attempt,
        task=f"{RUN}/{node}/{attempt}",
        agent="scanner",
        action="scan",
        inputs=msgspec.Raw(b'{"path":"/src"}'),
        deadline=0,
    )


STARTED = RunStarted(
    trigger=Trigger(id="1", source="/ci", type="repo.push", data=msgspec.Raw(b'{"p":"/src"}')),
    nodes=2,
    deadline=1735787045000,
)


async def test_a_run_is_waited_for_until_it_is_recorded(gateway: Any) -> None:
    """The tail has seen the run; the recorder is a moment behind."""

    class Record:
        offset = 0
        value = (
            b'{"run":"%b","project":"p","workflow":"w","seq":0,"at":1,"status":"RUNNING",'
            % (RUN.encode())
            + b'"previous":"PENDING","events":[]}'
        )

    gateway.services.tail.on_records(0, [Record()])
    reads = 0

    async def recorded_at_the_third_read() -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            gateway.reads.rows[RUN] = rows((STARTED, RunStatus.RUNNING))

    gateway.reads.on_read = recorded_at_the_third_read
    found = await (await gateway.client.get(f"/api/runs/{RUN}")).json()
    assert found["status"] == "RUNNING"
    assert reads == 3


@pytest.mark.parametrize(("order", "seqs"), [("oldest", [0, 1, 2]), ("newest", [2, 1, 0])])
async def test_events_of_a_run_come_in_pages(gateway: Any, order: str, seqs: list[int]) -> None:
    running = RunStatus.RUNNING
    gateway.reads.rows[RUN] = rows(
        (STARTED, running), (dispatched("scan", 1), running), (dispatched("tell", 1), running)
    )
    found, cursor = [], {}
    for left in (2, 1, 0):
        query = {"limit": "1", "order": order, **cursor}
        page = await (await gateway.client.get(f"/api/runs/{RUN}/events", params=query)).json()
        found += [event["seq"] for event in page["events"]]
        assert (page["next"] is None) is (left == 0)
        cursor = {"cursor": page["next"]}
    assert found == seqs
    whole = await (await gateway.client.get(f"/api/runs/{RUN}/events")).json()
    assert ([event["seq"] for event in whole["events"]], whole["next"]) == ([0, 1, 2], None)


async def test_attempts_of_a_run_come_in_pages(gateway: Any) -> None:
    gateway.reads.rows[RUN] = rows((STARTED, RunStatus.RUNNING))
    gateway.reads.attempts = [
        AgentRunView(
            task=f"t{item}",
            run=RUN,
            node="scan",
            item=item,
            attempt=1,
            agent="a",
            action="x",
            status=NodeStatus.RUNNING,
            dispatched_at=AT,
        )
        for item in (None, 0)
    ]
    path = f"/api/runs/{RUN}/agent-runs"
    first = await (await gateway.client.get(path, params={"limit": "1"})).json()
    assert [each["task"] for each in first["agentRuns"]] == ["tNone"]
    await gateway.client.get(path, params={"cursor": first["next"]})
    assert gateway.reads.asked == [None, (round(AT.timestamp() * 1000), "scan", -1, 1)]
    whole = await (await gateway.client.get(path)).json()
    assert (len(whole["agentRuns"]), whole["next"]) == (2, None)


async def test_a_run_with_its_nodes(gateway: Any) -> None:
    await gateway.client.post("/api/workflows", json=DEFINITION)
    failure = Failure(kind="agent_error", message="no")
    gateway.reads.recorded = {0: 7}
    gateway.reads.rows[RUN] = rows(
        (STARTED, RunStatus.RUNNING),
        (dispatched("scan", 1), RunStatus.RUNNING),
        (
            NodeRetrying(
                node="scan",
                attempt=1,
                failure=failure,
                retry_at=1735787050000,
                started_at=1735787046000,
                finished_at=1735787046250,
                worker="w1",
            ),
            RunStatus.RUNNING,
        ),
    )
    found = await (await gateway.client.get(f"/api/runs/{RUN}")).json()
    assert found["status"] == "RUNNING"
    assert found["watermark"] == {"0": 7}
    assert found["trigger"]["data"] == {"p": "/src"}
    scan, tell = found["steps"]
    assert tell["status"] == "PENDING"
    assert tell["dependsOn"] == ["scan"]
    assert (scan["status"], scan["attempts"], scan["durationMs"]) == ("RETRYING", 1, 250)
    assert scan["error"]["message"] == "no"
    assert scan["inputs"] == {"path": "/src"}

    gateway.reads.rows[RUN] = rows(
        (STARTED, RunStatus.RUNNING),
        (dispatched("scan", 1), RunStatus.RUNNING),
        (NodeFailed(node="scan", attempt=1, failure=failure), RunStatus.FAILED),
        (NodeSkipped(node="tell", reason="'scan', which it needs, failed"), RunStatus.FAILED),
        (
            RunFailed(failure=Failure(kind="node_failed", message="x", node="scan")),
            RunStatus.FAILED,
        ),
    )
    found = await (await gateway.client.get(f"/api/runs/{RUN}")).json()
    assert (found["status"], found["durationMs"]) == ("FAILED", 4000)
    assert found["error"] == {"kind": "node_failed", "message": "x", "node": "scan"}
    scan, tell = found["steps"]
    assert (scan["status"], scan["durationMs"]) == ("FAILED", 1000)
    assert (tell["status"], tell["reason"]) == ("SKIPPED", "'scan', which it needs, failed")

    events = await (await gateway.client.get(f"/api/runs/{RUN}/events")).json()
    assert [event["type"] for event in events["events"]][-1] == "run.failed"
    assert events["events"][1]["id"] == f"{RUN}/1"


async def test_a_run_is_cancelled_while_it_goes_on(gateway: Any) -> None:
    gateway.reads.rows[RUN] = rows((STARTED, RunStatus.RUNNING))
    response = await gateway.client.post(
        f"/api/runs/{RUN}/cancel", json={"reason": "wrong branch", "requestedBy": "ada"}
    )
    assert response.status == 202
    ((topic, key, value, _),) = gateway.writer.written
    assert (topic, key) == (INBOX, RUN)
    assert codec.messages.decode(value) == Cancel(
        run=RUN, reason="wrong branch", requested_by="ada"
    )
    gateway.reads.rows[RUN] = rows(
        (STARTED, RunStatus.RUNNING),
        (
            NodeSucceeded(
                node="scan", attempt=1, output=msgspec.Raw(b"1"), started_at=0, finished_at=1
            ),
            RunStatus.SUCCESS,
        ),
    )
    found = await problem(await gateway.client.post(f"/api/runs/{RUN}/cancel"), 409)
    assert "has ended already: SUCCESS" in found["detail"]
    bad = await gateway.client.post(f"/api/runs/{RUN}/cancel", json={"reason": 3})
    await problem(bad, 400)


async def test_pages_of_runs(gateway: Any) -> None:
    gateway.reads.run_views = [
        RunView(
            id=f"r{n}",
            project="default",
            workflow="review",
            version=1,
            status=RunStatus.SUCCESS,
            trigger=TriggerView(id="1", source="s", type="t"),
            started_at=AT - timedelta(seconds=n),
        )
        for n in range(3)
    ]
    page = await (await gateway.client.get("/api/runs?limit=2&status=SUCCESS&workflow=w")).json()
    assert [run["id"] for run in page["runs"]] == ["r0", "r1"]
    assert gateway.reads.asked[-1].status is RunStatus.SUCCESS
    assert gateway.reads.asked[-1].workflow == "w"
    await gateway.client.get("/api/workflows/review/runs", params={"cursor": page["next"]})
    query = gateway.reads.asked[-1]
    assert query.workflow == "review"
    assert query.before == (round((AT - timedelta(seconds=1)).timestamp() * 1000), "r1")
    whole = await (await gateway.client.get("/api/runs?limit=3")).json()
    assert whole["next"] is None


@pytest.mark.parametrize(
    ("headers", "body", "event_id"),
    [
        (
            {
                "ce-specversion": "1.0",
                "ce-id": "e1",
                "ce-source": "/ci",
                "ce-type": "repo.push",
                "Content-Type": "application/json",
            },
            b'{"a":1}',
            "e1",
        ),
        (
            {"Content-Type": "application/cloudevents+json"},
            b'{"specversion":"1.0","id":"e1","source":"/ci","type":"repo.push","data":{"a":1}}',
            "e1",
        ),
        (
            {"Content-Type": "application/json"},
            b'{"id":"e1","subject":"repo.push","origin":"/ci","payload":{"a":1}}',
            "e1",
        ),
        (
            {"Content-Type": "application/json", "Idempotency-Key": "k7"},
            b'{"type":"repo.push","source":"/ci","payload":{"a":1}}',
            "k7",
        ),
    ],
)
async def test_events_are_taken_in_every_form(
    gateway: Any, headers: dict[str, str], body: bytes, event_id: str
) -> None:
    response = await gateway.client.post("/api/events", headers=headers, data=body)
    assert response.status == 202
    answered = await response.json()
    assert (answered["id"], answered["topic"], answered["offset"]) == (event_id, TRIGGERS, 0)
    ((topic, key, value, sent_headers),) = gateway.writer.written
    assert (topic, key) == (TRIGGERS, "/ci")
    assert from_kafka(sent_headers, value, "x").trigger == Trigger(
        id=event_id, source="/ci", type="repo.push", data=msgspec.Raw(b'{"a":1}')
    )


async def test_while_kafka_is_away_nothing_is_accepted_and_readyz_says_so(gateway: Any) -> None:
    assert (await gateway.client.get("/readyz")).status == 200
    gateway.writer.is_away = True
    gateway.store.fault = "the disk is full"
    response = await gateway.client.post("/api/events", json={"type": "a"})
    assert "does not answer" in (await problem(response, 503))["detail"]
    ready = await gateway.client.get("/readyz")
    assert ready.status == 503
    assert await ready.json() == {
        "ready": False,
        "parts": {
            "kafka": "Kafka does not answer",
            "store": "the disk is full",
            "workflows": "ok",
            "agents": "ok",
            "readers": "ok",
            "budgets": "ok",
        },
    }
    assert (await gateway.client.get("/api/health")).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "websocket"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 202),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 202),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 202),
        ({"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, 202),
        ({}, 202),
    ],
)
async def test_pages_of_other_origins_cannot_drive_the_gateway(
    gateway: Any, headers: dict[str, str], status: int
) -> None:
    response = await gateway.client.post("/api/events", json={"type": "a"}, headers=headers)
    assert response.status == status, await response.text()
    assert len(gateway.writer.written) == (1 if status == 202 else 0)


async def test_a_fault_of_ours_shows_no_inside(gateway: Any) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("secret")

    gateway.reads.on_read = fail
    response = await gateway.client.get("/api/runs/x")
    found = await problem(response, 500)
    assert found["requestId"] == response.headers["X-Request-Id"]
    assert "secret" not in json.dumps(found)


async def test_requests_are_named_and_counted(gateway: Any) -> None:
    named = await gateway.client.get("/api/health", headers={"X-Request-Id": "abc-1"})
    assert named.headers["X-Request-Id"] == "abc-1"
    unnamed = await gateway.client.get("/api/health", headers={"X-Request-Id": "a b" * 100})
    assert len(unnamed.headers["X-Request-Id"]) == 32
    text = await (await gateway.client.get("/metrics")).text()
    assert 'route="/api/health",status="200"' in text


async def test_every_route_is_described(gateway: Any) -> None:
    document = await (await gateway.client.get("/openapi.json")).json()
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert operation["summary"].endswith((".", ":")) or operation["summary"]
    assert "RunDetail" in document["components"]["schemas"]
    rerun = document["paths"]["/api/runs/{id}/rerun"]["post"]["requestBody"]["content"]
    fields = rerun["application/json"]["schema"]["properties"]
    assert set(fields) == {"from", "inputs", "requestedBy"}
    listed = document["paths"]["/api/approvals"]["get"]["parameters"][0]["schema"]["enum"]
    assert listed == ["pending", "decided"]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    schema = await (await gateway.client.get("/api/schemas/workflow.json")).json(content_type=None)
    assert schema["$schema"].endswith("2020-12/schema")


async def test_the_kafka_interface_is_described(gateway: Any) -> None:
    document = await (await gateway.client.get("/asyncapi.json")).json()
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses >= {"commandcenter.tasks.{agent}", "commandcenter.inbox"}


async def test_the_page_allows_no_foreign_code(gateway: Any) -> None:
    page = await gateway.client.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    text = await page.text()
    assert "<script src=" in text or 'type="module"' in text
    assert "http://" not in text
    assert "https://" not in text

"""The websockets over fakes: frames, resuming, bad frames, slow clients, foreign pages."""

import asyncio
import socket as sockets
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import WSServerHandshakeError, hdrs

from gateway import cursor, stream
from gateway.run_views import RunView, TriggerView
from streams import codec
from streams.events import Decision, NodeSkipped, RunStarted, RunSucceeded
from streams.records import RunStatus, Trigger


class Record(NamedTuple):
    offset: int
    value: bytes | None


def decision(run: str, seq: int, **more: Any) -> bytes:
    values: dict[str, Any] = {
        "run": run,
        "project": "default",
        "workflow": "w",
        "version": 1,
        "seq": seq,
        "at": 1_000 + seq,
        "status": RunStatus.RUNNING,
        "previous": RunStatus.RUNNING,
        "events": (NodeSkipped(node="n", reason="r"),),
    }
    return codec.encode(Decision(**(values | more)))


def put(gateway: Any, *values: bytes, partition: int = 0) -> None:
    """Append to the log: the live tail has it at once, the store does not."""
    log = gateway.reads.log.setdefault(partition, [])
    start = len(log)
    log.extend(values)
    records = [Record(start + i, value) for i, value in enumerate(values)]
    gateway.services.tail.on_records(partition, records)


def record(gateway: Any) -> None:
    gateway.reads.recorded = {p: len(log) for p, log in gateway.reads.log.items()}


def run_view(run: str, seq: int) -> RunView:
    return RunView(
        id=run,
        project="default",
        workflow="w",
        version=1,
        status=RunStatus.RUNNING,
        trigger=TriggerView(id="1", source="s", type="t"),
        seq=seq,
    )


async def connect(gateway: Any, path: str = "/api/stream") -> Any:
    return await gateway.client.ws_connect(path)


async def subscribe(socket: Any, **more: Any) -> Any:
    await socket.send_json({"type": "subscribe", "id": 1, **more})
    return await socket.receive_json()


def seqs(frame: dict[str, Any]) -> list[tuple[str, int]]:
    return [(d["run"], d["seq"]) for d in frame["decisions"]]


async def test_a_snapshot_then_what_follows_it(gateway: Any) -> None:
    put(gateway, decision("older", 0), decision("a", 1))
    record(gateway)
    put(gateway, decision("a", 2))
    gateway.reads.run_views = [run_view("a", 1)]
    async with await connect(gateway) as socket:
        first = await subscribe(socket)
        assert (first["type"], first["id"], first["recovered"]) == ("snapshot", 1, False)
        assert first["watermark"] == {"0": 2}
        assert [run["id"] for run in first["runs"]] == ["a"]
        assert cursor.decode(first["cursor"], "log") == {0: 2}
        frame = await socket.receive_json()
        assert (frame["type"], frame["id"]) == ("events", 1)
        assert seqs(frame) == [("a", 2)]
        put(gateway, decision("a", 3), decision("b", 0))
        frame = await socket.receive_json()
        assert seqs(frame) == [("a", 3), ("b", 0)]
        assert cursor.decode(frame["cursor"], "log") == {0: 5}
        assert frame["decisions"][0]["events"] == [
            {"type": "node.skipped", "node": "n", "reason": "r"}
        ]


async def test_coming_back_with_a_cursor(gateway: Any) -> None:
    put(gateway, decision("a", 0), decision("a", 1))
    async with await connect(gateway) as socket:
        await subscribe(socket)
        first = await socket.receive_json()
    put(gateway, decision("a", 2))
    async with await connect(gateway) as socket:
        resumed = await subscribe(socket, cursor=first["cursor"])
        assert (resumed["type"], resumed["recovered"]) == ("resumed", True)
        assert resumed["cursor"] == first["cursor"]
        assert seqs(await socket.receive_json()) == [("a", 2)]


@pytest.mark.parametrize(
    "bad", ["nonsense", 7, cursor.encode({0: 1}, "another log"), cursor.encode({0: 99}, "log")]
)
async def test_a_cursor_that_cannot_be_used_gives_a_fresh_snapshot(
    gateway: Any, monkeypatch: pytest.MonkeyPatch, bad: Any
) -> None:
    monkeypatch.setattr(stream, "_AHEAD_S", 0.01)
    put(gateway, decision("a", 0))
    record(gateway)
    async with await connect(gateway) as socket:
        first = await subscribe(socket, cursor=bad)
        assert (first["type"], first["recovered"]) == ("snapshot", False)
        assert cursor.decode(first["cursor"], "log") == {0: 1}


async def test_a_cursor_of_a_gateway_that_has_read_further_is_waited_for(gateway: Any) -> None:
    put(gateway, decision("a", 0))
    record(gateway)
    async with await connect(gateway) as socket:
        ahead = cursor.encode({0: 2}, "log")
        await socket.send_json({"type": "subscribe", "id": 1, "cursor": ahead})
        put(gateway, decision("a", 1), decision("a", 2))
        first = await socket.receive_json()
        assert (first["type"], first["recovered"]) == ("resumed", True)
        assert seqs(await socket.receive_json()) == [("a", 2)]


async def test_one_run_is_shown_with_its_nodes(gateway: Any) -> None:
    started = RunStarted(trigger=Trigger(id="1", source="s", type="t"), nodes=1, deadline=1)
    put(gateway, decision("a", 0, events=(started,)))
    async with await connect(gateway) as socket:
        first = await subscribe(socket, filter={"run": "a"})
        assert first["run"] is None, "not recorded yet"
        assert seqs(await socket.receive_json()) == [("a", 0)]


async def test_several_subscriptions_on_one_socket(gateway: Any) -> None:
    async with await connect(gateway) as socket:
        for key, run in ((1, "a"), ("two", "b")):
            await socket.send_json({"type": "subscribe", "id": key, "filter": {"run": run}})
            assert (await socket.receive_json())["id"] == key
        put(gateway, decision("a", 0), decision("b", 0))
        frames = [await socket.receive_json() for _ in range(2)]
        assert {frame["id"]: seqs(frame) for frame in frames} == {1: [("a", 0)], "two": [("b", 0)]}
        await socket.send_json({"type": "unsubscribe", "id": 1})
        assert await socket.receive_json() == {"type": "unsubscribed", "id": 1}
        put(gateway, decision("a", 1), decision("b", 1))
        assert seqs(await socket.receive_json()) == [("b", 1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a frame"),
        ("[]", "not a frame"),
        ('{"type":"dance","id":1}', "not a frame"),
        ('{"type":"subscribe"}', "not a frame"),
        ('{"type":"subscribe","id":1,"colour":2}', "not a frame"),
        ('{"type":"subscribe","id":1,"filter":{"status":"GREEN"}}', "filter"),
        ('{"type":"unsubscribe","id":9}', "no subscription 9"),
        ('"\\ud800"', "not a frame"),
    ],
)
async def test_a_bad_frame_is_answered_and_the_socket_lives(
    gateway: Any, text: str, says: str
) -> None:
    async with await connect(gateway) as socket:
        await socket.send_str(text)
        frame = await socket.receive_json()
        assert frame["type"] == "error"
        assert says in frame["detail"]
        assert (await subscribe(socket))["type"] == "snapshot"
        again = await subscribe(socket)
        assert "exists" in again["detail"]


async def test_bytes_are_answered_too(gateway: Any) -> None:
    async with await connect(gateway) as socket:
        await socket.send_bytes(b"\x00")
        assert (await socket.receive_json())["type"] == "error"


async def test_a_client_that_takes_nothing_is_closed_as_too_slow(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = asyncio.Event()
    monkeypatch.setattr(stream, "SEND_S", 0.2)
    monkeypatch.setattr(stream._slow, "inc", given_up.set)
    server = gateway.client.server
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (server.host, server.port))
    request = (
        f"GET /api/stream HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    body = b'{"type":"subscribe","id":1}'
    await loop.sock_sendall(raw, bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
    big = NodeSkipped(node="n", reason="x" * 500_000)
    put(gateway, *(decision("a", seq, events=(big,)) for seq in range(40)))
    await given_up.wait()
    received = bytearray()
    while chunk := await loop.sock_recv(raw, 1 << 20):
        received += chunk
    raw.close()
    closing = received.rfind(bytes([0x88]))
    code = int.from_bytes(received[closing + 2 : closing + 4], "big")
    assert code == 3008


async def test_a_silent_client_is_given_up(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.02)
    monkeypatch.setattr(stream, "PONG_S", 0.02)
    silent = await gateway.client.ws_connect("/api/stream", autoping=False)
    message = await silent.receive()
    assert message.type.name == "PING"
    assert (await silent.receive()).type.name == "CLOSE"


async def test_pongs_keep_a_client(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.01)
    async with gateway.client.ws_connect("/api/stream", autoping=False) as socket:
        for _ in range(3):
            message = await socket.receive()
            assert message.type.name == "PING"
            await socket.pong(message.data)
        assert (await subscribe_between_pings(socket))["type"] == "snapshot"


async def subscribe_between_pings(socket: Any) -> Any:
    await socket.send_json({"type": "subscribe", "id": 1})
    while (message := await socket.receive()).type.name == "PING":
        await socket.pong(message.data)
    return msgspec.json.decode(message.data)


@pytest.mark.parametrize("path", ["/api/stream", "/api/events/stream"])
async def test_pages_of_other_origins_get_no_websocket(gateway: Any, path: str) -> None:
    with pytest.raises(WSServerHandshakeError) as raised:
        await gateway.client.ws_connect(path, headers={hdrs.ORIGIN: "http://evil.example"})
    assert raised.value.status == 403
    own = f"http://{gateway.client.host}:{gateway.client.port}"
    async with gateway.client.ws_connect(path, headers={hdrs.ORIGIN: own}):
        pass


async def test_the_server_stops_with_open_websockets(gateway: Any) -> None:
    socket = await connect(gateway)
    await subscribe(socket)
    closing = asyncio.create_task(gateway.client.server.close())
    message = await socket.receive()
    assert message.data == 1001
    await closing


async def test_the_feed_of_events(gateway: Any) -> None:
    put(gateway, decision("a", 0))
    async with await connect(gateway, "/api/events/stream?subject=run.*") as socket:
        put(
            gateway,
            decision("a", 1),
            decision("a", 2, events=(NodeSkipped(node="n", reason="r"), RunSucceeded())),
        )
        frame = await socket.receive_json()
        assert (frame["id"], frame["type"], frame["seq"]) == ("a/3", "run.succeeded", 3)
        assert frame["event"] == {"type": "run.succeeded"}
        back = frame["cursor"]
    put(gateway, decision("b", 0, events=(RunSucceeded(),)))
    async with await connect(gateway, f"/api/events/stream?cursor={back}") as socket:
        assert (await socket.receive_json())["id"] == "b/0"


async def test_no_event_of_the_feed_is_lost_between_the_frames_of_a_decision(gateway: Any) -> None:
    """A cursor is behind whole decisions only."""
    two = (NodeSkipped(node="n", reason="r"), RunSucceeded())
    async with await connect(gateway, "/api/events/stream") as socket:
        put(gateway, decision("a", 0, events=two), decision("b", 0, events=two))
        frames = [await socket.receive_json() for _ in range(4)]
    assert [("cursor" in frame) for frame in frames] == [False, True, False, True]
    async with await connect(gateway, f"/api/events/stream?cursor={frames[1]['cursor']}") as again:
        assert (await again.receive_json())["id"] == "b/0"

"""The notifier against a real HTTP server on this machine."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from agents import AgentError, Context, PermanentError
from agents.notifier import SendOutput, send

# One of Apprise's services imports a module that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

AT = Context(task_id="task-1", started_at=1_700_000_000_000)


class Webhook(ThreadingHTTPServer):
    """Answers every POST with `status` and remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.received: list[tuple[str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What reaches the root logger. (pytest's caplog reads loggers that do not propagate, too.)"""
    handler = logging.StreamHandler(io.StringIO())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("somebody").warning("the log is read")
    assert "the log is read" in handler.stream.getvalue()
    yield handler.stream
    root.setLevel(level)
    root.removeHandler(handler)


async def test_a_message_reaches_a_webhook(webhook: Webhook) -> None:
    output = await send.test(
        {
            "channel": webhook.url,
            "title": "Scan",
            "message": "3 findings",
            "severity": "error",
            "metadata": {"run": "r1", "count": 3},
        },
        AT,
    )
    ((path, headers, body),) = webhook.received
    assert path == "/"
    assert (body["title"], body["type"]) == ("Scan", "failure")
    assert body["message"] == "3 findings\nrun: r1\ncount: 3"
    assert headers["Idempotency-Key"] == output.message_id
    assert output == SendOutput(
        success=True,
        channel=f"json://127.0.0.1:{webhook.server_port}",
        message_id=output.message_id,
        timestamp=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    )


async def test_the_message_id_follows_from_the_task() -> None:
    def sent(task: str) -> Any:
        return send.test({"message": "hi"}, Context(task_id=task))

    first, again, other = await sent("t1"), await sent("t1"), await sent("t2")
    assert first.message_id == again.message_id != other.message_id


async def test_the_console_is_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    output = await send.test({"message": "look here", "severity": "warning"}, AT)
    assert (output.success, output.channel, output.error) == (True, "console", None)
    printed = capsys.readouterr().out
    assert "look here" in printed
    assert "warning" in printed
    assert output.message_id in printed


async def test_a_refusal_is_a_retryable_failure_with_its_reason(webhook: Webhook) -> None:
    webhook.status = 500
    for query in ("", "?optional=yes"):
        with pytest.raises(AgentError, match=r"did not take the message: .*error=500") as raised:
            await send.test({"channel": webhook.url + query, "message": "hi"})
        assert not isinstance(raised.value, PermanentError)
    assert len(webhook.received) == 2


async def test_nobody_listening_is_a_retryable_failure(webhook: Webhook) -> None:
    webhook.shutdown()
    webhook.server_close()
    with pytest.raises(AgentError, match="Connection error") as raised:
        await send.test({"channel": webhook.url, "message": "hi"})
    assert not isinstance(raised.value, PermanentError)


@pytest.mark.parametrize("status", [200, 500])
async def test_no_part_of_the_url_that_may_be_secret_is_told(
    webhook: Webhook,
    status: int,
    log: io.StringIO,
    capfd: pytest.CaptureFixture[str],
) -> None:
    webhook.status = status
    secrets = ("pass-word", "path-token", "header-token", "query-token")
    channel = (
        f"json://me:{secrets[0]}@127.0.0.1:{webhook.server_port}/hook/{secrets[1]}"
        f"?+Authorization={secrets[2]}&-key={secrets[3]}"
    )
    try:
        told = (await send.test({"channel": channel, "message": "hi"})).model_dump_json()
    except AgentError as error:
        told = str(error)
    assert f"json://me:****@127.0.0.1:{webhook.server_port}" in told
    path, headers, _ = webhook.received[0]
    assert path == f"/hook/{secrets[1]}?key={secrets[3]}"
    assert headers["Authorization"]
    captured = capfd.readouterr()
    everything = told + captured.out + captured.err + log.getvalue()
    assert not [secret for secret in secrets if secret in everything]


@pytest.mark.parametrize("channel", ["slack://bogus-token", "nosuch://token-1", "token-2", "://"])
async def test_a_wrong_channel_is_final_and_not_quoted(
    channel: str, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PermanentError, match="neither 'console' nor a valid Apprise URL") as raised:
        await send.test({"channel": channel, "message": "hi"})
    captured = capfd.readouterr()
    everything = str(raised.value) + captured.out + captured.err + log.getvalue()
    assert "token" not in everything


@pytest.mark.parametrize("inputs", [{}, {"message": ""}, {"message": "x", "severity": "bad"}])
async def test_wrong_inputs_are_refused(inputs: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        await send.test(inputs)

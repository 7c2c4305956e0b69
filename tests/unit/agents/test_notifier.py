"""The notifier against a real HTTP server on this machine."""

import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from agents import AgentError, Context, PermanentError, Secrets
from agents import patient_requests as patience
from agents.chat_webhook import payload
from agents.notifier import SendOutput, send
from agents.outbound import SETTING, BlockedError

# One of Apprise's services imports a module that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

AT = Context(task_id="task-1", started_at=1_700_000_000_000)


class Webhook(ThreadingHTTPServer):
    """Answers every POST, with `status` once `answers` are used up, and remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.received: list[tuple[str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), json.loads(body)))
        status, headers = self.server.status, dict[str, str]()
        if self.server.answers:
            status, headers = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
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


@pytest.fixture(autouse=True)
def this_machine_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "127.0.0.1")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time here."""
    waited: list[float] = []

    def sleep(self: patience.PatientRequests, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(patience.PatientRequests, "_sleep", sleep)
    return waited


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
    assert len(webhook.received) == 2 * patience.ATTEMPTS


async def test_nobody_listening_is_a_retryable_failure(webhook: Webhook) -> None:
    webhook.shutdown()
    webhook.server_close()
    with pytest.raises(AgentError, match="Connection error") as raised:
        await send.test({"channel": webhook.url, "message": "hi"})
    assert not isinstance(raised.value, PermanentError)


@pytest.mark.parametrize(
    ("channel", "status", "shown", "why"),
    [
        (
            "{url}path-token?-key=query-token",
            500,
            "json://…",
            "did not take the message.*error=500",
        ),
        ("{url}path-token", 404, "json://…", "did not take the message.*404"),
        ("slack", 400, "slack", "slack .SLACK_WEBHOOK. did not take the message: it answers 400"),
        ("secret:ANY", 500, "secret:ANY", "secret:ANY did not take"),
        ("discord:NONE", 200, "discord:NONE", "there is no secret NONE"),
        ("path-token", 200, "…", "neither 'console' nor a valid Apprise URL"),
    ],
)
async def test_a_step_may_go_on_without_the_delivery(
    webhook: Webhook, channel: str, status: int, shown: str, why: str
) -> None:
    webhook.status = status
    given = {"channel": channel.format(url=webhook.url), "message": "hi"}
    context = secrets_of(webhook)
    with pytest.raises(AgentError):
        await send.test(given, context)
    output = await send.test({**given, "failOnError": False}, context)
    assert (output.success, output.channel) == (False, shown)
    assert re.search(why, output.error or "")
    assert output.message_id
    assert "token" not in output.model_dump_json()


async def test_who_does_not_insist_is_told_of_the_delivery_as_ever(webhook: Webhook) -> None:
    given = {"channel": webhook.url, "message": "hi", "failOnError": False}
    output = await send.test(given, AT)
    assert (output.success, output.error) == (True, None)
    assert output == await send.test({"channel": webhook.url, "message": "hi"}, AT)


async def test_who_does_not_insist_is_cancelled_all_the_same(webhook: Webhook) -> None:
    context = Context()
    context.signals.cancel("no longer wanted")
    webhook.status = 500
    with pytest.raises(AgentError):
        await send.test({"channel": webhook.url, "message": "hi", "failOnError": False}, context)


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


Channel = Callable[[Webhook], dict[str, Any]]


def by_apprise(webhook: Webhook) -> dict[str, Any]:
    return {"channel": webhook.url}


def by_slack(webhook: Webhook) -> dict[str, Any]:
    return {"channel": "slack"}


def secrets_of(webhook: Webhook) -> Context:
    url = f"http://127.0.0.1:{webhook.server_port}/hook/token-of-the-hook"
    return Context(
        task_id="task-1",
        secrets=Secrets(
            {
                "SLACK_WEBHOOK": url,
                "TEAM": url,
                "DISCORD_WEBHOOK": url,
                "ANY": f"{webhook.url}path-token",
            }
        ),
    )


@pytest.mark.parametrize("channel", [by_apprise, by_slack])
async def test_who_is_busy_is_asked_again_when_it_says(
    channel: Channel, webhook: Webhook, waits: list[float]
) -> None:
    webhook.answers = [(429, {"Retry-After": "7"}), (503, {}), (500, {"Retry-After": "nonsense"})]
    await send.test({**channel(webhook), "message": "hi"}, secrets_of(webhook))
    assert len(webhook.received) == 4
    assert waits[0] == 7
    assert 0 < waits[1] <= 2
    assert waits[1] < waits[2] <= 4
    keys = {headers["Idempotency-Key"] for _, headers, _ in webhook.received}
    assert len(keys) == 1


async def test_a_date_says_when_as_well(webhook: Webhook, waits: list[float]) -> None:
    when = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 20, UTC)
    webhook.answers = [(503, {"Retry-After": format_datetime(when, usegmt=True)})]
    await send.test({"channel": webhook.url, "message": "hi"})
    assert 15 < waits[0] <= 20


@pytest.mark.parametrize("channel", [by_apprise, by_slack])
async def test_nobody_waits_longer_than_the_task_has(
    channel: Channel, webhook: Webhook, waits: list[float]
) -> None:
    webhook.answers = [(429, {"Retry-After": "3600"})]
    with pytest.raises(AgentError, match=r"did not take the message: .*429") as raised:
        await send.test({**channel(webhook), "message": "hi"}, secrets_of(webhook))
    assert not isinstance(raised.value, PermanentError)
    assert (waits, len(webhook.received)) == ([], 1)


async def test_who_is_cancelled_waits_for_nobody(webhook: Webhook, waits: list[float]) -> None:
    context = Context()
    context.signals.cancel("no longer wanted")
    webhook.answers = [(429, {"Retry-After": "1"})]
    with pytest.raises(AgentError):
        await send.test({"channel": webhook.url, "message": "hi"}, context)
    assert waits == []


@pytest.mark.parametrize("channel", [by_apprise, by_slack])
@pytest.mark.parametrize("status", [302, 400, 401, 404])
async def test_a_wrong_request_is_not_repeated(
    channel: Channel, status: int, webhook: Webhook, waits: list[float]
) -> None:
    webhook.answers = [(status, {"Location": "/elsewhere"})]
    with pytest.raises(PermanentError, match=str(status)):
        await send.test({**channel(webhook), "message": "hi"}, secrets_of(webhook))
    assert (waits, len(webhook.received)) == ([], 1)


async def test_slack_gets_its_json_with_nothing_in_it_that_passes_for_markup(
    webhook: Webhook,
) -> None:
    output = await send.test(
        {
            "channel": "slack:TEAM",
            "title": "A & B",
            "message": "<!channel> " + "x" * 5_000,
            "severity": "error",
            "metadata": {"run": "r1", **{f"k{n}": n for n in range(20)}},
        },
        secrets_of(webhook),
    )
    ((path, headers, body),) = webhook.received
    assert path == "/hook/token-of-the-hook"
    assert headers["Idempotency-Key"] == output.message_id
    assert output.channel == "slack (TEAM)"
    assert body["text"] == "A &amp; B"
    (attachment,) = body["attachments"]
    assert attachment["color"] == "#a32037"
    section, fields = attachment["blocks"]
    assert section["text"]["text"].startswith("*A &amp; B*\n&lt;!channel&gt; xxx")
    assert section["text"]["text"].endswith("x…")
    assert len(section["text"]["text"]) <= 3_000
    assert len(fields["fields"]) == 10
    assert fields["fields"][0]["text"] == "*run*\nr1"
    assert fields["fields"][-1]["text"] == "*…*\nand 12 more"


async def test_discord_gets_its_json_and_mentions_nobody(webhook: Webhook) -> None:
    output = await send.test(
        {"channel": "discord", "title": "T", "message": "@everyone", "metadata": {"n": [1]}},
        secrets_of(webhook),
    )
    ((_, _, body),) = webhook.received
    assert output.channel == "discord (DISCORD_WEBHOOK)"
    assert body["allowed_mentions"] == {"parse": []}
    (embed,) = body["embeds"]
    assert (embed["title"], embed["description"]) == ("T", "@everyone")
    assert embed["fields"] == [{"name": "n", "value": "[1]", "inline": True}]


def test_discord_is_sent_no_more_than_it_takes() -> None:
    fields: dict[str, JsonValue] = {f"{number:0>300}": "v" * 300 for number in range(12)}
    for more in ({}, fields):
        sent = payload("discord", "m" * 9_000, "t" * 300, "info", more)
        (embed,) = json.loads(json.dumps(sent))["embeds"]
        texts = [it[name] for it in embed["fields"] for name in ("name", "value")]
        assert max(map(len, texts), default=0) <= 200
        assert (len(embed["title"]), len(embed["fields"])) == (256, min(10, len(more)))
        assert len(embed["description"]) <= 4_096
        all_ = len(embed["title"]) + len(embed["description"]) + sum(map(len, texts))
        assert 4_000 < all_ <= 6_000


@pytest.mark.parametrize("status", [200, 400])
async def test_an_apprise_url_can_be_a_secret(status: int, webhook: Webhook) -> None:
    webhook.status = status
    try:
        output = await send.test({"channel": "secret:ANY", "message": "hi"}, secrets_of(webhook))
        told = output.model_dump_json()
    except AgentError as error:
        told = str(error)
    assert webhook.received[0][0] == "/path-token"
    assert "secret:ANY" in told
    assert "path-token" not in told


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        ("slack", "there is no secret SLACK_WEBHOOK"),
        ("discord:OTHER", "there is no secret OTHER"),
        ("secret:X", "there is no secret X"),
        ("secret", "needs a name"),
    ],
)
async def test_a_secret_that_is_missing_is_named(channel: str, text: str) -> None:
    with pytest.raises(AgentError, match=text):
        await send.test({"channel": channel, "message": "hi"})


@pytest.mark.parametrize("channel", [by_apprise, by_slack])
@pytest.mark.parametrize("allowed", ["", "127.0.0.1:1"])
async def test_a_private_address_is_not_reached(
    channel: Channel, allowed: str, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, allowed)
    with pytest.raises(BlockedError, match=re.escape(SETTING)):
        await send.test({**channel(webhook), "message": "hi"}, secrets_of(webhook))
    assert webhook.received == []


async def test_no_protocol_gets_around_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING)
    with pytest.raises(BlockedError, match=re.escape(SETTING)):
        await send.test(
            {"channel": "mailto://me:pw@localhost/?to=a@example.org&mode=insecure", "message": "hi"}
        )


@pytest.mark.parametrize("channel", ["syslog://", "dbus://", "gnome://", "windows://"])
async def test_the_machine_itself_is_no_channel(channel: str) -> None:
    with pytest.raises(PermanentError, match="neither 'console' nor a valid Apprise URL"):
        await send.test({"channel": channel, "message": "hi"})


@pytest.mark.parametrize(
    "path", ["{}", "file://{}", "%2Ftmp%2F..{}", "{}?x=1", "file%253A%252F%252F{}"]
)
async def test_no_file_of_the_machine_is_sent(path: str) -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?template=" + path
    with pytest.raises(PermanentError, match="names a file of this machine"):
        await send.test({"channel": url.format("/etc/passwd"), "message": "hi"})


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

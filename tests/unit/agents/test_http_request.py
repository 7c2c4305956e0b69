"""`http request` against a real server on this machine."""

import json
import ssl
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from agents import AgentError, Context, PermanentError, Secrets
from agents.action import explain
from agents.http_client import UnreachableError
from agents.http_request import BusyError, RefusedError, RequestOutput, request
from agents.outbound import SETTING, BlockedError

TOKEN = "token-of-somebody"
# Made with: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500
#   -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1
SELF_SIGNED = Path(__file__).parents[2] / "support" / "self_signed.pem"


class Service:
    """Answers as its paths say, and remembers what came."""

    def __init__(self) -> None:
        self.came: list[tuple[str, str, dict[str, str], bytes]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, asked: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in asked.headers.items()}
        self.came.append((asked.method, asked.path_qs, headers, await asked.read()))
        match asked.path.split("/")[1:]:
            case ["json"]:
                return web.json_response(
                    {"a": [1, None], "you": headers.get("authorization", "")},
                    headers={"X-One": "1", "Set-Cookie": "session=s"},
                )
            case ["latin"]:
                return web.Response(body="grün".encode("latin-1"), content_type="text/plain",
                                    charset="latin-1")  # fmt: skip
            case ["claims", kind]:
                content_type = kind.replace("_", "/")
                return web.Response(body=b"\xff{\x00", headers={"Content-Type": content_type})
            case ["status", status]:
                return web.Response(
                    status=int(status),
                    text=f"because of {headers.get('authorization')}",
                    headers={"Retry-After": "30"},
                )
            case ["to", status, *rest]:
                where = "/".join(rest).replace("$", "://")
                return web.Response(status=int(status), headers={"Location": where})
            case ["loop"]:
                return web.Response(status=302, headers={"Location": "/loop"})
            case ["endless"]:
                stream = web.StreamResponse()
                await stream.prepare(asked)
                while True:
                    await stream.write(b"x" * 65_536)
            case ["bytes", number]:
                return web.Response(body=b"x" * int(number))
            case ["never"]:
                await self.ends.wait()
                return web.Response()
            case ["breaks"]:
                assert asked.transport is not None
                asked.transport.close()
                return web.Response()
        return web.Response(text=asked.path_qs)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    import asyncio

    service = Service()
    service.ends = asyncio.Event()  # type: ignore[attr-defined]  # belongs to the loop of the test
    server = web.Server(service.answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.port = runner.addresses[0][1]
    yield service
    service.ends.set()  # type: ignore[attr-defined]
    await runner.cleanup()


@pytest.fixture(autouse=True)
def this_machine_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "127.0.0.1")


@pytest.fixture
def context() -> Context:
    return Context(task_id="task-1", traceparent="00-1-2-01", secrets=Secrets({"TOKEN": TOKEN}))


async def test_json_comes_back_as_json(service: Service, context: Context) -> None:
    output = await request.test({"url": service.url + "/json?q=1#part"}, context)
    assert output == RequestOutput(
        status=200,
        headers=output.headers,
        media_type="application/json",
        size=output.size,
        json={"a": [1, None], "you": ""},  # type: ignore[call-arg]  # its alias
        origin=service.url,
        redirects=0,
        duration_ms=output.duration_ms,
    )
    assert output.headers["x-one"] == "1"
    assert "set-cookie" not in output.headers
    ((method, path, headers, body),) = service.came
    assert (method, path, body) == ("GET", "/json?q=1", b"")
    assert headers["traceparent"] == "00-1-2-01"
    assert "idempotency-key" not in headers


@pytest.mark.parametrize(
    ("given", "sent", "content_type"),
    [
        ({"json": {"a": [1, "ü"]}}, '{"a":[1,"ü"]}', "application/json"),
        ({"json": None}, "null", "application/json"),
        ({"body": "a=ü"}, "a=ü", "text/plain; charset=utf-8"),
        ({"body": "a=1", "headers": {"content-type": "x/y"}}, "a=1", "x/y"),
        ({}, "", None),
    ],
)
async def test_a_body_is_sent_with_a_key_that_names_the_task(
    given: dict[str, Any], sent: str, content_type: str | None, service: Service, context: Context
) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        await request.test({"url": service.url, "method": method, **given}, context)
        *_, (came, _, headers, body) = service.came
        assert (came, body.decode()) == (method, sent)
        assert headers["idempotency-key"] == "task-1"
        if content_type is not None:
            assert headers["content-type"] == content_type


async def test_a_key_of_ones_own_counts(service: Service, context: Context) -> None:
    given = {"method": "POST", "headers": {"idempotency-key": "mine"}}
    await request.test({"url": service.url, **given}, context)
    assert service.came[0][2]["idempotency-key"] == "mine"


async def test_a_blob_goes_out_and_another_comes_back(service: Service, context: Context) -> None:
    blob = context.blobs.write(b"\x00\xff", media_type="image/png")
    sent = {"url": service.url + "/bytes/3", "method": "PUT"}
    output = await request.test({**sent, "blob": blob.model_dump(by_alias=True)}, context)
    _, _, headers, body = service.came[0]
    assert (headers["content-type"], body) == ("image/png", b"\x00\xff")
    assert output.blob is not None
    assert context.blobs.read(output.blob) == b"xxx"
    assert output.blob.media_type == output.media_type == "application/octet-stream"
    assert (output.text, output.json_, output.size) == (None, None, 3)


async def test_text_is_read_as_its_charset_says(service: Service) -> None:
    output = await request.test({"url": service.url + "/latin"})
    assert (output.text, output.size) == ("grün", 4)


@pytest.mark.parametrize("kind", ["application_json", "text_plain;charset=nonsense", "text_html"])
async def test_what_is_not_what_it_says_is_kept_as_it_is(
    kind: str, service: Service, context: Context
) -> None:
    output = await request.test({"url": service.url + f"/claims/{kind}"}, context)
    assert output.blob is not None
    assert context.blobs.read(output.blob) == b"\xff{\x00"


async def test_secrets_are_sent_and_not_told(service: Service, context: Context) -> None:
    asked = {
        "url": service.url + "/json",
        "secretHeaders": {"Authorization": "Bearer ${TOKEN}", "X-Both": "$1 ${TOKEN} ${TOKEN}"},
    }
    output = await request.test(asked, context)
    _, _, headers, _ = service.came[0]
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-both"] == f"$1 {TOKEN} {TOKEN}"
    assert output.json_["you"] == "Bearer ***"  # type: ignore[index,call-overload]
    with pytest.raises(RefusedError, match=r"because of Bearer \*\*\*") as raised:
        await request.test({**asked, "url": service.url + "/status/403"}, context)
    assert TOKEN not in str(raised.value)


async def test_secrets_stay_with_the_origin_that_they_are_for(
    service: Service, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "127.0.0.1,localhost")
    secret = {"secretHeaders": {"Authorization": "Bearer ${TOKEN}"}}
    elsewhere = f"http$localhost:{service.port}/json"
    for target, is_sent in (("/json", True), (elsewhere, False)):
        await request.test({"url": f"{service.url}/to/307/{target}", **secret}, context)
        assert ("authorization" in service.came[-1][2]) is is_sent
        assert service.came[-1][1] == "/json"


async def test_secrets_go_over_plain_http_only_where_somebody_vouches_for_it(
    context: Context,
) -> None:
    secret = {"secretHeaders": {"Authorization": "${TOKEN}"}}
    with pytest.raises(PermanentError, match=r"not sent to example\.org over plain HTTP"):
        await request.test({"url": "http://example.org/", **secret}, context)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"A": "Bearer ${OTHER}"}, "there is no secret OTHER"),
        ({"A": "Bearer TOKEN"}, "names no secret"),
        ({"A": "${LINES}"}, "characters that no header may have"),
    ],
)
async def test_a_secret_that_cannot_be_sent_is_named(headers: dict[str, str], text: str) -> None:
    context = Context(secrets=Secrets({"LINES": "first\nsecond"}))
    with pytest.raises(AgentError, match=text) as raised:
        await request.test({"url": "https://example.org", "secretHeaders": headers}, context)
    assert "second" not in str(raised.value)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
async def test_what_is_refused_is_not_tried_again(status: int, service: Service) -> None:
    with pytest.raises(RefusedError, match=rf"127\.0\.0\.1 answers {status} .*because of None"):
        await request.test({"url": f"{service.url}/status/{status}"})


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
async def test_who_is_busy_is_tried_again(status: int, service: Service) -> None:
    with pytest.raises(BusyError, match=rf"answers {status}.*\(Retry-After: 30\)") as raised:
        await request.test({"url": f"{service.url}/status/{status}"})
    assert not isinstance(raised.value, PermanentError)


async def test_an_expected_status_is_an_answer(service: Service) -> None:
    asked = {"url": service.url + "/status/404", "expectedStatus": [200, 404]}
    assert (await request.test(asked)).status == 404
    with pytest.raises(RefusedError, match="answers 201 Created"):
        await request.test({"url": service.url + "/status/201", "expectedStatus": [200]})


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""),
        (302, "POST", "GET", b""),
        (303, "PUT", "GET", b""),
        (307, "POST", "POST", b"1"),
        (308, "PUT", "PUT", b"1"),
        (302, "PUT", "PUT", b"1"),
        (302, "GET", "GET", b"1"),
    ],
)
async def test_redirects_are_followed(
    status: int, method: str, then: str, body: bytes, service: Service
) -> None:
    asked = {"url": f"{service.url}/to/{status}//end?x=1", "method": method, "json": 1}
    output = await request.test(asked)
    assert (output.text, output.redirects) == ("/end", 1)
    assert (service.came[-1][0], service.came[-1][3]) == (then, body)
    assert ("content-type" in service.came[-1][2]) is (body == b"1")


async def test_redirects_are_bounded(service: Service) -> None:
    with pytest.raises(PermanentError, match="redirects more than 3 times"):
        await request.test({"url": service.url + "/loop", "maxRedirects": 3})
    assert len(service.came) == 4
    output = await request.test(
        {"url": service.url + "/loop", "maxRedirects": 0, "expectedStatus": [302]}
    )
    assert output.headers["location"] == "/loop"


@pytest.mark.parametrize("where", ["file$/etc/passwd", "ftp$example.org/x", "http$[nonsense/"])
async def test_a_redirect_leads_to_http_only(where: str, service: Service) -> None:
    with pytest.raises(PermanentError, match=r"127\.0\.0\.1 redirects to what is"):
        await request.test({"url": f"{service.url}/to/302/{where}"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_private_address_is_not_reached(
    host: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SETTING)
    with pytest.raises(BlockedError, match="not a public address"):
        await request.test({"url": f"http://{host}:{service.port}/json"})
    monkeypatch.setenv(SETTING, "127.0.0.1:1")
    with pytest.raises(BlockedError):
        await request.test({"url": f"http://{host}:{service.port}/json"})
    assert service.came == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
async def test_no_way_of_writing_it_helps(
    host: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SETTING)
    with pytest.raises(PermanentError):
        await request.test({"url": f"http://{host}:{service.port}/json"})
    assert service.came == []


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "169.254.169.254"])
async def test_a_redirect_leads_to_no_private_address_either(
    host: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, f"127.0.0.1:{service.port}")
    where = f"http${host}:{service.port + 1}/json"
    with pytest.raises(BlockedError, match="not a public address"):
        await request.test({"url": f"{service.url}/to/302/{where}"})
    assert len(service.came) == 1


async def test_a_name_that_changes_its_mind_gains_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer would be private, but nobody asks a second time."""
    import socket

    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if host != "rebinding.example":
            return real(host, port, *rest, **more)
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "203.0.113.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv(SETTING, "203.0.113.9")  # of the numbers for documentation: goes nowhere
    url = f"http://rebinding.example:{service.port}/json"
    with pytest.raises(UnreachableError):
        await request.test({"url": url, "timeout": 0.3})
    assert (len(asked), service.came) == (1, [])
    with pytest.raises(BlockedError, match=r"rebinding\.example is at 127\.0\.0\.1"):
        await request.test({"url": url})


@pytest.mark.parametrize(("path", "most"), [("/endless", 1_000_000), ("/bytes/11", 10)])
async def test_an_answer_is_bounded(path: str, most: int, service: Service) -> None:
    with pytest.raises(PermanentError, match=rf"more than {most:,} bytes \(maxBytes\)"):
        await request.test({"url": service.url + path, "maxBytes": most})
    assert (await request.test({"url": service.url + "/bytes/10", "maxBytes": 10})).size == 10


async def test_an_answer_that_never_comes_is_a_retryable_failure(service: Service) -> None:
    with pytest.raises(UnreachableError, match=r"did not answer within 0\.2 s") as raised:
        await request.test({"url": service.url + "/never", "timeout": 0.2})
    assert not isinstance(raised.value, PermanentError)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:9/", "127.0.0.1:9 cannot be connected to: "),
        ("http://nowhere.invalid/", "the name nowhere.invalid cannot be resolved"),
        ("{}/breaks", "the exchange with 127.0.0.1 broke off: ServerDisconnectedError"),
    ],
)
async def test_a_server_out_of_reach_is_a_retryable_failure(
    url: str, text: str, service: Service
) -> None:
    with pytest.raises(UnreachableError, match=text) as raised:
        await request.test({"url": url.format(service.url)})
    assert not isinstance(raised.value, PermanentError)


async def test_a_certificate_that_nobody_vouches_for_is_final(service: Service) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)
    runner = web.ServerRunner(web.Server(service.answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
        with pytest.raises(PermanentError, match=r"of 127\.0\.0\.1 is not accepted"):
            await request.test({"url": url})
    finally:
        await runner.cleanup()
    assert service.came == []


async def test_a_price_is_a_cost(service: Service) -> None:
    context = Context()
    await request.test({"url": service.url, "price": "0.005"}, context)
    (entry,) = context.cost.entries
    assert (entry.kind, entry.source, entry.unit) == ("api", "127.0.0.1", "request")
    assert (entry.quantity, entry.amount) == (Decimal(1), Decimal("0.005"))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"url": "ftp://example.org"}, "url: Value error, must be http"),
        ({"url": "example.org"}, "url: Value error, must be http"),
        ({"url": "http://"}, "url: "),
        ({"url": "http://x:99999/"}, "url: "),
        ({"url": "https://me:pw@example.org"}, "must not hold credentials"),
        ({"headers": {"Host": "x"}}, "the header Host cannot be set"),
        ({"headers": {"a b": "x"}}, "letters, digits and dashes"),
        ({"headers": {"A": "x\r\nB: y"}}, "characters that no header may have"),
        ({"headers": {"A": "x", "a": "y"}}, "there twice"),
        ({"headers": {"A": "x"}, "secretHeaders": {"a": "${X}"}}, "a: in both"),
        ({"json": None, "body": "x"}, "only one of json, body and blob"),
        ({"method": "TRACE"}, "method: "),
        ({"timeout": 0}, "timeout: "),
        ({"timeout": 1e9}, "timeout: "),
        ({"expectedStatus": [99]}, "a number from 200 to 599"),
        ({"maxBytes": 10**9}, "maxBytes: "),
        ({"price": "-1"}, "price: "),
        ({"wrong": 1}, "wrong: Extra inputs are not permitted"),
    ],
)
def test_wrong_inputs_are_refused(inputs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as raised:
        request.parse(json.dumps({"url": "https://example.org", **inputs}).encode())
    assert text in explain(raised.value)
    assert "pw" not in explain(raised.value)

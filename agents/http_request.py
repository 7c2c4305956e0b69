"""The agent `http`: one request to a web service, its answer as the step's output.

Rules:
- Only public addresses are reached, besides those that the operator allows (`agents.outbound`).
- Secrets are named in `secretHeaders`, never written into inputs. They reach the origin of `url`
  alone, and what the server says back is searched for them before anybody sees it.
- An answer of another status than expected fails the step: for good where the request is at fault
  (4xx), to be tried again where the server is (5xx, 429, 408, 425).
- What is sent with a method that changes things carries an idempotency key.
"""

import asyncio
import re
import time
from decimal import Decimal
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import pydantic_core
from pydantic import AfterValidator, Field, JsonValue, model_validator

from agents.agent import Agent
from agents.blob import Blob
from agents.context import Context
from agents.errors import PermanentError
from agents.model import Model
from agents.outbound import outbound
from agents.secrets import Secrets
from streams.errors import AgentError

if TYPE_CHECKING:
    from agents.http_client import Answer

MEBIBYTE: Final = 1024 * 1024
MOST_BYTES: Final = 64 * MEBIBYTE
LONGEST_S: Final = 300.0

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}")
# These say how the message is sent and to whom, which is not up to the workflow.
_OURS: Final = frozenset(
    {
        "connection", "content-length", "host", "keep-alive", "proxy-authorization", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_WITHOUT_KEY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# A session of somebody, which is nothing for the history.
_NOT_TOLD: Final = frozenset({"set-cookie", "set-cookie2"})
_JSON: Final = re.compile(r"application/(.+\+)?json|text/json")
_TEXT: Final = re.compile(
    r"text/.*|application/(.+\+)?(json|xml|yaml|javascript|x-www-form-urlencoded|x-ndjson|toml)"
)
_SECRET: Final = re.compile(r"\$\{([A-Z0-9_]+)\}")
_AGAIN: Final = frozenset({408, 425, 429})
_EXCERPT: Final = 300

http = Agent(
    "http",
    description="Sends a request to a web service.",
    type="API",
    version="1.0.0",
)


class RefusedError(PermanentError):
    """The server says that the request is wrong."""


class BusyError(AgentError):
    """The server cannot answer now."""


def _url(text: str) -> str:
    from yarl import URL

    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise ValueError("is not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host or not port:
        raise ValueError("must be http://host/… or https://host/…")
    if url.user is not None or url.password is not None:
        raise ValueError("must not hold credentials; name a secret in secretHeaders")
    return text


def _headers(headers: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("a header's name is letters, digits and dashes")
        if name.lower() in _OURS:
            raise ValueError(f"the header {name} cannot be set: it is made when sending")
        if name.lower() in seen:
            raise ValueError(f"the header {name} is there twice")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(
                f"the value of the header {name} has characters that no header may have, "
                "or more than 8,192"
            )
        seen.add(name.lower())
    return headers


def _status(status: int) -> int:
    if not 200 <= status < 600:
        raise ValueError("a status is a number from 200 to 599")
    return status


Headers = Annotated[dict[str, str], Field(max_length=100), AfterValidator(_headers)]


class RequestInput(Model):
    """What to ask whom. At most one of `json`, `body` and `blob` is sent."""

    url: Annotated[str, Field(min_length=1, max_length=8_192), AfterValidator(_url)]
    method: Method = "GET"
    headers: Headers = Field(default_factory=dict)
    secret_headers: Headers = Field(
        default_factory=dict,
        description='headers with secrets by name: {"Authorization": "Bearer ${GITHUB_TOKEN}"}',
    )
    json_: JsonValue = Field(default=None, alias="json", description="sent as JSON")
    body: str | None = Field(default=None, description="sent as it is, in UTF-8")
    blob: Blob | None = Field(default=None, description="content of the blob store, sent as it is")
    timeout: float = Field(
        default=30.0, gt=0, le=LONGEST_S, description="seconds for everything, with redirects"
    )
    expected_status: list[Annotated[int, AfterValidator(_status)]] = Field(
        default_factory=list, max_length=100, description="any 2xx if it is empty"
    )
    max_bytes: int = Field(
        default=10 * MEBIBYTE, ge=0, le=MOST_BYTES, description="of the answer's body"
    )
    max_redirects: int = Field(
        default=5, ge=0, le=20, description="0: a redirect is the answer itself"
    )
    price: Decimal | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="what one answer costs, in USD, for the ledger",
    )

    @model_validator(mode="after")
    def _one_body(self) -> "RequestInput":
        bodies = [self.has_json, self.body is not None, self.blob is not None]
        if sum(bodies) > 1:
            raise ValueError("only one of json, body and blob can be sent")
        both = {it.lower() for it in self.headers} & {it.lower() for it in self.secret_headers}
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: in both headers and secretHeaders")
        return self

    @property
    def has_json(self) -> bool:
        """Whether JSON was given; null is JSON as well."""
        return "json_" in self.model_fields_set


class RequestOutput(Model):
    """The answer. Of `json`, `text` and `blob` there is what its content type says."""

    status: int
    headers: dict[str, str] = Field(description="names in lower case; without cookies")
    media_type: str
    size: int = Field(description="bytes of the body")
    json_: JsonValue = Field(default=None, alias="json")
    text: str | None = Field(default=None, description="where it is text and not JSON")
    blob: Blob | None = Field(default=None, description="where it is neither")
    origin: str = Field(description="scheme, host and port that answered")
    redirects: int
    duration_ms: int


@http.action(timeout=LONGEST_S + 10)
async def request(inputs: RequestInput, context: Context) -> RequestOutput:
    """Send one request and give its answer."""
    from yarl import URL

    from agents import http_client

    secret_headers = {
        name: _filled(name, text, context) for name, text in inputs.secret_headers.items()
    }
    began = time.monotonic()
    answer = await http_client.exchange(
        http_client.Request(
            method=inputs.method,
            url=URL(inputs.url).with_fragment(None),
            headers=_own_headers(inputs, context),
            secret_headers=secret_headers,
            body=await _body(inputs, context),
        ),
        outbound(),
        seconds=inputs.timeout,
        max_bytes=inputs.max_bytes,
        max_redirects=inputs.max_redirects,
    )
    if inputs.price is not None:
        context.cost.record(
            kind="api",
            source=answer.url.host or "",
            quantity=Decimal(1),
            unit="request",
            unit_price=inputs.price,
        )
    _check(answer, inputs.expected_status, context.secrets)
    return await _output(answer, context, round((time.monotonic() - began) * 1000))


def _filled(name: str, text: str, context: Context) -> str:
    """The header's value with its secrets."""
    wanted = _SECRET.findall(text)
    if not wanted:
        raise PermanentError(
            f"the header {name} in secretHeaders names no secret; write it like "
            '"Bearer ${NAME}", or put it into headers'
        )
    value = _SECRET.sub(lambda it: context.secrets[it[1]], text)
    if not _HEADER_VALUE.fullmatch(value):
        raise PermanentError(
            f"the secrets of the header {name} ({', '.join(wanted)}) hold characters that no "
            "header may have, or too many"
        )
    return value


def _own_headers(inputs: RequestInput, context: Context) -> dict[str, str]:
    given = {name.lower() for name in (*inputs.headers, *inputs.secret_headers)}
    headers = {"User-Agent": "CommandCenter", "Accept": "*/*", **context.trace_headers}
    if inputs.method not in _WITHOUT_KEY:
        headers["Idempotency-Key"] = context.idempotency_key
    if inputs.has_json:
        headers["Content-Type"] = "application/json"
    elif inputs.body is not None:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    elif inputs.blob is not None:
        headers["Content-Type"] = inputs.blob.media_type
    kept = {name: value for name, value in headers.items() if name.lower() not in given}
    return {**kept, **inputs.headers}


async def _body(inputs: RequestInput, context: Context) -> bytes | None:
    if inputs.has_json:
        return pydantic_core.to_json(inputs.json_, inf_nan_mode="null")
    if inputs.body is not None:
        return inputs.body.encode(errors="replace")
    if inputs.blob is not None:
        return await asyncio.to_thread(context.blobs.read, inputs.blob)
    return None


def _check(answer: "Answer", expected: list[int], secrets: Secrets) -> None:
    status = answer.status
    if status in expected or (not expected and 200 <= status < 300):
        return
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    text = f"{answer.url.host} answers {status}{phrase}"
    wait = answer.headers.get("Retry-After", "")
    if wait and len(wait) < 40:
        text += f" (Retry-After: {wait})"
    media_type, charset = _content_type(answer)
    if _TEXT.fullmatch(media_type):
        said = secrets.hide(_decoded(answer.body, charset) or "")
        said = " ".join(said.split())[:_EXCERPT]
        text += f": {said}" if said else ""
    if status in _AGAIN or status >= 500:
        raise BusyError(text)
    raise RefusedError(text)


async def _output(answer: "Answer", context: Context, duration_ms: int) -> RequestOutput:
    media_type, charset = _content_type(answer)
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        if (name := name.lower()) not in _NOT_TOLD:
            shown = context.secrets.hide(value.encode(errors="replace").decode())
            headers[name] = f"{headers[name]}, {shown}" if name in headers else shown
    content: dict[str, Any] = {}
    text = _decoded(answer.body, charset) if _TEXT.fullmatch(media_type) else None
    if text is not None:
        text = context.secrets.hide(text)
        parsed = _parsed(text) if _JSON.fullmatch(media_type) else None
        content = {"text": text} if parsed is None else {"json_": parsed[0]}
    elif answer.body:
        content["blob"] = await asyncio.to_thread(
            context.blobs.write, answer.body, media_type=media_type or "application/octet-stream"
        )
    return RequestOutput(
        status=answer.status,
        headers=headers,
        media_type=media_type,
        size=len(answer.body),
        origin=str(answer.url.origin()),
        redirects=answer.redirects,
        duration_ms=duration_ms,
        **content,
    )


def _content_type(answer: "Answer") -> tuple[str, str]:
    header = Message()
    header["content-type"] = answer.headers.get("Content-Type", "application/octet-stream")
    return header.get_content_type(), header.get_content_charset() or "utf-8"


def _decoded(body: bytes, charset: str) -> str | None:
    try:
        return body.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return None


def _parsed(text: str) -> tuple[Any] | None:
    """The JSON value, in a tuple as it may be null; None where it is no JSON."""
    try:
        return (pydantic_core.from_json(text, allow_inf_nan=False),)
    except ValueError:
        return None

"""One HTTP exchange of an agent: redirects followed by hand, addresses judged, sizes bounded.

Rules:
- Each hop is judged by `agents.outbound`, before anything is sent. Names are resolved once, here.
- Headers that hold secrets go to the origin that they were meant for, and nowhere else; over plain
  HTTP only where an operator vouches for the host.
- 303, and 301 and 302 of a POST, become a GET without a body, as browsers do.
- A proxy of the environment is not used: it would connect out of sight.
"""

import asyncio
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from socket import AddressFamily, gaierror
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from multidict import CIMultiDictProxy
from yarl import URL

from agents.errors import PermanentError
from agents.outbound import SETTING, BlockedError, Outbound
from streams.errors import AgentError

_CHUNK: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ABOUT_A_BODY: Final = frozenset({"content-type", "content-encoding", "content-language"})
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


class UnreachableError(AgentError):
    """The server cannot be reached now, or breaks off."""


class Request(NamedTuple):
    """What is sent. `secret_headers` are the headers whose values nobody may see."""

    method: str
    url: URL
    headers: Mapping[str, str]
    secret_headers: Mapping[str, str]
    body: bytes | None


class Answer(NamedTuple):
    """What came back from the last hop."""

    url: URL
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    redirects: int


async def exchange(
    request: Request,
    judge: Outbound,
    *,
    seconds: float,
    max_bytes: int,
    max_redirects: int,
) -> Answer:
    """Send it, and follow where it leads.

    Raises:
        PermanentError: it may not go there, the answer is too big, or it leads in circles.
        UnreachableError: another attempt may reach the server.
    """
    host = request.url.host
    connector = aiohttp.TCPConnector(resolver=_Resolver(judge), use_dns_cache=False)
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                max_line_size=16 * 1024,
                max_field_size=32 * 1024,
            ) as session,
        ):
            return await _follow(session, request, judge, max_bytes, max_redirects)
    except BlockedError:
        raise
    except TimeoutError as error:
        text = f"{host} did not answer within {seconds:g} s"
        raise UnreachableError(text) from error
    except aiohttp.ClientConnectorCertificateError as error:
        text = f"the certificate of {host} is not accepted: {_reason(error.certificate_error)}"
        raise PermanentError(text) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        text = f"the URL is not one that can be asked: {type(error).__name__}"
        raise PermanentError(text) from error
    except aiohttp.ClientConnectorDNSError as error:
        if isinstance(error.os_error, BlockedError):
            raise error.os_error from None
        raise UnreachableError(f"the name {error.host} cannot be resolved") from error
    except aiohttp.ClientConnectorError as error:
        text = f"{error.host}:{error.port} cannot be connected to: {_reason(error.os_error)}"
        raise UnreachableError(text) from error
    except (aiohttp.ClientError, OSError) as error:
        text = f"the exchange with {host} broke off: {type(error).__name__}"
        raise UnreachableError(text) from error


async def _follow(
    session: aiohttp.ClientSession,
    request: Request,
    judge: Outbound,
    max_bytes: int,
    max_redirects: int,
) -> Answer:
    origin = request.url.origin()
    hops = 0
    while True:
        _judge_hop(request, judge)
        async with session.request(
            request.method,
            request.url,
            headers={**request.headers, **request.secret_headers},
            data=request.body,
            allow_redirects=False,
        ) as response:
            target = response.headers.get("Location")
            if response.status in _REDIRECTS and target and max_redirects:
                if hops == max_redirects:
                    raise PermanentError(f"{origin} redirects more than {max_redirects} times")
                hops += 1
                request = _redirected(request, response.status, target)
                if request.url.origin() != origin:
                    request = request._replace(secret_headers={})
                continue
            body = await _body(response, max_bytes)
            return Answer(request.url, response.status, response.headers, body, hops)


def _judge_hop(request: Request, judge: Outbound) -> None:
    """What can be said before a name is resolved."""
    url = request.url
    host, port = url.host or "", url.port or 0
    if request.secret_headers and url.scheme != "https" and not judge.names(host, port):
        raise PermanentError(
            f"secrets are not sent to {host} over plain HTTP; use https, or an operator can "
            f"vouch for the host with {SETTING}"
        )
    try:
        ip_address(host)
    except ValueError:
        return  # a name: the resolver judges what it leads to
    judge.judge(host, host, port)


def _redirected(request: Request, status: int, target: str) -> Request:
    try:
        url = request.url.join(URL(target))
    except ValueError as error:
        raise PermanentError(f"{request.url.host} redirects to what is no URL") from error
    if url.scheme not in _DEFAULT_PORT or not url.host:
        raise PermanentError(f"{request.url.host} redirects to what is neither http nor https")
    url = url.with_user(None).with_fragment(None)
    moved = {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND}
    to_get = (status == HTTPStatus.SEE_OTHER and request.method != "HEAD") or (
        status in moved and request.method == "POST"
    )
    if not to_get:
        return request._replace(url=url)
    kept = {name: it for name, it in request.headers.items() if name.lower() not in _ABOUT_A_BODY}
    return request._replace(method="GET", url=url, headers=kept, body=None)


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            response.close()
            raise PermanentError(
                f"the answer of {response.url.host} is more than {max_bytes:,} bytes (maxBytes)"
            )
    return bytes(body)


class _Resolver(AbstractResolver):
    """Resolves a name, and gives those of its addresses that may be connected to."""

    def __init__(self, judge: Outbound) -> None:
        self._judge = judge
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        permitted = [each for each in found if self._judge.permits(host, each["host"], port)]
        if not permitted:
            for each in found:
                self._judge.judge(host, each["host"], port)
            raise gaierror(f"{host} has no address")
        return permitted

    async def close(self) -> None:
        await self._names.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(getattr(error, "strerror", None) or type(error).__name__)

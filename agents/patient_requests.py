"""Blocking HTTP that waits its turn: who is told to come back later (429, 5xx) comes back later.

Rules:
- `Retry-After` is obeyed, in seconds or as a date; without it the waits grow. Nobody waits longer
  than there is time: an answer that asks for more is given back as it is.
- Redirects are the caller's business, a proxy of the environment is not used, and of an answer's
  body no more than `BODY_LIMIT` is read.
- Whether an address may be reached is judged by `agents.outbound.guarded` around it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import requests
from tenacity import RetryCallState, Retrying, retry_if_result, wait_exponential_jitter

ATTEMPTS: Final = 4
BODY_LIMIT: Final = 1024 * 1024
TIMEOUT_S: Final = 15.0
_CHUNK: Final = 16 * 1024
_LOOK_S: Final = 0.2
_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})

_wait = wait_exponential_jitter(multiplier=0.5, max=8.0, jitter=0.5)


def asks_to_come_back(status: int) -> bool:
    """Whether the same request may well succeed later."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status in _AGAIN or 500 <= status < 600


class PatientRequests:
    """Stands where code has the module `requests`: its functions, and everything else of it.

    Args:
        seconds: how long it may take all together.
        is_cancelled: whether nobody wants the answer any more.
        pause: waits for so many seconds.
    """

    def __init__(
        self,
        seconds: float,
        is_cancelled: Callable[[], bool] = lambda: False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.last: requests.Response | None = None
        self._ends = time.monotonic() + seconds
        self._is_cancelled = is_cancelled
        self._pause = pause

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """As `requests.request`, with patience."""
        patience = Retrying(
            retry=retry_if_result(lambda it: asks_to_come_back(it.status_code)),
            wait=_seconds_until_next,
            stop=self._gives_up,
            sleep=self._sleep,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        answer: requests.Response = patience(self._once, method, url, **options)
        return answer

    def get(self, url: str, **options: Any) -> requests.Response:
        """As `requests.get`."""
        return self.request("GET", url, **options)

    def post(
        self, url: str, data: Any = None, json: Any = None, **options: Any
    ) -> requests.Response:
        """As `requests.post`."""
        return self.request("POST", url, data=data, json=json, **options)

    def put(self, url: str, data: Any = None, **options: Any) -> requests.Response:
        """As `requests.put`."""
        return self.request("PUT", url, data=data, **options)

    def patch(self, url: str, data: Any = None, **options: Any) -> requests.Response:
        """As `requests.patch`."""
        return self.request("PATCH", url, data=data, **options)

    def delete(self, url: str, **options: Any) -> requests.Response:
        """As `requests.delete`."""
        return self.request("DELETE", url, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(requests, name)

    def _once(self, method: str, url: str, **options: Any) -> requests.Response:
        self.last = None
        options.setdefault("timeout", TIMEOUT_S)
        options.setdefault("allow_redirects", False)
        with requests.Session() as session:
            session.trust_env = False
            self.last = session.request(method, url, **{**options, "stream": True})
            self._read(self.last)
        return self.last

    def _read(self, answer: requests.Response) -> None:
        body = bytearray()
        for chunk in answer.iter_content(_CHUNK):
            body += chunk
            if len(body) > BODY_LIMIT:
                raise requests.exceptions.InvalidHeader(
                    f"the answer has more than {BODY_LIMIT:,} bytes"
                )
            if time.monotonic() > self._ends:
                raise requests.exceptions.ReadTimeout("the answer takes too long")
        answer._content = bytes(body)  # noqa: SLF001 -- requests has no other way to bound a body

    def _gives_up(self, state: RetryCallState) -> bool:
        return (
            state.attempt_number >= ATTEMPTS
            or self._is_cancelled()
            or time.monotonic() + state.upcoming_sleep > self._ends
        )

    def _sleep(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0 and not self._is_cancelled():
            self._pause(min(left, _LOOK_S))


def seconds_asked_for(answer: requests.Response) -> float | None:
    """What its `Retry-After` says; None where there is none that can be understood."""
    said = answer.headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _seconds_until_next(state: RetryCallState) -> float:
    answer = state.outcome.result() if state.outcome else None
    asked = None if answer is None else seconds_asked_for(answer)
    return _wait(state) if asked is None else asked

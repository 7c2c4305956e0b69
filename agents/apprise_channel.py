"""Sending through Apprise, with what it may reach and read held down.

Rules:
- Every connection is judged (`agents.outbound`), whatever the service uses to connect. Services
  that send over HTTP wait their turn as `agents.patient_requests` does.
- A channel comes from a workflow. So services of the machine itself are off (its desktop, its
  system log), and no file of the machine can be named as a template or key.
- Apprise's own log quotes tokens: it is kept to this module. No error repeats a part of the URL
  that may be a secret.
"""

import logging
import re
import sys
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from agents.errors import PermanentError
from agents.outbound import guarded, outbound
from agents.patient_requests import PatientRequests, asks_to_come_back
from streams.errors import AgentError

_OF_THIS_MACHINE: Final = (
    "blink1", "dbus", "glib", "gio", "gnome", "kde", "macosx", "qt", "syslog", "windows",
)  # fmt: skip
_UNQUOTED_AT_MOST: Final = 4
_COMPLAINTS: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
_SHORTEST_SECRET: Final = 4

_requests: ContextVar[PatientRequests] = ContextVar("apprise_requests")


class _Requests:
    """What services have for the module `requests`: the patience of the send that they are in."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_requests.get(), name)


_FRONT: Final = _Requests()


class Message(NamedTuple):
    """What is sent; `kind` is Apprise's word for how serious it is."""

    title: str
    body: str
    kind: str
    id: str


def send(url: str, message: Message, requests: PatientRequests, shown: str | None = None) -> str:
    """Send one message, and return the channel without what may be secret.

    `shown` is how the channel is called, where its URL is a secret.

    Raises:
        PermanentError: nobody can be reached by that URL, or the service refuses for good.
        AgentError: another attempt may succeed.
    """
    apprise = _apprise()
    with guarded(outbound()) as guard:
        token = _requests.set(requests)
        try:
            service = _service(apprise, url)
            channel = shown or _masked(service.url(privacy=True))
            if isinstance(getattr(service, "headers", None), dict):
                service.headers.setdefault("Idempotency-Key", message.id)
            services = apprise.Apprise()
            services.add(service)
            with services.notify(
                body=message.body, title=message.title, notify_type=message.kind
            ) as result:
                if result:
                    return channel
                said = "; ".join(it.message for it in result.logs() if it.level in _COMPLAINTS)
        finally:
            _requests.reset(token)
    if guard.refused:
        raise guard.refused[0]
    reason = _without_parts_of(url, said) or "Apprise gives no reason"
    text = f"{channel} did not take the message: {reason}"
    last = requests.last
    final = last is not None and last.status_code >= 300 and not asks_to_come_back(last.status_code)
    raise PermanentError(text) if final else AgentError(text)


def _masked(url: str) -> str:
    """Scheme and host: a path or query may be a secret that apprise does not know as one."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest)[0]}"


def _service(apprise: Any, url: str) -> Any:
    """The service that the URL names."""
    if _names_a_file(url):
        raise PermanentError(
            "the channel's URL names a file of this machine (a template or key); "
            "only what stands in the URL itself is taken"
        )
    service = apprise.Apprise.instantiate(url, asset=_asset())
    if service is None:
        scheme = url.partition(":")[0] if "://" in url else "none"
        raise PermanentError(
            f"the channel is neither 'console' nor a valid Apprise URL (its scheme: {scheme}); "
            "see https://appriseit.com/services/ for how each service writes its URL"
        )
    # What the URL may ask for and must not get: that a failure looks like success, requests to
    # elsewhere, and repetitions that do not heed what the service answers.
    service.optional = False
    service.redirects = False
    service.retry = 0
    for each in type(service).__mro__:
        module = sys.modules[each.__module__]
        if getattr(module, "requests", None) is sys.modules["requests"]:
            module.requests = _FRONT  # type: ignore[attr-defined]  # found there a line ago
    return service


@cache
def _asset() -> Any:
    return _apprise().AppriseAsset(pgp_autogen=False, pem_autogen=False, service_timeout=50)


@cache
def _apprise() -> Any:
    """The library, imported when first needed: it takes a second."""
    log = logging.getLogger("apprise")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.INFO)  # its DEBUG lines hold path and query
    try:
        import apprise
        from apprise.manager_plugins import NotificationManager
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed; install the extra: commandcenter[agents]"
        ) from error
    services: Any = NotificationManager  # it has no types of its own
    services().disable(*_OF_THIS_MACHINE)
    return apprise


def _names_a_file(url: str) -> bool:
    """Whether a parameter of the URL is the path of a file; Apprise would read and send it."""
    for part in re.split(r"[?&;]", url)[1:]:
        value = part.partition("=")[2]
        for _ in range(_UNQUOTED_AT_MOST):
            value = unquote(value.replace("+", " "))
            path = value.strip().removeprefix("file://").partition("?")[0]
            try:
                if path and Path(path).expanduser().is_file():
                    return True
            except (OSError, RuntimeError, ValueError):  # too long, no such user, a null byte
                continue
    return False


def _without_parts_of(url: str, text: str) -> str:
    """`text` with every part of the URL that could be a secret masked."""
    _, _, rest = url.partition("://")
    parts = {*re.split(r"[/?#@:&=+]", rest), *re.split(r"[/?#@:&=+]", unquote(rest))}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = text.replace(part, "****")
    return text

"""The agent `notifier`: tells people, on the console or through any Apprise URL.

Rules:
- An Apprise URL holds tokens and passwords. It is never logged or given back: outputs and errors
  have its scheme and host as apprise masks them, and apprise's own log, which quotes tokens, is
  kept to this module.
- The message id is derived from the task id, so a task that is executed again sends the same one;
  the plain webhooks (json, xml, form) carry it in the header `Idempotency-Key`.
"""

import logging
import re
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

from pydantic import Field, JsonValue

from agents.agent import Agent
from agents.context import Context
from agents.errors import PermanentError
from agents.model import Model
from streams.errors import AgentError

CONSOLE: Final = "console"

Level = Literal["info", "success", "warning", "error", "critical"]

# Apprise's kinds of notification, and the log level on the console.
_APPRISE_TYPE: Final[dict[Level, str]] = {
    "info": "info",
    "success": "success",
    "warning": "warning",
    "error": "failure",
    "critical": "failure",
}
_LOG_LEVEL: Final[dict[Level, int]] = {
    "info": logging.INFO,
    "success": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_COMPLAINTS: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
_SHORTEST_SECRET: Final = 4

notifier = Agent(
    "notifier",
    description="Sends a message to the console or to any service that Apprise knows.",
    type="RULE",
    version="1.0.0",
)


class SendInput(Model):
    """What to tell whom."""

    channel: str = Field(
        default=CONSOLE, min_length=1, description="'console' or an Apprise URL, e.g. json://host/"
    )
    message: str = Field(min_length=1, max_length=65_536)
    title: str = ""
    severity: Level = "info"
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, description="added to the message, one line each"
    )


class SendOutput(Model):
    """The receipt. A failed delivery is a failed task, so `success` is true."""

    success: bool
    channel: str = Field(description="without path, query and credentials")
    message_id: str
    timestamp: datetime = Field(description="when the attempt began")
    error: str | None = None


@notifier.action(timeout=60)
def send(inputs: SendInput, context: Context) -> SendOutput:
    """Deliver one message; a failed delivery is tried again."""
    message_id = str(uuid5(NAMESPACE_URL, f"commandcenter:notification:{context.task_id}"))
    if inputs.channel == CONSOLE:
        channel = CONSOLE
        context.logger.log(
            _LOG_LEVEL[inputs.severity],
            inputs.message,
            message_id=message_id,
            severity=inputs.severity,
            **({"title": inputs.title} if inputs.title else {}),
            **({"metadata": inputs.metadata} if inputs.metadata else {}),
        )
    else:
        channel = _deliver(inputs, message_id)
    return SendOutput(
        success=True,
        channel=channel,
        message_id=message_id,
        timestamp=datetime.fromtimestamp(context.started_at / 1000, UTC),
    )


def _deliver(inputs: SendInput, message_id: str) -> str:
    """Send through Apprise and return the masked channel. Raises `AgentError`."""
    apprise = _apprise()
    service = apprise.Apprise.instantiate(inputs.channel)
    if service is None:
        scheme = inputs.channel.partition(":")[0] if "://" in inputs.channel else "none"
        raise PermanentError(
            f"the channel is neither 'console' nor a valid Apprise URL (its scheme: {scheme}); "
            "see https://appriseit.com/services/ for how each service writes its URL"
        )
    channel = _masked(service.url(privacy=True))
    service.optional = False  # the URL's "?optional=yes" would make a failure look like success
    if isinstance(getattr(service, "headers", None), dict):
        service.headers.setdefault("Idempotency-Key", message_id)
    services = apprise.Apprise()
    services.add(service)
    lines = [inputs.message, *(f"{key}: {value}" for key, value in inputs.metadata.items())]
    with services.notify(
        body="\n".join(lines), title=inputs.title, notify_type=_APPRISE_TYPE[inputs.severity]
    ) as result:
        if not result:
            said = "; ".join(it.message for it in result.logs() if it.level in _COMPLAINTS)
            reason = _without_parts_of(inputs.channel, said) or "Apprise gives no reason"
            raise AgentError(f"{channel} did not take the message: {reason}")
    return channel


@cache
def _apprise() -> Any:
    """The library, imported when first needed: it takes a second."""
    log = logging.getLogger("apprise")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.INFO)  # its DEBUG lines hold path and query
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed; install the extra: commandcenter[agents]"
        ) from error
    return apprise


def _masked(url: str) -> str:
    """Scheme and host: a path or query may be a secret that apprise does not know as one."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest)[0]}"


def _without_parts_of(url: str, text: str) -> str:
    """`text` with every part of the URL that could be a secret masked."""
    _, _, rest = url.partition("://")
    parts = {*re.split(r"[/?#@:&=+]", rest), *re.split(r"[/?#@:&=+]", unquote(rest))}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = text.replace(part, "****")
    return text

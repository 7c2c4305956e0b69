"""The agent `notifier`: tells people, on the console, in Slack or Discord, or wherever Apprise can.

Rules:
- A channel's URL holds tokens and passwords, and inputs are kept in the history. So it can be named
  by the secret that holds it. It is never logged or given back.
- The message id is derived from the task id, so a task that is executed again sends the same one;
  webhooks get it in the header `Idempotency-Key`.
- Who answers that it has too much to do is asked again in a while; see `agents.patient_requests`.
  What remains undelivered fails the task, unless that says that it should not.
"""

import logging
import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from pydantic import Field, JsonValue

from agents import chat_webhook
from agents.agent import Agent
from agents.chat_webhook import Level, Service
from agents.context import Context
from agents.errors import PermanentError
from agents.model import Model
from agents.outbound import guarded, outbound
from streams.errors import AgentError

if TYPE_CHECKING:
    from agents.patient_requests import PatientRequests

CONSOLE: Final = "console"
TIME_LIMIT_S: Final = 60.0

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
# `slack`, `discord:OTHER_SECRET`, `secret:NAME`; an Apprise URL has a slash after the colon.
_BY_SECRET: Final = re.compile(r"(slack|discord|secret)(?::([A-Z0-9_]+))?")
_DEFAULT_SECRET: Final = {"slack": "SLACK_WEBHOOK", "discord": "DISCORD_WEBHOOK"}
_SPARE_S: Final = 10.0

notifier = Agent(
    "notifier",
    description="Sends a message to the console, Slack, Discord or any service of Apprise.",
    type="API",
    version="2.1.0",
)


class SendInput(Model):
    """What to tell whom."""

    channel: str = Field(
        default=CONSOLE,
        min_length=1,
        max_length=8_192,
        description="'console'; 'slack' or 'discord', whose webhook is in the secret "
        "SLACK_WEBHOOK or DISCORD_WEBHOOK ('slack:NAME' for another one); an Apprise URL, "
        "e.g. json://host/; or 'secret:NAME', a secret that holds such a URL",
    )
    message: str = Field(min_length=1, max_length=65_536)
    title: str = Field(default="", max_length=1_000)
    severity: Level = "info"
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, max_length=100, description="added to the message, one line each"
    )
    fail_on_error: bool = Field(
        default=True,
        description="a message that cannot be delivered fails the step; false: the step succeeds, "
        "and its output says why the message was not",
    )


class SendOutput(Model):
    """The receipt. `success` is false only where the step was told not to fail."""

    success: bool
    channel: str = Field(description="without path, query and credentials")
    message_id: str
    timestamp: datetime = Field(description="when the attempt began")
    error: str | None = Field(default=None, description="why it was not delivered")


@notifier.action(timeout=TIME_LIMIT_S)
def send(inputs: SendInput, context: Context) -> SendOutput:
    """Deliver one message; a failed delivery is tried again."""
    message_id = str(uuid5(NAMESPACE_URL, f"commandcenter:notification:{context.task_id}"))
    why_not = None
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
        try:
            channel = _deliver(inputs, message_id, context)
        except AgentError as error:
            if inputs.fail_on_error or context.is_cancelled:
                raise
            channel, why_not = _undelivered(inputs.channel), str(error)
            context.logger.warning("the message was not delivered", channel=channel, error=why_not)
    return SendOutput(
        success=why_not is None,
        channel=channel,
        message_id=message_id,
        timestamp=datetime.fromtimestamp(context.started_at / 1000, UTC),
        error=why_not,
    )


def _undelivered(channel: str) -> str:
    """The channel as far as it is no secret for sure: its URL may be no valid one."""
    if _BY_SECRET.fullmatch(channel):
        return channel
    scheme, is_url, _ = channel.partition("://")
    return f"{scheme}://…" if is_url else "…"


def _deliver(inputs: SendInput, message_id: str, context: Context) -> str:
    """Send it, and return the channel without what may be secret. Raises `AgentError`."""
    requests = _patience(context)
    url = inputs.channel
    named = _BY_SECRET.fullmatch(inputs.channel)
    if named is not None:
        kind, name = named[1], named[2] or _DEFAULT_SECRET.get(named[1])
        if name is None:
            raise PermanentError("the channel 'secret' needs a name: secret:NAME")
        url = context.secrets[name].strip()
        if kind != "secret" and urlsplit(url).scheme in {"http", "https"}:
            service = cast("Service", kind)
            return _post(service, url, name, inputs, message_id, requests)
    from agents import apprise_channel

    shown = None if named is None else inputs.channel
    lines = [inputs.message, *(f"{key}: {value}" for key, value in inputs.metadata.items())]
    kind = _APPRISE_TYPE[inputs.severity]
    message = apprise_channel.Message(inputs.title, "\n".join(lines), kind, message_id)
    return apprise_channel.send(url, message, requests, shown)


def _post(
    service: Service,
    url: str,
    secret: str,
    inputs: SendInput,
    message_id: str,
    requests: "PatientRequests",
) -> str:
    """To an incoming webhook; no error names it, as it is a secret."""
    from agents.patient_requests import asks_to_come_back

    body = chat_webhook.payload(
        service, inputs.message, inputs.title, inputs.severity, inputs.metadata
    )
    channel = f"{service} ({secret})"
    with guarded(outbound()) as guard:
        try:
            answer = requests.post(url, json=body, headers={"Idempotency-Key": message_id})
        except requests.RequestException as error:
            if guard.refused:
                raise guard.refused[0] from None
            text = f"{channel} cannot be reached: {type(error).__name__}"
            raise AgentError(text) from None
    if 200 <= answer.status_code < 300:
        return channel
    text = f"{channel} did not take the message: it answers {answer.status_code}"
    raise AgentError(text) if asks_to_come_back(answer.status_code) else PermanentError(text)


def _patience(context: Context) -> "PatientRequests":
    _hush()
    from agents.patient_requests import PatientRequests

    return PatientRequests(TIME_LIMIT_S - _SPARE_S, lambda: context.is_cancelled)


@cache
def _hush() -> None:
    """What sends is imported when first needed; its log would quote path and query."""
    try:
        import requests  # noqa: F401 -- to see whether it is there
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed; install the extra: commandcenter[agents]"
        ) from error
    logging.getLogger("urllib3").setLevel(logging.INFO)

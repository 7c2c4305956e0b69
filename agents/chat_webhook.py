"""What Slack's and Discord's incoming webhooks take: one message as their JSON.

Text of others is shown as it is: it can neither mention everybody nor pass for markup. What is
longer than the service takes is cut, and says so.
"""

import json
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import JsonValue

Service = Literal["slack", "discord"]
Level = Literal["info", "success", "warning", "error", "critical"]

_COLOUR: Final[dict[Level, int]] = {
    "info": 0x3AA3E3,
    "success": 0x3AA337,
    "warning": 0xCACF29,
    "error": 0xA32037,
    "critical": 0xA32037,
}
_SLACK_TEXT: Final = 2_900
_SLACK_FIELDS: Final = 10
_DISCORD_TITLE: Final = 256
_DISCORD_TEXT: Final = 4_096
_DISCORD_ALL: Final = 6_000
_DISCORD_FIELDS: Final = 10
_FIELD: Final = 200


def payload(
    service: Service, message: str, title: str, severity: Level, metadata: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """The body of the request."""
    write = _slack if service == "slack" else _discord
    return write(message, title, severity, {key: _text(value) for key, value in metadata.items()})


def _slack(
    message: str, title: str, severity: Level, fields: Mapping[str, str]
) -> dict[str, JsonValue]:
    heading = f"*{_escaped(title)}*\n" if title else ""
    text = _cut(heading + _escaped(message), _SLACK_TEXT)
    blocks: list[JsonValue] = [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]
    shown: list[JsonValue] = [
        {"type": "mrkdwn", "text": _cut(f"*{_escaped(key)}*\n{_escaped(value)}", _FIELD)}
        for key, value in _first(fields, _SLACK_FIELDS)
    ]
    if shown:
        blocks.append({"type": "section", "fields": shown})
    return {
        # What a notification on a phone shows.
        "text": _cut(_escaped(title or message), _FIELD),
        "attachments": [{"color": f"#{_COLOUR[severity]:06x}", "blocks": blocks}],
    }


def _discord(
    message: str, title: str, severity: Level, fields: Mapping[str, str]
) -> dict[str, JsonValue]:
    heading = _cut(title, _DISCORD_TITLE)
    shown = [
        (_cut(key, _FIELD) or "-", _cut(value, _FIELD) or "-")
        for key, value in _first(fields, _DISCORD_FIELDS)
    ]
    left = _DISCORD_ALL - len(heading) - sum(len(key) + len(value) for key, value in shown)
    embed: dict[str, JsonValue] = {
        "description": _cut(message, min(_DISCORD_TEXT, left)),
        "color": _COLOUR[severity],
        "fields": [{"name": key, "value": value, "inline": True} for key, value in shown],
    }
    if heading:
        embed["title"] = heading
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def _first(fields: Mapping[str, str], number: int) -> list[tuple[str, str]]:
    pairs = list(fields.items())
    if len(pairs) <= number:
        return pairs
    return [*pairs[: number - 1], ("…", f"and {len(pairs) - number + 1} more")]


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

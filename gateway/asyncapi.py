"""`/asyncapi.json`: the Kafka interface, told from the topics and the records on them.

What other programs may read and write: events from anybody, tasks and their results for workers in
any language, the history for readers. `docs/asyncapi.yaml` is the same; a test holds them together.
"""

import sys
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
import yaml
from aiohttp import web

from gateway.record_schemas import REF, record_schemas
from streams import topics
from streams.events import Decision
from streams.messages import DeadLetter, Progress, Result, Task, TaskCancellation
from streams.registry import AgentRecord, WorkerRecord
from streams.topics import Topic

_JSON: Final = "application/json"
_BINDING: Final = "0.5.0"
_TRIGGERS, _INBOX, _EVENTS, _, _, _AGENTS, _CONTROL, _LETTERS, _ = topics.TOPICS
_AGENT: Final = "{agent}"

_MESSAGES: Final[dict[str, tuple[type[msgspec.Struct], str, str]]] = {
    "task": (Task, "A task", "The task's `id`."),
    "result": (Result, "The result of a task", "The task's `run`."),
    "progress": (Progress, "A sign of life of a task", "The task's `run`."),
    "registration": (AgentRecord, "What a worker serves", "The agent's name."),
    "presence": (WorkerRecord, "A worker's sign of life", "`worker/` and the worker's name."),
    "cancellation": (TaskCancellation, "An order to end a task", "The task's `id`."),
    "decision": (Decision, "What happened in a run", "The run."),
    "deadLetter": (DeadLetter, "What could not be read", "As the original's, if that had one."),
}
_OTHERS: Final = {
    "inbox": "The engine keeps records of other types here, too. A worker writes these two, to"
    " partition `replyPartition` of its task.",
    "tasks": "Has as many partitions as `inbox`. The first worker that serves the agent creates it,"
    " or the engine with the first task. The workers of an agent share its tasks: one consumer"
    " group, `commandcenter.<agent>` for workers in other languages.",
    "control": "Every worker reads all of it, without a group that is shared.",
    "agents": "A worker registers its agents when it begins to serve them, and says in every"
    " interval that it lives. A record without a value takes what its key names off the list.",
    "deadLetters": "A record on a task topic that is no task goes here before it is acknowledged.",
}
_DESCRIPTOR: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What an agent can do. The JSON Schemas of its actions' inputs and outputs are"
    " for people and for checking workflows; the worker checks what it gets itself.",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z][a-zA-Z0-9_-]{0,62}$"},
        "version": {"type": "string"},
        "type": {"enum": ["RULE", "LLM", "API", "SCRIPT"]},
        "description": {"type": "string"},
        "actions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z][a-zA-Z0-9_-]{0,62}$"},
                    "description": {"type": "string"},
                    "risk": {"enum": ["AUTO", "APPROVAL_REQUIRED"]},
                    "timeoutMs": {"type": "integer", "minimum": 1},
                    "inputSchema": {"type": "object"},
                    "outputSchema": {"type": "object"},
                },
                "required": ["name"],
            },
        },
    },
    "required": ["name", "version", "actions"],
}
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The data of an event is any JSON.",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1, "format": "uri-reference"},
        "type": {"type": "string", "minLength": 1},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "project": {"type": "string", "default": "default"},
        "traceparent": {"type": "string"},
        "data": {},
    },
    "required": ["specversion", "id", "source", "type"],
}
_EVENT_HEADERS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        f"ce_{name}": schema for name, schema in _EVENT["properties"].items() if name != "data"
    },
    "required": [f"ce_{name}" for name in _EVENT["required"]],
}


async def describe(_request: web.Request) -> web.Response:
    """The document, as JSON."""
    return web.Response(body=_encoded(), content_type=_JSON)


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """The document, in AsyncAPI 3.0. It speaks for CommandCenter: what it sends, others receive."""
    channels = {
        "triggers": _channel(_TRIGGERS, "eventBinary", "eventStructured"),
        "tasks": _channel(topics.tasks_topic(_AGENT), "task"),
        "inbox": _channel(_INBOX, "result", "progress"),
        "control": _channel(_CONTROL, "cancellation"),
        "agents": _channel(_AGENTS, "registration", "presence"),
        "events": _channel(_EVENTS, "decision"),
        "deadLetters": _channel(_LETTERS, "deadLetter"),
    }
    channels["tasks"]["parameters"] = {"agent": {"description": "The name of the agent."}}
    for name, text in _OTHERS.items():
        channels[name]["description"] += f" {text}"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "CommandCenter",
            "version": version("commandcenter"),
            "description": "The Kafka topics by which other programs start runs, serve agents in"
            " any language, and read what happens. docs/other-languages.md explains the contract"
            " of workers.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {
            "embedded": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "The Kafka of `commandcenter up`; or your own cluster.",
            }
        },
        "channels": channels,
        "operations": {
            "receiveEvent": _operation(
                "receive", "triggers", "Start the runs that an event starts."
            ),
            "sendTask": {
                **_operation("send", "tasks", "Have an agent make one attempt at one step."),
                "reply": {
                    "channel": {"$ref": "#/channels/inbox"},
                    "messages": [{"$ref": "#/channels/inbox/messages/result"}],
                },
            },
            "receiveAnswer": _operation("receive", "inbox", "Go on with the run."),
            "sendCancellation": _operation("send", "control", "Have a task ended."),
            "receiveRegistration": _operation(
                "receive", "agents", "Know who serves what, and who lives."
            ),
            "sendDecision": _operation("send", "events", "Tell what happened."),
            "receiveDeadLetter": _operation("receive", "deadLetters", "Show it to people."),
        },
        "components": {
            "messages": {
                "eventBinary": {
                    "title": "An event, a CloudEvent in binary mode",
                    "headers": _EVENT_HEADERS,
                    "payload": {"description": "The data: any JSON."},
                    "bindings": _key("The event's source."),
                },
                "eventStructured": {
                    "title": "An event, a CloudEvent in structured mode",
                    "contentType": "application/cloudevents+json",
                    "payload": {"$ref": REF + "CloudEvent"},
                    "bindings": _key("The event's source."),
                },
                **{
                    name: {
                        "title": title,
                        "payload": {"$ref": REF + record.__name__},
                        "bindings": _key(key),
                    }
                    for name, (record, title, key) in _MESSAGES.items()
                },
            },
            "schemas": {**_record_schemas(), "AgentDescriptor": _DESCRIPTOR, "CloudEvent": _EVENT},
        },
    }


def _record_schemas() -> dict[str, Any]:
    schemas = record_schemas(record for record, _, _ in _MESSAGES.values())
    schemas["AgentRecord"]["properties"]["descriptor"] = {"$ref": REF + "AgentDescriptor"}
    return schemas


def text() -> str:
    """The document in YAML, as it stands in `docs/asyncapi.yaml`."""
    written: str = yaml.dump(
        document(), Dumper=_InFull, sort_keys=False, allow_unicode=True, width=100
    )
    return "# Made by `make docs` from streams/messages.py and gateway/asyncapi.py.\n" + written


class _InFull(yaml.SafeDumper):
    """Writes a value that stands in two places twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _channel(topic: Topic, *messages: str) -> dict[str, Any]:
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup]}
    if topic.cleanup == "delete":
        configuration["retention.ms"] = topic.retention_ms
    binding = {"topicConfiguration": configuration, "bindingVersion": _BINDING}
    return {
        "address": topic.name,
        "description": f"{topic.holds[0].upper()}{topic.holds[1:]}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {**({"partitions": 1} if topic.single_partition else {}), **binding}},
    }


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _key(description: str) -> dict[str, Any]:
    key = {"type": "string", "description": description}
    return {"kafka": {"key": key, "bindingVersion": _BINDING}}


if __name__ == "__main__":
    sys.stdout.write(text())

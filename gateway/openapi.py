"""`/openapi.json`: the REST interface, told from the route table and the types of the answers."""

import inspect
import re
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.approvals import STATES
from gateway.costs import DIMENSIONS, KINDS, MAX_GROUPS
from gateway.problem import MEDIA_TYPE, Problem
from gateway.requests import MAX_PAGE
from gateway.routes import JSON, ROUTES, Route
from streams.letters import LetterState
from streams.records import NodeStatus, RunStatus
from streams.workflow import json_schema

_REF: Final = "#/components/schemas/{name}"
_TEXT: Final = {"type": "string"}
_VERSION: Final = {"type": "integer", "minimum": 1}
_PARAMETERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "project": ("The project; `default` where one is needed.", _TEXT),
    "workflow": ("Only this workflow.", _TEXT),
    "status": ("Only what has this status.", _TEXT),
    "type": ("Only events of this type.", _TEXT),
    "from": ("The older version; without it the one before `to`.", _VERSION),
    "to": ("The newer version; without it the latest.", _VERSION),
    "version": ("A version of the workflow.", _VERSION),
    "check": ("Whether only to check, and to publish nothing.", {"type": "boolean"}),
    "topic": ("Only what is from this topic.", _TEXT),
    "error": ("Only this class of errors.", _TEXT),
    "state": ("Only letters in this state.", {"type": "string", "enum": list(LetterState)}),
    "since": ("Only what came since then.", {"type": "string", "format": "date-time"}),
    "limit": ("How many.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
    "order": (
        "Which come first: `oldest` if unsaid.",
        {"type": "string", "enum": ["oldest", "newest"]},
    ),
    "cursor": ("Where to go on: a `next` or `cursor` of an earlier answer.", _TEXT),
    "atLeast": (
        "What has to be recorded first: a `watermark`, a cursor of the stream, or a run's id.",
        _TEXT,
    ),
    "subject": ("A pattern of event types: `*` is one segment, `>` the rest.", _TEXT),
    "groupBy": (f"Names with commas between them: {', '.join(DIMENSIONS)}.", _TEXT),
    "run": ("Only of this run.", _TEXT),
    "agent": ("Only of this agent.", _TEXT),
    "model": ("Only of this language model.", _TEXT),
    "kind": ("Only of this kind.", {"type": "string", "enum": list(KINDS)}),
    "tag": ("Only of workflows with this tag.", _TEXT),
}
_OF_COSTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "from": ("A date or time, which is included; the beginning of the month if unsaid.", _TEXT),
    "to": ("A date or time, which is not included; the end of today if unsaid.", _TEXT),
    "limit": ("How many groups.", {"type": "integer", "minimum": 1, "maximum": MAX_GROUPS}),
}


async def describe(_request: web.Request) -> web.Response:
    """This document."""
    return web.Response(body=_document(), content_type=JSON)


@cache
def _document() -> bytes:
    answers = [route.answers for route in ROUTES if route.answers is not None]
    schemas, components = msgspec.json.schema_components([*answers, Problem], ref_template=_REF)
    by_type = dict(zip(answers, schemas, strict=False))
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    definition = json_schema()
    inner = definition.pop("$defs", {})
    document = {
        "openapi": "3.1.0",
        "info": {"title": "CommandCenter", "version": version("commandcenter")},
        "paths": paths,
        "components": {"schemas": {**components, **inner, "WorkflowDefinition": definition}},
    }
    text = msgspec.json.encode(document).decode()
    return text.replace("#/$defs/", "#/components/schemas/").encode()


def _operation(route: Route, by_type: dict[Any, Any]) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(route.handler) or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": getattr(route.handler, "__name__", route.path),
        "summary": " ".join(summary.split()),
        "description": " ".join(description.split()),
        "parameters": [
            *(_parameter(name, "path", "", _TEXT) for name in re.findall(r"\{(\w+)\}", route.path)),
            *(_parameter(name, "query", *_query(route, name)) for name in route.query),
        ],
        "responses": {
            str(int(route.status)): {
                "description": "Done.",
                **(
                    {"content": {JSON: {"schema": by_type[route.answers]}}} if route.answers else {}
                ),
            },
            "default": {
                "description": "Not done; the problem says why.",
                "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
            },
        },
    }
    if route.takes:
        schema = (
            {"$ref": _REF.format(name="WorkflowDefinition")}
            if "application/yaml" in route.takes
            else {"type": "object", **({"properties": dict(route.fields)} if route.fields else {})}
        )
        operation["requestBody"] = {"content": {kind: {"schema": schema} for kind in route.takes}}
    return operation


def _query(route: Route, name: str) -> tuple[str, dict[str, Any]]:
    """What a query parameter means there, and what it may be."""
    if route.path.startswith("/api/costs") and name in _OF_COSTS:
        return _OF_COSTS[name]
    description, schema = _PARAMETERS[name]
    if name != "status":
        return description, schema
    of = {"ItemList": NodeStatus, "ApprovalList": STATES}.get(route.answers.__name__, RunStatus)
    return description, {**schema, "enum": list(of)}


def _parameter(name: str, place: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
    }

"""Every route of the gateway in one list: where, what, and how it answers.

The list makes both the router and `/openapi.json`, so the two cannot drift apart.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aiohttp import web

from gateway import (
    agents,
    approvals,
    budgets,
    control,
    cost_views,
    costs,
    dead_letters,
    events,
    feed,
    health,
    page,
    repeating,
    run_views,
    runs,
    sql,
    stream,
    views,
)
from gateway import workflows as w
from gateway.requests import known_parameters

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON: Final = "application/json"
DEFINITION: Final = (JSON, "application/yaml")
EVENT: Final = (JSON, "application/cloudevents+json")


class Route(NamedTuple):
    """One route.

    `answers` is the type of the JSON answer; without one the answer is of another kind. `takes`
    are the content types of the body, `query` the parameters it knows: others are refused.
    `fields` are those of a JSON body with what each may be, as JSON Schema.
    """

    method: str
    path: str
    handler: Handler
    answers: Any = None
    status: int = HTTPStatus.OK
    takes: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    fields: Mapping[str, Any] = MappingProxyType({})


_PAGE: Final = ("limit", "cursor")
_TIMES: Final = ("from", "to")


_TEXT: Final = {"type": "string"}
_TRUTH: Final = {"type": "boolean"}
_OBJECT: Final = {"type": "object"}


def _order(path: str, handler: Handler, answers: Any, **fields: Any) -> Route:
    """A route that takes an order in JSON, which is carried out later."""
    return Route("POST", path, handler, answers, HTTPStatus.ACCEPTED, (JSON,), fields=fields)


ROUTES: Final = (
    Route("GET", "/api/health", health.health, views.Health),
    Route("GET", "/readyz", health.ready, views.Readiness),
    Route("GET", "/metrics", health.metrics),
    Route("GET", "/api/agents", agents.list_agents, views.AgentList, query=_PAGE),
    Route("GET", "/api/agents/{name}", agents.get_agent, views.AgentView),
    Route("GET", "/api/workflows", w.list_workflows, views.WorkflowList, query=("project", *_PAGE)),
    Route(
        "POST", "/api/workflows", w.publish_workflow, views.Published, 201, DEFINITION, ("check",)
    ),
    Route(
        "GET",
        "/api/workflows/{name}",
        w.get_workflow,
        views.WorkflowDetail,
        query=("project", "version", *_PAGE),
    ),
    Route(
        "GET",
        "/api/workflows/{name}/diff",
        w.diff_versions,
        views.VersionDiff,
        query=("project", "from", "to"),
    ),
    Route("PUT", "/api/workflows/{name}", w.put_workflow, views.Published, 201, DEFINITION),
    Route("DELETE", "/api/workflows/{name}", w.retire_workflow, views.Retired, query=("project",)),
    Route(
        "POST",
        "/api/workflows/{name}/trigger",
        w.trigger_workflow,
        run_views.RunAccepted,
        202,
        (JSON,),
        ("project",),
    ),
    Route(
        "GET",
        "/api/workflows/{name}/runs",
        runs.list_workflow_runs,
        run_views.RunList,
        query=("status", "project", *_PAGE, "atLeast"),
    ),
    Route(
        "GET",
        "/api/runs",
        runs.list_runs,
        run_views.RunList,
        query=("workflow", "status", "project", *_PAGE, "atLeast"),
    ),
    Route("GET", "/api/runs/{id}", runs.get_run, run_views.RunDetail, query=_PAGE),
    Route(
        "GET",
        "/api/runs/{id}/agent-runs",
        runs.list_agent_runs,
        run_views.AgentRunList,
        query=_PAGE,
    ),
    Route("GET", "/api/runs/{id}/costs", runs.list_costs, run_views.CostList, query=_PAGE),
    Route(
        "GET",
        "/api/runs/{id}/events",
        runs.list_run_events,
        views.EventList,
        query=("order", *_PAGE),
    ),
    Route(
        "GET",
        "/api/runs/{id}/nodes/{node}/items",
        runs.list_items,
        run_views.ItemList,
        query=("status", *_PAGE),
    ),
    Route("GET", "/api/runs/{id}/payloads/{digest}", runs.get_payload),
    _order(
        "/api/runs/{id}/cancel",
        control.cancel_run,
        run_views.ControlAccepted,
        reason=_TEXT,
        requestedBy=_TEXT,
        force=_TRUTH,
    ),
    _order(
        "/api/runs/{id}/pause",
        control.pause_run,
        run_views.ControlAccepted,
        reason=_TEXT,
        requestedBy=_TEXT,
    ),
    _order(
        "/api/runs/{id}/resume", control.resume_run, run_views.ControlAccepted, requestedBy=_TEXT
    ),
    _order(
        "/api/runs/{id}/retry",
        repeating.retry_run,
        run_views.RepetitionAccepted,
        mode={"type": "string", "enum": repeating.MODES, "default": repeating.MODES[0]},
        requestedBy=_TEXT,
    ),
    _order(
        "/api/runs/{id}/rerun",
        repeating.rerun_run,
        run_views.RepetitionAccepted,
        **{"from": _TEXT},
        inputs=_OBJECT,
        requestedBy=_TEXT,
    ),
    Route(
        "GET",
        "/api/approvals",
        approvals.list_approvals,
        run_views.ApprovalList,
        query=("status", "workflow", "project", "run", *_PAGE),
    ),
    _order(
        "/api/approvals/{id}/decision",
        approvals.decide_approval,
        run_views.DecisionAccepted,
        decision={"type": "string", "enum": approvals.DECISIONS},
        respondedBy=_TEXT,
        notes=_TEXT,
        roles={"type": "array", "items": _TEXT},
        inputs={"description": "An object; for a fan-out the list of its items."},
    ),
    Route("POST", "/api/events", events.take_event, views.EventAccepted, 202, EVENT),
    Route(
        "GET",
        "/api/events",
        runs.list_events,
        views.EventList,
        query=("type", "workflow", "project", *_PAGE),
    ),
    Route("GET", "/api/events/stream", feed.event_feed, query=("subject", "project", "cursor")),
    Route("GET", "/api/stream", stream.stream),
    Route(
        "GET",
        "/api/costs",
        costs.sum_costs,
        cost_views.CostSumsView,
        query=("groupBy", *_TIMES, *costs.FILTERS, *_PAGE, "atLeast"),
    ),
    Route("GET", "/api/costs/export", costs.export_costs, query=(*_TIMES, *costs.FILTERS)),
    Route(
        "GET",
        "/api/budgets",
        budgets.list_budgets,
        cost_views.BudgetList,
        query=("project", *_PAGE),
    ),
    Route(
        "GET", "/api/budgets/{name}", budgets.get_budget, cost_views.BudgetView, query=("project",)
    ),
    Route(
        "PUT",
        "/api/budgets/{name}",
        budgets.set_budget,
        cost_views.BudgetView,
        takes=(JSON,),
        query=("project",),
        fields={
            "amount": {**_TEXT, "description": 'Of a month, as "250.00".'},
            "currency": {**_TEXT, "default": "USD"},
            "workflow": _TEXT,
            "tag": _TEXT,
            "setBy": _TEXT,
        },
    ),
    Route(
        "DELETE",
        "/api/budgets/{name}",
        budgets.remove_budget,
        cost_views.BudgetRemoved,
        query=("project",),
    ),
    Route("POST", "/api/sql", sql.ask, views.SqlAnswer, takes=(JSON,), query=("atLeast",)),
    Route(
        "GET",
        "/api/dead-letters",
        dead_letters.list_dead_letters,
        views.DeadLetterList,
        query=("topic", "error", "state", "since", *_PAGE),
    ),
    Route("GET", "/api/dead-letters/{id}", dead_letters.get_dead_letter, views.DeadLetterView),
    Route(
        "POST",
        "/api/dead-letters/{id}/replay",
        dead_letters.replay_dead_letter,
        views.DeadLetterView,
        202,
        (JSON,),
    ),
    Route(
        "POST",
        "/api/dead-letters/{id}/purge",
        dead_letters.purge_dead_letter,
        views.DeadLetterView,
        takes=(JSON,),
    ),
    Route("GET", "/api/schemas/workflow.json", w.workflow_schema),
    Route("GET", "/", page.index),
    Route("GET", "/ui/{file}", page.asset),
)


def add_routes(app: web.Application) -> None:
    """Bind every route of the list."""
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _strict(route))


def _strict(route: Route) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        known_parameters(request, *route.query)
        return await route.handler(request)

    return handler

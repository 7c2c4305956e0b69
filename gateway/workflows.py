"""Workflows: publishing, reading, retiring and triggering them."""

from typing import Any, Final
from uuid import uuid4

import msgspec
from aiohttp import web

from gateway import version_diff
from gateway.paging import page_of
from gateway.requests import answer, document, event_body, idempotency_key, json_object
from gateway.run_views import RunAccepted
from gateway.services import AGENTS, CATALOG, SERVICES, STARTS, WRITER
from gateway.views import (
    ChangeView,
    Published,
    Retired,
    VersionDiff,
    VersionView,
    WorkflowDetail,
    WorkflowList,
    WorkflowView,
    moment,
)
from streams import catalog, codec, publishing
from streams.definition_limits import DefinitionLimits
from streams.errors import CallerError, DefinitionError, NotFoundError, Problem
from streams.foresight import foreseen
from streams.ids import run_id
from streams.messages import Start
from streams.plan import Plan, parse
from streams.records import RunStatus, Trigger
from streams.topics import INBOX
from streams.trigger import DEFAULT_PROJECT, trace_context
from streams.workflow import json_schema

MANUAL_TYPE: Final = "commandcenter.manual"


async def list_workflows(request: web.Request) -> web.Response:
    """The active workflows, by project and name, a page at a time; `project` narrows."""
    found = list(request.app[CATALOG].catalog.workflows(request.query.get("project")))
    page = page_of(request, found, _project_and_name, tuple[str, str])
    return answer(
        WorkflowList(workflows=[_view(published) for published in page.entries], next=page.next)
    )


async def publish_workflow(request: web.Request) -> web.Response:
    """Publish a definition (JSON or YAML): 201 with the new version, 200 if it is the latest.

    With `check=true` nothing is published: 200 says what would be.
    """
    definition = await document(request)
    given = request.query.get("check", "false")
    if given not in ("true", "false"):
        raise CallerError(f"check={given!r} is neither true nor false")
    if given == "true":
        return await _would_publish(request, definition)
    return await _publish(request, definition)


async def put_workflow(request: web.Request) -> web.Response:
    """Publish a definition under its name; the document may leave the name out."""
    definition = await document(request)
    name = request.match_info["name"]
    if definition.setdefault("name", name) != name:
        raise CallerError(f"the definition is named {definition['name']!r}, the address {name!r}")
    return await _publish(request, definition)


async def get_workflow(request: web.Request) -> web.Response:
    """A workflow with its versions; `version` chooses one, else the latest is shown.

    The versions come a page at a time, the newest first.
    """
    project, name = _named(request)
    known = request.app[CATALOG].catalog
    published = _chosen(known, project, name, request.query.get("version"))
    active = known.active(project, name)
    page = page_of(request, known.versions(project, name), lambda each: -_number(each), int)
    versions = [
        VersionView(
            version=each.record.version,
            digest=each.record.digest,
            published_at=moment(each.record.published_at),
            active=active is not None and each.record.version == active.record.version,
        )
        for each in page.entries
    ]
    return answer(
        WorkflowDetail(
            name=name,
            project=project,
            version=published.record.version,
            active=active is not None and active.record.version == published.record.version,
            definition=published.record.definition,
            versions=versions,
            next=page.next,
        )
    )


async def diff_versions(request: web.Request) -> web.Response:
    """What changed between two versions, by default between the latest and the one before it."""
    project, name = _named(request)
    known = request.app[CATALOG].catalog
    new = _chosen(known, project, name, request.query.get("to"), "to")
    given = request.query.get("from")
    if given is None:
        earlier = [each for each in known.versions(project, name) if _number(each) < _number(new)]
        if not earlier:
            raise NotFoundError(
                f"workflow {name!r} has no version before {_number(new)} to compare with"
            )
        old = earlier[0]
    else:
        old = _chosen(known, project, name, given, "from")
    before, after = (msgspec.json.decode(each.record.definition) for each in (old, new))
    names = (f"{name} v{_number(old)}", f"{name} v{_number(new)}")
    return answer(
        VersionDiff(
            name=name,
            project=project,
            old=_number(old),
            new=_number(new),
            diff=version_diff.diff(before, after, *names),
            changes=[
                ChangeView(path=each.path, change=each.kind, old=each.old, new=each.new)
                for each in version_diff.changes(before, after)
            ],
        )
    )


def _project_and_name(published: catalog.Published) -> tuple[str, str]:
    return published.record.project, published.record.name


def _number(published: catalog.Published) -> int:
    return published.record.version


async def retire_workflow(request: web.Request) -> web.Response:
    """End the workflow for new runs; runs in progress go on, and it can be published again."""
    project, name = _named(request)
    reader, writer = request.app[CATALOG], request.app[WRITER]
    version = await publishing.retire(await writer.producer(), reader, project, name)
    return answer(Retired(name=name, project=project, version=version))


async def trigger_workflow(request: web.Request) -> web.Response:
    """Start a run; the body, a JSON object, is its context (`{{ context.… }}`).

    The same `Idempotency-Key` gives the same run, however often it is sent.
    """
    project, name = _named(request)
    context = await json_object(request, event_body)
    event_id = idempotency_key(request) or uuid4().hex
    active = await _active(request, project, name)
    trigger = Trigger(
        id=event_id,
        source=f"/api/workflows/{name}/trigger",
        type=MANUAL_TYPE,
        data=await request.app[SERVICES].blobs.packed(
            project, msgspec.Raw(msgspec.json.encode(context))
        ),
    )
    start = Start(
        run=run_id(project, name, trigger.source, event_id),
        project=project,
        workflow=name,
        version=active.record.version,
        trigger=trigger,
        traceparent=trace_context(request.headers.get("traceparent")),
    )
    await request.app[WRITER].write(INBOX, start.run, codec.encode(start))
    request.app[STARTS].add(start, int(request.app[SERVICES].clock() * 1000))
    location = {"Location": f"/api/runs/{start.run}"}
    return answer(RunAccepted(workflow_run_id=start.run, status=RunStatus.PENDING), 202, location)


async def workflow_schema(_request: web.Request) -> web.Response:
    """The JSON Schema of a definition."""
    return web.json_response(json_schema(), content_type="application/schema+json")


async def check_definition(request: web.Request, definition: dict[str, Any]) -> Plan:
    """The plan of a definition that can be published now; `DefinitionError` with all faults."""
    plan = parse(definition)
    services = request.app[SERVICES]
    limits = DefinitionLimits(
        services.definition_limit, services.nodes_limit, services.fan_out_limit
    )
    limits.check_size(plan.spec)
    agents = request.app[AGENTS]

    def of_agents() -> list[Problem]:
        return [*foreseen(plan, agents.output_of), *agents.problems(plan.spec)]

    if of_agents():  # perhaps it registered a moment ago
        await agents.caught_up()
    found = [*limits.problems(plan.spec), *of_agents()]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise DefinitionError(
            f"workflow {plan.spec.name!r}: {found[0].message}{more}", tuple(found)
        )
    return plan


async def _publish(request: web.Request, definition: dict[str, Any]) -> web.Response:
    plan = await check_definition(request, definition)
    spec = plan.spec
    version, created = await publishing.publish(
        await request.app[WRITER].producer(), request.app[CATALOG], spec
    )
    return answer(
        Published(name=spec.name, project=spec.project, version=version, created=created),
        201 if created else 200,
        {"Location": f"/api/workflows/{spec.name}"},
    )


async def _would_publish(request: web.Request, definition: dict[str, Any]) -> web.Response:
    spec = (await check_definition(request, definition)).spec
    known = request.app[CATALOG].catalog
    active, latest = (find(spec.project, spec.name) for find in (known.active, known.latest))
    same = active is not None and active.record.digest == spec.digest
    version = (0 if latest is None else _number(latest)) + (not same)
    return answer(
        Published(name=spec.name, project=spec.project, version=version, created=not same)
    )


def _named(request: web.Request) -> tuple[str, str]:
    return request.query.get("project", DEFAULT_PROJECT), request.match_info["name"]


async def _active(request: web.Request, project: str, name: str) -> catalog.Published:
    reader = request.app[CATALOG]
    active = reader.catalog.active(project, name)
    if active is None:  # perhaps it was published a moment ago
        await reader.caught_up()
        active = reader.catalog.active(project, name)
    if active is None:
        names = ", ".join(p.record.name for p in reader.catalog.workflows(project))
        raise NotFoundError(
            f"there is no active workflow {name!r} in project {project!r}"
            f" (workflows: {names or 'none'})"
        )
    return active


def _chosen(
    known: catalog.Catalog,
    project: str,
    name: str,
    version: str | None,
    parameter: str = "version",
) -> catalog.Published:
    if version is None:
        published = known.latest(project, name)
    elif version.isascii() and version.isdigit():
        published = known.version(project, name, int(version[:9]))
    else:
        raise CallerError(f"{parameter}={version!r} is not a number")
    if published is None:
        which = "" if version is None else f" version {version} of"
        raise NotFoundError(f"there is no{which} workflow {name!r} in project {project!r}")
    return published


def _view(published: catalog.Published) -> WorkflowView:
    record = published.record
    try:
        spec, problem = published.plan.spec, None
    except DefinitionError as error:
        spec, problem = None, str(error)
    return WorkflowView(
        name=record.name,
        project=record.project,
        version=record.version,
        description="" if spec is None else spec.description,
        event=None if spec is None else spec.trigger.event,
        filter=None if spec is None else spec.trigger.filter,
        nodes=0 if spec is None else len(spec.nodes),
        tags=() if spec is None else spec.tags,
        published_at=moment(record.published_at),
        digest=record.digest,
        problem=problem,
    )

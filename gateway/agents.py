"""Agents: who can be asked to do what."""

from aiohttp import web

from gateway.requests import answer
from gateway.services import AGENTS
from gateway.views import AgentList, AgentView, moment
from streams.records import AgentRecord


async def list_agents(request: web.Request) -> web.Response:
    """Every agent that a worker registered."""
    return answer(AgentList(agents=[_view(record) for record in request.app[AGENTS].all()]))


async def get_agent(request: web.Request) -> web.Response:
    """One agent with its actions and their JSON Schemas."""
    return answer(_view(request.app[AGENTS].get(request.match_info["name"])))


def _view(record: AgentRecord) -> AgentView:
    return AgentView(
        name=record.name,
        version=record.version,
        worker=record.worker,
        registered_at=moment(record.registered_at),
        descriptor=record.descriptor,
    )

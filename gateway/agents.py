"""Agents: who can be asked to do what."""

from aiohttp import web

from gateway.agents_view import AgentsView
from gateway.paging import page_of
from gateway.requests import answer
from gateway.services import AGENTS
from gateway.views import AgentList, AgentView, ServerView, moment
from streams.registry import AgentRecord


async def list_agents(request: web.Request) -> web.Response:
    """The agents that workers registered, by name, a page at a time, and who serves them now."""
    agents = request.app[AGENTS]
    page = page_of(request, agents.all(), lambda record: record.name, str)
    return answer(
        AgentList(agents=[_view(agents, record) for record in page.entries], next=page.next)
    )


async def get_agent(request: web.Request) -> web.Response:
    """One agent with its actions and their JSON Schemas, and who serves it now."""
    agents = request.app[AGENTS]
    return answer(_view(agents, agents.get(request.match_info["name"])))


def _view(agents: AgentsView, record: AgentRecord) -> AgentView:
    servers = agents.servers(record.name)
    return AgentView(
        name=record.name,
        version=record.version,
        worker=record.worker,
        registered_at=moment(record.registered_at),
        descriptor=record.descriptor,
        alive=bool(servers),
        capacity=sum(server.serving.capacity for server in servers),
        in_hand=sum(server.serving.in_hand for server in servers),
        workers=[
            ServerView(
                worker=server.worker,
                version=server.serving.version,
                capacity=server.serving.capacity,
                in_hand=server.serving.in_hand,
                started_at=moment(server.started_at),
                last_seen=moment(round(server.last_seen * 1000)),
            )
            for server in servers
        ],
    )

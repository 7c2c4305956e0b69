"""Agents: the SDK, the runtime that consumes tasks, and the built-in agents."""

from agents.action import Action
from agents.agent import Agent
from agents.context import Context
from agents.errors import PermanentError
from agents.model import Model
from agents.registry import AgentRegistry, builtin, load
from streams.errors import AgentError

__all__ = [
    "Action",
    "Agent",
    "AgentError",
    "AgentRegistry",
    "Context",
    "Model",
    "PermanentError",
    "builtin",
    "load",
]

"""Agents: the SDK, the runtime that consumes tasks, and the built-in agents."""

from agents.action import Action
from agents.agent import Agent
from agents.blob import Blob
from agents.context import Context
from agents.errors import PermanentError
from agents.model import Model
from agents.readable import Readable
from agents.registry import AgentRegistry, builtin, load
from agents.secrets import Secrets
from streams.errors import AgentError

__all__ = [
    "Action",
    "Agent",
    "AgentError",
    "AgentRegistry",
    "Blob",
    "Context",
    "Model",
    "PermanentError",
    "Readable",
    "Secrets",
    "builtin",
    "load",
]

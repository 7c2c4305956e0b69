"""The one error that an agent's author may raise on purpose."""

from streams.errors import AgentError


class PermanentError(AgentError):
    """The action failed and trying again cannot help (any other exception is tried again)."""

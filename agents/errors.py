"""The one error that an agent's author may raise on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager

from streams.errors import AgentError


class PermanentError(AgentError):
    """The action failed and trying again cannot help (any other exception is tried again)."""


@contextmanager
def needing_extra() -> Iterator[None]:
    """Says how to install what an import does not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed; install the extra: commandcenter[agents]"
        ) from error

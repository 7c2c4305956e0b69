"""Errors of sandboxes: of one that does not work, and of what ran into a limit there."""

from agents.errors import PermanentError
from agents.sandbox.job import FailureKind
from streams.errors import OperatorError


class SandboxError(OperatorError):
    """No job can be done; the text says what is wrong and what to do."""


class LimitError(PermanentError):
    """What an action has started ran into a limit of the sandbox: `kind` says which."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

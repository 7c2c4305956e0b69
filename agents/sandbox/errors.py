"""The error of a sandbox that does not work itself."""

from streams.errors import OperatorError


class SandboxError(OperatorError):
    """No job can be done; the text says what is wrong and what to do."""

"""Errors, typed by who has to act.

Expected failure of a step is data (see `streams.records.Failure`), never an exception. An exception
is either a fault of somebody outside (one of the types below, its text says what is wrong, where,
and what to do) or a defect of ours (any other type).
"""

from collections.abc import Iterable


class CommandCenterError(Exception):
    """Base of every error whose text is meant to be read by a person."""


class CallerError(CommandCenterError):
    """The caller's request is wrong: a malformed event, unknown run, bad filter."""


class TooLargeError(CallerError):
    """The caller sent more than a stated limit allows."""


class NotFoundError(CallerError):
    """The caller named something that does not exist."""


class DefinitionError(CommandCenterError):
    """The workflow author's definition is wrong.

    `problems` lists every fault found, each with the path of the field it is about.
    """

    def __init__(self, message: str, problems: "tuple[Problem, ...]" = ()) -> None:
        super().__init__(message)
        self.problems = problems


class Problem:
    """One fault in a definition: the path of the field (`("nodes", 0, "inputs")`) and the text."""

    __slots__ = ("message", "path")

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        self.path = path
        self.message = message

    def __repr__(self) -> str:
        return f"Problem({'.'.join(map(str, self.path))}: {self.message})"


def path_text(path: Iterable[str | int]) -> str:
    """A field's path as authors write it: `nodes[0].inputs`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class AgentError(CommandCenterError):
    """An agent broke its contract: raised, hung, or returned the wrong shape."""


class OperatorError(CommandCenterError):
    """The operator has to act: a setting, a port, a disk, a broker or store out of reach."""


class UnreadableRecordError(CommandCenterError):
    """A record on a topic cannot be decoded; it belongs into the dead letters."""

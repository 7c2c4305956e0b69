"""The CEL condition of a trigger: `event.data.branch == 'main'`.

A condition is compiled once. One that does not compile is the workflow author's fault, found when
the definition is published; one that fails on a certain event means that the event does not match,
with the reason said. The only variable is `event`: id, source, type, subject, time, data.
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import cel
import msgspec

from streams.errors import DefinitionError, Problem
from streams.records import Trigger
from streams.workflow import WorkflowSpec

MAX_LENGTH: Final = 4_096
PATH: Final = ("trigger", "filter")


class Verdict(NamedTuple):
    """Whether an event meets a condition; `reason` says why it could not be told."""

    matched: bool
    reason: str = ""


class Condition:
    """A compiled CEL expression over `event`."""

    __slots__ = ("_program", "text")

    def __init__(self, text: str) -> None:
        """Compile; `DefinitionError` if it is malformed or does not look at the event."""
        self.text = text
        if len(text) > MAX_LENGTH:
            raise _problem(f"the expression has {len(text):,} characters, {MAX_LENGTH:,} may be")
        try:
            self._program = cel.compile(text)
        except ValueError as error:
            raise _problem(f"not a CEL expression: {_syntax(str(error))}") from error
        if "event" not in self._program.variables():
            raise _problem("the expression does not look at the event: use event.type, event.data")

    def check(self, event: dict[str, Any]) -> Verdict:
        """Whether the expression is true of the event (made by `event_values`)."""
        try:
            result = self._program.execute({"event": event})
        except Exception as error:  # noqa: BLE001  # CEL raises Python's errors of every kind
            if isinstance(error, KeyError):
                return Verdict(False, f"the event has no {error}")
            return Verdict(False, f"the expression failed: {error}")
        if isinstance(result, bool):
            return Verdict(result)
        return Verdict(False, f"the expression gave {type(result).__name__}, not true or false")


@lru_cache(maxsize=1024)
def compiled(text: str) -> Condition:
    """The condition of this text, compiled at most once; errors as for `Condition`."""
    return Condition(text)


def check(spec: WorkflowSpec) -> None:
    """`DefinitionError` if the workflow's trigger has a condition that does not compile."""
    if spec.trigger.filter is not None:
        compiled(spec.trigger.filter)


def event_values(trigger: Trigger) -> dict[str, Any]:
    """What a condition sees as `event`: made once an event, for all conditions."""
    return {
        "id": trigger.id,
        "source": trigger.source,
        "type": trigger.type,
        "subject": trigger.subject,
        "time": trigger.time,
        "data": msgspec.json.decode(trigger.data),
    }


def _problem(message: str) -> DefinitionError:
    return DefinitionError(f"{'.'.join(PATH)}: {message}", (Problem(PATH, message),))


def _syntax(text: str) -> str:
    """The part of the compiler's message that says where and what."""
    _, _, after = text.partition("ERROR: <input>:")
    return after.splitlines()[0] if after else text.splitlines()[0]

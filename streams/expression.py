"""CEL expressions in definitions: `event.data.branch == 'main'`, `nodes.scan.output.total > 0`.

An expression is compiled once. One that does not compile, or uses a name that its place does not
have, is the workflow author's fault and found when the definition is published. One that fails on
certain values gives a `Verdict` with the reason; whose fault that is, the place says.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from streams.records import Trigger

MAX_LENGTH: Final = 4_096
# A name after `nodes` or `event`; strings are matched so that what stands in them is passed over.
_LOOKS_AT: Final = re.compile(
    r"""(?<![\w.])(?P<root>nodes|event)(?:\.(?P<name>\w+)\b(?!\s*\()|\[(?P<q>['"])(?P<key>[\w-]+)(?P=q)\])"""
    r"""|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
)
# The name that a macro gives to each element: `x` of `context.list.exists(x, x > 1)`.
_BINDS: Final = re.compile(
    r"""\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*(?P<name>[A-Za-z_]\w*)\s*,"""
    r"""|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
)
_LOCAL: Final = re.compile(r"\(\s*(nodes|event)\s*,")


_NAMES: Final = frozenset({"event", "context", "nodes", "run", "failure"})
"""What there is somewhere: a macro that gives such a name to elements may mean it elsewhere."""


class ExpressionError(ValueError):
    """The text is no expression, or not one for its place."""


class Verdict(NamedTuple):
    """Whether a condition is met; `reason` says why it could not be told."""

    matched: bool
    reason: str = ""


class Expression:
    """A compiled CEL expression; `variables` are the names that it uses and does not make."""

    __slots__ = ("_program", "text", "variables")

    def __init__(self, text: str) -> None:
        """Compile; `ExpressionError` says what is wrong."""
        self.text = text
        if len(text) > MAX_LENGTH:
            raise ExpressionError(
                f"the expression has {len(text):,} characters, {MAX_LENGTH:,} may be"
            )
        import cel  # a compiler: a tenth of a second that only expressions need

        try:
            self._program = cel.compile(text)
        except ValueError as error:
            hint = " (a template has no place here: context.x, without braces)"
            braces = hint if "{{" in text else ""
            raise ExpressionError(f"not a CEL expression{braces}: {_syntax(str(error))}") from error
        made = {found["name"] for found in _BINDS.finditer(text)}
        self.variables = frozenset(self._program.variables()) - (made - _NAMES)

    def expect(self, *names: str, needed: str = "") -> None:
        """`ExpressionError` if it uses other names than these, or does not use `needed`."""
        unknown = sorted(self.variables - set(names))
        if unknown:
            raise ExpressionError(
                f"the expression uses {unknown[0]!r}; here there are {', '.join(names)}"
            )
        if needed and needed not in self.variables:
            raise ExpressionError(
                f"the expression does not look at the {needed}: use {needed}.type, {needed}.data"
            )

    def looks_at(self) -> Iterator[tuple[str, str]]:
        """What it names: (`nodes`, a node) and (`event`, a field of the event)."""
        if _LOCAL.search(self.text):  # a macro's own variable, `x.exists(event, …)`, hides them
            return
        for found in _LOOKS_AT.finditer(self.text):
            if root := found["root"]:
                yield root, found["name"] or found["key"]

    def check(self, values: Mapping[str, Any]) -> Verdict:
        """Whether it is true of these values."""
        try:
            result = self._program.execute(dict(values))
        except Exception as error:  # noqa: BLE001  # CEL raises Python's errors of every kind
            if isinstance(error, KeyError):
                return Verdict(False, f"there is no {error}")
            return Verdict(False, f"the expression failed: {error}")
        if isinstance(result, bool):
            return Verdict(result)
        return Verdict(False, f"the expression gave {type(result).__name__}, not true or false")


@lru_cache(maxsize=1024)
def compiled(text: str) -> Expression:
    """The expression of this text, compiled at most once; errors as for `Expression`."""
    return Expression(text)


def event_values(trigger: Trigger) -> dict[str, Any]:
    """What an expression sees as `event`: made once an event, for all expressions."""
    return {**event_fields(trigger), "data": msgspec.json.decode(trigger.data)}


def event_fields(trigger: Trigger) -> dict[str, Any]:
    """What an event is to templates and expressions; its data is the JSON as it travels."""
    return {
        "id": trigger.id,
        "source": trigger.source,
        "type": trigger.type,
        "subject": trigger.subject,
        "time": trigger.time,
        "data": trigger.data,
    }


def _syntax(text: str) -> str:
    """The part of the compiler's message that says where and what."""
    _, _, after = text.partition("ERROR: <input>:")
    return after.splitlines()[0] if after else text.splitlines()[0]

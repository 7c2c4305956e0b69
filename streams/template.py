"""Templates: `{{ context.path }}`, `{{ event.path }}`, `{{ nodes.<id>.output.path }}` and more.

The roots are `context` (the trigger's data), `event`, `nodes.<id>` with `output`, `status` and
`error`, `run`; for the items of a fan-out `item` and `index`; in a failure handler `failure`.

A string that is one template keeps the type of what it refers to; inside a longer string the value
is written out (strings as they are, everything else as JSON). A path is made of names and list
positions joined by dots: `nodes.scan.output.findings.0.file`. There are no functions and no
conditions here: a template only refers.
"""

import re
from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec

from streams.errors import CommandCenterError

ROOTS: Final = ("context", "event", "nodes", "run", "item", "index", "failure")
NODE_PARTS: Final = ("output", "status", "error")

_TEMPLATE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_BEGUN: Final = re.compile(rf"\{{\{{\s*(?:{'|'.join(ROOTS)})\b[^{{}}]*")
_POSITION: Final = re.compile(r"[0-9]{1,9}")
_MAX_DEPTH: Final = 100
_PATH: Final = re.compile(r"[A-Za-z_][\w\-]*(?:\.[\w\-]+)*")


class TemplateError(ValueError):
    """A template is malformed, or points at something that is not there."""


class LostPayloadError(TemplateError, CommandCenterError):
    """The payload that is referred to was kept once, and is gone or damaged for good."""


class Reference(NamedTuple):
    """What one `{{ … }}` refers to: its text and the path's parts."""

    text: str
    path: tuple[str, ...]

    @property
    def node(self) -> str | None:
        """The node that is meant, if one is."""
        return self.path[1] if self.path[0] == "nodes" else None


Scope = Callable[[Reference], Any]
"""Gives the value that the first parts of a reference name, and with it the whole reference's."""


def _reference(text: str) -> Reference:
    """Parse the inside of one pair of braces."""
    text = text.strip()
    if not _PATH.fullmatch(text):
        raise TemplateError(f"'{{{{ {text} }}}}' is not a path like context.repository.name")
    path = tuple(text.split("."))
    if path[0] not in ROOTS:
        raise TemplateError(
            f"'{{{{ {text} }}}}' begins with {path[0]!r}; use one of {', '.join(ROOTS)}"
        )
    if path[0] == "nodes" and (len(path) < 3 or path[2] not in NODE_PARTS):
        raise TemplateError(
            f"'{{{{ {text} }}}}' must read nodes.<id>.output, a path below it,"
            " nodes.<id>.status or nodes.<id>.error"
        )
    return Reference(text, path)


_Render = Callable[[Scope], Any] | Reference
"""Makes a value; a definition is compiled into these once, because runs render it all the time.

What is a reference and nothing else stands for itself: most inputs are.
"""


class Template:
    """A value (any JSON value) with its references found and checked once."""

    __slots__ = ("_render", "_value", "references")

    def __init__(self, value: Any) -> None:
        """Compile; `TemplateError` if a string in it has a malformed template."""
        found: list[Reference] = []
        self._render = _compile(value, found)
        self._value = value
        self.references = tuple(found)

    @property
    def reference(self) -> Reference | None:
        """The reference that the value is, where it is one and nothing else."""
        return self._render if isinstance(self._render, Reference) else None

    def unclosed(self) -> Iterator[str]:
        """What begins as a template does and has no end, so that it stays the text that it is."""
        waiting = [self._value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                yield from _BEGUN.findall(_TEMPLATE.sub("", value))
            elif isinstance(value, dict):
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value

    def render(self, scope: Scope) -> Any:
        """The value with every reference replaced; `TemplateError` if one points nowhere."""
        return _made(self._value, self._render, scope)


def _made(value: Any, render: _Render | None, scope: Scope) -> Any:
    if render is None:
        return value
    return scope(render) if isinstance(render, Reference) else render(scope)


def _compile(value: Any, found: list[Reference], depth: int = 0) -> _Render | None:
    """How to make the value; None where it has no references and is what it is."""
    if depth > _MAX_DEPTH:
        raise TemplateError(f"inputs are nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        return _compile_text(value, found)
    if isinstance(value, dict):
        return _compile_object(value, found, depth + 1)
    if isinstance(value, list):
        return _compile_list(value, found, depth + 1)
    if value is None or isinstance(value, (bool, int)):
        return None
    if isinstance(value, float) and isfinite(value):
        return None
    raise TemplateError(
        f"{value!r} ({type(value).__name__}) cannot be written as JSON: put it in quotes"
    )


def _compile_object(value: dict[str, Any], found: list[Reference], depth: int) -> _Render | None:
    for key in value:
        if not isinstance(key, str):
            raise TemplateError(f"the key {key!r} is not a string: put it in quotes")
    parts = [(key, item, _compile(item, found, depth)) for key, item in value.items()]
    if all(render is None for _, _, render in parts):
        return None
    return lambda scope: {
        key: scope(render) if type(render) is Reference else _made(item, render, scope)
        for key, item, render in parts
    }


def _compile_list(value: list[Any], found: list[Reference], depth: int) -> _Render | None:
    parts = [(item, _compile(item, found, depth)) for item in value]
    if all(render is None for _, render in parts):
        return None
    return lambda scope: [_made(item, render, scope) for item, render in parts]


def _compile_text(text: str, found: list[Reference]) -> _Render | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TemplateError(f"{text!r} is not text that JSON can hold: {error.reason}") from error
    parts: list[str | Reference] = []
    end = 0
    for match in _TEMPLATE.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        reference = _reference(match[1])
        found.append(reference)
        parts.append(reference)
        end = match.end()
    if not parts:
        return None
    if end < len(text):
        parts.append(text[end:])
    if len(parts) == 1 and isinstance(parts[0], Reference):
        return parts[0]
    return lambda scope: "".join(_texts(parts, scope))


def _texts(parts: list[str | Reference], scope: Scope) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            value = scope(part)
            yield value if isinstance(value, str) else msgspec.json.encode(value).decode()


def follow(
    value: Any, reference: Reference, skip: int, opened: Callable[[Any], Any] = lambda value: value
) -> Any:
    """The value at the reference's path below its first `skip` parts, which gave `value`.

    `opened` gives what a value stands for, where the path leads into it.
    """
    for depth in range(skip, len(reference.path)):
        step = reference.path[depth]
        value = opened(value)
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and _POSITION.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            raise TemplateError(_nowhere(value, reference, depth))
    return value


def _nowhere(value: Any, reference: Reference, depth: int) -> str:
    parent = ".".join(reference.path[:depth])
    if isinstance(value, dict):
        names = sorted(value)[:12]
        there = f"{parent} has {', '.join(names)}" if names else f"{parent} is empty"
    elif isinstance(value, list):
        there = f"{parent} is a list of {len(value)}"
    else:
        there = f"{parent} is {kind_of(value)}"
    return f"'{{{{ {reference.text} }}}}' points nowhere: {there}, not {reference.path[depth]!r}"


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)

"""YAML text with one value changed.

A plain or quoted scalar is replaced where it stands, and every other character stays. Anything else
goes through ruamel.yaml's round trip, in the indentation that gives back the unchanged file as it
is; a file that has none is not touched.
"""

import io
import json
from itertools import product
from typing import Any, Final

from agents.errors import PermanentError
from agents.yaml_aliases import MOST, size

_INDENTS: Final = tuple(
    (mapping, sequence, offset)
    for mapping, (sequence, offset) in product((2, 4), ((2, 0), (4, 2), (4, 0), (6, 4)))
)


class YamlText:
    """A YAML file of one document. Raises `PermanentError`."""

    def __init__(self, text: str) -> None:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        self._text = text
        try:
            self._node = YAML(typ="safe", pure=True).compose(text)
            if size(self._node) > MOST:
                raise PermanentError("its aliases make it too large")
            self.data: Any = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError) as error:
            problem = getattr(error, "problem", None) or getattr(error, "context", None) or error
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark is not None else ""
            raise PermanentError(f"it is not YAML of one document: {problem}{where}") from error

    def with_scalar(self, path: tuple[str | int, ...], value: Any, remove: bool) -> str | None:
        """The text with another scalar in a scalar's place; `None` where that is not the case."""
        from ruamel.yaml.nodes import ScalarNode

        node = self._find(path)
        if remove or isinstance(value, dict | list) or not isinstance(node, ScalarNode):
            return None
        start, end = node.start_mark.index, node.end_mark.index
        old = self._text[start:end]
        if node.style not in {None, "", "'", '"'} or old[:1] in {"&", "!", "*", ""}:
            return None
        return self._text[:start] + _scalar(value, node.style) + self._text[end:]

    def round_trip(self, path: tuple[str | int, ...], value: Any, remove: bool) -> str | None:
        """The text as ruamel.yaml writes it; `None` where it would change more than asked."""
        newline = "\r\n" if "\r\n" in self._text else "\n"
        text = self._text.replace("\r\n", "\n")
        for indent in _INDENTS:
            for has_start in (False, True):
                yaml = _writer(indent, has_start)
                document = yaml.load(text)
                if _written(yaml, document) != text:
                    continue
                holder = document
                *steps, last = path
                for step in steps:
                    holder = holder[step]
                if remove:
                    del holder[last]
                elif isinstance(holder, list) and last == len(holder):
                    holder.append(value)
                else:
                    holder[last] = value
                return _written(yaml, document).replace("\n", newline)
        return None

    def _find(self, path: tuple[str | int, ...]) -> Any:
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        node = self._node
        for step in path:
            if isinstance(node, MappingNode):
                node = next((value for key, value in node.value if key.value == step), None)
            elif isinstance(node, SequenceNode) and isinstance(step, int):
                node = node.value[step] if step < len(node.value) else None
            else:
                return None
        return node


def _scalar(value: Any, style: str | None) -> str:
    from ruamel.yaml import YAML

    if not isinstance(value, str):
        return json.dumps(value)
    if style == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if not style and value.isprintable() and ": " not in value and " #" not in value:
        try:
            # In a list of one flow, so that what ends a flow needs quotes as well.
            is_plain = YAML(typ="safe", pure=True).load(f"[{value}]") == [value]
        except Exception:  # noqa: BLE001 -- whatever the parser says of it, it needs quotes
            is_plain = False
        if is_plain:
            return value
    return json.dumps(value, ensure_ascii=False)


def _writer(indent: tuple[int, int, int], has_start: bool) -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.explicit_start = has_start
    mapping, sequence, offset = indent
    yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
    return yaml


def _written(yaml: Any, document: Any) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()

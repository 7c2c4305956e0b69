"""JSON text with one value changed, and every other character as it was.

tree-sitter says where a value stands; only its characters are replaced.
"""

import json
import re
from typing import Any, Final

from agents.errors import PermanentError

_INDENT: Final = re.compile(rb"\n([ \t]+)\S")


class JsonText:
    """A JSON document. Raises `PermanentError` for what is not strict JSON."""

    def __init__(self, content: bytes) -> None:
        import tree_sitter_json
        from tree_sitter import Language, Parser

        try:
            json.loads(content)
        except (ValueError, RecursionError) as error:
            raise PermanentError(f"it is not JSON: {error}") from error
        tree = Parser(Language(tree_sitter_json.language())).parse(content)
        if tree.root_node.has_error:
            raise PermanentError("it is not JSON that can be edited in place")
        self._content = content
        (self._root,) = (it for it in tree.root_node.named_children if it.type != "comment")
        found = _INDENT.search(content)
        self._unit = found[1].decode() if found else None

    def changed(self, path: tuple[str | int, ...], value: object) -> bytes:
        """The text with `value` at `path`; the last step may be new in its object or list."""
        holder = self._at(path[:-1])
        old = self._child(holder, path[-1])
        if old is not None:
            _, node = old
            text = self._written(value, len(path) if self._spans_lines(holder) else None)
            return self._content[: node.start_byte] + text + self._content[node.end_byte :]
        self._check_new(holder, path)
        members = holder.named_children
        is_multiline = self._spans_lines(holder) if members else self._unit is not None
        depth = len(path) if is_multiline else None
        text = self._written(value, depth)
        if isinstance(path[-1], str):
            text = json.dumps(path[-1], ensure_ascii=False).encode() + b": " + text
        if members:
            # The white space before the last member is that before the new one.
            before = self._content.rindex(
                b"," if len(members) > 1 else self._content[holder.start_byte :][:1],
                holder.start_byte,
                members[-1].start_byte,
            )
            space = self._content[before + 1 : members[-1].start_byte]
            at = members[-1].end_byte
            return self._content[:at] + b"," + space + text + self._content[at:]
        inner = b""
        outer = b""
        if is_multiline and self._unit is not None:
            newline = self._newline()
            inner = newline + (self._unit * len(path)).encode()
            outer = newline + (self._unit * (len(path) - 1)).encode()
        return (
            self._content[: holder.start_byte + 1]
            + inner
            + text
            + outer
            + self._content[holder.end_byte - 1 :]
        )

    def without(self, path: tuple[str | int, ...]) -> bytes:
        """The text without the member at `path`."""
        holder = self._at(path[:-1])
        found = self._child(holder, path[-1])
        if found is None:
            raise PermanentError(f"there is nothing at {list(path)!r}")
        member, _ = found
        members = holder.named_children
        at = members.index(member)
        if at + 1 < len(members):
            start, end = member.start_byte, members[at + 1].start_byte
        elif at:
            start, end = members[at - 1].end_byte, member.end_byte
        else:
            start, end = holder.start_byte + 1, holder.end_byte - 1
        return self._content[:start] + self._content[end:]

    def value(self, path: tuple[str | int, ...]) -> object:
        """What is at `path`, which is there."""
        node = self._at(path)
        return json.loads(self._content[node.start_byte : node.end_byte])

    def _at(self, path: tuple[str | int, ...]) -> Any:
        node = self._root
        for depth, step in enumerate(path):
            found = self._child(node, step)
            if found is None:
                raise PermanentError(f"there is nothing at {list(path[: depth + 1])!r}")
            node = found[1]
        return node

    def _child(self, holder: Any, step: str | int) -> tuple[Any, Any] | None:
        """The member and its value. Of two members with one key JSON means the last."""
        found = None
        if holder.type == "object" and isinstance(step, str):
            for pair in holder.named_children:
                key = pair.child_by_field_name("key")
                if json.loads(self._content[key.start_byte : key.end_byte]) == step:
                    found = pair, pair.child_by_field_name("value")
        elif holder.type == "array" and isinstance(step, int):
            members = holder.named_children
            if 0 <= step < len(members):
                found = members[step], members[step]
        return found

    def _check_new(self, holder: Any, path: tuple[str | int, ...]) -> None:
        step = path[-1]
        is_new_key = holder.type == "object" and isinstance(step, str)
        is_appended = holder.type == "array" and step == len(holder.named_children)
        if not (is_new_key or is_appended):
            raise PermanentError(
                f"{list(path)!r} cannot be set: what is there is a {holder.type}, and "
                f"{step!r} is no place in it"
            )

    def _spans_lines(self, node: Any) -> bool:
        return bool(node.start_point.row != node.end_point.row)

    def _newline(self) -> bytes:
        return b"\r\n" if b"\r\n" in self._content else b"\n"

    def _written(self, value: object, depth: int | None) -> bytes:
        """The value as JSON, indented as the file is where it stands on lines of its own."""
        if depth is None or self._unit is None:
            return json.dumps(value, ensure_ascii=False).encode()
        text = json.dumps(value, ensure_ascii=False, indent=self._unit)
        newline = self._newline().decode() + self._unit * depth
        return text.replace("\n", newline).encode()

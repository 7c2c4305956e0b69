"""What templates and expressions of one run can refer to: context, event, nodes, run, failure.

Payloads are decoded when something first looks into them, once a decision. One that travels by
reference is passed on as the reference where it is meant as a whole, and fetched where a part of it
is, wherever it stands. A node that has ended without an output has the output null.
"""

from collections.abc import Iterable
from typing import Any, Final, Protocol

import msgspec

from streams.expression import event_fields
from streams.ids import node_key
from streams.lifecycle import SETTLED
from streams.payload import Blobs, as_reference, has_references, reference_in
from streams.records import Failure, NodeStatus, Trigger
from streams.run_state import NodeState, RunHead
from streams.template import Reference, TemplateError, follow

_MISSING: Final = object()
_SUCCESS: Final = NodeStatus.SUCCESS


class Nodes(Protocol):
    """The states of nodes and items by their keys."""

    def get(self, key: str, /) -> NodeState | None:
        """The state, None where there is none."""


class RunScope:
    """The values of one run, decoded on demand. `nodes` is read live.

    `taken_over` are nodes that never fanned out, with how many items they have all the same.
    """

    __slots__ = (
        "_blobs", "_decoded", "_head", "_nested", "_nodes", "_trigger", "failure", "taken_over",
    )  # fmt: skip

    def __init__(
        self,
        head: RunHead,
        trigger: Trigger,
        nodes: "Nodes",
        blobs: Blobs,
        failure: Failure | None = None,
    ) -> None:
        self._head = head
        self._trigger = trigger
        self._nodes = nodes
        self._blobs = blobs
        self._decoded: dict[str, Any] = {}
        self._nested = False
        self.failure = failure
        self.taken_over: dict[str, int] = {}

    def __call__(self, reference: Reference) -> Any:
        """The value referred to; `TemplateError` if there is none."""
        path = reference.path
        root = path[0]
        if root == "nodes":
            return self._part_of_node(reference)
        if root == "context" and len(path) > 1:
            context = self._decoded.get("", _MISSING)
            if context is _MISSING:
                context = self._context()
            if len(path) == 2 and not self._nested and type(context) is dict:  # most are like that
                found = context.get(path[1], _MISSING)
                if found is not _MISSING:
                    return found
            return self._below(context, reference, 1)
        return self._find(reference, _MISSING, 0)

    def _below(self, value: Any, reference: Reference, skip: int) -> Any:
        """The value at the rest of the path; most paths are one step into an object."""
        path = reference.path
        if not self._nested and len(path) == skip + 1 and type(value) is dict:
            found = value.get(path[skip], _MISSING)
            if found is not _MISSING:
                return found
        return follow(value, reference, skip, self._opened)

    def is_output(self, node: str, event: Trigger) -> bool:
        """Whether the node's output is this event."""
        state = self._nodes.get(node)
        if state is None or not isinstance(state.output, msgspec.Raw):
            return False
        output = self._output(node, state)
        if not isinstance(output, dict):
            return False
        return (output.get("id"), output.get("source")) == (event.id, event.source)

    def of_item(self, item: msgspec.Raw, index: int) -> "ItemScope":
        """The same, with `item` and `index`."""
        return ItemScope(self, item, index)

    def values(self, names: Iterable[str], nodes: Iterable[str]) -> dict[str, Any]:
        """The variables of an expression; of `nodes` those that are named.

        Raises:
            TemplateError: A payload cannot be read.
        """
        found: dict[str, Any] = {}
        for name in names:
            if name == "context":
                found[name] = self._context()
            elif name == "event":
                found[name] = self._event()
            elif name == "run":
                found[name] = self._run()
            elif name == "failure":
                found[name] = self._failure()
            elif name == "nodes":
                found[name] = {node: self._node(node) for node in nodes}
        return self._all_opened(found) if self._nested else found

    def _find(self, reference: Reference, item: Any, index: int) -> Any:
        root = reference.path[0]
        if root == "nodes":
            return self._part_of_node(reference)
        if root == "context":
            if len(reference.path) == 1 and as_reference(self._trigger.data) is not None:
                return msgspec.json.decode(self._trigger.data)
            return self._below(self._context(), reference, 1)
        if root == "event":
            return self._below(self._event(), reference, 1)
        if root == "run":
            return follow(self._run(), reference, 1)
        if root == "failure":
            return follow(self._failure(), reference, 1)
        if item is _MISSING:
            raise TemplateError(f"'{{{{ {reference.text} }}}}': there is no {root!r} here")
        return self._below(index if root == "index" else item, reference, 1)

    def _part_of_node(self, reference: Reference) -> Any:
        path = reference.path
        name, part = path[1], path[2]
        state = self._nodes.get(name)
        below = len(path) > 3  # the whole may be meant as the reference that it is
        if below and part == "output" and state is not None and state.status is _SUCCESS:
            decoded = self._decoded.get(name, _MISSING)
            if decoded is not _MISSING:
                return self._below(decoded, reference, 3)
        if part == "status":
            return NodeStatus.PENDING if state is None else state.status
        if part == "error":
            failure = None if state is None else state.failure
            return follow(_failure_value(failure), reference, 3)
        if state is None or state.status not in SETTLED:
            raise TemplateError(f"'{{{{ {reference.text} }}}}': {name!r} has no output")
        if state.items is not None:
            return self._of_items(name, state.items, reference)
        if not isinstance(state.output, msgspec.Raw):
            if count := self.taken_over.get(name):
                return self._of_items(name, count, reference)
            return follow(None, reference, 3)
        if not below and as_reference(state.output) is not None:
            return msgspec.json.decode(state.output)
        return self._below(self._output(name, state), reference, 3)

    def _of_items(self, name: str, count: int, reference: Reference) -> Any:
        """The outputs of a fan-out's items, in their order; only the one meant is decoded."""
        position = reference.path[3] if len(reference.path) > 3 else None
        if position is None:
            return [self._item_output(name, index) for index in range(count)]
        if not (position.isascii() and position.isdigit() and int(position[:9]) < count):
            raise TemplateError(
                f"'{{{{ {reference.text} }}}}' points nowhere: nodes.{name}.output is a list of"
                f" {count}, not {position!r}"
            )
        return self._below(self._item_output(name, int(position)), reference, 4)

    def _item_output(self, name: str, index: int) -> Any:
        key = node_key(name, index)
        state = self._nodes.get(key)
        if state is None or not isinstance(state.output, msgspec.Raw):
            return None
        return self._output(key, state)

    def _output(self, key: str, state: NodeState) -> Any:
        if key not in self._decoded:
            output = state.output
            raw = output if isinstance(output, msgspec.Raw) else msgspec.Raw(b"null")
            self._decoded[key] = self._read(raw, f"nodes.{key}.output")
        return self._decoded[key]

    def _node(self, name: str) -> dict[str, Any]:
        state = self._nodes.get(name)
        if state is None:
            return {"status": NodeStatus.PENDING.value, "output": None, "error": None}
        output = (
            self._output(name, state)
            if state.items is None
            else [self._item_output(name, index) for index in range(state.items)]
        )
        return {
            "status": state.status.value,
            "output": output,
            "error": _failure_value(state.failure),
        }

    def _context(self) -> Any:
        decoded = self._decoded
        if "" not in decoded:
            decoded[""] = self._read(self._trigger.data, "context")
        return decoded[""]

    def _event(self) -> dict[str, Any]:
        return {**event_fields(self._trigger), "data": self._context()}

    def _run(self) -> dict[str, Any]:
        head = self._head
        return {
            "id": head.run,
            "project": head.project,
            "workflow": head.workflow,
            "version": head.version,
            "startedAt": head.started_at,
        }

    def _failure(self) -> dict[str, Any] | None:
        return _failure_value(self.failure)

    def _read(self, payload: msgspec.Raw, where: str) -> Any:
        """The value of a payload; one that is no JSON to its depth cannot be referred to."""
        content = bytes(payload)
        if (reference := as_reference(content)) is not None:
            content = self._blobs(reference)
        self._nested = self._nested or has_references(content)
        try:
            return msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TemplateError(f"the JSON of {where} cannot be read: {error}") from error

    def _opened(self, value: Any) -> Any:
        """What the value is, or what it refers to: a payload may have big ones inside."""
        reference = reference_in(value)
        if reference is None:
            return value
        return self._read(msgspec.Raw(reference.encode()), "a payload")

    def _all_opened(self, value: Any) -> Any:
        value = self._opened(value)
        if isinstance(value, dict):
            return {key: self._all_opened(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._all_opened(part) for part in value]
        return value


class ItemScope:
    """A run's values, and those of one item of a fan-out."""

    __slots__ = ("_index", "_item", "_scope")

    def __init__(self, scope: RunScope, item: msgspec.Raw, index: int) -> None:
        self._scope = scope
        self._item = msgspec.json.decode(item)
        self._index = index

    def __call__(self, reference: Reference) -> Any:
        """The value referred to; `TemplateError` if there is none."""
        return self._scope._find(reference, self._item, self._index)  # noqa: SLF001  # its other half


def _failure_value(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {"kind": failure.kind, "message": failure.message, "node": failure.node}

"""What templates of one run can refer to: its context, its event, its nodes' outputs.

Payloads are decoded when a template first looks into them, once a decision.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from streams.records import NodeState, Trigger
from streams.template import Reference, TemplateError, follow


class RunScope:
    """The values of one run, decoded on demand. `nodes` is read live."""

    __slots__ = ("_decoded", "_nodes", "_trigger")

    def __init__(self, trigger: Trigger, nodes: Mapping[str, NodeState]) -> None:
        self._trigger = trigger
        self._nodes = nodes
        self._decoded: dict[str, Any] = {}

    def __call__(self, reference: Reference) -> Any:
        """The value referred to; `TemplateError` if there is none."""
        root = reference.path[0]
        if root == "context":
            return follow(self._data(), reference, 1)
        if root == "event":
            return follow(self._event(), reference, 1)
        node = reference.path[1]
        if node not in self._decoded:
            state = self._nodes.get(node)
            if state is None or not isinstance(state.output, msgspec.Raw):
                raise TemplateError(f"'{{{{ {reference.text} }}}}': {node!r} has no output")
            self._decoded[node] = msgspec.json.decode(state.output)
        return follow(self._decoded[node], reference, 3)

    def _data(self) -> Any:
        if "" not in self._decoded:
            self._decoded[""] = msgspec.json.decode(self._trigger.data)
        return self._decoded[""]

    def _event(self) -> dict[str, Any]:
        trigger = self._trigger
        return {
            "id": trigger.id,
            "source": trigger.source,
            "type": trigger.type,
            "subject": trigger.subject,
            "time": trigger.time,
            "data": self._data(),
        }

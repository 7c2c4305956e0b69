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
            return follow(self._data(reference), reference, 1)
        if root == "event":
            return follow(self._event(reference), reference, 1)
        node = reference.path[1]
        if node not in self._decoded:
            state = self._nodes.get(node)
            if state is None or not isinstance(state.output, msgspec.Raw):
                raise TemplateError(f"'{{{{ {reference.text} }}}}': {node!r} has no output")
            self._decoded[node] = _decoded(state.output, reference)
        return follow(self._decoded[node], reference, 3)

    def _data(self, reference: Reference) -> Any:
        if "" not in self._decoded:
            self._decoded[""] = _decoded(self._trigger.data, reference)
        return self._decoded[""]

    def _event(self, reference: Reference) -> dict[str, Any]:
        trigger = self._trigger
        return {
            "id": trigger.id,
            "source": trigger.source,
            "type": trigger.type,
            "subject": trigger.subject,
            "time": trigger.time,
            "data": self._data(reference),
        }


def _decoded(payload: msgspec.Raw, reference: Reference) -> Any:
    """The value of a payload; one that is no JSON to its depth cannot be referred to."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        where = ".".join(reference.path[:2])
        raise TemplateError(
            f"'{{{{ {reference.text} }}}}': the JSON of {where} cannot be read: {error}"
        ) from error

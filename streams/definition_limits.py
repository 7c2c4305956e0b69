"""How big a definition may be: the same for who publishes it and for who checks its file."""

from collections.abc import Sequence
from typing import NamedTuple

from streams.errors import Problem, TooLargeError
from streams.workflow import MAX_NODES, WorkflowSpec


class DefinitionLimits(NamedTuple):
    """`size`: bytes of a definition as canonical JSON. `nodes`: with those of onFailure.

    `items`: of a fan-out, where the list stands in the definition.
    """

    size: int = 256 * 1024
    nodes: int = MAX_NODES
    items: int = 20_000

    def check_size(self, spec: WorkflowSpec) -> None:
        """Raise `TooLargeError` where the definition has too many bytes."""
        size = len(spec.canonical())
        if size > self.size:
            raise TooLargeError(
                f"the definition of {spec.name!r} has {size:,} bytes as JSON,"
                f" {self.size:,} may be (COMMANDCENTER_DEFINITION_LIMIT): put big"
                " values into the event, or split the workflow"
            )

    def problems(self, spec: WorkflowSpec) -> list[Problem]:
        """What there is too much of."""
        found = []
        count = len(spec.nodes) + len(spec.on_failure)
        if count > self.nodes:
            text = (
                f"{count:,} nodes (with those of onFailure), {self.nodes:,} may be"
                " (COMMANDCENTER_NODES_LIMIT): use forEach, or split the workflow"
            )
            found.append(Problem(("nodes",), text))
        for stage, nodes in (("nodes", spec.nodes), ("onFailure", spec.on_failure)):
            for index, node in enumerate(nodes):
                items = node.for_each if isinstance(node.for_each, list) else []
                if text := items_problem(items, self.items):
                    found.append(Problem((stage, index, "forEach"), text))
        return found


def items_problem(items: Sequence[object], limit: int) -> str:
    """What is wrong with a list of so many items; empty where nothing is."""
    if len(items) <= limit:
        return ""
    return f"{len(items):,} items, {limit:,} may be (COMMANDCENTER_FAN_OUT_LIMIT)"

"""How big a definition may be: the same for who publishes it and for who checks its file."""

from typing import NamedTuple

from streams.errors import DefinitionError, Problem, TooLargeError
from streams.workflow import MAX_NODES, WorkflowSpec


class DefinitionLimits(NamedTuple):
    """`size`: bytes of a definition as canonical JSON. `nodes`: with those of onFailure."""

    size: int = 256 * 1024
    nodes: int = MAX_NODES

    def check(self, spec: WorkflowSpec) -> None:
        """Return if the definition is within the limits.

        Raises:
            TooLargeError: It has too many bytes.
            DefinitionError: It has too many nodes.
        """
        size, count = len(spec.canonical()), len(spec.nodes) + len(spec.on_failure)
        if size > self.size:
            raise TooLargeError(
                f"the definition of {spec.name!r} has {size:,} bytes as JSON,"
                f" {self.size:,} may be (COMMANDCENTER_DEFINITION_LIMIT): put big"
                " values into the event, or split the workflow"
            )
        if count > self.nodes:
            text = (
                f"{count:,} nodes (with those of onFailure), {self.nodes:,} may be"
                " (COMMANDCENTER_NODES_LIMIT): use forEach, or split the workflow"
            )
            raise DefinitionError(f"workflow {spec.name!r}: {text}", (Problem(("nodes",), text),))

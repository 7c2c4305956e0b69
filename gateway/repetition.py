"""What a run that repeats another one takes over from it, told from that one's events.

Rules:
- Done again is what failed, was cancelled, never began, or was undone, and (`rerun`) what a person
  chose; and all that depends on it, since it may come to something else now.
- Taken over is every other result. Of a fan-out that failed in part, the items that succeeded.
- Inputs that a person gave to a node stay, unless others are given now. Those that were given with
  an approval stay only where all that comes before is taken over: they were made from that.
- Items are taken over only where the list is the same.
- A run that only undoes takes over results that are not undone yet, and the others to refer to.
- A run undoes what it took over as well, where it does not succeed. So a result may be undone by a
  run that repeats the one that made it, and is then there for neither.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from msgspec import Raw

from streams.events import (
    Event,
    NodeApproved,
    NodeCancelled,
    NodeEdited,
    NodeFailed,
    NodeFannedOut,
    NodeRejected,
    NodeReused,
    NodeSkipped,
    NodeSucceeded,
    RunCancelled,
    RunEnding,
    RunFailed,
    RunTimedOut,
)
from streams.ids import COMPENSATION
from streams.plan import Plan
from streams.records import Edit, RunStatus

_NULL: Final = Raw(b"null")

Outputs = tuple[Raw, ...]
"""Of the items of a fan-out, in their order; null for those that have none."""


class Repetition(NamedTuple):
    """What is taken over, in the order in which it was done.

    `nodes` have one output, or those of their items; `items` are of nodes that are done again.
    `undone` are there to be referred to, by a run that only undoes.
    """

    nodes: tuple[tuple[str, Raw | Outputs], ...]
    items: tuple[tuple[str, int, Raw], ...]
    edits: tuple[Edit, ...]
    undone: tuple[tuple[str, Raw | Outputs], ...] = ()

    @property
    def results(self) -> int:
        """How many nodes and items are not done again."""
        return len(self.nodes) + len(self.items)


class Results:
    """What a run came to: the outputs of its nodes and items, and what became of the rest."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._outputs: dict[str, Raw | None] = {}
        self._items: dict[str, dict[int, Raw]] = {}
        self._counts: dict[str, int] = {}
        self._skipped: set[str] = set()
        self.undone_nodes: set[str] = set()
        self._edits: dict[str, Raw] = {}
        self._approved: dict[str, Raw] = {}
        """Inputs that people gave to nodes as they approved them."""
        self._only_told: frozenset[str] = frozenset()
        """Of a run that only undoes: results that were undone before it."""
        self.made: set[str] = set()
        """Nodes that were done here, or some of their items."""
        self.taken_over: set[str] = set()
        """Nodes whose results, or those of some of their items, are of the run that it repeats."""
        self.uncompensated: tuple[str, ...] = ()
        for event in events:
            self._apply(event)

    def again(self, plan: Plan, chosen: frozenset[str] = frozenset()) -> frozenset[str]:
        """The nodes that are done again: `chosen`, what did not succeed, and what depends on it."""
        open_ = {node.id for node in plan.spec.nodes} - set(self._outputs) - self._skipped
        return _with_dependents(plan, open_ | self.undone_nodes | chosen)

    def repeated(
        self, plan: Plan, chosen: frozenset[str] = frozenset(), inputs: Mapping[str, Raw] = {}
    ) -> Repetition:
        """What is taken over where `again` is done again, with `inputs` for some of that."""
        again = self.again(plan, chosen)
        below = _below(plan, again)
        anew = chosen | self.undone_nodes | below | set(inputs)
        items = tuple(
            (node, index, output)
            for node, outputs in self._items.items()
            if node in again and node not in anew
            for index, output in sorted(outputs.items())
        )
        nodes = tuple(
            (node, self._output(node))
            for node in self._outputs
            if node not in again and _is_step(plan, node)
        )
        kept = self._edits | {n: i for n, i in self._approved.items() if n not in chosen | below}
        edits = {node: raw for node, raw in kept.items() if node in again} | dict(inputs)
        return Repetition(nodes, items, tuple(Edit(node=n, inputs=i) for n, i in edits.items()))

    def undone_since(self, nodes: Iterable[str]) -> None:
        """Learn what others have undone of this run after its end."""
        self.undone_nodes.update(nodes)

    @property
    def left_to_undo(self) -> tuple[str, ...]:
        """What the run could not undo, and nobody has undone since."""
        return tuple(node for node in self.uncompensated if node not in self.undone_nodes)

    def whole(self) -> Repetition:
        """Nothing is taken over but the inputs that a person gave."""
        edits = tuple(Edit(node=node, inputs=raw) for node, raw in self._edits.items())
        return Repetition((), (), edits)

    def undone(self, plan: Plan) -> Repetition:
        """What a run needs that only undoes: results that are not undone yet, and all others."""
        partly = [node for node in self.uncompensated if node not in self._outputs]
        before = self.undone_nodes | self._only_told
        kept = [n for n in (*self._outputs, *partly) if n not in before and _is_step(plan, n)]
        rest = dict.fromkeys([*self._outputs, *self._items])
        told = [n for n in rest if n not in kept and _is_step(plan, n)]
        return Repetition(
            tuple((node, self._output(node)) for node in kept),
            (),
            (),
            tuple((node, self._output(node)) for node in told),
        )

    def _apply(self, event: Event) -> None:
        match event:
            case NodeSucceeded() | NodeReused():
                self._succeeded(event)
            case NodeFannedOut():
                self._counts[event.node] = event.count
            case NodeSkipped():
                self._skipped.add(event.node)
            case NodeFailed() | NodeCancelled():
                self._skipped.discard(event.node)
            case NodeEdited():
                self._edits[event.node] = event.inputs
            case NodeApproved() if event.item is None and isinstance(event.inputs, Raw):
                self._approved[event.node] = event.inputs
            case NodeRejected():
                self._approved.pop(event.node, None)
            case RunEnding() if event.outcome is RunStatus.SUCCESS:
                self._only_told = frozenset(self._outputs) - set(event.undo)
            case RunFailed() | RunTimedOut() | RunCancelled():
                self.uncompensated = event.uncompensated
            case _:
                pass

    def _succeeded(self, event: NodeSucceeded | NodeReused) -> None:
        output = event.output if isinstance(event.output, Raw) else None
        if event.node.endswith(COMPENSATION):
            self.undone_nodes.add(event.node.removesuffix(COMPENSATION))
            return
        (self.taken_over if isinstance(event, NodeReused) else self.made).add(event.node)
        if event.item is not None:
            self._items.setdefault(event.node, {})[event.item] = output or _NULL
        else:
            self._outputs[event.node] = output

    def _output(self, node: str) -> Raw | Outputs:
        output = self._outputs.get(node)
        if output is not None:
            return output
        items = self._items.get(node, {})
        # A node that took items over may not have come to fan out.
        count = self._counts.get(node) or max(items, default=-1) + 1
        return tuple(items.get(index, _NULL) for index in range(count))


class Kin(NamedTuple):
    """One of the runs that repeat one another; `origin` is the run that it repeats, if any."""

    run: str
    origin: str
    results: Results


def undone_of(run: str, kin: Iterable[Kin]) -> frozenset[str]:
    """The nodes of a run whose results are undone, by itself or by another one of its kin.

    A result belongs to the run that made it, however often it was taken over. `kin` has every run
    after the one that it repeats.
    """
    makers: dict[str, dict[str, frozenset[str]]] = {}
    undone: set[tuple[str, str]] = set()
    for each in kin:
        above = makers.get(each.origin, {})
        made = {node: frozenset({each.run}) for node in each.results.made}
        for node in each.results.taken_over:
            made[node] = made.get(node, frozenset()) | above.get(node, frozenset())
        makers[each.run] = made
        undone |= {(m, node) for node in each.results.undone_nodes for m in made.get(node, ())}
    return frozenset(
        node for node, by in makers[run].items() if any((maker, node) in undone for maker in by)
    )


def _is_step(plan: Plan, node: str) -> bool:
    """Whether it is a node of the run itself, not of its failure handler."""
    known = plan.nodes.get(node)
    return known is not None and not known.handler


def _below(plan: Plan, nodes: frozenset[str]) -> frozenset[str]:
    """The nodes that depend on some of these."""
    return _with_dependents(plan, {n for name in nodes for n in plan.nodes[name].dependents})


def _with_dependents(plan: Plan, nodes: Iterable[str]) -> frozenset[str]:
    """The nodes, and all that depend on them, however far."""
    found: set[str] = set()
    left = [name for name in nodes if _is_step(plan, name)]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left.extend(plan.nodes[name].dependents)
    return frozenset(found)

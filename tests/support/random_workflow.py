"""Random definitions that use every feature there is, for properties and for the simulator.

What is chosen comes from `choose`, which takes one of some options: hypothesis' draws, or a seeded
generator's. The simplest option comes first, so that a failing example shrinks to it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

Choose = Callable[[Sequence[Any]], Any]

EVENT_TYPE: Final = "go.on"
"""The type of the events that its nodes wait for."""
CORRELATION: Final = (1, 2)
"""What `event.data.k` of such an event may be."""
ROLES: Final = ("ops", "dev")
KINDS: Final = (*["agent"] * 7, "workflow", "waitForEvent", "delay", "delayUntil")

_CONDITIONS: Final = (
    "context.a == 1",
    "event.type == 't'",
    "context.a == 2",
    "context.nothing == 1",
    "run.workflow == 'never'",
    "event.type != ''",
)
_TIMES: Final = ("1s", "200ms", "10m", "1ms")
_MOMENTS: Final = ("2023-11-14T22:13:21Z", "{{ context.when }}", "{{ context.a }}", "{{ run.id }}")


def definition(
    choose: Choose,
    name: str,
    children: Sequence[str] = (),
    agents: Sequence[str] = ("x", "y"),
    timeouts: Sequence[str] = ("1d", "5s", "1h"),
) -> dict[str, Any]:
    """A workflow that starts with events of the type `t`; its nodes may run the `children`."""
    graph = _Graph(choose, children, agents)
    found = {
        "name": name,
        "trigger": {"event": "t"},
        "timeout": choose(timeouts),
        "cancelGrace": choose(("10s", "1ms", "1m")),
        "nodes": graph.nodes("n", choose((2, 1, 3, 4, 5)), handler=False),
    }
    if choose((False, False, True)):
        found["onFailure"] = graph.nodes("h", choose((1, 2)), handler=True)
    if choose((False, False, True)):
        found["retryBudget"] = choose((1, 0, 3))
    if choose((False, False, True)):
        node = choose(graph.main)
        path = choose(("status", "output", "output.n", "output.0", "error"))
        found["output"] = {"of": f"{{{{ nodes.{node}.{path} }}}}", "run": "{{ run.id }}"}
    return found


class _Graph:
    """Nodes with edges to what is above them, and references that may or may not lead somewhere."""

    def __init__(self, choose: Choose, children: Sequence[str], agents: Sequence[str]) -> None:
        self.choose = choose
        self.children = children
        self.agents = agents
        self.main: list[str] = []
        self.above: dict[str, list[str]] = {}

    def nodes(self, prefix: str, count: int, *, handler: bool) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        mine: list[str] = []
        for number in range(count):
            node = f"{prefix}{number}"
            depends = [other for other in mine if self.choose((False, True))]
            below = [a for d in depends for a in self.above[d]]
            self.above[node] = list(dict.fromkeys([*depends, *below]))
            known = [*self.above[node], *(self.main if handler else ())]
            made.append(self._node(node, depends, known, handler=handler))
            mine.append(node)
        if not handler:
            self.main = mine
        return made[:: self.choose((1, -1))]

    def _rarely(self, options: Sequence[Any]) -> Any:
        return self.choose(options) if self.choose((False, False, False, True)) else None

    def _node(
        self, node: str, depends: list[str], known: list[str], *, handler: bool
    ) -> dict[str, Any]:
        kind = self.choose(KINDS)
        if kind == "workflow" and not self.children:
            kind = "agent"
        made: dict[str, Any] = {"id": node, "dependsOn": depends}
        made |= self._kind(kind, known, handler=handler)
        run_ifs = ("allSuccess", *["always"] * 2, "noneFailed", "anyFailed")
        made["runIf"] = self.choose(run_ifs if depends else run_ifs[:-1])
        made["when"] = self._rarely(self._conditions(known))
        made["onFailure"] = self.choose(("fail", "fail", "continue"))
        made["approvalRequired"] = self._rarely((True, self._approval())) or False
        if kind in ("agent", "workflow"):
            made |= self._work(kind, known, handler=handler)
        return {field: value for field, value in made.items() if value is not None}

    def _kind(self, kind: str, known: list[str], *, handler: bool) -> dict[str, Any]:
        if kind == "agent":
            return {"agent": self.choose(self.agents), "action": "do"}
        if kind == "workflow":
            return {"workflow": self.choose(self.children)}
        if kind == "waitForEvent":
            matches = [
                None,
                "event.data.k == 1",
                "event.data.k == context.a",
                "event.data.nope == 1",
            ]
            matches += [f"nodes.{other}.status == 'SUCCESS'" for other in known[:1]]
            match = self.choose(matches)
            wait = {"event": "go.*", "timeout": self.choose(_TIMES)}
            return {kind: wait if match is None else wait | {"match": match}}
        return {kind: self.choose(_TIMES if kind == "delay" else _MOMENTS)}

    def _conditions(self, known: list[str]) -> list[str]:
        return [*_CONDITIONS, *(f"nodes.{other}.status == 'SUCCESS'" for other in known)]

    def _approval(self) -> dict[str, Any]:
        return {
            "count": self.choose((1, 2)),
            "roles": self.choose(((), ROLES[:1])),
            "deadline": self.choose(("1h", "1s")),
            "onDeadline": self.choose(("reject", "approve")),
        }

    def _work(self, kind: str, known: list[str], *, handler: bool) -> dict[str, Any]:
        fans_out = self.choose((False, False, True))
        made: dict[str, Any] = {
            "inputs": self._inputs(known, handler=handler, item=fans_out),
            "timeout": self.choose(_TIMES),
            "totalTimeout": self._rarely(("1s", "5s", "20m")),
            "retry": self._retry(),
        }
        if fans_out:
            lists: list[Any] = [["p", "q", {"r": [1]}], "{{ context.list }}", [1, 2, 3, 4], []]
            lists += ["{{ context.a }}"]
            lists += [f"{{{{ nodes.{other}.output }}}}" for other in known]
            made["forEach"] = self.choose(lists)
            made["maxParallel"] = self.choose((1, 2, 20))
            made["itemFailure"] = self.choose(("finish", "stop", "ignore"))
        if kind == "agent":
            made["startTimeout"] = self._rarely(("1s", "200ms"))
            made["heartbeatTimeout"] = self._rarely(("1s", "200ms"))
        undo = self._rarely((self._undo(),))
        made["compensate"] = None if handler else undo
        return made

    def _retry(self) -> dict[str, Any]:
        return {
            "attempts": self.choose((1, 2, 3)),
            "initialDelay": self.choose(("1ms", "100ms", "3s")),
            "jitter": self.choose((0, 0.2, 1)),
            "notOn": self.choose(((), ("Boom",), ("timeout", "not_started"))),
        }

    def _inputs(self, known: list[str], *, handler: bool, item: bool) -> dict[str, Any]:
        options = ["{{ context.a }}", "{{ event.id }}", "{{ context }}", "{{ context.nothing }}"]
        paths = ("output", "output.n", "output.list", "output.0.n", "status", "error")
        options += [f"{{{{ nodes.{n}.{path} }}}}" for n in known for path in paths]
        options += ["{{ item }}", "at {{ index }}", "{{ item.r }}"] if item else []
        options += ["{{ failure.message }}", "because {{ failure.kind }}"] if handler else []
        if self.choose((True, True, False)):
            options = [
                o for o in options if "nothing" not in o and not o.endswith((".n }}", "t }}"))
            ]
        count = self.choose((1, 0, 2))
        return {f"i{number}": self.choose(options) for number in range(count)}

    def _undo(self) -> dict[str, Any]:
        return {
            "agent": self.choose(self.agents),
            "action": "undo",
            "inputs": self.choose(({}, {"why": "{{ failure }}"}, {"why": "{{ failure.kind }}"})),
            "timeout": self.choose(_TIMES),
            "retry": self._retry(),
        }

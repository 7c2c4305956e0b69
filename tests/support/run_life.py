"""A run on its own, told what happens to it: for tests of what it then decides."""

import json
from typing import Any

import msgspec
from msgspec import Raw

from streams import codec
from streams.ids import node_key
from streams.lifecycle import RunState, evolve
from streams.messages import (
    Approval,
    Cancel,
    Message,
    Occurrence,
    Pause,
    Progress,
    Result,
    Resume,
    Start,
    Task,
    Timer,
)
from streams.payload import Reference, reference_to
from streams.plan import Plan, parse
from streams.records import Failure, RunStatus, Trigger
from streams.run import DEFAULT_LIMITS, Limits, Outcome, decide
from streams.run_state import NodeState

T0 = 1_700_000_000_000


def task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A node that is a task for an agent."""
    return {"id": name, "agent": "x", "action": "do", "dependsOn": list(depends_on), **fields}


def workflow(*nodes: dict[str, Any], **fields: Any) -> Plan:
    return parse({"name": "w", "nodes": list(nodes), **fields})


class Life:
    """A run and all that it has decided; every decision is checked to replay to the same state."""

    def __init__(
        self, *nodes: dict[str, Any], limits: Limits = DEFAULT_LIMITS, **fields: Any
    ) -> None:
        self.plan = workflow(*nodes, **fields)
        self.limits = limits
        self.now = T0
        self.state: RunState | None = None
        self.blobs: dict[str, bytes] = {}
        self.tasks: dict[str, Task] = {}
        self.outcomes: list[Outcome] = []

    # --- what it hears ---

    def hear(self, message: Message) -> list[str]:
        """What the message made: the events' types and nodes; nothing where it was ignored."""
        outcome = decide(
            self.state, message, self.now, self.plan, 0, limits=self.limits, blobs=self._blob
        )
        self.ignored = outcome.ignored
        if outcome.decision is None or outcome.state is None:
            return []
        assert evolve(self.state, outcome.decision) == outcome.state
        assert codec.decisions.decode(codec.encode(outcome.decision)) == outcome.decision
        for content in outcome.blobs:
            self.blobs[reference_to(content).digest] = content
        self.state = outcome.state
        self.outcomes.append(outcome)
        self.tasks |= {task.id: task for task in outcome.tasks}
        return [_told(event) for event in outcome.decision.events]

    def _blob(self, reference: Reference) -> bytes:
        return self.blobs[reference.digest]

    def start(self, data: Any = None, **fields: Any) -> list[str]:
        trigger = Trigger(id="e1", source="ci", type="t", data=Raw(json.dumps(data).encode()))
        where = {"run": "r1", "project": "default", "workflow": "w", "version": 1}
        return self.hear(Start(**where, trigger=trigger, **fields))

    def done(self, node: str, output: Any = None, item: int | None = None) -> list[str]:
        return self.hear(self._result(node, item, output=Raw(json.dumps(output).encode())))

    def failed(
        self, node: str, why: str = "boom", item: int | None = None, **failure: Any
    ) -> list[str]:
        fault = Failure(**{"kind": "agent_error", "message": why, "retryable": False, **failure})
        return self.hear(self._result(node, item, failure=fault))

    def _result(self, node: str, item: int | None, **answer: Any) -> Result:
        state = self.node(node, item)
        attempt = 1 if state is None else state.attempt
        return Result(
            run="r1", node=node, item=item, attempt=attempt, started_at=1, finished_at=2, **answer
        )

    def progress(self, node: str, **fields: Any) -> list[str]:
        state = self.node(node)
        attempt = 1 if state is None else state.attempt
        return self.hear(Progress(run="r1", node=node, attempt=attempt, **fields))

    def approve(self, node: str, by: str = "ann", **fields: Any) -> list[str]:
        return self.hear(Approval(run="r1", node=node, approved=True, by=by, **fields))

    def reject(self, node: str, notes: str, by: str = "ann", **fields: Any) -> list[str]:
        return self.hear(
            Approval(run="r1", node=node, approved=False, by=by, notes=notes, **fields)
        )

    def cancel(self, **fields: Any) -> list[str]:
        return self.hear(Cancel(run="r1", reason="enough", **fields))

    def pause(self) -> list[str]:
        return self.hear(Pause(run="r1"))

    def resume(self) -> list[str]:
        return self.hear(Resume(run="r1"))

    def event(self, type_: str, data: Any = None, id_: str = "e2") -> list[str]:
        trigger = Trigger(id=id_, source="s", type=type_, data=Raw(json.dumps(data).encode()))
        return self.hear(Occurrence(project="default", trigger=trigger))

    def later(self, milliseconds: int) -> list[str]:
        """Time passes; what is due by then fires, the earliest first."""
        end = self.now + milliseconds
        told: list[str] = []
        while (timer := self._next_timer()) is not None and timer.due <= end:
            self.now = max(self.now, timer.due)
            heard = self.hear(timer)
            told += heard
            if not heard:
                break
        self.now = end
        return told

    def _next_timer(self) -> Timer | None:
        state = self.state
        if state is None or state.head.finished_at is not None:
            return None
        wakes = [(n.wake_at, key) for key, n in state.nodes.items() if n.wake_at is not None]
        due, key = min([*wakes, (state.head.deadline, "")])
        return Timer(run="r1", node=key, due=due)

    # --- how it stands ---

    def node(self, name: str, item: int | None = None) -> NodeState | None:
        return None if self.state is None else self.state.nodes.get(node_key(name, item))

    @property
    def status(self) -> RunStatus:
        assert self.state is not None
        return self.state.head.status

    @property
    def failure(self) -> str:
        assert self.state is not None
        failure = self.state.head.failure
        return "" if failure is None else failure.message

    @property
    def last(self) -> Outcome:
        return self.outcomes[-1]

    def event_of(self, kind: type) -> Any:
        """The newest event of this kind."""
        found = [
            e for o in self.outcomes if o.decision for e in o.decision.events if type(e) is kind
        ]
        return found[-1]

    def inputs(self, task_id: str) -> Any:
        return json.loads(bytes(self.tasks[f"r1/{task_id}"].inputs))


def _told(event: Any) -> str:
    """`node.succeeded a` or `node.succeeded a.3`, `run.failed`."""
    kind = msgspec.json.decode(msgspec.json.encode(event))["type"]
    if not hasattr(event, "node"):
        return str(kind)
    return f"{kind} {node_key(event.node, getattr(event, 'item', None))}"

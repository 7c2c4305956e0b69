"""One run, driven message by message through the real core, with all that it decided."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from gateway.run_detail import EventRow
from streams import codec
from streams.cost import Cost
from streams.events import Decision
from streams.ids import run_id
from streams.lifecycle import RunState
from streams.messages import Approval, Message, Result, Start, Timer
from streams.plan import Plan, parse
from streams.records import Failure, Trigger
from streams.run import DEFAULT_LIMITS, Limits, decide

BEGIN = 1_700_000_000_000
STEP = 10


class Story:
    """A run of a definition. Every message comes `STEP` milliseconds after the one before."""

    def __init__(
        self,
        definition: dict[str, Any],
        *,
        event: str = "e-1",
        at: int = BEGIN,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.plan: Plan = parse(definition)
        spec = self.plan.spec
        self.event = event
        self.run = run_id(spec.project, spec.name, "/test", event)
        self.at = at
        self.limits = limits
        self.state: RunState | None = None
        self.decisions: list[Decision] = []
        self.blobs: dict[str, bytes] = {}

    def hear(self, message: Message) -> "Story":
        """Take in a message, which has to mean something to the run."""
        outcome = decide(
            self.state,
            message,
            self.at,
            self.plan,
            0,
            limits=self.limits,
            blobs=lambda reference: self.blobs[reference.digest],
        )
        assert outcome.decision is not None, outcome.ignored
        self.state = outcome.state
        self.decisions.append(outcome.decision)
        self.at += STEP
        return self

    def start(self, context: Any = None, *, version: int = 1, **fields: Any) -> "Story":
        """The run's beginning, with a version of its workflow."""
        spec = self.plan.spec
        trigger = Trigger(
            id=self.event,
            source="/test",
            type="order.placed",
            data=Raw(msgspec.json.encode(context)),
        )
        return self.hear(
            Start(
                run=self.run,
                project=spec.project,
                workflow=spec.name,
                version=version,
                trigger=trigger,
                **fields,
            )
        )

    def answer(
        self,
        node: str,
        output: Any = None,
        *,
        attempt: int = 1,
        item: int | None = None,
        failure: Failure | None = None,
        costs: tuple[Cost, ...] = (),
        version: str = "",
    ) -> "Story":
        """The result of an agent, which worked 3 ms for it, and of its version."""
        return self.hear(
            Result(
                run=self.run,
                node=node,
                item=item,
                attempt=attempt,
                started_at=self.at - 5,
                finished_at=self.at - 2,
                worker="w",
                agent_version=version,
                failure=failure,
                output=UNSET if failure else Raw(msgspec.json.encode(output)),
                costs=costs,
            )
        )

    def fail(self, node: str, *, attempt: int = 1, item: int | None = None) -> "Story":
        """An agent's failure for good."""
        failure = Failure(kind="agent_error", message="boom", retryable=False)
        return self.answer(node, attempt=attempt, item=item, failure=failure)

    def approve(self, node: str, by: str = "ann", *, inputs: Any = UNSET) -> "Story":
        """Somebody agrees."""
        edited = UNSET if inputs is UNSET else Raw(msgspec.json.encode(inputs))
        return self.hear(
            Approval(run=self.run, node=node, approved=True, by=by, notes="ok", inputs=edited)
        )

    def reject(self, node: str, notes: str = "too risky") -> "Story":
        """Somebody does not."""
        return self.hear(Approval(run=self.run, node=node, approved=False, by="bob", notes=notes))

    def wake(self, node: str = "", *, after: int = 0) -> "Story":
        """Time passes, and what was due for the node (or the run) comes."""
        self.at += after
        return self.hear(Timer(run=self.run, node=node, due=self.at))

    def rows(self) -> list[EventRow]:
        """The events as the store gives them."""
        return [
            EventRow(
                run=decision.run,
                project=decision.project,
                workflow=decision.workflow,
                version=decision.version,
                seq=decision.seq + index,
                type=str(type(event).__struct_config__.tag),
                at=datetime.fromtimestamp(decision.at / 1000, UTC),
                status=decision.status.value,
                payload=codec.encode(event),
                traceparent=decision.traceparent,
            )
            for decision in self.decisions
            for index, event in enumerate(decision.events)
        ]


ORDER: dict[str, Any] = {
    "name": "order",
    "output": {"lines": "{{ nodes.pack.output }}"},
    "nodes": [
        {"id": "nap", "delay": "1s"},
        {"id": "paid", "waitForEvent": {"event": "payment.received", "timeout": "1h"}},
        {
            "id": "book",
            "agent": "carrier",
            "action": "book",
            "approvalRequired": {"roles": ["lead"], "count": 2},
            "inputs": {"to": "{{ context.to }}"},
            "compensate": {"agent": "carrier", "action": "unbook"},
        },
        {
            "id": "pack",
            "agent": "packer",
            "action": "pack",
            "forEach": "{{ context.lines }}",
            "inputs": {"line": "{{ item }}"},
            "maxParallel": 2,
            "dependsOn": ["book"],
        },
        {"id": "invoice", "workflow": "invoice", "dependsOn": ["pack"]},
        {"id": "send", "agent": "carrier", "action": "send", "dependsOn": ["invoice"]},
    ],
}
"""A definition with nodes of every kind."""


def order(event: str = "e-1", at: int = BEGIN) -> Story:
    """A run of `ORDER` up to where it waits for two people, and sleeps, and for an event."""
    return Story(ORDER, event=event, at=at).start({"to": "Rome", "lines": ["a", "b", "c"]})

"""People in a test of a workflow: what they are asked, and what they say."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from streams.errors import AgentError
from streams.events import NodeApprovalRequested
from streams.messages import Approval, Message


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What people are asked: whether the node (or item) may be given these inputs.

    Attributes:
        node: the node's id.
        inputs: what it would be given; of a fan-out as a whole, its items.
        needed: how many people have to agree.
        roles: of which one is needed; empty: anybody may agree.
        cause: who asks, `workflow` or `agent`.
        item: the item, counted from 0; None where it is about the node.
    """

    node: str
    inputs: Any
    needed: int
    roles: tuple[str, ...]
    cause: str
    item: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What people say.

    Attributes:
        approved: whether they agree. As many people do as are needed, with the roles for it.
        notes: why; a rejection needs some.
        by: who; several people are told apart by a number.
        inputs: given to the node instead of those that were asked about.
    """

    approved: bool
    notes: str = "as the test says"
    by: str = "tester"
    inputs: Any = UNSET


Said = bool | Answer | None
"""Yes, no, something more exact, or nothing: then the deadline decides."""

Approve = Callable[[Asked], Said] | Sequence[Said] | Said


class People:
    """Answers what is asked, as `approve` says; `value` gives the content of a payload."""

    def __init__(self, approve: Approve, value: Callable[[Raw], Any]) -> None:
        self._value = value
        self._approve = approve
        self._answers = deque(approve) if isinstance(approve, Sequence) else None

    def answer(self, run: str, event: NodeApprovalRequested) -> Iterator[Message]:
        """What people say to the question, if they say anything."""
        asked = Asked(
            node=event.node,
            item=event.item,
            inputs=self._value(event.inputs),
            needed=event.needed,
            roles=event.roles,
            cause=event.cause,
        )
        said = self._said(asked)
        if isinstance(said, bool):
            said = Answer(approved=said)
        if said is None:
            return
        edited = UNSET if said.inputs is UNSET else Raw(msgspec.json.encode(said.inputs))
        for number in range(1, (event.needed if said.approved else 1) + 1):
            yield Approval(
                run=run,
                node=event.node,
                item=event.item,
                approved=said.approved,
                by=said.by if number == 1 else f"{said.by} {number}",
                roles=event.roles,
                notes=said.notes,
                # Whoever edits the inputs begins the count anew.
                inputs=edited if number == 1 else UNSET,
            )

    def _said(self, asked: Asked) -> Said:
        if self._answers is not None:
            if not self._answers:
                raise AgentError(
                    f"{asked.node!r} asks for approval, and no answer is left: give `approve` one"
                    " for each question"
                )
            return self._answers.popleft()
        if callable(self._approve):
            return self._approve(asked)
        return self._approve if isinstance(self._approve, bool | Answer) else None

"""What the simulated world is about: random workflows, and agents that do as they please."""

import random
from collections import deque
from typing import Any, Final, NamedTuple

from laws import NOWHERE
from msgspec import Raw, json
from random_life import cost_of
from random_workflow import Choose, definition

from streams.catalog import Definition
from streams.messages import Progress, Result, Task
from streams.payload import reference_to
from streams.records import Failure

PROJECT: Final = "default"
OUTPUTS: Final = (
    b'{"n":1.50,"list":["a"]}', b'{"n":null,"list":[]}', b'"text"', b'[{"n":2},"b"]',
    b'{"n":"%s"}' % (b"x" * 60),
)  # fmt: skip
_FATES: Final = (
    *["succeeds"] * 18, *["fails"] * 3, "fails for good", "says nothing", "hangs", "answers twice",
    "is done twice", "wants approval", "wants approval",
)  # fmt: skip
_TIMEOUTS: Final = ("1h", "10m", "5s")


def published(choose: Choose) -> list[Definition]:
    """Three workflows: one that others run as a step, one of those, and what follows their ends."""
    bodies = [
        definition(choose, "w0", timeouts=_TIMEOUTS),
        definition(choose, "w1", children=("w0", "w0", "w2", NOWHERE), timeouts=_TIMEOUTS),
        definition(choose, "w2", children=("w0",), timeouts=_TIMEOUTS),
    ]
    ends = {"event": "commandcenter.run.>", "filter": "event.data.status == 'FAILED'"}
    bodies[2]["trigger"] = choose(({}, {"event": "commandcenter.run.finished"}, ends))
    return [
        Definition(
            project=PROJECT,
            name=body["name"],
            version=1,
            digest="",
            published_at=0,
            definition=Raw(json.encode(body)),
        )
        for body in bodies
    ]


class Execution(NamedTuple):
    """A task in an agent's hands, and what it will say, in this order."""

    task: Task
    says: deque[Progress | Result]


def executed(chance: random.Random, task: Task, blobs: dict[str, bytes]) -> list[Execution]:
    """The executions of one task record, with all that they will say."""
    fate = chance.choice(_FATES)
    if fate == "hangs":
        return [Execution(task, deque(_signs(chance, task)))]
    if fate == "is done twice":  # and not with the same outcome
        fates = [chance.choice(("succeeds", "fails")), chance.choice(("succeeds", "fails"))]
    else:
        fates = ["succeeds", "succeeds"] if fate == "answers twice" else [fate]
    answers = [_answer(chance, task, fate, blobs) for fate in fates]
    if fate == "answers twice":
        return [Execution(task, deque([*_signs(chance, task), answers[0], answers[0]]))]
    return [Execution(task, deque([*_signs(chance, task), answer])) for answer in answers]


def ended(chance: random.Random, execution: Execution) -> None:
    """The agent is told to end: it does, says so, or is done already."""
    answer = next((said for said in execution.says if isinstance(said, Result)), None)
    how = chance.choice(("says so", "is gone", "is done"))
    if how == "is done" or answer is None:
        return
    execution.says.clear()
    if how == "says so":
        failure = Failure(kind="cancelled", message="told to", retryable=False)
        execution.says.append(_result(chance, execution.task, failure=failure))


def _signs(chance: random.Random, task: Task) -> list[Progress]:
    count = chance.randint(0, 3) if task.report or chance.random() < 0.1 else 0
    return [
        Progress(run=task.run, node=task.node, attempt=task.attempt, item=task.item, worker="h")
        for _ in range(count)
    ]


def _answer(chance: random.Random, task: Task, fate: str, blobs: dict[str, bytes]) -> Result:
    if fate == "succeeds" or (fate == "wants approval" and task.approved):
        output = chance.choice(OUTPUTS)
        if len(output) > 48:
            reference = reference_to(output)
            blobs[reference.digest] = output
            output = reference.encode()
        return _result(chance, task, output=Raw(output))
    if fate == "says nothing":
        return _result(chance, task)
    kind = "approval_required" if fate == "wants approval" else "agent_error"
    failure = Failure(kind=kind, message="boom", retryable=fate == "fails")
    return _result(chance, task, failure=failure)


def _result(chance: random.Random, task: Task, **outcome: Any) -> Result:
    begun = chance.randint(0, 1_000)
    return Result(
        run=task.run,
        node=task.node,
        item=task.item,
        attempt=task.attempt,
        started_at=begun,
        finished_at=begun + chance.randint(0, 1_000),
        worker=chance.choice(("h1", "h2")),
        costs=(cost_of(task.item, task.attempt),),
        **outcome,
    )

"""What the simulated world is about: random workflows, and agents that do as they please."""

import random
from typing import Any, Final, NamedTuple

from msgspec import Raw

from streams.plan import Plan, parse
from streams.records import Failure, Result, Task

_DURATIONS: Final = ("200ms", "5s", "10m")
_OUTPUTS: Final = (b'{"n":1.50,"list":["a"]}', b'{"n":null,"list":[]}', b'"text"')
_FATES: Final = (
    *["succeeds"] * 16, *["fails"] * 3, "fails for good", "says nothing", "hangs", "answers twice",
    "is done twice",
)  # fmt: skip


def random_plan(chance: random.Random, name: str) -> Plan:
    """A graph of one to five nodes; now and then an input that points nowhere."""
    nodes: list[dict[str, Any]] = []
    above: dict[str, list[str]] = {}
    for number in range(chance.randint(1, 5)):
        node = f"n{number}"
        depends = chance.sample(list(above), min(len(above), chance.choice((0, 1, 1, 2))))
        above[node] = list(dict.fromkeys([*depends, *(a for d in depends for a in above[d])]))
        inputs = {"event": "{{ event.id }}"}
        if above[node]:
            path = chance.choice(("", "", "", ".n", ".list"))
            inputs["above"] = f"{{{{ nodes.{chance.choice(above[node])}.output{path} }}}}"
        nodes.append(
            {
                "id": node,
                "agent": chance.choice(("x", "y")),
                "action": "do",
                "dependsOn": depends,
                "inputs": inputs,
                "timeout": chance.choice(_DURATIONS),
                "retry": {
                    "attempts": chance.randint(1, 3),
                    "initialDelay": chance.choice(("1ms", "100ms", "2s")),
                    "jitter": chance.choice((0, 0.2, 1)),
                },
            }
        )
    chance.shuffle(nodes)
    return parse({"name": name, "timeout": chance.choice(("1s", "1h", "1d")), "nodes": nodes})


class Execution(NamedTuple):
    """A task in an agent's hands, and what will come of it."""

    task: Task
    answers: tuple[Result, ...]


def executed(chance: random.Random, task: Task) -> list[Execution]:
    """The executions of one task record, with every answer that they will give."""
    fate = chance.choice(_FATES)
    if fate == "hangs":
        return []
    if fate == "answers twice":
        return [Execution(task, (_answer(chance, task, "succeeds"),) * 2)]
    if fate == "is done twice":  # and not with the same outcome
        fates = (chance.choice(("succeeds", "fails")), chance.choice(("succeeds", "fails")))
        return [Execution(task, (_answer(chance, task, fate),)) for fate in fates]
    return [Execution(task, (_answer(chance, task, fate),))]


def _answer(chance: random.Random, task: Task, fate: str) -> Result:
    begun = chance.randint(0, 1_000)
    where: dict[str, Any] = {
        "run": task.run,
        "node": task.node,
        "attempt": task.attempt,
        "started_at": begun,
        "finished_at": begun + chance.randint(0, 1_000),
        "worker": chance.choice(("h1", "h2")),
    }
    if fate == "succeeds":
        return Result(**where, output=Raw(chance.choice(_OUTPUTS)))
    if fate == "says nothing":
        return Result(**where)
    failure = Failure(kind="agent_error", message="boom", retryable=fate == "fails")
    return Result(**where, failure=failure)

"""The runs whose histories are recorded: one for each feature, and some of everything at random."""

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from judged_run import PARENT, SMALL, JudgedRun, start
from msgspec import Raw
from random_life import ENDS, bring_to_end, chaos
from random_workflow import definition

from streams.messages import Approval, Cancel, Message, Occurrence, Pause, Progress, Result, Resume
from streams.plan import parse
from streams.records import Edit, Failure, Origin, Reused, Trigger
from streams.run import DEFAULT_LIMITS, Limits

WAKE: Final = "wake"
"""Stands for: time passes until the next timer."""

UNDO: Final = {"agent": "x", "action": "undo", "inputs": {"why": "{{ failure.message }}"}}
SLOW: Final = {"retry": {"initialDelay": "10s", "jitter": 0.5}}


class Life(NamedTuple):
    """A feature, a workflow that uses it, and what its run hears."""

    name: str
    about: str
    definition: dict[str, Any]
    hears: Sequence[Message | str]
    limits: Limits = DEFAULT_LIMITS


def task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "agent": "x", "action": "do", "dependsOn": list(depends_on), **fields}


def workflow(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": list(nodes), **fields}


def done(node: str, output: Any = None, item: int | None = None, attempt: int = 1) -> Result:
    return Result(
        run="r1", node=node, item=item, attempt=attempt, started_at=1, finished_at=2,
        worker="h", output=Raw(json.dumps(output).encode()),
    )  # fmt: skip


def failed(node: str, item: int | None = None, attempt: int = 1, **fields: Any) -> Result:
    failure = Failure(**{"kind": "agent_error", "message": "boom", "retryable": False} | fields)
    return Result(
        run="r1", node=node, item=item, attempt=attempt, started_at=1, finished_at=2,
        worker="h", failure=failure,
    )  # fmt: skip


def approved(node: str, by: str = "ann", item: int | None = None, **fields: Any) -> Approval:
    return Approval(run="r1", node=node, item=item, approved=True, by=by, **fields)


def alive(node: str, item: int | None = None, **fields: Any) -> Progress:
    return Progress(run="r1", node=node, item=item, attempt=1, worker="h", **fields)


def occurs(number: int, k: int) -> Occurrence:
    data = Raw(b'{"k":%d}' % k)
    trigger = Trigger(id=f"o{number}", source="s", type="go.on", data=data)
    return Occurrence(project="default", trigger=trigger)


CANCEL: Final = Cancel(run="r1", reason="enough", requested_by="ann")
WAIT: Final = {"event": "go.*", "match": "event.data.k == context.a", "timeout": "1h"}

LIVES: Final = (
    Life(
        "graph",
        "Dependencies, inputs and the run's output.",
        workflow(
            task("a", inputs={"list": "{{ context.list }}"}),
            task("b", "a", inputs={"text": "{{ nodes.a.output.n }} of {{ event.id }}"}),
            task("c", "a", inputs={"run": "{{ run.id }}", "nowhere": "{{ nodes.a.status }}"}),
            output={"b": "{{ nodes.b.output }}", "c": "{{ nodes.c.output.0 }}"},
        ),
        [start(), start(), done("a", {"n": 1.5}), done("c", [None]), done("b", "two")],
    ),
    Life(
        "retry",
        "Back-off with jitter, a kind that is not retried, an answer too late, the budget.",
        workflow(
            task("a", **SLOW),
            task("b", retry={"notOn": ["Boom"]}),
            task("c", retry={"attempts": 9}),
            retryBudget=2,
        ),
        [
            start(),
            failed("a", retryable=True),
            failed("b", retryable=True, error="Boom"),
            WAKE,
            done("a"),
            failed("a", attempt=2, retryable=True),
            WAKE,
            failed("c", retryable=True),
            done("a", attempt=3),
        ],
    ),
    Life(
        "conditions",
        "when, runIf and onFailure: continue.",
        workflow(
            task("a", onFailure="continue"),
            task("never", "a", when="context.a == 2"),
            task("cleans", "a", runIf="anyFailed"),
            task("always", "never", runIf="always"),
            task("skipped", "never"),
            task("unless", "a", runIf="noneFailed"),
            task("broken", when="context.nothing.at == 1", onFailure="continue"),
        ),
        [start(), failed("a"), done("cleans"), done("always"), done("unless")],
    ),
    Life(
        "timeouts",
        "To begin, of an attempt, between heartbeats, over all attempts.",
        workflow(
            task("a", startTimeout="10s"),
            task("b", timeout="20s", heartbeatTimeout="5s", retry={"attempts": 1}),
            task("c", timeout="1m", totalTimeout="90s", **SLOW),
            timeout="1h",
        ),
        [
            start(),
            alive("b"),
            alive("b", percent=50.0, message="half"),
            WAKE,
            WAKE,
            WAKE,
            WAKE,
            WAKE,
        ],
    ),
    Life(
        "timed-out",
        "The run's time-out: agents are told, and have their grace.",
        workflow(task("a"), {"id": "b", "delay": "2h"}, task("c", "a"), timeout="1m"),
        [start(), WAKE, WAKE],
    ),
    Life(
        "delays",
        "delay and delayUntil.",
        workflow(
            {"id": "a", "delay": "1h"},
            {"id": "b", "delayUntil": "{{ context.when }}"},
            {"id": "c", "delayUntil": "2023-12-24T00:00:00+02:00", "dependsOn": ["a"]},
            timeout="300d",
        ),
        [start(), WAKE, WAKE, WAKE],
    ),
    Life(
        "approvals",
        "Roles, several people, edited inputs, a rejection, a deadline, and an agent that asks.",
        workflow(
            task("a", approvalRequired={"roles": ["ops"], "count": 2}, inputs={"x": 1}),
            task("b", approvalRequired=True, onFailure="continue"),
            task("c", approvalRequired={"deadline": "1h", "onDeadline": "approve"}),
            task("d", approvalRequired={"deadline": "2h"}, onFailure="continue"),
            task("e", totalTimeout="5m"),
        ),
        [
            start(),
            approved("a", "eve", roles=("dev",)),
            approved("a", "ann", roles=("ops",), inputs=Raw(b'{"x":2}'), notes="less"),
            approved("a", "ann", roles=("ops",)),
            approved("a", "bob", roles=("dev", "ops")),
            Approval(run="r1", node="b", approved=False, by="ann"),
            Approval(run="r1", node="b", approved=False, by="ann", notes="no"),
            failed("e", kind="approval_required"),
            approved("e"),
            done("e", attempt=2),
            done("a"),
            WAKE,
            done("c"),
            WAKE,
        ],
    ),
    Life(
        "fan-out",
        "Items in parallel, one that is tried again, one that fails, and their list.",
        workflow(
            task(
                "f",
                forEach="{{ context.list }}",
                maxParallel=2,
                itemFailure="ignore",
                inputs={"item": "{{ item }}", "at": "{{ index }}"},
                retry=SLOW["retry"],
            ),
            task("g", "f", inputs={"all": "{{ nodes.f.output }}", "r": "{{ nodes.f.output.2.r }}"}),
            task("h", forEach=[1, 2, 3], maxParallel=1, itemFailure="stop", onFailure="continue"),
        ),
        [
            start(),
            done("f", "one", item=0),
            failed("f", item=1, retryable=True),
            failed("h", 0),
            done("f", {"r": 3}, item=2),
            WAKE,
            failed("f", item=1, attempt=2),
            done("g"),
        ],
    ),
    Life(
        "sub-workflow",
        "A run as a step of a run, and as the step itself.",
        workflow(
            {"id": "child", "workflow": "w2", "inputs": {"a": "{{ context.a }}"}, **SLOW},
            {"id": "many", "workflow": "w3", "forEach": [1, 2], "inputs": {"n": "{{ item }}"}},
            output="{{ nodes.child.output }}",
        ),
        [
            start(parent=PARENT, depth=1),
            failed("child", kind="child_failed", message="w2 failed", retryable=True),
            WAKE,
            done("many", item=0),
            done("many", item=1),
            done("child", {"sum": 3}, attempt=2),
        ],
    ),
    Life(
        "events",
        "Waiting for events that fit, each taken once.",
        workflow(
            {"id": "a", "waitForEvent": WAIT},
            {"id": "b", "waitForEvent": {"event": "go.>"}, "dependsOn": ["a"]},
            {"id": "c", "waitForEvent": {"event": "never", "timeout": "1s"}},
            task("d", "b", inputs={"event": "{{ nodes.b.output.data.k }}"}),
            output="{{ nodes.a.output.id }}",
        ),
        [start(), occurs(1, 2), occurs(2, 1), occurs(2, 1), occurs(3, 7), WAKE, done("d")],
    ),
    Life(
        "compensation",
        "What succeeded is undone in the reverse order; one cannot be; then the handler runs.",
        workflow(
            task("a", compensate=UNDO),
            task("b", "a", forEach=[1, 2], compensate=UNDO),
            task("c", "a", compensate={**UNDO, "retry": {"attempts": 1}}),
            task("d", "b", "c"),
            onFailure=[
                task("h", inputs={"why": "{{ failure.message }}", "a": "{{ nodes.a.output }}"}),
                task("i", "h", inputs={"kind": "{{ failure.kind }}"}),
            ],
        ),
        [
            start(),
            done("a", 1),
            done("b", 1, item=0),
            done("b", 2, item=1),
            done("c"),
            failed("d"),
            failed("c.compensate"),
            failed("b.compensate", retryable=True),
            WAKE,
            done("b.compensate", attempt=2),
            done("a.compensate"),
            done("h"),
            done("i"),
        ],
    ),
    Life(
        "cancel",
        "Agents are told and have their grace; what succeeded is undone.",
        workflow(
            task("a", compensate=UNDO),
            task("b", "a"),
            task("c", "a", forEach=[1, 2]),
            {"id": "d", "workflow": "w2", "dependsOn": ["a"]},
            task("e", "a", approvalRequired=True),
            onFailure=[task("h")],
        ),
        [start(), done("a"), CANCEL, done("c", item=0), failed("d"), WAKE, done("a.compensate")],
    ),
    Life(
        "cancel-by-force",
        "Ended at once, whatever is open.",
        workflow(
            task("a", compensate=UNDO), task("b", "a"), task("c", "a", forEach=[1, 2]), task("d")
        ),
        [start(), done("a"), Cancel(run="r1", reason="now", force=True), done("b")],
    ),
    Life(
        "pause",
        "Nothing begins, what is under way goes on; then all goes on.",
        workflow(
            task("a", **SLOW),
            task("b", "a"),
            task("c", approvalRequired=True),
            task("d", forEach=[1, 2, 3], maxParallel=1),
            onFailure=[task("h")],
        ),
        [
            start(),
            failed("a", retryable=True),
            Pause(run="r1", reason="wait", requested_by="x"),
            Pause(run="r1"),
            WAKE,
            approved("c"),
            done("d", item=0),
            Resume(run="r1", requested_by="x"),
            done("a", attempt=2),
            failed("c"),
            done("d", item=1),
            done("d", item=2),
            done("b"),
            done("h"),
        ],
    ),
    Life(
        "start-again",
        "A run that takes over results of another one, and edited inputs.",
        workflow(task("a"), task("f", "a", forEach=[1, 2]), task("c", "f", inputs={"x": 1})),
        [
            start(
                origin=Origin(run="r0", kind="rerun", requested_by="ann"),
                reuse=(
                    Reused(node="a", output=Raw(b'"kept"')),
                    Reused(node="f", item=1, output=Raw(b"2")),
                ),
                edits=(Edit(node="c", inputs=Raw(b'{"x":2}')),),
            ),
            done("f", 1, item=0),
            done("c"),
        ],
    ),
    Life(
        "undo-only",
        "A run that does nothing but undo what another one did.",
        workflow(task("a", compensate={"agent": "x", "action": "undo"}), task("b", "a")),
        [
            start(
                origin=Origin(run="r0", kind="compensation"),
                reuse=(Reused(node="a", output=Raw(b"1")),),
                compensate=True,
            ),
            failed("a.compensate"),
        ],
    ),
    Life(
        "big-payloads",
        "Payloads over the limit travel by reference, and can be looked into.",
        workflow(
            {"id": "a", "waitForEvent": {"event": "go.*"}},
            task("b", "a", inputs={"x": "y" * 60, "id": "{{ nodes.a.output.id }}"}),
            task("f", "a", forEach=["z" * 30, "y" * 30], inputs={"i": "{{ item }}"}),
            output={"a": "{{ nodes.a.output }}", "k": "{{ nodes.a.output.data.k }}"},
        ),
        [start(), occurs(1, 7), done("b"), done("f", 1, item=0), done("f", 2, item=1)],
        SMALL,
    ),
    Life(
        "limits",
        "More events, items, bytes and depth than a run may take.",
        workflow(
            task("items", forEach=[1] * 7, onFailure="continue"),
            task("bytes", inputs={"x": "y" * 3_000}, onFailure="continue"),
            {"id": "deep", "workflow": "w2", "onFailure": "continue"},
            task("long", **SLOW),
        ),
        [start(depth=2), failed("long", retryable=True), WAKE, failed("long", attempt=2)],
        SMALL._replace(events=9),
    ),
)


def lived(life: Life) -> JudgedRun:
    run = JudgedRun(parse(life.definition), life.limits)
    for heard in life.hears:
        if isinstance(heard, str):
            assert run.wake()
        else:
            run.hear(heard)
            run.now += 1_000
    assert run.ended, life.name
    return run


def random_lives(count: int) -> Iterator[tuple[dict[str, Any], JudgedRun]]:
    """Some of everything: definitions, and runs of them, by seed."""
    for seed in range(count):
        chance = random.Random(seed)
        made = definition(chance.choice, "w", children=("w2",))
        life = chaos(parse(made), chance.choice)
        bring_to_end(life, chance.choice(ENDS))
        yield json.loads(json.dumps(made)), life

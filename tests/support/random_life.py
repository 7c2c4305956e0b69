"""A run that hears anything in any order: answers, approvals, events, time, pauses and cancels.

What is chosen comes from `choose`, as in `random_workflow`.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from judged_run import PARENT, SMALL, JudgedRun, start
from msgspec import UNSET, Raw
from random_workflow import CORRELATION, EVENT_TYPE, Choose

from streams.cost import Cost
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
    Timer,
)
from streams.payload import reference_to
from streams.plan import Plan
from streams.records import Edit, Failure, Reused, Trigger
from streams.run import Limits

OUTPUTS = (
    b'{"n":1,"list":["a"]}', b'{"n":null,"list":[]}', b"[]", b'[{"n":2.5}]', b'"text"', b"null",
    b'{"n":"%s","list":["b","c"]}' % (b"x" * 60),
)  # fmt: skip
FATES = (
    "succeeds", "succeeds", "fails", "fails for good", "booms", "says nothing", "wants approval",
)  # fmt: skip
ENDS = ("succeeds", "fails", "fails for good", "says nothing", "hangs")
PEOPLE = (("ann", ("ops",)), ("bob", ("dev", "ops")), ("eve", ("dev",)), ("", ()))

Heard = tuple[Message, int]


def cost_of(item: int | None, attempt: int) -> Cost:
    """What an attempt costs, however often it is told."""
    worked = Decimal(attempt) + Decimal(item or 0) / 100
    return Cost(
        kind="compute", source="a", quantity=worked, unit="minute", unit_price=Decimal(1),
        amount=worked,
    )  # fmt: skip


def answer(life: JudgedRun, name: Any, fate: str, output: bytes) -> Result:
    """What an agent (or a run) makes of a task: `name` is its node, item and attempt."""
    node, item, attempt = name
    where: dict[str, Any] = {
        "run": "r1", "node": node, "item": item, "attempt": attempt,
        "started_at": 1, "finished_at": 2,
    }  # fmt: skip
    if any((t.node, t.item, t.attempt) == name for t in life.tasks.values()):
        where["costs"] = (cost_of(item, attempt),)
    if fate == "succeeds":
        if len(output) > life.limits.inline:
            life.blobs[reference_to(output).digest] = output
            output = reference_to(output).encode()
        return Result(**where, output=Raw(output))
    if fate == "says nothing":
        return Result(**where)
    kind = "approval_required" if fate == "wants approval" else "agent_error"
    error = "Boom" if fate == "booms" else ""
    failure = Failure(kind=kind, message="no", retryable=fate != "fails for good", error=error)
    return Result(**where, failure=failure)


def asked(life: JudgedRun) -> list[tuple[str, int | None, int]]:
    """Every attempt that somebody was asked to make."""
    tasks = [(t.node, t.item, t.attempt) for t in life.tasks.values()]
    return tasks + [
        (r.parent.node, r.parent.item, r.parent.attempt) for r in life.requests.values()
    ]


# --- what it may hear -----------------------------------------------------------------------------


def _result(life: JudgedRun, choose: Choose) -> Heard:
    """An answer to something that was asked for at some time; mostly to what is under way."""
    state = life.state
    names = asked(life)
    if state is not None:
        under_way = [
            (n.node, n.item, n.attempt) for n in state.nodes.values() if n.status == "RUNNING"
        ]
        names = [name for name in names if name in under_way] or names
    return answer(life, choose(names), choose(FATES), choose(OUTPUTS)), life.now


def _any_result(life: JudgedRun, choose: Choose) -> Heard:
    """An answer that may fit nothing: any node, any attempt."""
    name = (choose([*_names(life), "nope"]), choose((None, 0, 7)), choose((0, 1, 2)))
    return answer(life, name, choose(FATES), b"{}"), life.now


def _progress(life: JudgedRun, choose: Choose) -> Heard:
    node, item, attempt = choose(asked(life))
    percent, message = choose(((None, ""), (50.0, "half")))
    sign = Progress(
        run="r1", node=node, item=item, attempt=attempt, worker="h", percent=percent,
        message=message,
    )  # fmt: skip
    return sign, life.now


def _approval(life: JudgedRun, choose: Choose) -> Heard:
    """A person decides what waits for that; now and then something else."""
    states = {} if life.state is None else life.state.nodes
    waits = [(n.node, n.item) for n in states.values() if n.status == "WAITING_APPROVAL"]
    node, item = choose(waits or [(name, None) for name in _names(life)])
    by, roles = choose(PEOPLE)
    inputs = choose((UNSET, UNSET, Raw(b'{"i0":2}'), Raw(b'["edited",{"r":2}]')))
    approved = choose((True, True, True, False))
    message = Approval(
        run="r1", node=node, item=item, approved=approved, by=by, roles=roles,
        notes=choose(("because", "")), inputs=inputs,
    )  # fmt: skip
    return message, life.now


def _occurrence(life: JudgedRun, choose: Choose) -> Heard:
    data = Raw(b'{"k":%d}' % choose(CORRELATION))
    kind = choose((EVENT_TYPE, EVENT_TYPE, "other"))
    trigger = Trigger(id=choose(("o1", "o2", "o3")), source="s", type=kind, data=data)
    return Occurrence(project="default", trigger=trigger), life.now


def _any_timer(life: JudgedRun, choose: Choose) -> Heard:
    """A timer that may be early, late, or nobody's."""
    due = life.now + choose((0, -10_000, 10_000, 1))
    return Timer(run="r1", node=choose(["", *_names(life), "n0.0", "nope"]), due=due), life.now


def _again(life: JudgedRun, choose: Choose) -> Heard:
    """Something heard before: delivered again (same time) or sent again (now)."""
    message, at = choose(life.heard)
    return message, choose((at, life.now))


def _cancel(life: JudgedRun, choose: Choose) -> Heard:
    force = choose((False, False, True))
    return Cancel(run="r1", reason="enough", requested_by="ann", force=force), life.now


def _pause(life: JudgedRun, _: Choose) -> Heard:
    return Pause(run="r1", reason="wait", requested_by="ann"), life.now


def _resume(life: JudgedRun, _: Choose) -> Heard:
    return Resume(run="r1", requested_by="ann"), life.now


def _names(life: JudgedRun) -> list[str]:
    return sorted(life.nodes)


Step = Callable[[JudgedRun, Choose], Heard]
WAKE = "wake"
STEPS: tuple[Any, ...] = (
    *[_result] * 8, *[WAKE] * 3, *[_approval] * 3, *[_progress] * 2, *[_occurrence] * 2, _again,
    _again, _any_result, _any_timer, _cancel, _pause, _pause, _resume, _resume, _resume,
)  # fmt: skip


def any_start(plan: Plan, choose: Choose) -> Start:
    """A start; sometimes as a step of another run, or with what an earlier run has done."""
    kind = choose(("plain", "plain", "plain", "child", "again", "undo"))
    if kind == "child":
        return start(parent=PARENT, depth=choose((0, 2)))
    if kind == "plain":
        return start()
    reuse = [
        Reused(node=name, item=choose((None, 0, 1)) if node.for_each else None, output=Raw(b"[1]"))
        for name, node in plan.nodes.items()
        if choose((True, False))
    ]
    edits = [
        Edit(node=name, inputs=choose((Raw(b'{"i0":3}'), Raw(b'["edited"]'))))
        for name in plan.nodes
        if choose((False, False, True))
    ]
    if kind == "again":
        return start(reuse=tuple(reuse), edits=tuple(edits))
    known = {each.node for each in reuse}
    undone = [
        Reused(node=name, output=Raw(b"[1]"))
        for name in plan.nodes
        if name not in known and choose((True, False))
    ]
    return start(reuse=tuple(reuse), edits=tuple(edits), compensate=True, undone=tuple(undone))


def chaos(plan: Plan, choose: Choose, limits: Limits = SMALL, most: int = 40) -> JudgedRun:
    """A run that has heard up to `most` messages, perhaps not at its end yet."""
    life = JudgedRun(plan, limits)
    life.hear(any_start(plan, choose))
    for _ in range(choose(range(most + 1))):
        needs_tasks = (_result, _progress)
        step = choose([s for s in STEPS if asked(life) or s not in needs_tasks])
        if step is WAKE:
            life.wake(choose((0, 0, 2_000)))
        else:
            life.hear(*step(life, choose))
            life.is_woken()
        life.now += choose((0, 1, 700, 60_000, -500, -5_000))
    return life


def bring_to_end(life: JudgedRun, fate: str) -> None:
    """Resume; answer every attempt alike; where nobody answers, time passes."""
    if life.paused:
        life.hear(Resume(run="r1"))
    for _ in range(2_000):
        if life.ended:
            return
        assert life.state is not None
        running = [
            (n.node, n.item, n.attempt) for n in life.state.nodes.values() if n.status == "RUNNING"
        ]
        names = [name for name in asked(life) if name in running]
        if names and fate != "hangs":
            life.hear(answer(life, names[0], fate, OUTPUTS[0]))
        else:
            assert life.wake(), "the run hangs: nothing will ever wake it"
    raise AssertionError("the run does not come to its end")

"""What a definition can be seen to fail at is told before it runs, and nothing else is."""

from typing import Any

import pytest

from streams.foresight import foreseen
from streams.plan import parse


def task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "agent": "x", "action": "do", "dependsOn": list(depends_on), **fields}


def faults(*nodes: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    """Each fault with the path of its field."""
    plan = parse({"name": "w", "nodes": list(nodes), **fields})
    return [(".".join(map(str, each.path)), each.message) for each in foreseen(plan)]


def looking(reference: str, *before: dict[str, Any]) -> list[str]:
    """The faults of a node that refers to this, after other nodes."""
    names = [each["id"] for each in before]
    found = faults(*before, task("last", *names, inputs={"x": f"{{{{ {reference} }}}}"}))
    assert {path for path, _ in found} <= {f"nodes.{len(before)}.inputs"}
    return [text for _, text in found]


def test_a_template_without_an_end_would_stay_text() -> None:
    why = "is a template without an end: close it with '}}'"
    odd = task("a", inputs={"x": ["{{ context.a }} {{context.b }", "{{ {", "{{ contextual", "}}"]})
    assert faults(odd, output={"y": "{{ run.id"}) == [
        ("nodes.0.inputs", f"'{{{{context.b' {why}"),
        ("output", f"'{{{{ run.id' {why}"),
    ]


ITEMS = task("many", forEach="{{ context.l }}")
PAID = {"id": "paid", "waitForEvent": {"event": "payment.*"}}
NAP = {"id": "nap", "delay": "1s"}
DONE = task("done")


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("nodes.many.output.total", "nodes.many.output is a list, which has places, not 'total'"),
        (
            "nodes.paid.output.amount",
            "nodes.paid.output has id, source, type, subject, time, data, not 'amount'",
        ),
        ("nodes.paid.output.id.x", "nodes.paid.output.id has no parts"),
        ("nodes.nap.output.x", "nodes.nap.output has no parts"),
        ("nodes.done.status.x", "nodes.done.status has no parts"),
        ("nodes.done.error.why", "nodes.done.error has kind, message, node, not 'why'"),
        ("event.type.x", "event.type has no parts"),
        ("run.id.x", "run.id has no parts"),
    ],
)
def test_a_reference_that_leads_nowhere_whatever_happens(reference: str, why: str) -> None:
    text = f"'{{{{ {reference} }}}}' points nowhere: {why}"
    assert looking(reference, ITEMS, PAID, NAP, DONE) == [text]


@pytest.mark.parametrize(
    "reference",
    [
        "nodes.many.output.0.total",
        "nodes.many.output",
        "nodes.many.error.message",
        "nodes.paid.output.data.amount",
        "nodes.paid.output.type",
        "nodes.nap.output",
        "nodes.done.output.a.b.0",
        "nodes.done.status",
        "event.data.a.b",
        "context.a.0",
        "run.startedAt",
    ],
)
def test_a_reference_that_may_lead_somewhere_is_none(reference: str) -> None:
    assert looking(reference, ITEMS, PAID, NAP, DONE) == []


def test_references_are_looked_at_wherever_they_stand() -> None:
    nowhere = "{{ run.id.x }}"
    undo = {"agent": "x", "action": "do", "inputs": {"a": [nowhere]}}
    told = faults(
        task("a", forEach=nowhere, compensate=undo),
        {"id": "b", "delayUntil": nowhere},
        onFailure=[task("c", inputs={"a": "{{ failure.text }}", "b": "{{ failure.kind }}"})],
        output={"a": nowhere},
    )
    assert [path for path, _ in told] == [
        "nodes.0.forEach",
        "nodes.0.compensate.inputs",
        "nodes.1.delayUntil",
        "onFailure.0.inputs",
        "output",
    ]


def test_the_output_cannot_be_what_a_failure_leads_to() -> None:
    told = faults(DONE, onFailure=[task("tell")], output="{{ nodes.tell.output }}")
    why = "refers to 'tell', a node of onFailure: a run that has an output never comes to it"
    assert told == [("output", f"'{{{{ nodes.tell.output }}}}' {why}")]
    assert faults(DONE, onFailure=[task("tell")], output="{{ nodes.done.output }}") == []


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ("a, b", "a text is no list: write a list, or one template that gives one"),
        ("{{ context.a }}{{ context.b }}", "a text is no list: write a list, or one template"),
        ("{{ event.type }}", "'{{ event.type }}' gives no list"),
        ("{{ nodes.paid.output }}", "'{{ nodes.paid.output }}' gives no list"),
        ("{{ event.data }}", ""),
        ("{{ nodes.many.output }}", ""),
        ([], ""),
    ],
)
def test_what_is_no_list_cannot_be_fanned_out(items: Any, why: str) -> None:
    told = faults(ITEMS, PAID, task("each", "many", "paid", forEach=items))
    assert [(path, text[: len(why)]) for path, text in told] == (
        [("nodes.2.forEach", why)] if why else []
    )


def test_items_that_stand_there_have_what_is_asked_of_them() -> None:
    def each(*items: Any, **fields: Any) -> list[tuple[str, str]]:
        wants = {"name": "{{ item.name }}", "place": "{{ index }}"}
        return faults(task("each", forEach=list(items), inputs=wants, **fields))

    assert each({"name": "a"}, {"name": "b", "more": 1}) == []
    assert each({"name": "a"}, {"nam": "b"}, 7) == [
        (
            "nodes.0.inputs",
            "item 1: '{{ item.name }}' points nowhere: item has nam, not 'name'",
        )
    ]
    assert each("{{ context.first }}", {"name": "b"}) == []
    assert each(7, approvalRequired=True) == []  # who is asked may change the list


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("1 + 1", "the expression gave int, not true or false"),
        ("'yes'", "the expression gave str, not true or false"),
        ("1 / 0 == 1", "the expression failed"),
        ("1 < 2", ""),
        ("context.x", ""),
    ],
)
def test_a_condition_that_is_none(condition: str, why: str) -> None:
    wait = {"id": "wait", "waitForEvent": {"event": "a", "match": condition}}
    told = faults(task("a", when=condition), wait)
    assert [(path, text[: len(why)]) for path, text in told] == (
        [("nodes.0.when", why), ("nodes.1.waitForEvent.match", why)] if why else []
    )


@pytest.mark.parametrize(("delay", "faulty"), [("59m", False), ("60m", True), ("2h", True)])
def test_a_delay_that_outlasts_the_run(delay: str, faulty: bool) -> None:
    told = faults({"id": "nap", "delay": delay}, timeout="1h")
    length = "2h" if delay == "2h" else "1h"
    text = (
        f"the run times out after 1h, before the {length} have passed: give the workflow a longer"
    )
    assert told == ([("nodes.0.delay", f"{text} timeout")] if faulty else [])
    assert faults({"id": "nap", "delay": "30d"}) != []  # 7 days if unsaid


@pytest.mark.parametrize(
    ("nodes", "faulty"),
    [
        ([{"id": "a", "workflow": "w"}], True),
        ([task("b"), {"id": "a", "workflow": "w", "dependsOn": ["b"]}], True),
        ([{"id": "a", "workflow": "w", "when": "context.n > 0"}], False),
        (
            [task("b", when="context.n > 0"), {"id": "a", "workflow": "w", "dependsOn": ["b"]}],
            False,
        ),
        (
            [task("b"), {"id": "a", "workflow": "w", "dependsOn": ["b"], "runIf": "anyFailed"}],
            False,
        ),
        ([{"id": "a", "workflow": "w", "forEach": "{{ context.parts }}"}], False),
        ([{"id": "a", "workflow": "other"}], False),
    ],
)
def test_a_workflow_that_starts_itself_without_end(
    nodes: list[dict[str, Any]], faulty: bool
) -> None:
    why = "every run of this workflow would start another one: give the node a 'when'"
    place = f"nodes.{len(nodes) - 1}.workflow"
    assert faults(*nodes) == ([(place, why)] if faulty else [])
    assert faults(task("a"), onFailure=[{"id": "b", "workflow": "w"}]) == []

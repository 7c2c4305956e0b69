"""Definitions: every fault with its path and its text, and the plan made of what has none."""

import os
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from streams import pattern
from streams.errors import DefinitionError
from streams.plan import Plan, parse
from streams.retry import RetryPolicy
from streams.template import ROOTS
from streams.workflow import (
    MAX_NODES,
    ActionSpec,
    ApprovalSpec,
    NodeSpec,
    TriggerSpec,
    WaitSpec,
    WorkflowSpec,
    json_schema,
)


def node(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "agent": "x", "action": "y", "dependsOn": list(depends_on), **fields}


def workflow(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "w", "nodes": list(nodes), **fields}


def inputs(*templates: str) -> dict[str, Any]:
    return {str(n): template for n, template in enumerate(templates)}


def problems(definition: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(DefinitionError) as caught:
        parse(definition)
    return [(".".join(map(str, p.path)), p.message) for p in caught.value.problems]


CEL = "not a CEL expression: 1:4: Syntax error"
KINDS = "a node is one of agent, workflow, waitForEvent, delay, delayUntil; this one has "
ROOTS_HERE = " context, event, nodes, run"
NO_ENV = f"'{{{{ env.x }}}}' begins with 'env'; use one of {', '.join(ROOTS)}"
REQUIRED = "Field required"
NOT_AN_ID = NOT_A_NAME = "not a name: letters, digits, "

FAULTY: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    # --- the graph ---
    "cycle": (
        workflow(node("z"), node("a", "c"), node("b", "a"), node("c", "b")),
        [("nodes.1.dependsOn", "the dependencies make a cycle: a → c → b → a")],
    ),
    "cycle of one": (
        workflow(node("a", "a")),
        [("nodes.0.dependsOn", "the dependencies make a cycle: a → a")],
    ),
    "cycle behind a tail": (
        workflow(node("t", "a"), node("a", "b"), node("b", "a")),
        [("nodes.1.dependsOn", "the dependencies make a cycle: a → b → a")],
    ),
    "duplicate id": (
        workflow(node("a"), node("b"), node("a")),
        [("nodes.2.id", "node id 'a' is already used by node 1 of the list")],
    ),
    "unknown dependency": (
        workflow(node("a"), node("b", "a", "nope")),
        [("nodes.1.dependsOn.1", "node 'b' depends on 'nope', which is not a node (nodes: a, b)")],
    ),
    "no nodes": (
        workflow(),
        [("nodes", "Tuple should have at least 1 item after validation, not 0")],
    ),
    # --- references ---
    "unknown node": (
        workflow(node("a"), node("b", "a", inputs=inputs("{{ nodes.c.output }}"))),
        [("nodes.1.inputs", "'{{ nodes.c.output }}' refers to 'c', which is not a node")],
    ),
    "no ancestor": (
        workflow(node("a"), node("b", inputs=inputs("{{ nodes.a.output.x }}"))),
        [
            (
                "nodes.1.inputs",
                (
                    "'{{ nodes.a.output.x }}' refers to 'a', which 'b' does not depend on:"
                    " add it to dependsOn"
                ),
            )
        ],
    ),
    "descendant": (
        workflow(node("a", inputs=inputs("{{ nodes.b.output }}")), node("b", "a")),
        [
            (
                "nodes.0.inputs",
                (
                    "'{{ nodes.b.output }}' refers to 'b', which 'a' does not depend on:"
                    " add it to dependsOn"
                ),
            )
        ],
    ),
    "unknown field of the event": (
        workflow(node("a", inputs=inputs("{{ event.payload.x }}"))),
        [
            (
                "nodes.0.inputs",
                (
                    "'{{ event.payload.x }}': an event has id, source, type, subject, time, data,"
                    " not 'payload'"
                ),
            )
        ],
    ),
    "malformed template": (
        workflow(node("a", inputs={"x": [{"y": "{{ context.a + 1 }}"}]})),
        [
            (
                "nodes.0.inputs",
                "'{{ context.a + 1 }}' is not a path like context.repository.name",
            )
        ],
    ),
    "unknown root": (
        workflow(node("a", inputs=inputs("{{ secrets.token }}"))),
        [
            (
                "nodes.0.inputs",
                f"'{{{{ secrets.token }}}}' begins with 'secrets'; use one of {', '.join(ROOTS)}",
            )
        ],
    ),
    # --- fields ---
    "an approval that is no approval": (
        workflow(node("a", approvalRequired="maybe"), node("b", approvalRequired=[1])),
        [
            (
                f"nodes.{index}.approvalRequired",
                "write true, false, or who has to agree: roles, count, deadline, onDeadline",
            )
            for index in (0, 1)
        ],
    ),
    "faults inside an approval": (
        workflow(node("a", approvalRequired={"count": 0, "who": 1, "deadline": "x"})),
        [
            ("nodes.0.approvalRequired.count", "Input should be greater than or equal to 1"),
            (
                "nodes.0.approvalRequired.deadline",
                "'x' is not a duration: write 500ms, 30s, 5m, 24h or 7d",
            ),
            ("nodes.0.approvalRequired.who", "no such field: 'who'"),
        ],
    ),
    "items that are no list": (
        workflow(node("a", forEach=3), node("b", forEach={"a": 1})),
        [
            (f"nodes.{index}.forEach", "write a list, or a template that gives one")
            for index in (0, 1)
        ],
    ),
    "unknown field": (
        workflow(node("a", dependson=["b"]), nodez=[]),
        [
            ("nodes.0.dependson", "no such field: 'dependson' (did you mean 'dependsOn'?)"),
            ("nodez", "no such field: 'nodez' (did you mean 'nodes'?)"),
        ],
    ),
    "unknown field deep inside": (
        workflow(node("a", retry={"attempts": 2, "backoff": "1s"}), trigger={"evnt": "x"}),
        [
            ("trigger.evnt", "no such field: 'evnt' (did you mean 'event'?)"),
            ("nodes.0.retry.backoff", "no such field: 'backoff'"),
        ],
    ),
    "missing fields": (
        {"nodes": [{}]},
        [
            ("name", REQUIRED),
            ("nodes.0.id", REQUIRED),
        ],
    ),
    "a node of no kind": (
        workflow({"id": "a"}),
        [
            (
                "nodes.0",
                KINDS + "none of them",
            )
        ],
    ),
    "a node of two kinds": (
        workflow({"id": "a", "delay": "1s", "workflow": "other"}),
        [
            (
                "nodes.0",
                KINDS + "workflow and delay",
            )
        ],
    ),
    "an agent without an action": (
        workflow({"id": "a", "agent": "x"}),
        [("nodes.0", "agent and action go together")],
    ),
    "items of a sleep": (
        workflow({"id": "a", "delay": "1s", "forEach": [1]}),
        [("nodes.0", "a node with delay cannot have forEach")],
    ),
    "a heartbeat of nobody": (
        workflow({"id": "a", "workflow": "other", "heartbeatTimeout": "1s"}),
        [("nodes.0", "startTimeout and heartbeatTimeout are for nodes with an agent")],
    ),
    "a failure of nothing": (
        workflow(node("a", runIf="anyFailed")),
        [("nodes.0", "runIf: anyFailed needs dependsOn")],
    ),
    "a bad pattern": (
        workflow({"id": "a", "waitForEvent": {"event": "a..b"}}),
        [("nodes.0.waitForEvent", pattern.check("a..b"))],
    ),
    "expressions": (
        workflow(
            node("a", when="1 +"),
            node("b", when="secrets.x == 1"),
            {"id": "c", "waitForEvent": {"event": "x", "match": "item == 1"}},
        ),
        [
            ("nodes.0.when", CEL),
            (
                "nodes.1.when",
                "the expression uses 'secrets'; here there are context, event, nodes, run",
            ),
            (
                "nodes.2.waitForEvent.match",
                "the expression uses 'item'; here there are context, event, nodes, run",
            ),
        ],
    ),
    "an item where there is none": (
        workflow(
            node("a", inputs=inputs("{{ item }}"), forEach="{{ item.x }}"),
            node("b", inputs=inputs("{{ index }}")),
        ),
        [
            (
                "nodes.0.forEach",
                "'{{ item.x }}': here there is no 'item', only context, event, nodes, run",
            ),
            (
                "nodes.1.inputs",
                "'{{ index }}': here there is no 'index', only context, event, nodes, run",
            ),
        ],
    ),
    "the failure handler": (
        workflow(
            node("a", inputs=inputs("{{ failure.message }}")),
            onFailure=[
                node("a"),
                node("h", "a"),
                node("i", inputs=inputs("{{ failure.message }} {{ nodes.a.output }}")),
            ],
        ),
        [
            ("onFailure.0.id", "node id 'a' is already used in nodes"),
            (
                "onFailure.1.dependsOn.0",
                "node 'h' depends on 'a', which has ended by then, like all of nodes: leave it out",
            ),
            (
                "nodes.0.inputs",
                "'{{ failure.message }}': here there is no 'failure', only" + ROOTS_HERE,
            ),
        ],
    ),
    "what undoes a node": (
        workflow(
            node(
                "a",
                compensate={
                    "agent": "x",
                    "action": "undo",
                    "inputs": {"id": "{{ nodes.nope.output.id }}"},
                },
            )
        ),
        [
            (
                "nodes.0.compensate.inputs",
                "'{{ nodes.nope.output.id }}' refers to 'nope', which is not a node",
            )
        ],
    ),
    "an output": (
        workflow(node("a"), output={"x": "{{ nodes.b.output }}", "y": "{{ run.name }}"}),
        [
            ("output", "'{{ nodes.b.output }}' refers to 'b', which is not a node"),
            (
                "output",
                "'{{ run.name }}': a run has id, project, workflow, version, startedAt, not 'name'",
            ),
        ],
    ),
    "bad durations": (
        workflow(node("a", timeout="soon", retry={"initialDelay": 0}), timeout="400d"),
        [
            ("timeout", "'400d' is not from 1ms to 366d"),
            ("nodes.0.retry.initialDelay", "0 is not from 1ms to 366d"),
            ("nodes.0.timeout", "'soon' is not a duration: write 500ms, 30s, 5m, 24h or 7d"),
        ],
    ),
    "infinite duration": (
        workflow(node("a"), timeout=float("inf")),
        [("timeout", "inf is not a duration: write 30s, 5m, 24h or a number of seconds")],
    ),
    "bad names": (
        workflow(node("1a"), node("b.c"), node("ok", agent="Big"), name="No Spaces", project=""),
        [
            ("name", NOT_A_NAME),
            ("project", NOT_A_NAME),
            ("nodes.0.id", NOT_AN_ID),
            ("nodes.1.id", NOT_AN_ID),
            ("nodes.2.agent", NOT_A_NAME),
        ],
    ),
    "bad pattern": (
        workflow(node("a"), trigger={"event": "repo.>.x"}),
        [("trigger", "'>' stands for the rest and must be the last segment")],
    ),
    "filter of nothing": (
        workflow(node("a"), trigger={"filter": "true"}),
        [
            ("trigger", "a filter needs an event to look at: add trigger.event"),
            ("trigger.filter", "the expression does not look at the event"),
        ],
    ),
    "too many nodes": (
        workflow(*(node(f"n{n}") for n in range(MAX_NODES + 1))),
        [("nodes", "1,001 nodes, 1,000 may be (COMMANDCENTER_NODES_LIMIT)")],
    ),
    "inputs that are no object": (
        workflow(node("a", inputs=["x"])),
        [("nodes.0.inputs", "Input should be a valid dictionary")],
    ),
    # --- all of it at once ---
    "several": (
        workflow(
            node("a", "nope", inputs=inputs("{{ env.x }}")),
            node("b", "a", inputs=inputs("{{ nodes.q.output }}", "{{ event.x }}")),
            node("b"),
        ),
        [
            ("nodes.2.id", "node id 'b' is already used by node 2 of the list"),
            (
                "nodes.0.dependsOn.0",
                "node 'a' depends on 'nope', which is not a node (nodes: a, b)",
            ),
            (
                "nodes.0.inputs",
                NO_ENV,
            ),
            ("nodes.1.inputs", "'{{ nodes.q.output }}' refers to 'q', which is not a node"),
            (
                "nodes.1.inputs",
                "'{{ event.x }}': an event has id, source, type, subject, time, data, not 'x'",
            ),
        ],
    ),
    "a cycle hides no other fault": (
        workflow(node("a", "b", inputs=inputs("{{ env.x }}")), node("b", "a")),
        [
            ("nodes.0.dependsOn", "the dependencies make a cycle: a → b → a"),
            (
                "nodes.0.inputs",
                NO_ENV,
            ),
        ],
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_every_fault_has_its_path_and_its_text(fault: str) -> None:
    definition, expected = FAULTY[fault]
    found = problems(definition)
    # A compiler's own words may go on after what is expected.
    texts = zip(found, expected, strict=True)
    assert [(path, text[: len(said)]) for (path, text), (_, said) in texts] == expected


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            workflow(node("a", timeout="soon"), name="deploy"),
            (
                "workflow 'deploy': nodes[0].timeout: 'soon' is not a duration:"
                " write 500ms, 30s, 5m, 24h or 7d"
            ),
        ),
        (
            workflow(node("a"), node("a"), node("b", "c"), name="deploy"),
            (
                "workflow 'deploy': nodes[1].id: node id 'a' is already used by node 1 of the list"
                " (and 1 more)"
            ),
        ),
        ({}, "workflow 'workflow': name: Field required (and 1 more)"),
    ],
)
def test_the_error_names_the_workflow_and_the_first_fault(
    definition: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(definition)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value",
    [{"a": "\ud800"}, {"a": b"\xff"}],
    ids=["unpaired surrogate", "bytes"],
)
def test_inputs_that_cannot_be_written_as_json_are_the_authors_fault(value: Any) -> None:
    """YAML can say what JSON cannot; whatever is accepted can be published."""
    with pytest.raises(DefinitionError):
        parse(workflow(node("a", inputs=value))).spec.canonical()


def test_inputs_nested_beyond_reason_are_the_authors_fault() -> None:
    value: dict[str, Any] = {}
    for _ in range(3_000):
        value = {"a": value}
    with pytest.raises(DefinitionError):
        parse(workflow(node("a", inputs=value)))


def test_the_plan_knows_the_graph() -> None:
    plan = parse(
        workflow(
            node("join", "left", "right", inputs=inputs("{{ nodes.root.output }}"), agent="z"),
            node("left", "root"),
            node("right", "root"),
            node("root"),
            node("alone"),
        )
    )
    assert plan.roots == ("root", "alone")
    assert plan.agents == {"x", "z"}
    graph = {name: (set(n.ancestors), n.dependents) for name, n in plan.nodes.items()}
    assert graph == {
        "root": (set(), ("left", "right")),
        "alone": (set(), ()),
        "left": ({"root"}, ("join",)),
        "right": ({"root"}, ("join",)),
        "join": ({"root", "left", "right"}, ()),
    }
    # Dependencies first, and the same whatever the process: events follow this order.
    assert list(plan.nodes) == ["root", "alone", "left", "right", "join"]


def test_a_dependency_named_twice_is_one_dependency() -> None:
    plan = parse(workflow(node("a"), node("b", "a", "a")))
    assert (plan.roots, plan.nodes["a"].dependents) == (("a",), ("b",))


def test_the_largest_workflow_is_accepted() -> None:
    nodes = [node("n0"), *(node(f"n{n}", f"n{n - 1}") for n in range(1, MAX_NODES))]
    plan = parse(workflow(*reversed(nodes)))
    assert list(plan.nodes) == [f"n{n}" for n in range(MAX_NODES)]


def test_defaults() -> None:
    spec = parse(workflow(node("a"))).spec
    assert spec.model_dump(by_alias=True, mode="json", exclude={"nodes"}) == {
        "name": "w",
        "description": "",
        "project": "default",
        "tags": [],
        "trigger": {"event": None, "filter": None},
        "timeout": "7d",
        "cancelGrace": "10s",
        "retryBudget": 100,
        "output": None,
        "onFailure": [],
    }
    assert spec.nodes[0].model_dump(by_alias=True, mode="json", exclude_none=True) == {
        "id": "a",
        "agent": "x",
        "action": "y",
        "description": "",
        "inputs": {},
        "dependsOn": [],
        "runIf": "allSuccess",
        "onFailure": "fail",
        "approvalRequired": False,
        "maxParallel": 20,
        "itemFailure": "finish",
        "retry": {
            "attempts": 3,
            "initialDelay": "1s",
            "factor": 2.0,
            "maxDelay": "1m",
            "jitter": 0.2,
            "notOn": [],
        },
    }
    assert spec.nodes[0].attempt_timeout == 600_000


FULL = workflow(
    node("b", "a", inputs={"z": 1, "a": ["{{ nodes.a.output }}"]}, retry={"attempts": 2}),
    node("a", timeout="90s", description="first"),
    timeout=30,
    trigger={"event": "repo.*", "filter": "event.data.x"},
)


def test_the_canonical_form_is_one_and_comes_back() -> None:
    canonical = parse(FULL).spec.canonical()
    assert canonical == (
        b'{"name":"w","nodes":[{"action":"y","agent":"x","dependsOn":["a"],"id":"b",'
        b'"inputs":{"a":["{{ nodes.a.output }}"],"z":1},"retry":{"attempts":2}},'
        b'{"action":"y","agent":"x","description":"first","id":"a","timeout":"90s"}],'
        b'"timeout":"30s","trigger":{"event":"repo.*","filter":"event.data.x"}}'
    )
    again = parse(msgspec.json.decode(canonical)).spec
    assert again == parse(FULL).spec
    assert again.canonical() == canonical


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"timeout": "30s"}, True),
        ({"description": ""}, True),
        ({"timeout": "31s"}, False),
        ({"description": "x"}, False),
        ({"project": "p"}, False),
    ],
)
def test_the_digest_names_the_content(change: dict[str, Any], same: bool) -> None:
    digest = parse({**FULL, **change}).spec.digest
    assert len(digest) == 16
    assert (digest == parse(FULL).spec.digest) is same


def test_names_may_be_written_in_snake_case() -> None:
    definition = workflow({"id": "b", "agent": "x", "action": "y", "depends_on": ["a"]}, node("a"))
    assert parse(definition).roots == ("a",)


def test_the_published_schema_knows_every_field_by_its_json_name() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    kinds = {
        "ActionSpec": ActionSpec,
        "ApprovalSpec": ApprovalSpec,
        "NodeSpec": NodeSpec,
        "RetryPolicy": RetryPolicy,
        "TriggerSpec": TriggerSpec,
        "WaitSpec": WaitSpec,
    }
    fields = {name: set(d["properties"]) for name, d in schema["$defs"].items()}
    assert set(schema["properties"]) == {to_camel(name) for name in WorkflowSpec.model_fields}
    assert fields == {
        name: {to_camel(field) for field in kind.model_fields} for name, kind in kinds.items()
    }
    assert {"dependsOn", "waitForEvent", "maxParallel", "runIf"} < fields["NodeSpec"]
    assert all(d["additionalProperties"] is False for d in schema["$defs"].values())


@given(st.data())
def test_a_random_graph_is_a_plan_or_has_a_cycle(data: st.DataObject) -> None:
    names = [f"n{n}" for n in range(data.draw(st.integers(1, 7)))]
    edges = {n: data.draw(st.lists(st.sampled_from(names), max_size=3)) for n in names}
    reachable = {n: set(edges[n]) for n in names}
    for _ in names:
        for n in names:
            reachable[n] |= set[str]().union(*(reachable[m] for m in reachable[n]))
    definition = workflow(*(node(n, *edges[n]) for n in names))
    if any(n in reachable[n] for n in names):
        ((path, text),) = problems(definition)
        *way, last = text.removeprefix("the dependencies make a cycle: ").split(" → ")
        assert path == f"nodes.{names.index(way[0])}.dependsOn"
        assert last == way[0]
        assert all(b in edges[a] for a, b in zip(way, [*way[1:], last], strict=True))
    else:
        plan = parse(definition)
        assert {n: set(p.ancestors) for n, p in plan.nodes.items()} == reachable
        order = list(plan.nodes)
        assert all(order.index(d) < order.index(n) for n in names for d in edges[n])


def test_the_plan_is_the_same_in_every_process() -> None:
    """Events are made in the plan's order, so it must not depend on a process's hash seed."""
    script = """
import sys
from streams.plan import parse
names = [f"n{i}" for i in range(30)]
nodes = [
    {"id": n, "agent": "x", "action": "y", "dependsOn": [names[j] for j in range(i) if i % (j + 2)]}
    for i, n in enumerate(names)
]
plan = parse({"name": "w", "nodes": nodes[::-1]})
print([(n, p.dependents) for n, p in plan.nodes.items()], plan.roots)
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert isinstance(parse(FULL), Plan)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"waitForEvent": {"event": "x"}, "timeout": "5s"},
            "a node with waitForEvent cannot have timeout: say waitForEvent.timeout",
        ),
        ({"delay": "5s", "retry": {"attempts": 2}}, "a node with delay cannot have retry"),
        ({"delay": "5s", "totalTimeout": "1s"}, "a node with delay cannot have totalTimeout"),
        (
            {"agent": "x", "action": "do", "maxParallel": 3},
            "a node without forEach cannot have maxParallel",
        ),
        (
            {"agent": "x", "action": "do", "itemFailure": "stop"},
            "a node without forEach cannot have itemFailure",
        ),
    ],
)
def test_a_field_that_would_mean_nothing_is_refused(node: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse({"name": "w", "nodes": [{"id": "a", **node}]})
    assert [problem.message for problem in caught.value.problems] == [message]


def test_what_on_failure_does_cannot_be_compensated() -> None:
    undo = {"agent": "x", "action": "undo"}
    handler = {"id": "h", "agent": "x", "action": "do", "compensate": undo}
    with pytest.raises(DefinitionError) as caught:
        parse({"name": "w", "nodes": [{"id": "a", "delay": "1s"}], "onFailure": [handler]})
    assert [problem.path for problem in caught.value.problems] == [("onFailure", 0, "compensate")]


DO = {"agent": "x", "action": "do"}


@pytest.mark.parametrize(
    ("node", "path", "message"),
    [
        (
            {**DO, "when": "nodes.q.output == 1"},
            ("when",),
            "the expression looks at 'q', which is not a node",
        ),
        (
            {**DO, "when": "nodes['a'].status == 'SUCCESS'"},
            ("when",),
            "the expression looks at 'a', which 'b' does not depend on: add it to dependsOn",
        ),
        (
            {"waitForEvent": {"event": "x", "match": "event.dat.n == 1"}},
            ("waitForEvent", "match"),
            "an event has id, source, type, subject, time, data, not 'dat'",
        ),
        (
            {"delayUntil": "tomorrow"},
            ("delayUntil",),
            "'tomorrow' is not a time: write 2026-12-31T23:59:00Z",
        ),
    ],
)
def test_what_can_be_seen_to_lead_nowhere_is_refused(
    node: dict[str, Any], path: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse({"name": "w", "nodes": [{"id": "a", "delay": "1s"}, {"id": "b", **node}]})
    assert [(found.path, found.message) for found in caught.value.problems] == [
        (("nodes", 1, *path), message)
    ]


def test_a_filter_that_looks_at_what_no_event_has_is_refused() -> None:
    trigger = {"event": "x", "filter": "has(event.dat) && event.data.a == 'event.foo nodes.q'"}
    with pytest.raises(DefinitionError) as caught:
        parse({"name": "w", "trigger": trigger, "nodes": [{"id": "a", "delay": "1s"}]})
    assert [found.path for found in caught.value.problems] == [("trigger", "filter")]


@pytest.mark.parametrize(
    "when",
    [
        "'nodes.q' == context.text",
        "context.nodes.q == 1 && has(event.data.nodes.q)",
        "context.list.exists(event, event.x == 1)",
        "context.list.exists(each, each.x == 1)",
        "nodes.exists(n, nodes[n].status == 'FAILED') && nodes.size() == 1",
        "nodes.a.output.filter( f , f.all(g, g > 1)).map(h, h)[0] == 'x.map(y, z)'",
        "nodes.a.output.event.x == nodes['a'].output",
    ],
)
def test_what_only_looks_like_a_reference_is_none(when: str) -> None:
    node = {"id": "b", **DO, "dependsOn": ["a"], "when": when}
    parse({"name": "w", "nodes": [{"id": "a", "delay": "1s"}, node]})


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        (["nightly", "nightly"], "twice"),
        (["two words"], "tags[0]: not a name"),
        (["x" * 65], "for a tag letters"),
        ([f"t{n}" for n in range(21)], "20"),
    ],
)
def test_tags_that_tell_nothing_apart_are_refused(tags: list[str], text: str) -> None:
    node = {"id": "a", "agent": "scanner", "action": "scan"}
    parse({"name": "tagged", "tags": ["team:payments", "nightly"], "nodes": [node]})
    with pytest.raises(DefinitionError) as refused:
        parse({"name": "tagged", "tags": tags, "nodes": [node]})
    assert text in str(refused.value)

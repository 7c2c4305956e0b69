import textwrap
from pathlib import Path

import pytest

from streams.action_inputs import KnownAction, known_actions
from streams.errors import CallerError
from streams.workflow_file import Document, WorkflowFileError, read, read_text

GOOD = """\
name: review
trigger: {event: repo.push, filter: event.data.branch == 'main'}
nodes:
  - id: scan
    agent: security-scanner
    action: scan
    inputs:
      repositoryPath: "{{ event.data.path }}"
  - id: notify
    agent: notifier
    action: send
    dependsOn: [scan]
    inputs:
      message: found {{ nodes.scan.output.summary.total }}
"""
ACTIONS = {
    "security-scanner": {"scan": KnownAction()},
    "notifier": {"send": KnownAction(), "delete": KnownAction(asks_first=True)},
}


def one(text: str) -> Document:
    (document,) = read_text(text, "w.yaml")
    return document


def faults(text: str) -> list[str]:
    return [str(fault) for fault in one(text).check(ACTIONS)]


def test_a_good_file_has_no_faults() -> None:
    assert faults(GOOD) == []


def test_what_an_action_cannot_give_is_seen() -> None:
    closed = {"type": "object", "additionalProperties": False}
    summary = closed | {"properties": {"total": {"type": "integer"}, "more": {"$ref": "#/$defs/A"}}}
    found = {"type": "array", "items": {}}
    schema = closed | {
        "$defs": {"A": {"$ref": "#/$defs/A"}},
        "properties": {
            "summary": {"$ref": "#/$defs/S"},
            "findings": found,
            "extra": {"type": "object", "properties": {}},
            "maybe": {"anyOf": [{"type": "null"}, summary]},
        },
    }
    schema["$defs"]["S"] = summary
    known = {**ACTIONS, "security-scanner": {"scan": KnownAction(output=schema)}}

    def found_in(path: str) -> list[str]:
        text = GOOD.replace("summary.total", path)
        return [fault.message for fault in one(text).check(known)]

    for path in ("summary", "findings.0.file", "extra.x", "maybe.x", "summary.more.x"):
        assert found_in(path) == []
    for path, why in (
        ("sumary", "nodes.scan.output has summary, findings, extra, maybe, not 'sumary'"),
        ("summary.totl", "nodes.scan.output.summary has total, more, not 'totl'"),
        ("summary.total.x", "nodes.scan.output.summary.total has no parts"),
        ("findings.file", "nodes.scan.output.findings is a list, which has places, not 'file'"),
    ):
        [fault] = found_in(path)
        assert fault.endswith(f"points nowhere: {why}")


def test_what_people_have_to_agree_to_undoes_nothing() -> None:
    risky = {"agent": "notifier", "action": "delete"}
    assert faults(GOOD.replace("action: send", "action: delete")) == []
    [fault] = faults(f"{GOOD}    compensate: {risky}\n")
    assert fault.startswith("w.yaml:15:")
    assert "nobody is asked whether to undo" in fault


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("agent: notifier", "agent: pager", "w.yaml:10:12: no agent is called 'pager'"),
        ("action: send", "action: sent", "w.yaml:11:13: agent 'notifier' has no action 'sent'"),
        ("[scan]", "[scan, scam]", "w.yaml:12:23: node 'notify' depends on 'scam'"),
        ("[scan]", "[scan]\n    depends_off: [x]", "w.yaml:13:5: no such field: 'depends_off'"),
        ("dependsOn: [scan]", "depends: [scan]", "w.yaml:12:5: no such field: 'depends' (did you"),
        ("dependsOn: [scan]", "depends_on: [scam]", "w.yaml:12:18: node 'notify' depends on"),
        ("id: notify", "id: scan", "w.yaml:9:9: node id 'scan' is already used"),
        ("== 'main'", "==", "w.yaml:2:37: not a CEL expression"),
        ("event: repo.push", "event: repo..push", "w.yaml:2:1: "),
        ("    action: scan\n", "", "w.yaml:4:5: "),
        ("nodes.scan.output", "nodes.scam.output", "w.yaml:14:16: '{{ nodes.scam.output."),
        ("{{ event.data.path }}", "{{ evnt.data }}", "w.yaml:8:23: '{{ evnt.data }}' begins"),
    ],
)
def test_a_fault_has_the_place_where_it_stands(old: str, new: str, expected: str) -> None:
    changed = GOOD.replace(old, new, 1)
    assert changed != GOOD
    found = faults(changed)
    assert any(fault.startswith(expected) for fault in found), found


def test_all_faults_are_told_from_top_to_bottom() -> None:
    bad = GOOD.replace("== 'main'", "==").replace("agent: notifier", "agent: pager")
    bad = bad.replace("action: scan", "timeout: soon")
    lines = [int(fault.split(":")[1]) for fault in faults(bad)]
    assert lines == sorted(lines)
    assert {2, 6, 10} <= set(lines)


def test_agents_are_not_looked_at_unless_they_are_known() -> None:
    assert one(GOOD.replace("notifier", "pager")).check() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nname: y\n", "w.yaml:2:1: 'name' is given twice, first on line 1"),
        ("name: x\n1: y\n", "w.yaml:2:1: the key '1' is not a string: put it in quotes"),
        ("? [a]\n: x\n", "w.yaml:1:3: a key has to be a string"),
        ("name: &x [*x]\n", "w.yaml:1:7: an alias refers to what it stands in"),
        ("name: [\n", "w.yaml:2:1: not valid YAML: "),
        ("name: x\n\tb: y\n", "w.yaml:2:1: not valid YAML: "),
        ("name: !!python/name:os.system x\n", "w.yaml:1:7: not valid YAML: "),
        ("name: \x07\n", "w.yaml:1:7: U+0007 may not stand in YAML"),
        ("- name\n", "w.yaml:1:1: a workflow is a mapping, not a list"),
        ("just words\n", "w.yaml:1:1: a workflow is a mapping, not a single value"),
        ("", "w.yaml:1:1: the file is empty"),
        ("# nothing\n", "w.yaml:1:1: the file is empty"),
        ("[" * 5_000, "w.yaml:1:1: nested too deeply"),
    ],
)
def test_what_is_no_definition_at_all_is_refused(text: str, expected: str) -> None:
    with pytest.raises(WorkflowFileError) as raised:
        read_text(text, "w.yaml")
    assert str(raised.value).startswith(expected)


def test_scalars_are_read_as_yaml_1_2_and_json_have_them() -> None:
    text = """\
    yes: no
    date: 2024-01-01
    time: 1:30
    octal: 0o17
    plain: 012
    hex: 0x1F
    float: 1e3
    under: 1_000
    none:
    truth: true
    """
    assert one(textwrap.dedent(text)).definition == {
        "yes": "no",
        "date": "2024-01-01",
        "time": "1:30",
        "octal": 15,
        "plain": 12,
        "hex": 31,
        "float": 1000.0,
        "under": "1_000",
        "none": None,
        "truth": True,
    }


def test_aliases_and_merges_work() -> None:
    text = "base: &b {attempts: 2}\nretry: {<<: *b, factor: 3}\nagain: *b\n"
    definition = one(text).definition
    assert definition["retry"] == {"attempts": 2, "factor": 3}
    assert definition["again"] == {"attempts": 2}


def test_a_file_may_hold_several_workflows_each_with_its_places() -> None:
    second = GOOD.replace("agent: notifier", "agent: pager")
    first, last = read_text(f"{GOOD}---\n{second}", "w.yaml")
    assert first.check(ACTIONS) == []
    (fault,) = last.check(ACTIONS)
    assert fault.place.line == len(GOOD.splitlines()) + 1 + 10


def test_json_is_checked_as_json_and_keeps_its_places(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text('{"name": "x",\n\t"nodes": [\n\t\t{"id": "a", "agent": "pager"}]}')
    (document,) = read(path)
    found = {(fault.place.line, fault.place.column) for fault in document.check(ACTIONS)}
    assert (3, 24) in found
    path.write_text('{"name": "x",\n "nodes": yes}')
    with pytest.raises(WorkflowFileError, match=r"w.json:2:11: not valid JSON"):
        read(path)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="No such file"):
        read(tmp_path / "missing.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: x\nb: \xe9\n")
    with pytest.raises(WorkflowFileError, match=r"latin.yaml:2:4: the text is not UTF-8"):
        read(latin)
    large = tmp_path / "large.yaml"
    large.write_text("#" * 1_000_001)
    with pytest.raises(CallerError, match="more than a workflow file may have"):
        read(large)


def test_the_examples_are_valid() -> None:
    from agents import builtin

    actions = {
        agent.name: known_actions(action.descriptor() for action in agent.actions.values())
        for agent in builtin()
    }
    files = sorted((Path(__file__).parents[3] / "examples" / "workflows").iterdir())
    assert files
    for file in files:
        for document in read(file):
            assert document.check(actions) == []

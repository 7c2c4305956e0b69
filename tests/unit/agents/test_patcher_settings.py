"""Values of configuration files: what changes, and that nothing else does."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import PermanentError
from agents.patcher.config_update import update
from agents.patcher.order import ConfigChange

NOTHING = object()


def changed(file: str, text: str, path: list[Any], value: Any = NOTHING) -> str:
    change = (
        ConfigChange(path=tuple(path), remove=True)
        if value is NOTHING
        else ConfigChange(path=tuple(path), value=value)
    )
    return update(file, text.encode(), [change]).decode()


JSON = """{
   "a" : 1,  "b": [1, 2,3],
   "c": {
      "d": "x"
   },
   "e": {}
}
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (["a"], 2, '"a" : 1', '"a" : 2'),
        (["b", 1], "ü", "[1, 2,3]", '[1, "ü",3]'),
        (["b", 3], 4, "2,3]", "2,3,4]"),
        (["c", "d"], None, '"x"', "null"),
        (["c", "f"], [1], '"x"\n', '"x",\n      "f": [\n         1\n      ]\n'),
        (["e", "g"], True, '"e": {}', '"e": {\n      "g": true\n   }'),
        (["a"], NOTHING, '"a" : 1,  "b"', '"b"'),
        (["e"], NOTHING, '},\n   "e": {}', "}"),
        (["c", "d"], NOTHING, '{\n      "d": "x"\n   }', "{}"),
        (["a"], 1, "", ""),
    ],
)
def test_json(path: list[Any], value: Any, old: str, new: str) -> None:
    assert changed("x.json", JSON, path, value) == JSON.replace(old, new, 1)
    crlf = JSON.replace("\n", "\r\n")
    assert changed("x.json", crlf, path, value) == crlf.replace(
        old.replace("\n", "\r\n"), new.replace("\n", "\r\n"), 1
    )


YAML = """\
# top
a: 1   # one
b:
    - x
    -   'y'
c: {d: "z", e: [1, 2]}
when: 2026-01-01
yes: no

text: |
    block
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (["a"], 2, "a: 1 ", "a: 2 "),
        (["b", 0], "no: colon", "- x", '- "no: colon"'),
        (["b", 0], "true", "- x", '- "true"'),
        (["b", 1], "it's", "'y'", "'it''s'"),
        (["c", "d"], "ü", '"z"', '"ü"'),
        (["c", "e", 1], None, "[1, 2]", "[1, null]"),
        (["yes"], "off", "yes: no", "yes: off"),
        (["a"], "plain text", "a: 1 ", "a: plain text "),
    ],
)
def test_a_scalar_of_yaml_keeps_everything_around_it(
    path: list[Any], value: Any, old: str, new: str
) -> None:
    assert changed("x.yaml", YAML, path, value) == YAML.replace(old, new, 1)
    crlf = YAML.replace("\n", "\r\n")
    assert changed("x.yml", crlf, path, value) == crlf.replace(old, new, 1)


ROUND = """\
# top
a:
  - x # here
  - name: one
    image: "app:1"
b:
  c: 1
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (["b", "d"], "x", "c: 1\n", "c: 1\n  d: x\n"),
        (["a", 2], {"k": 1}, '"app:1"\n', '"app:1"\n  - k: 1\n'),
        (["a", 1, "name"], NOTHING, "name: one\n    image", "image"),
        (["b", "c"], [1], "c: 1", "c:\n    - 1"),
    ],
)
def test_what_is_new_or_removed_in_yaml(path: list[Any], value: Any, old: str, new: str) -> None:
    assert changed("x.yaml", ROUND, path, value) == ROUND.replace(old, new, 1)


TOML = """\
# top
title = 'x'   # why

[a.b]
list = [
    1, # one
    2,
]
[[c]]
d = 1
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (["title"], "y", "'x'   # why", "'y'   # why"),
        (["a", "b", "list", 0], 3, "1, # one", "3, # one"),
        (["c", 0, "d"], NOTHING, "d = 1\n", ""),
        (["a", "b", "new"], True, "]\n[[c]]", "]\nnew = true\n[[c]]"),
    ],
)
def test_toml(path: list[Any], value: Any, old: str, new: str) -> None:
    assert changed("x.toml", TOML, path, value) == TOML.replace(old, new, 1)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("file", "text", "path", "value", "says"),
    [
        ("x.json", JSON, ["x", "y"], 1, r"nothing at \['x'\]"),
        ("x.json", JSON, ["b", 5], 1, "5 is no place in the list"),
        ("x.json", JSON, ["b", "x"], 1, "'x' is no place"),
        ("x.json", JSON, ["nothing"], NOTHING, "nothing at"),
        ("x.json", '{"a": 1, "a": 2}', ["a"], NOTHING, "without changing more"),
        ("x.json", "{// no\n}", ["a"], 1, "not JSON"),
        ("x.yaml", "a: [", ["a"], 1, "not YAML"),
        ("x.yaml", "a: 1\n---\nb: 1\n", ["a"], 2, "one document"),
        ("x.yaml", "a: &x {k: 1}\nb: *x\n", ["b", "k"], 2, "without changing more"),
        ("x.yaml", "a: 1\na: 2\n", ["a"], 2, "not YAML"),
        ("x.yaml", "a:   {b:    1}\n", ["a", "c"], 2, "without changing more"),
        ("x.yaml", BOMB, ["a"], 1, "too large"),
        ("x.yaml", "&a [*a]", [0], 1, "too large|without changing more"),
        ("x.yaml", "a: !!python/object:os.x 1\n", ["a"], 1, "not YAML"),
        ("x.yaml", "[" * 5000, ["a"], 1, "nested too deep|not YAML"),
        ("x.toml", "a = ", ["a"], 1, "not TOML"),
        ("x.toml", "a = 1", ["a"], None, "TOML cannot hold|without changing more"),
        ("x.toml", "[a]\n[[e]]\nf = 1\n", ["e"], "x", "without changing more"),
        ("x.ini", "[a]", ["a"], 1, "only .json, .yaml, .yml, .toml"),
    ],
)
def test_what_cannot_be_changed_is_told(
    file: str, text: str, path: list[Any], value: Any, says: str
) -> None:
    with pytest.raises(PermanentError, match=says):
        changed(file, text, path, value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=5), it, max_size=3),
    max_leaves=8,
)


@given(
    data=st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=4),
    value=VALUES,
    key=st.text(max_size=5),
    indent=st.sampled_from([None, 1, 2, 4, "\t"]),
    pick=st.integers(0),
)
def test_any_json_says_afterwards_what_was_asked(
    data: dict[str, Any], value: Any, key: str, indent: int | str | None, pick: int
) -> None:
    for step in (list(data)[pick % len(data)], key):
        new = changed("x.json", json.dumps(data, indent=indent), [step], value)
        assert json.loads(new) == data | {step: value}
    gone = list(data)[pick % len(data)]
    new = changed("x.json", json.dumps(data, indent=indent), [gone])
    assert json.loads(new) == {name: it for name, it in data.items() if name != gone}


@given(value=st.text(max_size=12) | st.integers() | st.booleans() | st.floats(allow_nan=False))
def test_any_scalar_of_yaml_says_afterwards_what_was_asked(value: Any) -> None:
    from ruamel.yaml import YAML

    for text in ("a: 1 # c\nb: 2\n", "a: 'x' # c\nb: 2\n", '{a: "x", b: 2}\n'):
        try:
            new = changed("x.yaml", text, ["a"], value)
        except PermanentError:
            continue  # what YAML cannot carry is refused, never written wrong
        assert YAML(typ="safe", pure=True).load(new) == {"a": value, "b": 2}

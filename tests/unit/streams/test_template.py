"""Templates: what they refer to, which types they keep, and what they say when they cannot."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.template import ROOTS, Reference, Template, TemplateError, follow

VALUES = {
    "context": {
        "text": "main",
        "whole": 7,
        "share": 0.5,
        "yes": True,
        "none": None,
        "list": [{"file": "a.py"}, "b"],
        "0": "key that looks like a position",
        "deep": {"er": {"est": []}},
        "with-dash_1": "x",
        "ö": "umlaut",
    },
    "event": {"data": {"n": 1}},
    "nodes": {"scan-1": {"output": {"found": 2}}, "2nd": {"output": "whole"}},
}


def scope(reference: Reference) -> Any:
    return follow(VALUES, reference, 0)


RENDERED = [
    # A template that is the whole string keeps the type …
    ("{{ context.text }}", "main"),
    ("{{ context.whole }}", 7),
    ("{{ context.share }}", 0.5),
    ("{{ context.yes }}", True),
    ("{{ context.none }}", None),
    ("{{ context.list }}", [{"file": "a.py"}, "b"]),
    ("{{ context.deep }}", {"er": {"est": []}}),
    ("{{ nodes.scan-1.output }}", {"found": 2}),
    ("{{ nodes.scan-1.output.found }}", 2),
    ("{{ nodes.2nd.output }}", "whole"),
    ("{{ event.data.n }}", 1),
    ("{{ event }}", {"data": {"n": 1}}),
    # … however it is spaced.
    ("{{context.whole}}", 7),
    ("{{\n  context.whole\t}}", 7),
    # Inside a longer string it is written out: text as it is, the rest as JSON.
    ("on {{ context.text }}", "on main"),
    (" {{ context.whole }}", " 7"),
    ("{{ context.whole }}{{ context.text }}", "7main"),
    ("{{ context.yes }}/{{ context.none }}/{{ context.share }}", "true/null/0.5"),
    ("found: {{ context.list }}!", 'found: [{"file":"a.py"},"b"]!'),
    # Positions of lists, names of objects.
    ("{{ context.list.0.file }}", "a.py"),
    ("{{ context.list.1 }}", "b"),
    ("{{ context.0 }}", "key that looks like a position"),
    ("{{ context.with-dash_1 }}", "x"),
    ("{{ context.ö }}", "umlaut"),
    # Whatever the value is made of.
    ({"a": ["{{ context.whole }}", {"b": "{{ event.data.n }}"}]}, {"a": [7, {"b": 1}]}),
    # What has no template stays as it is.
    ("plain", "plain"),
    ("{ context.text } {x} }}", "{ context.text } {x} }}"),
    ("", ""),
    ([1, None, True, 2.5, {"{{ key }}": 1}], [1, None, True, 2.5, {"{{ key }}": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "rendered"), RENDERED)
def test_rendering(value: Any, rendered: Any) -> None:
    result = Template(value).render(scope)
    assert result == rendered
    assert type(result) is type(rendered)


NO_PATH = "'TEMPLATE' is not a path like context.repository.name"
NO_OUTPUT = (
    "'TEMPLATE' must read nodes.<id>.output, a path below it, nodes.<id>.status or nodes.<id>.error"
)

MALFORMED = [
    ("{{  }}", NO_PATH),
    ("{{ context..a }}", NO_PATH),
    ("{{ context.a b }}", NO_PATH),
    ("{{ context.a | upper }}", NO_PATH),
    ("{{ 1.a }}", NO_PATH),
    ("x {{ env.HOME }}", "'{{ env.HOME }}' begins with 'env'; use one of " + ", ".join(ROOTS)),
    ("{{ nodes.a }}", NO_OUTPUT),
    ("{{ nodes }}", NO_OUTPUT),
    ("{{ nodes.a.state }}", NO_OUTPUT),
]  # fmt: skip


@pytest.mark.parametrize(("value", "why"), MALFORMED)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"deep": [v]}])
def test_malformed_templates_are_refused_when_compiled(value: str, why: str, wrap: Any) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(wrap(value))
    assert str(caught.value) == why.replace("TEMPLATE", value)


NOWHERE = [
    (
        "{{ context.brnch }}",
        (
            "'{{ context.brnch }}' points nowhere: context has 0, deep, list, none, share, text,"
            " whole, with-dash_1, yes, ö, not 'brnch'"
        ),
    ),
    (
        "{{ context.list.2 }}",
        "'{{ context.list.2 }}' points nowhere: context.list is a list of 2, not '2'",
    ),
    (
        "{{ context.list.-1 }}",
        "'{{ context.list.-1 }}' points nowhere: context.list is a list of 2, not '-1'",
    ),
    (
        "{{ context.list.file }}",
        "'{{ context.list.file }}' points nowhere: context.list is a list of 2, not 'file'",
    ),
    (
        "{{ context.text.length }}",
        "'{{ context.text.length }}' points nowhere: context.text is a text, not 'length'",
    ),
    (
        "{{ context.none.x }}",
        "'{{ context.none.x }}' points nowhere: context.none is null, not 'x'",
    ),
    (
        "{{ context.deep.er.est.0 }}",
        "'{{ context.deep.er.est.0 }}' points nowhere: context.deep.er.est is a list of 0, not '0'",
    ),
    (
        # A digit to `str.isdigit`, but no number to `int`.
        "{{ context.list.² }}",
        "'{{ context.list.² }}' points nowhere: context.list is a list of 2, not '²'",
    ),
]


@pytest.mark.parametrize(("value", "why"), NOWHERE)
def test_what_points_nowhere_says_what_is_there(value: str, why: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(["fine", value]).render(scope)
    assert str(caught.value) == why


def test_an_empty_object_is_said_to_be_empty() -> None:
    with pytest.raises(TemplateError, match=r"points nowhere: context is empty, not 'a'"):
        Template("{{ context.a }}").render(lambda r: follow({}, r, 1))


def test_references_are_found_in_order_with_the_node_they_mean() -> None:
    template = Template(
        {"a": "{{ nodes.x.output.y }} and {{ event.type }}", "b": ["{{ context.z }}", "plain"]}
    )
    assert template.references == (
        Reference("nodes.x.output.y", ("nodes", "x", "output", "y")),
        Reference("event.type", ("event", "type")),
        Reference("context.z", ("context", "z")),
    )
    assert [r.node for r in template.references] == ["x", None, None]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_a_whole_template_gives_exactly_the_value(value: Any) -> None:
    assert Template({"k": ["{{ context }}"]}).render(lambda _: value) == {"k": [value]}


@given(json_values.filter(lambda v: "{{" not in repr(v)))
def test_a_value_without_templates_is_untouched(value: Any) -> None:
    template = Template(value)
    assert template.references == ()
    assert template.render(scope) == value


@given(st.text(alphabet="{} .contexdws²1-|ö\n", max_size=30))
def test_compiling_and_rendering_fail_with_template_errors_only(text: str) -> None:
    with suppress(TemplateError):
        Template([text]).render(scope)

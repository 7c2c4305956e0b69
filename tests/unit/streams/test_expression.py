import msgspec
import pytest

from streams.errors import DefinitionError
from streams.expression import Expression, Verdict, event_values
from streams.plan import parse
from streams.records import Trigger

EVENT = event_values(
    Trigger(
        id="1",
        source="/ci",
        type="repo.push",
        data=msgspec.Raw(
            b'{"branch":"main","n":3,"files":["a.py"],"big":123456789012345678901234}'
        ),
    )
)


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("event.data.branch == 'main'", True),
        ("event.data.branch == 'dev'", False),
        ("event.type.startsWith('repo.') && event.data.n > 2", True),
        ("event.data.files.exists(f, f.endsWith('.py'))", True),
        ("has(event.data.missing) && event.data.missing == 1", False),
        ("event.subject == null", True),
    ],
)
def test_conditions(text: str, matched: bool) -> None:
    assert Expression(text).check({"event": EVENT}) == Verdict(matched)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("event.data.missing == 1", "there is no 'missing'"),
        ("event.data.branch", "gave str, not true or false"),
        ("event.data.n / 0 == 1", "division by zero"),
        ("event.data.branch + 1 == 2", "Unsupported operation"),
        ("event.data.branch.matches('(')", "not a valid regex"),
        ("event.data.n == other", "'other'"),
    ],
)
def test_a_condition_that_fails_does_not_match_and_says_why(text: str, reason: str) -> None:
    verdict = Expression(text).check({"event": EVENT})
    assert not verdict.matched
    assert reason in verdict.reason


def test_what_a_macro_calls_its_elements_is_no_name_that_has_to_be_there() -> None:
    text = "event.data.files.exists(f, f == 'x.all(q, q)') || [1].all(n, n > m)"
    assert Expression(text).variables == {"event", "m"}
    assert Expression("event.data.files.exists(context, context == event.id)").variables == {
        "event", "context",
    }  # fmt: skip
    trigger = {"event": "a", "filter": "event.data.files.exists(f, f.endsWith('.py'))"}
    plan = parse({"name": "w", "trigger": trigger, "nodes": [{"id": "n", "delay": "1s"}]})
    assert plan.filter is not None
    assert plan.filter.check({"event": EVENT}).matched


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event.data.x ==", "not a CEL expression: 1:"),
        ("", "not a CEL expression"),
        ("(" * 400, "not a CEL expression"),
        ("1 == 1", "does not look at the event"),
        ("event.id == '" + "x" * 5000 + "'", "characters"),
    ],
)
def test_a_malformed_condition_is_a_problem_of_the_definition(text: str, says: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        parse(
            {
                "name": "w",
                "trigger": {"event": "a", "filter": text},
                "nodes": [{"id": "n", "agent": "a", "action": "x"}],
            }
        )
    (problem,) = raised.value.problems
    assert problem.path == ("trigger", "filter")
    assert says in problem.message

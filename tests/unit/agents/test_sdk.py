"""The SDK: declaring an agent, testing an action, and what others see of it."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agents import (
    Agent,
    AgentError,
    AgentRegistry,
    Context,
    Model,
    builtin,
    load,
)
from streams.errors import OperatorError

ROOT = Path(__file__).parents[3]


class Numbers(Model):
    first_number: int
    second_number: int = 1


class Total(Model):
    total_sum: int
    by_task: str = ""


class Unresolved(BaseModel):
    other: "Nowhere"  # noqa: F821 -- the point of the test


class Odd(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    lock: asyncio.Lock


def calculator() -> Agent:
    return Agent("calculator", description="Adds.", version="2.1.0")


async def add(inputs: Numbers) -> Total:
    """Add two numbers.

    Not more.
    """
    return Total(total_sum=inputs.first_number + inputs.second_number)


async def add_for(inputs: Numbers, context: Context) -> Total:
    return Total(total_sum=inputs.first_number, by_task=f"{context.task_id} {context.attempt}")


def add_in_thread(inputs: Numbers) -> Total:
    return Total(total_sum=inputs.first_number, by_task=threading.current_thread().name)


def add_as_dict(inputs: Numbers) -> Total:
    return {"totalSum": inputs.first_number}


def add_wrongly(inputs: Numbers) -> Total:
    return {"total": inputs.first_number}


async def test_an_action_is_tested_without_a_server() -> None:
    action = calculator().action(add)
    assert await action.test({"firstNumber": 2, "secondNumber": 3}) == Total(total_sum=5)
    assert await action.test(Numbers(first_number=2)) == Total(total_sum=3)


async def test_an_action_may_ask_for_the_context() -> None:
    action = calculator().action(add_for)
    given = await action.test(Numbers(first_number=1), Context(task_id="t1", attempt=3))
    assert given == Total(total_sum=1, by_task="t1 3")
    assert (await action.test(Numbers(first_number=1))).by_task == "test 1"


async def test_a_sync_action_runs_in_another_thread() -> None:
    given = await calculator().action(add_in_thread).test({"firstNumber": 1})
    assert given.by_task != threading.current_thread().name


async def test_a_dict_of_the_right_shape_is_as_good_as_the_model() -> None:
    assert await calculator().action(add_as_dict).test({"firstNumber": 4}) == Total(total_sum=4)


@pytest.mark.parametrize("inputs", [{}, {"firstNumber": "x"}, {"firstNumber": 1, "typo": 2}])
async def test_wrong_inputs_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await calculator().action(add).test(inputs)


async def test_a_wrong_output_is_refused() -> None:
    with pytest.raises(ValidationError):
        await calculator().action(add_wrongly).test({"firstNumber": 1})


async def test_a_test_is_bounded_by_the_actions_timeout() -> None:
    async def wait(inputs: Numbers) -> Total:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await calculator().action(timeout=0.01)(wait).test({"firstNumber": 1})


async def test_the_logger_says_which_task_it_speaks_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Context(task_id="task-7", run_id="run-3", node="scan").logger.info("hello")
    line = capsys.readouterr().out
    assert "hello" in line
    assert "task-7" in line
    assert "run-3" in line


def no_annotation(inputs):
    return inputs


def no_return(inputs: Numbers):
    return inputs


def not_a_model(inputs: int) -> Total:
    return Total(total_sum=inputs)


def returns_a_dict(inputs: Numbers) -> dict[str, int]:
    return {"x": inputs.first_number}


def no_inputs() -> Total:
    return Total(total_sum=0)


def too_many(inputs: Numbers, context: Context, more: int) -> Total:
    raise NotImplementedError


def keyword_only(*, inputs: Numbers) -> Total:
    return Total(total_sum=inputs.first_number)


def wrong_context(inputs: Numbers, context: int) -> Total:
    raise NotImplementedError


def unresolved_model(inputs: Unresolved) -> Total:
    raise NotImplementedError


def not_json(inputs: Odd) -> Total:
    raise NotImplementedError


async def generator(inputs: Numbers) -> Total:
    yield Total(total_sum=inputs.first_number)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (no_annotation, "parameter 'inputs' has no annotation"),
        (no_return, "the return value has no annotation"),
        (not_a_model, "parameter 'inputs' is annotated <class 'int'>"),
        (returns_a_dict, "the return value is annotated dict"),
        (no_inputs, "takes the inputs"),
        (too_many, "takes the inputs"),
        (keyword_only, "takes the inputs"),
        (wrong_context, "annotate 'context' as agents.Context"),
        (unresolved_model, "not usable as JSON.*Nowhere"),
        (not_json, "not usable as JSON"),
        (generator, "a plain function"),
        (print, "a plain function"),
    ],
)
def test_a_wrong_declaration_is_an_error_at_import(function: Any, says: str) -> None:
    with pytest.raises(AgentError, match=says) as raised:
        calculator().action(function)
    name = getattr(function, "__name__", "")
    assert f"action {name!r} of agent 'calculator'" in str(raised.value)


def test_two_actions_of_one_name_are_refused() -> None:
    agent = calculator()
    agent.action(add)
    with pytest.raises(AgentError, match="two actions called 'add'"):
        agent.action(name="add")(add_for)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "Wrong Name"},
        {"name": ""},
        {"name": "a" * 64},
        {"timeout": 0},
        {"timeout": -1},
        {"risk": "HIGH"},
    ],
)
def test_wrong_options_of_an_action_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(AgentError):
        calculator().action(**arguments)(add)


@pytest.mark.parametrize("name", ["", "Upper", "with space", "tasks.dot", "a" * 64, "-x"])
def test_a_name_that_cannot_be_a_topic_is_refused(name: str) -> None:
    with pytest.raises(AgentError, match="the name is"):
        Agent(name, description="x")


def test_concurrency_is_at_least_one() -> None:
    with pytest.raises(AgentError, match="at least 1"):
        Agent("a", description="x", concurrency=0)


async def test_an_action_with_a_risk_says_so_and_is_tested_all_the_same() -> None:
    agent = calculator()
    action = agent.action(risk="APPROVAL_REQUIRED")(add)
    assert [each["risk"] for each in agent.descriptor()["actions"]] == ["APPROVAL_REQUIRED"]
    assert await action.test({"firstNumber": 2}) == Total(total_sum=3)


def test_the_descriptor_is_plain_json_with_the_schemas() -> None:
    agent = calculator()
    agent.action(timeout=2.5)(add)
    descriptor = agent.descriptor()
    assert json.loads(json.dumps(descriptor)) == descriptor
    (action,) = descriptor.pop("actions")
    assert descriptor == {
        "name": "calculator",
        "version": "2.1.0",
        "type": "RULE",
        "description": "Adds.",
        "concurrency": 64,
        "rate": None,
    }
    assert set(action.pop("inputSchema")["properties"]) == {"firstNumber", "secondNumber"}
    assert set(action.pop("outputSchema")["properties"]) == {"totalSum", "byTask"}
    assert action == {
        "name": "add",
        "description": "Add two numbers.",
        "risk": "AUTO",
        "timeoutMs": 2500,
        "execution": "light",
        "memoryBytes": 512_000_000,
    }


def test_the_registry_finds_actions_and_says_what_is_missing() -> None:
    agent = calculator()
    action = agent.action(add)
    registry = AgentRegistry([agent])
    assert registry.find("calculator", "add") is action
    assert registry.find("calculator", "subtract") is None
    assert registry.find("nobody", "add") is None
    assert "it has: add" in registry.explain_missing("calculator", "subtract")
    assert "this worker serves: calculator" in registry.explain_missing("nobody", "add")
    assert registry.descriptors() == [agent.descriptor()]


def test_two_agents_of_one_name_are_refused() -> None:
    with pytest.raises(OperatorError, match="two agents are called 'calculator'"):
        AgentRegistry([calculator(), calculator()])


def test_the_builtin_agents() -> None:
    actions = {agent.name: list(agent.actions) for agent in builtin()}
    assert actions == {
        "security-scanner": ["scan"],
        "compliance-checker": ["check"],
        "report": ["summarize"],
        "notifier": ["send"],
        "patcher": ["apply"],
        "code-reviewer": ["review"],
        "architecture-diagrammer": ["diagram"],
        "http": ["request"],
        "script": ["run"],
        "llm": ["complete"],
    }


def test_serving_the_builtin_agents_imports_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, agents; agents.AgentRegistry(agents.builtin()).descriptors();"
        "print({'bandit', 'detect_secrets', 'apprise', 'requests', 'faust', 'rope', 'tomlkit',"
        "'ruamel.yaml', 'packaging', 'lizard', 'radon', 'tree_sitter'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_an_agent_is_loaded_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_sound.py").write_text(
        "from agents import Agent\nmine = Agent('mine', description='x')\nother = 1\n"
    )
    (tmp_path / "mine_broken.py").write_text("1 / 0\n")
    (tmp_path / "mine_unfinished.py").write_text("import mine_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("mine_sound:mine").name == "mine"
    for reference, kind, says in [
        ("mine_sound", OperatorError, "write module:variable"),
        ("mine_sound:", OperatorError, "write module:variable"),
        ("mine_sound:nothing", OperatorError, "is missing, not an agents.Agent"),
        ("mine_sound:other", OperatorError, "is int, not an agents.Agent"),
        ("mine_nowhere:mine", OperatorError, "there is no module 'mine_nowhere'"),
        ("mine_broken:mine", AgentError, "ZeroDivisionError"),
        ("mine_unfinished:mine", AgentError, "No module named 'mine_missing_dependency'"),
    ]:
        with pytest.raises(kind, match=says):
            load(reference)

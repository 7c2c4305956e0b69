"""`llm complete` with the worker's actions as tools, in workflows, with models that act as told."""

import json
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import sandboxed
from msgspec import Raw
from pydantic import BaseModel
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.wrapper import WrapperModel

import agents.llm as under_test
from agents import Agent, AgentError, AgentRegistry, Context, PermanentError
from agents.colleagues import WorkerColleagues
from agents.execution import Execution
from agents.llm import complete, llm
from agents.llm_limits import LIMITS, Limits, capped
from agents.llm_tools import TOOLS, allowed
from agents.payloads import Payloads
from agents.readable import ReadablePaths
from agents.sandbox import ProcessSandbox
from agents.sandbox.actions import SandboxedActions, check
from agents.testing import WorkflowResult, run_workflow
from streams.blob_store import BlobStore
from streams.errors import OperatorError
from streams.messages import Task

PASSWORD = "correct horse battery"

shop = Agent("shop", description="Sells.", version="1.0.0")


class Order(BaseModel):
    item: str
    count: int = 1
    account: str = "nobody"


class Bought(BaseModel):
    text: str


@shop.action
async def buy(inputs: Order, context: Context) -> Bought:
    """Buy something."""
    context.cost.record(source="shop.example", unit_price="0.25", quantity=inputs.count)
    return Bought(text=f"{inputs.count} {inputs.item} for {inputs.account}")


@shop.action
def pay(inputs: Order, context: Context) -> Bought:
    """Pay with the password."""
    return Bought(text=f"paid, {len(context.secrets['PASSWORD'])} letters")


@shop.action
def leak(inputs: Order, context: Context) -> Bought:
    """Tell the password."""
    return Bought(text=context.secrets["PASSWORD"])


@shop.action
def break_down(inputs: Order) -> Bought:
    """Fail."""
    raise ValueError(f"no {inputs.item} is left")


@shop.action
async def who(inputs: Order, context: Context) -> Bought:
    """Say which task this is."""
    (context.workspace / "left").touch()
    return Bought(text=f"{context.task_id} {context.agent} {context.action}")


@shop.action
async def close(inputs: Order, context: Context) -> Bought:
    """The step is called off while this is at work."""
    context.signals.cancel("enough")
    return Bought(text="closed")


@shop.action(risk="APPROVAL_REQUIRED")
async def burn(inputs: Order) -> Bought:
    """Burn the shop down."""
    raise AssertionError("it was called")


class Model:
    """Answers with these turns, one after the other: calls of tools, or text."""

    def __init__(self, *turns: str | list[tuple[str, dict[str, Any]]]) -> None:
        self.turns = list(turns)
        self.heard: list[Any] = []
        self.offered: dict[str, dict[str, Any]] = {}

    def answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.offered = {tool.name: tool.parameters_json_schema for tool in info.function_tools}
        last = messages[-1]
        assert isinstance(last, ModelRequest)
        self.heard += [it.content for it in last.parts if isinstance(it, ToolReturnPart)]
        turn = self.turns.pop(0)
        if isinstance(turn, str):
            return ModelResponse(parts=[TextPart(turn)])
        return ModelResponse(parts=[ToolCallPart(name, given) for name, given in turn])


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model], None]:
    def use(model: Model) -> None:
        def opened(names: list[str], context: Context, clients: AsyncExitStack) -> WrapperModel:
            return WrapperModel(FunctionModel(model.answer))

        monkeypatch.setattr(under_test, "open_models", opened)

    return use


async def run(*tools: dict[str, Any], **inputs: Any) -> WorkflowResult:
    workflow = {
        "name": "asked",
        "nodes": [
            {
                "id": "ask",
                "agent": "llm",
                "action": "complete",
                "inputs": {"prompt": "x", "model": "test", "tools": list(tools), **inputs},
            }
        ],
    }
    return await run_workflow(workflow, [llm, shop], secrets={"PASSWORD": PASSWORD})


def tool(action: str, **more: Any) -> dict[str, Any]:
    return {"agent": "shop", "action": action, **more}


async def test_the_test_model_calls_the_tools() -> None:
    result = await run(tool("buy"))
    output = result.outputs["ask"]
    assert [(it["agent"], it["action"], it["failure"]) for it in output["toolCalls"]] == [
        ("shop", "buy", None)
    ]
    assert "for nobody" in output["text"]


async def test_a_call_its_result_and_all_costs(use: Callable[[Model], None]) -> None:
    model = Model([("shop__buy", {"item": "pears", "count": 3})], "three pears")
    use(model)
    result = await run(tool("buy", inputs={"account": "ours"}))
    output = result.outputs["ask"]
    assert output["text"] == "three pears"
    assert model.heard == ['{"text":"3 pears for ours"}']
    assert set(model.offered["shop__buy"]["properties"]) == {"item", "count"}
    assert output["toolCalls"] == [
        {"agent": "shop", "action": "buy", "inputs": '{"item":"pears","count":3}', "failure": None}
    ]
    assert output["usage"]["requests"] == 2
    costs = {(it.source, it.kind): it.amount for it in result.costs}
    assert str(costs["shop.example", "api"]) == "0.75"
    tokens = [it for it in result.costs if it.kind == "tokens" and it.unit == "output_token"]
    assert sum(it.quantity for it in tokens) == output["usage"]["outputTokens"]


async def test_what_the_step_gives_the_model_cannot_change(use: Callable[[Model], None]) -> None:
    model = Model([("shop__buy", {"item": "pears", "account": "theirs"})], "done")
    use(model)
    await run(tool("buy", inputs={"account": "ours"}))
    assert model.heard == ['{"text":"1 pears for ours"}']


async def test_json_of_a_schema_after_a_call(use: Callable[[Model], None]) -> None:
    model = Model(
        [("shop__buy", {"item": "pears"})],
        [("final_result", {"bought": True})],
    )
    use(model)
    schema = {"type": "object", "properties": {"bought": {"type": "boolean"}}}
    result = await run(tool("buy"), schema=schema)
    assert result.outputs["ask"]["json"] == {"bought": True}


@pytest.mark.parametrize(
    ("action", "given", "more", "text"),
    [
        ("break_down", {"item": "pears"}, {}, "agent_error: ValueError: no pears is left"),
        ("buy", {"count": "many"}, {}, "takes: item: Field required; count: "),
        ("pay", {"item": "x"}, {}, "there is no secret PASSWORD"),
        ("leak", {"item": "x"}, {"secrets": ["PASSWORD"]}, "the secret PASSWORD stands in"),
    ],
)
async def test_a_failed_call_is_told_to_the_model(
    action: str, given: Any, more: Any, text: str, use: Callable[[Model], None]
) -> None:
    model = Model([(f"shop__{action}", given)], "a pity")
    use(model)
    result = await run(tool(action, **more))
    (heard,) = model.heard
    assert heard.startswith("The call failed: ")
    assert text in heard
    assert PASSWORD not in heard
    output = result.outputs["ask"]
    assert output["text"] == "a pity"
    assert text in output["toolCalls"][0]["failure"]


async def test_secrets_that_the_step_names(use: Callable[[Model], None]) -> None:
    model = Model([("shop__pay", {"item": "x"})], f"the password is {PASSWORD}")
    use(model)
    result = await run(tool("pay", secrets=["PASSWORD"]))
    assert model.heard == ['{"text":"paid, 21 letters"}']
    error = result.nodes["ask"].error
    assert error is not None
    assert error.message == "the secret PASSWORD stands in the output"


async def test_each_call_has_a_key_of_its_own(use: Callable[[Model], None]) -> None:
    same = ("shop__who", {"item": "x"})
    model = Model([same], [same], "done")
    use(model)
    await run(tool("who"))
    said = [json.loads(each)["text"].split() for each in model.heard]
    assert [each[1:] for each in said] == [["shop", "who"], ["shop", "who"]]
    assert len({each[0] for each in said}) == 2


async def test_long_results_are_cut(use: Callable[[Model], None]) -> None:
    model = Model([("shop__buy", {"item": "x" * 500})], "done")
    use(model)
    await run(tool("buy"), limits={"toolResult": 100})
    (heard,) = model.heard
    assert len(heard) < 170
    assert "(cut: the first 100 of 5" in heard


@pytest.mark.parametrize(
    ("turns", "limits", "text"),
    [
        ([[("shop__buy", {"item": "x"})]] * 9, {"toolCalls": 2}, "tool_calls_limit of 2"),
        ([[("shop__buy", {"item": "x"})] * 3], {"toolCalls": 2}, "tool_calls_limit of 2"),
        ([[("shop__buy", {"count": "x"})]] * 9, {"toolCalls": 2}, "tool_calls_limit of 2"),
        ([[("shop__buy", {"item": "x"})]] * 9, {"requests": 3}, "request_limit of 3"),
    ],
)
async def test_limits(
    turns: list[Any], limits: dict[str, int], text: str, use: Callable[[Model], None]
) -> None:
    use(Model(*turns))
    result = await run(tool("buy"), limits=limits)
    error = result.nodes["ask"].error
    assert error is not None
    assert (error.retryable, text in error.message) == (False, True)
    bought = sum(it.quantity for it in result.costs if it.source == "shop.example")
    assert bought <= 3
    assert any(it.kind == "tokens" for it in result.costs)  # paid for all the same


async def test_a_limit_on_cost_where_no_price_is_known(use: Callable[[Model], None]) -> None:
    use(Model("hello"))
    result = await run(limits={"cost": "0.10"})
    error = result.nodes["ask"].error
    assert error is not None
    assert "a limit of the step cannot be held" in error.message


async def test_calls_show_and_none_begins_once_the_step_is_called_off(
    use: Callable[[Model], None],
) -> None:
    use(Model([("shop__close", {"item": "x"})], [("shop__buy", {"item": "x"})]))
    context = Context(colleagues=WorkerColleagues(AgentRegistry([shop])))
    inputs = {"prompt": "x", "model": "test", "tools": [tool("close"), tool("buy")]}
    with pytest.raises(AgentError, match="called off"):
        await complete.test(inputs, context)
    assert context.signals.progress == (None, "tool call 1: shop close")
    assert [it.source for it in context.cost.entries if it.kind == "api"] == []


async def test_without_a_worker_there_are_no_tools(use: Callable[[Model], None]) -> None:
    use(Model())
    with pytest.raises(PermanentError, match="only in a worker"):
        await complete.test({"prompt": "x", "model": "test", "tools": [tool("buy")]})


@pytest.mark.parametrize(
    ("named", "setting", "text"),
    [
        (tool("burn"), "", "shop burn is done only when a person has agreed"),
        (tool("steal"), "", "has no action 'steal'"),
        ({"agent": "bank", "action": "rob"}, "", "no agent is called 'bank'"),
        ({"agent": "llm", "action": "complete"}, "", "cannot be its own tool"),
        (tool("buy"), "shop.pay,report.*", f"shop buy is not among those of {TOOLS}"),
        (tool("buy"), "none", f"shop buy is not among those of {TOOLS}"),
    ],
)
async def test_tools_that_are_refused_before_anything_is_asked(
    named: dict[str, Any],
    setting: str,
    text: str,
    use: Callable[[Model], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TOOLS, setting)
    use(Model())
    result = await run(named)
    error = result.nodes["ask"].error
    assert error is not None
    assert (text in error.message, error.retryable) == (True, False)


async def test_what_the_operator_allows(
    use: Callable[[Model], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOOLS, "shop.*, report.summarize")
    use(Model([("shop__buy", {"item": "x"})], "done"))
    assert (await run(tool("buy"))).status == "SUCCESS"
    assert allowed("") is None
    with pytest.raises(OperatorError, match=TOOLS):
        allowed("shop")


def test_limits_of_the_operator() -> None:
    wanted = Limits(requests=30, total_tokens=10)
    assert capped(wanted, "") == wanted
    held = capped(wanted, "requests=20, totalTokens=50,cost=0.5")
    assert (held.requests, held.total_tokens, str(held.cost)) == (20, 10, "0.5")
    for wrong in ("requests", "requests=many", "nothing=1", "requests=0"):
        with pytest.raises(OperatorError, match=LIMITS):
            capped(wanted, wrong)


async def test_a_tool_in_the_sandbox(tmp_path: Path, use: Callable[[Model], None]) -> None:
    model = Model([("sandboxed__where", {"text": "loud"})], "done")
    use(model)
    blobs = BlobStore(str(tmp_path / "blobs"), 1_000_000)
    async with ProcessSandbox(check(sandboxed.agent.actions.values()), folder=tmp_path) as sandbox:
        execution = Execution(
            AgentRegistry([llm, sandboxed.agent]),
            Payloads(blobs),
            now_ms=lambda: 0,
            blobs=blobs,
            sandboxed=SandboxedActions(sandbox, ReadablePaths()),
        )
        named = {"agent": "sandboxed", "action": "where"}
        inputs = {"prompt": "x", "model": "test", "tools": [named]}
        result = await execution.execute(
            Task(
                id="t",
                run="r",
                project="p",
                workflow="w",
                node="n",
                attempt=1,
                agent="llm",
                action="complete",
                inputs=Raw(json.dumps(inputs).encode()),
                timeout_ms=30_000,
                reply_partition=0,
            )
        )
    assert result.failure is None
    pid, *_, node = json.loads(model.heard[0])["said"].split()
    assert node == "n"
    assert int(pid) != os.getpid()

"""`llm complete` against a server that speaks as OpenAI does, and with the test model."""

import json
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from genai_prices.types import ModelPrice, Tier, TieredPrices
from pydantic import BaseModel, ValidationError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.usage import RequestUsage
from structlog.testing import capture_logs

from agents import Agent, AgentError, AgentRegistry, Context, PermanentError, Secrets
from agents import llm as under_test
from agents.colleagues import WorkerColleagues
from agents.llm import UNKNOWN, CompleteInput, complete
from agents.llm_models import MODELS, URLS, default_models, open_models, urls
from agents.llm_price import record
from agents.secrets import WorkerSecrets
from streams.errors import OperatorError

SCHEMA = {
    "type": "object",
    "properties": {"severity": {"enum": ["low", "high"]}, "lines": {"type": "integer"}},
    "required": ["severity"],
    "additionalProperties": False,
}


class Wish(BaseModel):
    what: str


class Provider:
    """Gives `answers` one after the other: a status, or text, or arguments of the output tool."""

    def __init__(self) -> None:
        self.answers: list[int | str | dict[str, Any]] = []
        self.came: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.model = "gpt-4o-mini"

    async def answer(self, asked: web.BaseRequest) -> web.Response:
        body = await asked.json()
        self.came.append((dict(asked.headers), body))
        given = self.answers.pop(0)
        if isinstance(given, int):
            return web.json_response(
                {"error": {"message": f"no, says {given}"}},
                status=given,
                headers={"retry-after-ms": "1"},
            )
        message: dict[str, Any] = {"role": "assistant", "content": given}
        if isinstance(given, dict):
            name = body["tools"][0]["function"]["name"]
            call = {"name": name, "arguments": json.dumps(given)}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": call}],
            }
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": self.model,
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {
                    "prompt_tokens": 1_000,
                    "completion_tokens": 100,
                    "total_tokens": 1_100,
                    "prompt_tokens_details": {"cached_tokens": 400},
                },
            }
        )


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    provider = Provider()
    runner = web.ServerRunner(web.Server(provider.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    away = "http://127.0.0.1:9/v1"
    monkeypatch.setenv(URLS, f"openai=http://127.0.0.1:{port}/v1,local=http://127.0.0.1:{port}/v1"
                             f",away={away}")  # fmt: skip
    monkeypatch.delenv(MODELS, raising=False)
    yield provider
    await runner.cleanup()


@pytest.fixture
def context() -> Context:
    return Context(secrets=Secrets({"OPENAI_API_KEY": "key-of-openai"}))


async def test_text_and_what_it_costs(provider: Provider, context: Context) -> None:
    provider.answers = ["it is fine"]
    output = await complete.test(
        {
            "prompt": "is it?",
            "instructions": "be short",
            "messages": [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi"},
            ],
            "model": "openai:gpt-4o-mini",
            "temperature": 0.5,
            "maxTokens": 10,
        },
        context,
    )
    assert (output.text, output.json_, output.model) == ("it is fine", None, "gpt-4o-mini")
    assert output.usage.model_dump() == {
        "requests": 1,
        "input_tokens": 1_000,
        "cached_input_tokens": 400,
        "output_tokens": 100,
    }
    ((headers, body),) = provider.came
    assert headers["Authorization"] == "Bearer key-of-openai"
    assert [(it["role"], it["content"]) for it in body["messages"]] == [
        ("system", "be short"), ("user", "hello"), ("assistant", "hi"), ("user", "is it?"),
    ]  # fmt: skip
    assert body["temperature"] == 0.5
    prices = {it.unit: (it.quantity, it.unit_price) for it in context.cost.entries}
    assert prices == {
        "input_token": (600, Decimal("0.00000015")),
        "cached_input_token": (400, Decimal("0.000000075")),
        "output_token": (100, Decimal("0.0000006")),
    }
    assert output.cost == sum(it.amount for it in context.cost.entries) == Decimal("0.00018")
    assert {it.price_version for it in context.cost.entries} == {output.price_version}
    assert output.price_version.startswith("genai-prices ")


async def test_what_takes_its_time_to_be_imported_holds_up_no_other_task(
    monkeypatch: pytest.MonkeyPatch, context: Context
) -> None:
    places: list[threading.Thread] = []

    def opened(names: list[str], context: Context, clients: AsyncExitStack) -> Any:
        places.append(threading.current_thread())
        return open_models(names, context, clients)

    monkeypatch.setattr(under_test, "open_models", opened)
    assert (await complete.test({"prompt": "x", "model": "test"}, context)).model == "test"
    (place,) = places
    assert place is not threading.current_thread()


async def test_a_tool_over_the_wire(provider: Provider) -> None:
    buyer = Agent("buyer", description="Buys.")

    @buyer.action
    async def buy(inputs: Wish) -> Wish:
        """Buy it."""
        return inputs

    provider.answers = [{"what": "pears"}, "bought"]
    context = Context(
        secrets=Secrets({"OPENAI_API_KEY": "key-of-openai"}),
        colleagues=WorkerColleagues(AgentRegistry([buyer])),
    )
    tools = [{"agent": "buyer", "action": "buy"}]
    asked = {"prompt": "x", "model": "openai:gpt-4o-mini", "tools": tools}
    output = await complete.test(asked, context)
    assert (output.text, output.usage.requests) == ("bought", 2)
    (_, first), (_, second) = provider.came
    (offered,) = first["tools"]
    assert (offered["function"]["name"], offered["function"]["description"]) == (
        "buyer__buy",
        "Buy it.",
    )
    assert list(offered["function"]["parameters"]["properties"]) == ["what"]
    assert second["messages"][-1]["content"] == '{"what":"pears"}'


async def test_a_model_without_a_price_says_so(provider: Provider, context: Context) -> None:
    provider.model, provider.answers = "house-made", ["yes"]
    output = await complete.test({"prompt": "x", "model": "local:house-made"}, context)
    assert (output.cost, output.price_version) == (None, UNKNOWN)
    assert [(it.unit, it.amount) for it in context.cost.entries] == [
        ("input_token", 0), ("cached_input_token", 0), ("output_token", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("tokens", "dollars"), [(1_000, "1"), (1_500, "2"), (2_500, "3")])
def test_the_tier_of_a_price_is_the_one_that_is_charged(
    tokens: int, dollars: str, context: Context
) -> None:
    prices = ModelPrice(
        input_mtok=TieredPrices(
            base=Decimal(1), tiers=[Tier(1_000, Decimal(2)), Tier(2_000, Decimal(3))]
        )
    )
    usage = RequestUsage(input_tokens=tokens)
    total = prices.calc_price(usage)["total_price"]
    priced = SimpleNamespace(model_price=prices, total_price=total)
    answer = SimpleNamespace(usage=usage, provider_name="p", model_name="m", cost=lambda: priced)
    assert record(cast("ModelResponse", answer), context) == total
    (only,) = context.cost.entries
    assert (only.unit, only.quantity) == ("input_token", tokens)
    assert only.unit_price == Decimal(dollars) / 1_000_000


async def test_json_is_as_the_schema_says_or_mended(provider: Provider, context: Context) -> None:
    provider.answers = [{"severity": "awful"}, {"severity": "high", "lines": 3}]
    asked = {"prompt": "x", "model": "openai:gpt-4o-mini", "schema": SCHEMA}
    output = await complete.test(asked, context)
    assert output.json_ == {"severity": "high", "lines": 3}
    assert output.usage.requests == 2
    assert "'awful' is not one of" in json.dumps(provider.came[1][1]["messages"])


async def test_a_wrong_shape_to_the_end_is_final_and_paid_for(
    provider: Provider, context: Context
) -> None:
    provider.answers = [{"lines": "x"}, {"lines": "x"}]
    asked = {"prompt": "x", "model": "openai:gpt-4o-mini", "schema": SCHEMA, "repetitions": 1}
    with pytest.raises(PermanentError, match="wrong shape"):
        await complete.test(asked, context)
    assert {it.unit: it.quantity for it in context.cost.entries}["output_token"] == 200


async def test_the_next_model_answers_where_one_is_away(
    provider: Provider, context: Context
) -> None:
    provider.answers = ["here"]
    models = ["away:x", "openai:gpt-4o-mini"]
    output = await complete.test({"prompt": "x", "model": models}, context)
    assert (output.text, output.model) == ("here", "gpt-4o-mini")


async def test_a_model_without_a_key_is_passed_over() -> None:
    with capture_logs() as logs:
        output = await complete.test({"prompt": "x", "model": ["openai:gpt-5", "test"]})
    assert output.model == "test"
    (warned,) = (it for it in logs if it["log_level"] == "warning")
    assert warned["model"] == "openai:gpt-5"
    assert "there is no secret OPENAI_API_KEY" in warned["reason"]


async def test_all_that_cannot_be_asked_are_named() -> None:
    text = "model openai:gpt-5 cannot be used: .*OPENAI_API_KEY.*model nonsense:x cannot be used"
    with pytest.raises(PermanentError, match=text):
        await complete.test({"prompt": "x", "model": ["openai:gpt-5", "nonsense:x"]})


async def test_a_key_that_cannot_be_read_is_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "OPENAI_API_KEY").write_bytes(b"\xff")
    context = Context(secrets=Secrets(WorkerSecrets({}, tmp_path)))
    with pytest.raises(AgentError, match="openai:gpt-5 cannot be used") as raised:
        await complete.test({"prompt": "x", "model": ["openai:gpt-5", "nonsense:x"]}, context)
    assert not isinstance(raised.value, PermanentError)


@pytest.mark.parametrize(
    ("status", "final"),
    [(400, True), (401, True), (404, True), (429, False), (500, False), (503, False)],
)
async def test_what_a_provider_answers_decides_whether_it_is_tried_again(
    status: int, final: bool, provider: Provider, context: Context
) -> None:
    provider.answers = [status] * 10
    with pytest.raises(AgentError, match=str(status)) as raised:
        await complete.test({"prompt": "x", "model": "openai:gpt-4o-mini"}, context)
    assert isinstance(raised.value, PermanentError) is final
    assert "key-of-openai" not in str(raised.value)


async def test_all_that_are_away_are_named(provider: Provider) -> None:
    with pytest.raises(AgentError, match=r"no model answered: .*cannot be reached") as raised:
        await complete.test({"prompt": "x", "model": ["away:x", "away:y"]})
    assert not isinstance(raised.value, PermanentError)


@pytest.mark.parametrize("limit", [{"totalTokens": 50}, {"cost": "0.0001"}])
async def test_a_limit_is_final(
    limit: dict[str, Any], provider: Provider, context: Context
) -> None:
    provider.answers = ["long"]
    asked = {"prompt": "x", "model": "openai:gpt-4o-mini", "limits": limit}
    with pytest.raises(PermanentError, match="a limit of the step was reached"):
        await complete.test(asked, context)
    assert context.cost.entries


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ([], "no model is named"),
        ("nonsense:x", "the model nonsense:x cannot be used"),
        ("anthropic:claude-sonnet-4-5", "there is no secret ANTHROPIC_API_KEY"),
    ],
)
async def test_a_model_that_cannot_be_asked_is_named(
    model: Any, text: str, provider: Provider
) -> None:
    with pytest.raises(PermanentError, match=text):
        await complete.test({"prompt": "x", "model": model})


@pytest.mark.parametrize("schema", [{"type": "object", "properties": 3},
                                    {"type": "object", "required": "x"}])  # fmt: skip
async def test_a_schema_that_is_none_is_final(schema: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="schema"):
        await complete.test({"prompt": "x", "model": "test", "schema": schema})


async def test_the_models_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS, "test")
    assert (await complete.test({"prompt": "x"})).model == "test"
    assert default_models("a:b, test") == ["a:b", "test"]
    assert urls("x=http://h/v1, y=https://h") == {"x": "http://h/v1", "y": "https://h"}
    for wrong in ("x", "x=ftp://h", "x=http://me:pw@h", "=http://h"):
        with pytest.raises(OperatorError, match=URLS):
            urls(wrong)
    with pytest.raises(OperatorError, match=MODELS):
        default_models("gpt")


@pytest.mark.parametrize(
    "inputs",
    [
        {"prompt": ""},
        {"model": "gpt"},
        {"model": ["openai:x", ""]},
        {"schema": {"type": "array"}},
        {"schema": {}},
        {"temperature": 3},
        {"messages": [{"role": "system", "content": "x"}]},
        {"limits": {"requests": 0}},
        {"wrong": 1},
    ],
)
def test_wrong_inputs_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompleteInput.model_validate({"prompt": "x", **inputs})

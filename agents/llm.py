"""The agent `llm`: asks a language model, for text or for JSON of a given schema.

Rules:
- Which model is `provider:model`; several are tried in order. The operator has the keys.
- What the tokens cost is recorded for every answer, also where the step fails in the end. Prices
  are those of genai-prices, whose version stands beside them; a model without a known price is
  recorded at 0 with the version `unknown`.
- A provider that is away, busy or broken is tried again; a refused request, a wrong key, an answer
  of the wrong shape after all repetitions, or a limit that was reached is final.
- Tools are the worker's own actions, if the step names them (`llm_tools`).
"""

import asyncio
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from agents.agent import Agent
from agents.context import Context
from agents.errors import PermanentError
from agents.llm_limits import Limits, capped, unheld
from agents.llm_models import MODELS, NAME, default_models, open_models
from agents.llm_price import UNKNOWN, price_version, record
from agents.llm_tools import Tool, ToolCall, Tools
from agents.model import Model
from streams.errors import AgentError

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse

LONGEST_S: Final = 600.0

llm = Agent(
    "llm",
    description="Asks a language model, for text or for JSON of a given schema.",
    type="LLM",
    version="1.0.0",
)

Name = Annotated[str, StringConstraints(pattern=f"^({NAME.pattern})$")]


class Message(Model):
    """One turn of the conversation so far."""

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1, max_length=1_000_000)


class CompleteInput(Model):
    """What to ask, and how it is to be answered."""

    prompt: str = Field(min_length=1, max_length=1_000_000)
    instructions: str = Field(default="", max_length=1_000_000)
    messages: list[Message] = Field(
        default_factory=list, max_length=1_000, description="turns before the prompt"
    )
    model: list[Name] | Name = Field(
        default_factory=list,
        max_length=200,
        description="provider:model, or several in the order of fallback; 'test' needs no network",
    )
    output_schema: dict[str, JsonValue] | None = Field(
        default=None, alias="schema", description="a JSON Schema of an object: the answer is JSON"
    )
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="of one answer")
    repetitions: int = Field(
        default=2, ge=0, le=10, description="chances to mend an answer of the wrong shape"
    )
    limits: Limits = Limits()
    tools: list[Tool] = Field(
        default_factory=list, max_length=50, description="actions that the model may call"
    )

    @model_validator(mode="after")
    def _an_object(self) -> "CompleteInput":
        if self.output_schema is not None and self.output_schema.get("type") != "object":
            raise ValueError('schema: must be of "type": "object"')
        return self

    @property
    def models(self) -> list[str]:
        """The models that the inputs name."""
        return [self.model] if isinstance(self.model, str) else list(self.model)


class TokenUsage(Model):
    """Tokens of all requests together."""

    requests: int
    input_tokens: int
    cached_input_tokens: int = Field(description="part of the input tokens")
    output_tokens: int


class CompleteOutput(Model):
    """The answer, and what it took."""

    text: str | None = Field(default=None, description="where no schema was given")
    json_: JsonValue = Field(default=None, alias="json", description="where one was")
    model: str = Field(description="the model that answered")
    usage: TokenUsage
    cost: Decimal | None = Field(description="USD for the tokens; null where no price is known")
    price_version: str
    tool_calls: list[ToolCall] = Field(default_factory=list)


@llm.action(timeout=LONGEST_S)
async def complete(inputs: CompleteInput, context: Context) -> CompleteOutput:
    """Ask a language model once, and give its answer."""
    names = inputs.models or default_models()
    if not names:
        raise PermanentError(
            f"no model is named; give `model`, as in openai:gpt-5, or the worker {MODELS}"
        )
    async with AsyncExitStack() as clients:
        # In a thread: what is imported for the first of all questions takes seconds.
        model = await asyncio.to_thread(_opened, names, context, clients)
        return await _asked(inputs, context, model)


def _opened(names: list[str], context: Context, clients: AsyncExitStack) -> Any:
    model = open_models(names, context, clients)
    import genai_prices  # noqa: F401 -- asked for prices in the loop
    import jsonschema  # noqa: F401 -- as above, for schemas

    return model


async def _asked(inputs: CompleteInput, context: Context, model: Any) -> CompleteOutput:
    from pydantic_ai import Agent as Asker
    from pydantic_ai import ModelRetry, StructuredDict, capture_run_messages
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.settings import ModelSettings

    settings = ModelSettings()
    if inputs.temperature is not None:
        settings["temperature"] = inputs.temperature
    if inputs.max_tokens is not None:
        settings["max_tokens"] = inputs.max_tokens
    limits = capped(inputs.limits)
    tools = Tools(inputs.tools, context, limits.tool_result)
    with capture_run_messages() as messages:
        try:
            schema: Any = str
            if inputs.output_schema is not None:
                schema = StructuredDict(dict(inputs.output_schema), name="answer")
            asker: Any = Asker(
                model,
                output_type=schema,
                instructions=inputs.instructions or None,
                retries=inputs.repetitions,
                tools=tools.for_model(),
            )
            if (judge := _judge(inputs.output_schema)) is not None:
                asker.output_validator(partial(_checked, judge, ModelRetry))
            history = _history(inputs.messages)
            result = await asker.run(
                inputs.prompt,
                message_history=history or None,
                model_settings=settings,
                usage_limits=limits.of_usage(),
            )
        except AgentError:
            raise
        except UserError as error:
            raise PermanentError(f"the question cannot be asked: {error}") from error
        except Exception as error:  # providers raise what they like
            raise _failure(error, context) from error
        finally:
            answers = _answers(messages[len(inputs.messages) :])
            prices = [record(answer, context) for answer in answers]
    last = answers[-1]
    known = [price for price in prices if price is not None]
    is_known = len(known) == len(prices)
    return CompleteOutput(
        text=result.output if inputs.output_schema is None else None,
        json_=None if inputs.output_schema is None else dict(result.output),
        model=last.model_name or "",
        usage=TokenUsage(
            requests=len(answers),
            input_tokens=sum(it.usage.input_tokens for it in answers),
            cached_input_tokens=sum(it.usage.cache_read_tokens for it in answers),
            output_tokens=sum(it.usage.output_tokens for it in answers),
        ),
        cost=sum(known, Decimal(0)) if is_known else None,
        price_version=price_version() if is_known else UNKNOWN,
        tool_calls=tools.calls,
    )


def _judge(schema: dict[str, JsonValue] | None) -> Any:
    """What tells the faults of an answer; None where it is to be text."""
    if schema is None:
        return None
    import jsonschema
    from referencing import Registry

    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise PermanentError(f"schema is no JSON Schema: {error.message[:300]}") from error
    # A registry of its own: no reference is fetched from elsewhere.
    return kind(schema, registry=Registry())


def _checked(judge: Any, retry: type[Exception], answer: Any) -> Any:
    """The answer, if it is as the schema says; else the model hears why it is not."""
    try:
        faults = [f"{it.json_path}: {it.message[:200]}" for it in judge.iter_errors(dict(answer))]
    except Exception as error:
        raise PermanentError(f"schema cannot be used: {str(error)[:300]}") from error
    if faults:
        raise retry("the answer is not as the schema says: " + "; ".join(faults[:5]))
    return answer


def _history(turns: list[Message]) -> "list[ModelMessage]":
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

    return [
        ModelRequest(parts=[UserPromptPart(turn.content)])
        if turn.role == "user"
        else ModelResponse(parts=[TextPart(turn.content)])
        for turn in turns
    ]


def _answers(messages: "list[ModelMessage]") -> "list[ModelResponse]":
    from pydantic_ai.messages import ModelResponse

    return [each for each in messages if isinstance(each, ModelResponse)]


def _failure(error: Exception, context: Context) -> AgentError:
    """What a provider's or pydantic-ai's error means for the step."""
    from pydantic_ai import exceptions as known

    if isinstance(error, known.FallbackExceptionGroup):
        failures = [_failure(each, context) for each in error.exceptions]
        text = "no model answered: " + "; ".join(map(str, failures))
        final = all(isinstance(each, PermanentError) for each in failures)
        return PermanentError(text) if final else AgentError(text)
    text = " ".join(context.secrets.hide(str(error)).split())[:500]
    if isinstance(error, unheld()):
        return PermanentError(f"a limit of the step cannot be held: {text}")
    if isinstance(error, known.UsageLimitExceeded):
        return PermanentError(f"a limit of the step was reached: {text}")
    if isinstance(error, known.ModelHTTPError):
        again = error.status_code in {408, 425, 429} or error.status_code >= 500
        return (AgentError if again else PermanentError)(f"the provider answers: {text}")
    if isinstance(error, known.ModelRequestRejectedError):
        return PermanentError(f"the provider refuses: {text}")
    if isinstance(error, known.ContentFilterError):
        return PermanentError(f"the model refuses to answer: {text}")
    if isinstance(error, known.UnexpectedModelBehavior):
        return PermanentError(f"the model's answer has the wrong shape: {text}")
    return AgentError(f"the provider cannot be reached: {type(error).__name__}: {text}")

"""Actions as the tools of a language model: what a step allows, and what the model then did.

Rules:
- A step names each tool. The operator's `COMMANDCENTER_LLM_TOOLS` says which may be named
  (`agent.action`, `agent.*`, with commas between; `none`); unsaid, any that needs no approval.
- Inputs that the step gives the model neither sees nor changes. Secrets the step names, too.
- Tools are called one after the other. A call that fails is told to the model, and counts as one.
"""

import asyncio
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from pydantic import Field, JsonValue, StringConstraints

from agents.action import NAME
from agents.context import Colleague, Context
from agents.errors import PermanentError
from agents.model import Model
from streams.errors import AgentError, OperatorError
from streams.records import Failure

if TYPE_CHECKING:
    from pydantic_ai import Tool as ModelTool

TOOLS: Final = "COMMANDCENTER_LLM_TOOLS"
_NONE: Final = "none"
_ALLOWED: Final = re.compile(rf"({NAME.pattern})\.({NAME.pattern}|\*)")
_NAME_LENGTH: Final = 64
"""What providers take as the name of a tool."""
_INPUTS_SHOWN: Final = 2_000

_Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
_Secret = Annotated[str, StringConstraints(pattern="^[A-Z0-9_]{1,200}$")]


class Tool(Model):
    """An action that the model may call."""

    agent: _Name
    action: _Name
    inputs: dict[str, JsonValue] = Field(
        default_factory=dict, description="given by the step: not for the model to see or to choose"
    )
    secrets: list[_Secret] = Field(
        default_factory=list, max_length=20, description="the only ones that it can use"
    )


class ToolCall(Model):
    """A call that the model made."""

    agent: str
    action: str
    inputs: str = Field(description="JSON as the model wrote it, cut after 2,000 characters")
    failure: str | None = Field(description="kind and message; null where it succeeded")


def allowed(text: str | None = None) -> list[str] | None:
    """What the setting allows; None: no restriction. Raises `OperatorError`."""
    text = os.environ.get(TOOLS, "") if text is None else text
    names = [each.strip() for each in text.split(",") if each.strip()]
    if not names:
        return None
    for name in names:
        if name != _NONE and not _ALLOWED.fullmatch(name):
            raise OperatorError(f"{TOOLS}: {name!r} is not agent.action, agent.* or {_NONE}")
    return names


class Tools:
    """The tools of one step.

    Args:
        wanted: those that the step names.
        context: of the step.
        longest: characters of a result that the model is given.

    Raises:
        PermanentError: one cannot be had; the text says why.
    """

    def __init__(self, wanted: Sequence[Tool], context: Context, longest: int) -> None:
        self.calls: list[ToolCall] = []
        self._context = context
        self._longest = longest
        self._one_at_a_time = asyncio.Lock()
        self._tools: dict[str, tuple[Tool, Colleague]] = {}
        if not wanted:
            return
        if context.colleagues is None:
            raise PermanentError("tools are there only in a worker, which has other actions")
        self._colleagues = context.colleagues
        may = allowed()
        for tool in wanted:
            if may is not None and not {f"{tool.agent}.{tool.action}", f"{tool.agent}.*"} & {*may}:
                raise PermanentError(
                    f"the tool {tool.agent} {tool.action} is not among those of {TOOLS}"
                )
            action = self._colleagues.find(tool.agent, tool.action)
            if (tool.agent, tool.action) == (context.agent, context.action):
                raise PermanentError(f"{tool.agent} {tool.action} cannot be its own tool")
            if action.input_schema.get("type") != "object":
                raise PermanentError(f"{tool.agent} {tool.action} does not take an object")
            name = f"{tool.agent}__{tool.action}"[:_NAME_LENGTH]
            if name in self._tools:
                raise PermanentError(f"the tool {tool.agent} {tool.action} is named twice")
            self._tools[name] = (tool, action)

    def for_model(self) -> "list[ModelTool]":
        """The tools as pydantic-ai takes them."""
        from pydantic_ai import Tool as ModelTool

        def made(name: str, tool: Tool, action: Colleague) -> "ModelTool":
            async def call(**given: Any) -> str:
                async with self._one_at_a_time:
                    return await self._call(tool, given)

            return ModelTool.from_schema(
                call,
                name,
                action.description,
                _without(action.input_schema, tool.inputs),
                sequential=True,
            )

        return [made(name, tool, action) for name, (tool, action) in self._tools.items()]

    async def _call(self, tool: Tool, given: dict[str, Any]) -> str:
        context = self._context
        if context.is_cancelled:  # nothing new is begun
            raise AgentError("the step was called off between two calls of tools")
        number = len(self.calls) + 1
        await context.progress(None, f"tool call {number}: {tool.agent} {tool.action}")
        inputs = msgspec.json.encode({**given, **tool.inputs})
        outcome = await self._colleagues.call(
            context, tool.agent, tool.action, inputs, secrets=tool.secrets, number=number
        )
        failed = None
        if isinstance(outcome, Failure):
            failed = f"{outcome.kind}: {outcome.message}"
        shown = context.secrets.hide(msgspec.json.encode(given).decode())
        self.calls.append(
            ToolCall(
                agent=tool.agent, action=tool.action, inputs=shown[:_INPUTS_SHOWN], failure=failed
            )
        )
        context.logger.info(
            "tool called", tool=f"{tool.agent}.{tool.action}", number=number, failure=failed
        )
        if isinstance(outcome, Failure):
            return f"The call failed: {failed}"
        text = outcome.decode()
        if len(text) <= self._longest:
            return text
        return (
            f"{text[: self._longest]}\n(cut: the first {self._longest} of {len(text)} characters)"
        )


def _without(schema: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The schema of what is left to the model."""
    properties = {k: v for k, v in schema.get("properties", {}).items() if k not in given}
    required = [name for name in schema.get("required", ()) if name not in given]
    return {**schema, "properties": properties, "required": required}

"""An agent that misbehaves in every way there is."""

import asyncio
import threading
from pathlib import Path

from pydantic import BaseModel

from agents import Agent, Context

trouble = Agent("trouble", description="Breaks its contract.")


class Nothing(BaseModel):
    pass


class Number(BaseModel):
    value: int


class Flag(BaseModel):
    """A file that says something, by being there."""

    path: str


class Load(BaseModel):
    numbers: list[int]
    text: str


class Parcel(BaseModel):
    load: Load


@trouble.action()
async def fail(inputs: Nothing) -> Number:
    raise RuntimeError("the disk is on fire")


@trouble.action()
async def misshape(inputs: Nothing) -> Number:
    return {"wrong": True}  # type: ignore[return-value]  # that is the point


@trouble.action()
async def hang(inputs: Nothing) -> Number:
    await asyncio.Event().wait()
    return Number(value=0)


@trouble.action()
def block(inputs: Nothing) -> Number:
    threading.Event().wait()
    return Number(value=0)


@trouble.action()
async def fail_first(inputs: Nothing, context: Context) -> Number:
    if context.attempt == 1:
        raise RuntimeError("not yet")
    return Number(value=context.attempt)


@trouble.action()
async def echo(inputs: Number) -> Number:
    return inputs


@trouble.action()
async def await_flag(inputs: Flag, context: Context) -> Number:
    while not Path(inputs.path).exists():  # noqa: ASYNC110, ASYNC240 -- set by another process
        await asyncio.sleep(0.05)
    return Number(value=context.attempt)


@trouble.action()
async def listen(inputs: Flag, context: Context) -> Number:
    await context.cancelled.wait()
    Path(inputs.path).touch()  # noqa: ASYNC240 -- a moment
    raise RuntimeError("stopped half-way")


@trouble.action(risk="APPROVAL_REQUIRED")
async def erase(inputs: Number, context: Context) -> Number:
    return Number(value=inputs.value + context.attempt)


@trouble.action()
async def load(inputs: Number) -> Load:
    return Load(numbers=list(range(10)), text="x" * inputs.value)


@trouble.action()
async def weigh(inputs: Parcel) -> Number:
    return Number(value=len(inputs.load.text))

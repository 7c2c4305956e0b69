"""An agent that misbehaves in every way there is."""

import asyncio
import threading

from pydantic import BaseModel

from agents import Agent, Context

trouble = Agent("trouble", description="Breaks its contract.")


class Nothing(BaseModel):
    pass


class Number(BaseModel):
    value: int


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

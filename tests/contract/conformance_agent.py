"""The agent of the conformance cases, in Python: see docs/conformance/README.md."""

import asyncio
from typing import Any, Literal
from uuid import uuid4

from agents import Agent, Context, Model, PermanentError

conformance = Agent("conformance-python", description="Does what the conformance cases ask.")


class Nothing(Model):
    pass


class Value(Model):
    value: Any


class Fault(Model):
    message: str
    permanent: bool


class Steps(Model):
    steps: int
    pause_ms: int


class Counted(Model):
    steps: int


class Hold(Model):
    then: Literal["stop", "finish", "ignore"]


class Done(Model):
    done: bool


class Text(Model):
    text: str


class Length(Model):
    length: int


class Stamp(Model):
    stamp: str


@conformance.action
async def echo(inputs: Value) -> Value:
    return inputs


@conformance.action
async def fail(inputs: Fault) -> Nothing:
    raise PermanentError(inputs.message) if inputs.permanent else RuntimeError(inputs.message)


@conformance.action(timeout=0.3)
async def oversleep(inputs: Nothing) -> Nothing:
    await asyncio.Event().wait()
    return inputs


@conformance.action
async def nothing(inputs: Nothing) -> Done:
    return None  # type: ignore[return-value]  # that is the point


@conformance.action
async def grow(inputs: Length) -> Text:
    return Text(text="x" * inputs.length)


@conformance.action
async def measure(inputs: Text) -> Length:
    return Length(length=len(inputs.text))


@conformance.action
async def stamp(inputs: Nothing) -> Stamp:
    return Stamp(stamp=str(uuid4()))


@conformance.action(risk="APPROVAL_REQUIRED")
async def risky(inputs: Nothing) -> Done:
    return Done(done=True)


@conformance.action
async def count(inputs: Steps, context: Context) -> Counted:
    for step in range(inputs.steps):
        if inputs.steps > 1:
            await context.progress(100 * step / inputs.steps, f"step {step}")
        await asyncio.sleep(inputs.pause_ms / 1000)
    return Counted(steps=inputs.steps)


@conformance.action
async def hold(inputs: Hold, context: Context) -> Done:
    await context.cancelled.wait()
    if inputs.then == "stop":
        raise RuntimeError("stopped")
    if inputs.then == "ignore":
        await asyncio.Event().wait()
    return Done(done=True)

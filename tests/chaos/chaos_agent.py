"""The agent of the chaos tests: one quick action, and one that takes a while."""

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from agents import Agent

chaos = Agent("chaos", description="Adds one.", concurrency=200)


class Number(BaseModel):
    value: int = 0


@chaos.action()
async def quick(inputs: Number) -> Number:
    return Number(value=inputs.value + 1)


@chaos.action()
async def uneven(inputs: Number) -> Number:
    """Ends in another order than it began."""
    await asyncio.sleep(inputs.value * 37 % 100 / 50)
    return Number(value=inputs.value + 1)


@chaos.action()
async def slow(inputs: Number) -> Number:
    await asyncio.sleep(1.0)
    return Number(value=inputs.value + 1)


@chaos.action()
async def held(inputs: Number) -> Number:
    """Ends when the test says so, by a file."""
    gate = Path(os.environ["CHAOS_GATE"])
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 -- set by another process
        await asyncio.sleep(0.05)
    return Number(value=inputs.value + 1)

"""An agent that blocks its worker's loop, in a worker that then soon leaves its group."""

import os
import time
from pathlib import Path

from pydantic import BaseModel

from agents import Agent
from streams import faust_shell

faust_shell.BLOCKED_S = 1.0  # type: ignore[misc]  # minutes are too long for a test

blocking = Agent("blocking", description="Blocks where it is asked to, the first time.")
DATA = Path(os.environ.get("COMMANDCENTER_DATA", "."))


class Number(BaseModel):
    value: int = 0


@blocking.action()
async def step(inputs: Number) -> Number:
    gate = DATA / f"gate-{inputs.value}"
    if gate.exists():
        gate.rename(DATA / "passed")
        while (DATA / "passed").exists():
            time.sleep(0.05)  # noqa: ASYNC251  # the fault
    return inputs

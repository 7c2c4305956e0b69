"""An agent of which some steps take until a file beside the log is gone."""

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from agents import Agent

patient = Agent("patient", description="Waits, if it has to.", concurrency=100)
DATA = Path(os.environ.get("COMMANDCENTER_DATA", "."))


class Number(BaseModel):
    value: int = 0


@patient.action()
async def step(inputs: Number) -> Number:
    with (DATA / "executed").open("a") as executed:
        executed.write(f"{inputs.value}\n")
    while inputs.value % 3 == 0 and (DATA / "gate").exists():  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.05)
    return inputs

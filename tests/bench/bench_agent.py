"""The agent of the benchmark: a dict in, a small dict out, no work in between."""

from pydantic import BaseModel, ConfigDict

from agents import Agent

bench = Agent("bench", description="Adds its step to a value.", concurrency=512)


class Job(BaseModel):
    model_config = ConfigDict(extra="ignore")

    run: int
    value: int
    topic: str
    note: str
    step: int


@bench.action()
async def step(inputs: Job) -> Job:
    inputs.value += inputs.step
    return inputs

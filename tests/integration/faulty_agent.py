"""Faults that a test arms in a worker: served as an agent, so that the worker loads them.

A fault is armed by a file with the name of the actor that it is to break, and strikes once.
"""

import asyncio
import os
from functools import wraps
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import streams.engine
from agents import Agent
from agents.orders import Orders
from agents.recent_results import RecentResults
from agents.runtime import AgentRuntime
from streams.catalog import Catalog
from streams.faust_shell import BatchConsumer
from streams.orchestrator import Orchestrator
from streams.partition_watch import PartitionWatch
from streams.router import Router
from streams.topic_reader import TopicReader

chaos = Agent("chaos", description="Adds one.")


class Number(BaseModel):
    value: int = 0


@chaos.action()
async def quick(inputs: Number) -> Number:
    return Number(value=inputs.value + 1)


def _strikes(name: str) -> bool:
    try:
        (Path(os.environ["FAULTS"]) / name).unlink()
    except FileNotFoundError:
        return False
    return True


def _break(owner: type, method: str, name: str, topic: str = "") -> None:
    whole = getattr(owner, method)

    @wraps(whole)
    def broken(self: Any, *args: Any, **more: Any) -> Any:
        if (not topic or self.topic == topic) and _strikes(name):
            raise RuntimeError(f"injected into {owner.__name__}.{method}")
        return whole(self, *args, **more)

    setattr(owner, method, broken)


def _hang(owner: type, method: str, name: str) -> None:
    whole = getattr(owner, method)

    @wraps(whole)
    async def hanging(self: Any, *args: Any) -> Any:
        if _strikes(name):
            await asyncio.Event().wait()
        return await whole(self, *args)

    setattr(owner, method, hanging)


_break(Router, "process", "router")
_break(Orchestrator, "decide", "orchestrator")
_break(Orchestrator, "_fire", "timers")
_break(AgentRuntime, "accept", "agent")
_break(RecentResults, "put", "result")
_break(AgentRuntime, "publish", "publishing")
_break(TopicReader, "_continuous", "reader", "commandcenter.inbox")
_break(Catalog, "apply", "catalog")
_break(Orders, "put", "order")
_break(BatchConsumer, "_commit", "commit")
_break(PartitionWatch, "look", "watch")
_hang(Router, "process", "hang")
streams.engine.PATIENCE_S = 1.0  # type: ignore[misc]  # for one fault

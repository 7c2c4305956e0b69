"""Who works: the records of the compacted `agents` topic."""

from typing import Literal

from msgspec import Raw

from streams.records import FORMAT, Value


class AgentRecord(Value, frozen=True, kw_only=True):
    """An agent that some worker serves: `descriptor` has its actions and their JSON Schemas."""

    name: str
    version: str
    worker: str
    registered_at: int
    descriptor: Raw
    v: Literal[1] = FORMAT


class Serving(Value, frozen=True, kw_only=True):
    """An agent that a worker serves: at most `capacity` of its tasks at once, `in_hand` now."""

    name: str
    version: str
    capacity: int
    in_hand: int = 0


class WorkerRecord(Value, frozen=True, kw_only=True):
    """A worker's sign of life on the agents topic; the next one is due in `interval_ms`.

    Its key is `streams.ids.worker_key`. A tombstone says that the worker has left. `trouble` says
    what it cannot read at the moment besides its tasks, such as orders; empty while all is well.
    """

    worker: str
    started_at: int
    interval_ms: int
    agents: tuple[Serving, ...]
    trouble: str = ""
    v: Literal[1] = FORMAT

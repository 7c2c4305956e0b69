"""Every id is derived, so every duplicate is recognisable (law 4).

A run is named by what triggered it, a task by its place in the run. Nothing here is random.
"""

from typing import Final
from uuid import UUID, uuid5
from zlib import crc32

_RUNS: Final = UUID("6e1f2c5a-2f0b-5a43-9d0e-3d1c3b0a7c51")


def run_id(project: str, workflow: str, source: str, event_id: str) -> str:
    """The run that one event starts in one workflow: the same event gives the same run."""
    return str(uuid5(_RUNS, f"{project}\x00{workflow}\x00{source}\x00{event_id}"))


WORKER_KEYS: Final = "worker/"
COMPENSATION: Final = ".compensate"
"""What the key of the undoing of a node ends with."""


def node_key(node: str, item: int | None = None) -> str:
    """Names a node of a run, or one item of it: the key of its state, and of its timer.

    >>> node_key("scan", 3)
    'scan.3'
    """
    return node if item is None else f"{node}.{item}"


def attempt_key(node: str, item: int | None, attempt: int) -> str:
    """Names an attempt within its run: the end of its task's id.

    >>> attempt_key("scan", 3, 1)
    'scan.3/1'
    """
    return f"{node_key(node, item)}/{attempt}"


def request_source(run: str) -> str:
    """The source of the events by which a run starts others."""
    return f"commandcenter/runs/{run}"


def child_run_id(project: str, workflow: str, parent: str, task: str) -> str:
    """The run that a node of `parent` starts as its attempt `task`."""
    return run_id(project, workflow, request_source(parent), task)


def task_id(run: str, node: str, item: int | None, attempt: int) -> str:
    """One attempt at one node (and item of a fan-out): agents' idempotency key.

    >>> task_id("7d2b", "scan", None, 1)
    '7d2b/scan/1'
    """
    return f"{run}/{node}/{attempt}" if item is None else f"{run}/{node}.{item}/{attempt}"


def worker_key(worker: str) -> str:
    """The key of a worker's signs of life on the agents topic; no agent's name looks like it."""
    return f"{WORKER_KEYS}{worker}"


def spread(key: str, partitions: int) -> int:
    """A partition for a record whose readers do not care which one (tasks): even and derived."""
    return crc32(key.encode()) % partitions

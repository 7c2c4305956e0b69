"""Tells a partition that stands still from one that has nothing to do: pure, fed with offsets.

Rules:
- Progress is any change of what the group has committed for a partition, its metadata included.
- A partition is stalled when somebody owes its work, it has records that are not done, and it
  has made no progress for its patience. That is counted from the first look that found it so.
- Task topics have a patience of their own: a task may run for long before it is done.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from streams.topics import TASKS_PREFIX

PATIENCE_S: Final = 30.0
TASK_PATIENCE_S: Final = 3_600.0


class Seen(NamedTuple):
    """One partition as a look finds it: everything below `done` is processed.

    `owed`: a worker owns it, or ought to.
    """

    end: int
    done: int
    metadata: str = ""
    owed: bool = True


class Stall(NamedTuple):
    """A partition that makes no progress."""

    topic: str
    partition: int
    end: int
    done: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.topic}/{self.partition} has stood at {self.done:,} of {self.end:,} for"
            f" {self.seconds:.0f} s"
        )


Place = tuple[str, int]


class Watchdog:
    """Judges looks at all partitions, one after another."""

    def __init__(
        self, patience_s: float = PATIENCE_S, task_patience_s: float = TASK_PATIENCE_S
    ) -> None:
        self._patience_s = patience_s
        self._task_patience_s = task_patience_s
        self._since: dict[Place, tuple[tuple[int, str], float]] = {}
        self._stalled: set[Place] = set()
        self.begun: list[Stall] = []
        """Of the last look: what it was the first to find stalled."""
        self.ended: list[Place] = []
        """Of the last look: what was stalled until then."""

    def look(self, now: float, partitions: Mapping[Place, Seen]) -> list[Stall]:
        """Take in a look at the monotonic time `now`; gives what is stalled by now."""
        since: dict[Place, tuple[tuple[int, str], float]] = {}
        stalls = []
        for place, seen in sorted(partitions.items()):
            if not seen.owed or seen.end <= seen.done:
                continue
            progress = (seen.done, seen.metadata)
            known, at = self._since.get(place, (None, now))
            since[place] = (progress, at if known == progress else now)
            waited = now - since[place][1]
            if waited >= self._patience(place[0]):
                stalls.append(Stall(*place, seen.end, seen.done, waited))
        self._since = since
        before, self._stalled = self._stalled, {stall[:2] for stall in stalls}
        self.begun = [stall for stall in stalls if stall[:2] not in before]
        self.ended = sorted(before - self._stalled)
        return stalls

    def _patience(self, topic: str) -> float:
        return self._task_patience_s if topic.startswith(TASKS_PREFIX) else self._patience_s

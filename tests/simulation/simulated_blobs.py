"""A blob store in memory that is away at times, and forgets what it has at hand."""

import random
from typing import Final

from judged_run import SMALL
from simulated_log import pause

from streams.errors import OperatorError
from streams.payload import Reference, reference_to

Kept = dict[str, bytes]
"""What is in the store: content by its hash."""


class SimulatedBlobs:
    """One process's view of the store.

    Args:
        kept: the content, shared by all processes.
        chance: decides what is at hand.
        away: whether the store cannot be reached now.
    """

    AT_HAND: Final = 0.5

    def __init__(self, kept: Kept, chance: random.Random) -> None:
        self._kept = kept
        self._chance = chance
        self.limit = SMALL.payload
        self.away = False

    async def put(self, _project: str, content: bytes) -> Reference:
        await self._reached()
        reference = reference_to(content)
        self._kept[reference.digest] = content
        return reference

    def check(self, size: int) -> None:
        """Nothing is too large that the world sends."""
        assert size <= self.limit

    async def get(self, _project: str, reference: Reference) -> bytes:
        await self._reached()
        return self._kept[reference.digest]

    def at_hand(self, _project: str, reference: Reference) -> bytes | None:
        there = self._chance.random() < self.AT_HAND
        return self._kept.get(reference.digest) if there else None

    async def _reached(self) -> None:
        await pause()
        if self.away:
            raise OperatorError("the store is away")

"""When a failed attempt is tried again: exponential back-off with jitter derived from the task.

The jitter spreads retries of many runs apart and is still the same for every replay (law 2).
"""

from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from streams.duration import Duration
from streams.records import Failure


class RetryPolicy(BaseModel):
    """How often and how soon. `attempts` counts the first one; delays are capped at `max_delay`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    attempts: int = Field(default=3, ge=1, le=100, description="Attempts in all, with the first.")
    initial_delay: Duration = Field(default=1_000, description="Delay before the second attempt.")
    factor: float = Field(default=2.0, ge=1.0, le=10.0, description="Growth of the delay.")
    max_delay: Duration = Field(default=60_000, description="No delay is longer than this.")
    jitter: float = Field(
        default=0.2, ge=0.0, le=1.0, description="Share of the delay that is spread."
    )
    not_on: tuple[str, ...] = Field(
        default=(),
        description="Failures that no further attempt is made for: kinds, or names of exceptions.",
        examples=[["timeout", "ValueError"]],
    )

    def allows(self, failure: Failure, attempt: int) -> bool:
        """Whether attempt `attempt` (1, 2, …), which failed so, is to be followed by another."""
        return (
            failure.retryable
            and attempt < self.attempts
            and failure.kind not in self.not_on
            and failure.error not in self.not_on
        )

    def delay_ms(self, task: str, attempt: int) -> int:
        """Milliseconds between the failure of attempt `attempt` (1, 2, …) and the next one."""
        full = min(self.max_delay, self.initial_delay * self.factor ** (attempt - 1))
        spread = crc32(task.encode()) / 0xFFFFFFFF
        return int(full * (1 - self.jitter * spread))

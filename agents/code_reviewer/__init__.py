"""The agent `code-reviewer`: what a careful reader would remark on, found by tools.

ruff judges Python, radon measures it, lizard measures the other languages. With a base revision
only lines that are new since then are judged.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from agents.agent import Agent
from agents.context import Context
from agents.errors import needing_extra
from agents.finding import Severity
from agents.model import Model
from agents.repository.named import NamedRepository

ReviewType = Literal["quality", "security", "performance", "all"]
IssueType = Literal["quality", "security", "performance"]

TYPES: Final[tuple[IssueType, ...]] = ("quality", "security", "performance")

reviewer = Agent(
    "code-reviewer",
    description="Reviews code with ruff, radon and lizard; of a change, only what is new.",
    type="RULE",
    version="1.0.0",
    concurrency=2,
)


class ReviewInput(NamedRepository):
    """What to review."""

    review_type: ReviewType = "all"
    base_revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00-\x1f]+$",
        description="a commit: only lines that are new since then are judged, "
        "those not committed yet included",
    )
    paths: tuple[str, ...] = Field(
        default=(), max_length=1000, description="files, folders and patterns; none means all"
    )
    complexity_limit: int = Field(
        default=10, ge=1, le=1000, description="a function over it is an issue"
    )
    max_issues: int = Field(
        default=500, ge=1, le=5_000, description="the most severe ones; all are counted"
    )

    @model_validator(mode="after")
    def _has_a_history(self) -> Self:
        if self.base_revision is not None and self.repository_url:
            raise ValueError(
                "baseRevision goes with repositoryPath: a URL is cloned without its history"
            )
        return self


class Issue(Model):
    """One remark."""

    type: IssueType
    severity: Severity
    file: str = Field(description="relative to the folder, with '/'")
    line: int = Field(description="counted from 1")
    description: str
    suggestion: str
    rule: str = Field(description="ruff's code, or `complexity`, `length`, `parameters`, …")


class Metrics(Model):
    """Figures of the reviewed files; with a base revision, of the files that have changed."""

    avg_complexity: float = Field(description="cyclomatic, of a function; 0 where there is none")
    max_complexity: int
    total_lines: int
    code_lines: int = Field(description="without blank ones and comments")
    functions: int
    avg_maintainability: float | None = Field(
        description="radon's index of the Python files, 0 to 100; high is good"
    )
    issues: dict[IssueType, int] = Field(description="by type, also those that are not listed")
    languages: dict[str, int] = Field(description="lines by language, the most first")


class ReviewOutput(Model):
    """The remarks, the most severe first, then by file and line."""

    issues: tuple[Issue, ...]
    omitted_issues: int = Field(description="counted in the metrics, not listed")
    metrics: Metrics
    base: str | None = Field(description="the commit that `baseRevision` names")
    reviewed_files: int
    skipped_files: int = Field(description="source files that are binary, over 1 MB or unreadable")
    warnings: tuple[str, ...] = Field(description="files that a tool could not make sense of")
    review_duration_ms: int


@reviewer.action(
    timeout=300,
    execution="sandbox",
    memory="1GiB",
    preload=("agents.code_reviewer.reviewing", "radon.complexity", "radon.metrics", "lizard"),
)
def review(inputs: ReviewInput, context: Context) -> ReviewOutput:
    """Review a folder for quality, security and performance."""
    with needing_extra():
        from agents.code_reviewer.reviewing import reviewed

        return reviewed(inputs, context)

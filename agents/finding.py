"""A problem found in source code: what a scan gives and a report takes."""

from typing import Final, Literal

from pydantic import ConfigDict, Field

from agents.model import Model

Severity = Literal["critical", "high", "medium", "low"]
Confidence = Literal["high", "medium", "low"]

SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low")


class Finding(Model):
    """One problem. Fields that a newer scanner adds are ignored by an older report."""

    model_config = ConfigDict(extra="ignore")

    type: str = Field(description="secret, sql-injection, xss, dependency, or another weakness")
    severity: Severity
    file: str = Field(description="relative to the scanned folder, with '/'")
    line: int = Field(description="counted from 1")
    description: str
    code: str = Field(description="the line, cut where a secret begins")


class Summary(Model):
    """Findings counted by severity."""

    total: int
    critical: int
    high: int
    medium: int
    low: int

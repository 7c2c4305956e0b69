"""The agent `compliance-checker`: licences, security headers and secrets of a repository.

The work is done by `agents/scanning/`, which only the sandbox imports. What it finds is a result: a
repository that breaks the rules does not make the step fail.
"""

import time
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from agents.agent import Agent
from agents.blob import Blob
from agents.context import Context
from agents.errors import needing_extra
from agents.finding import Severity, Summary
from agents.model import Model
from agents.readable import Readable
from agents.repository.named import NamedRepository, folder_of

Rule = Literal["licenses", "security-headers", "secrets", "all"]

_CYCLONEDX: Final = "application/vnd.cyclonedx+json"

checker = Agent(
    "compliance-checker",
    description="Checks a repository's licences, security headers and secrets, and lists its "
    "packages (CycloneDX).",
    type="RULE",
    version="1.0.0",
    concurrency=2,
)


class CheckInput(NamedRepository):
    """What to check, and how strictly."""

    rules: list[Rule] = Field(
        default=["all"], min_length=1, description="one of them, or a list of them"
    )
    strict_mode: bool = Field(
        default=False,
        description="what cannot be judged is a violation too: unknown licences, headers that are "
        "only advised, secrets that are only likely",
    )
    policy: Annotated[str, Readable(or_within=True)] = Field(
        default="",
        description="the licence policy, a YAML file in the repository or an absolute path on the "
        "worker's machine; empty: the one that comes along",
    )
    paths: list[str] = Field(
        default=[],
        max_length=10_000,
        description="only these files, folders or patterns, relative to the repository",
    )
    max_violations: int = Field(
        default=500, ge=1, le=2_000, description="the most severe ones; all are counted"
    )

    @field_validator("rules", mode="before")
    @classmethod
    def _are_a_list(cls, rules: object) -> object:
        return [rules] if isinstance(rules, str) else rules


class Violation(Model):
    """One rule that is broken in one place."""

    rule: str = Field(description="license.<verdict>, or <tool>.<rule>")
    severity: Severity
    file: str = Field(description="relative to the repository, with '/'")
    line: int = Field(description="counted from 1")
    message: str
    remediation: str


class Licenses(Model):
    """Packages, each version once, counted by what the policy says to their licences."""

    allowed: int
    denied: int
    unlisted: int
    unknown: int


class CheckOutput(Model):
    """What breaks the rules, the most severe first, then by file and line."""

    violations: list[Violation]
    omitted_violations: int = Field(description="counted in the summary, not listed")
    summary: Summary
    passed: bool = Field(
        description="no violation is critical or high; in strict mode there is none at all"
    )
    licenses: Licenses | None = Field(description="null where licences were not checked")
    checked_files: int
    skipped_files: int = Field(description="binary, over 1 MB, or unreadable")
    rules_applied: list[Rule]
    warnings: list[str] = Field(description="what could not be looked at, and why")
    check_duration_ms: int
    sbom: Blob | None = Field(description="the packages, as CycloneDX 1.6; with the licences")


@checker.action(
    timeout=300,
    execution="sandbox",
    memory="2GiB",
    preload=("agents.scanning.check", "detect_secrets.core.scan", "license_expression"),
)
def check(inputs: CheckInput, context: Context) -> CheckOutput:
    """Check a repository's licences, security headers and secrets."""
    began = time.monotonic()
    with needing_extra():
        from agents.scanning import check as checking

        answer = checking.check(
            {
                **inputs.model_dump(by_alias=True),
                "path": str(folder_of(inputs, context)),
                "version": checker.version,
            },
            context.report_progress,
        )
    if answer["sbom"] is not None:
        answer["sbom"] = context.blobs.write(
            answer["sbom"].encode(), media_type=_CYCLONEDX, name="sbom.cdx.json"
        )
    return CheckOutput.model_validate(
        {
            **answer,
            "checkDurationMs": round((time.monotonic() - began) * 1000),
        }
    )

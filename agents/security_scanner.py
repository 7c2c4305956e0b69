"""The agent `security-scanner`: insecure code, secrets and vulnerable packages in a repository.

The work is done by `agents/scanning/`, which only the sandbox imports.
"""

import os
import time
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from agents.agent import Agent
from agents.blob import Blob
from agents.context import Context
from agents.errors import needing_extra
from agents.finding import Confidence, Finding, Severity, Summary
from agents.model import Model
from agents.readable import Readable
from agents.repository.named import NamedRepository, folder_of

ScanType = Literal["secrets", "sql-injection", "xss", "dependencies", "python", "all"]

_SARIF: Final = "application/sarif+json"

scanner = Agent(
    "security-scanner",
    description="Finds secrets, insecure code and vulnerable packages in a repository "
    "(detect-secrets, bandit, semgrep, OSV advisories).",
    type="RULE",
    version="2.0.0",
    concurrency=2,
)


def _or_the_workers(advisories: str) -> str:
    """What the worker's setting says where a workflow says nothing."""
    return advisories or os.environ.get("COMMANDCENTER_ADVISORIES", "")


class ScanInput(NamedRepository):
    """What to scan, and what to tell of it."""

    scan_type: ScanType = "all"
    severity_floor: Severity = Field(default="low", description="what is below is only counted")
    paths: list[str] = Field(
        default=[],
        max_length=10_000,
        description="only these files, folders or patterns, relative to the repository",
    )
    baseline: str | list[str] | None = Field(
        default=None,
        description="known findings, only counted: their fingerprints, or a JSON file in the "
        "repository with them (an earlier output, or its SARIF)",
    )
    advisories: Annotated[str, Readable(), AfterValidator(_or_the_workers)] = Field(
        default="",
        validate_default=True,
        description="a folder or zip of OSV advisories on the worker's machine; empty: "
        "COMMANDCENTER_ADVISORIES, or else the sample that comes along",
    )
    max_findings: int = Field(
        default=500, ge=1, le=2_000, description="the most severe ones; all are counted"
    )


class ScanFinding(Finding):
    """One problem, with who says so and how sure that is."""

    rule: str = Field(description="<tool>.<rule>, for example bandit.B608")
    cwe: str = Field(description="CWE-<number>")
    confidence: Confidence
    fingerprint: str = Field(description="names the problem; the same when its line moves")


class ScanOutput(Model):
    """What was found, the most severe first, then by file and line."""

    findings: list[ScanFinding]
    omitted_findings: int = Field(description="counted in the summary, not listed")
    suppressed_findings: int = Field(description="known by the baseline, not in the summary")
    below_floor: int = Field(description="below severityFloor, not in the summary")
    summary: Summary
    scanned_files: int
    skipped_files: int = Field(description="binary, over 1 MB, or unreadable")
    warnings: list[str] = Field(description="what could not be looked at, and why")
    scan_duration_ms: int
    sarif: Blob = Field(description="every finding in the summary, as SARIF 2.1.0")


@scanner.action(
    timeout=300,
    execution="sandbox",
    memory="2GiB",
    preload=(
        "agents.scanning.scan",
        "bandit.core.config",
        "bandit.core.manager",
        "detect_secrets.core.plugins.util",
        "detect_secrets.core.scan",
    ),
)
def scan(inputs: ScanInput, context: Context) -> ScanOutput:
    """Scan a repository for secrets, insecure code and vulnerable packages."""
    began = time.monotonic()
    with needing_extra():
        from agents.scanning import scan as scanning

        answer = scanning.scan(
            {
                **inputs.model_dump(by_alias=True),
                "path": str(folder_of(inputs, context)),
                "version": scanner.version,
            },
            context.report_progress,
        )
    sarif = context.blobs.write(
        answer.pop("sarif").encode(), media_type=_SARIF, name="security-scan.sarif"
    )
    return ScanOutput.model_validate(
        {
            **answer,
            "sarif": sarif,
            "scanDurationMs": round((time.monotonic() - began) * 1000),
        }
    )

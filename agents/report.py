"""The agent `report`: turns scan findings into a page that a person reads."""

from collections import Counter
from typing import Final

from pydantic import Field

from agents.agent import Agent
from agents.finding import SEVERITIES, Finding, Severity
from agents.model import Model

report = Agent(
    "report",
    description="Summarises scan findings as Markdown.",
    type="RULE",
    version="1.0.0",
)

_LISTED_SEVERITIES: Final = frozenset({"critical", "high"})


class FileCount(Model):
    """How many findings one file has."""

    file: str
    findings: int


class SummarizeInput(Model):
    """The findings of a scan."""

    findings: list[Finding]
    omitted_findings: int = Field(default=0, ge=0, description="found, but not in `findings`")
    title: str = "Security findings"
    top: int = Field(default=5, ge=1, le=100, description="how many files and findings to list")


class SummarizeOutput(Model):
    """The counts, and the same as Markdown. `omitted_findings` are in neither."""

    total: int
    by_severity: dict[Severity, int] = Field(description="every severity, also with 0")
    by_type: dict[str, int] = Field(description="the most frequent first")
    top_files: list[FileCount] = Field(description="the files with the most findings first")
    markdown: str


@report.action(timeout=30)
async def summarize(inputs: SummarizeInput) -> SummarizeOutput:
    """Count findings by severity, type and file, and write the page."""
    severities = Counter(finding.severity for finding in inputs.findings)
    types = Counter(finding.type for finding in inputs.findings)
    files = Counter(finding.file for finding in inputs.findings)
    by_severity = {severity: severities[severity] for severity in SEVERITIES}
    by_type = dict(sorted(types.items(), key=lambda item: (-item[1], item[0])))
    top_files = [
        FileCount(file=file, findings=count)
        for file, count in sorted(files.items(), key=lambda item: (-item[1], item[0]))
    ][: inputs.top]
    return SummarizeOutput(
        total=len(inputs.findings),
        by_severity=by_severity,
        by_type=by_type,
        top_files=top_files,
        markdown=_page(inputs, by_severity, by_type, top_files),
    )


def _page(
    inputs: SummarizeInput,
    by_severity: dict[Severity, int],
    by_type: dict[str, int],
    top_files: list[FileCount],
) -> str:
    lines = [f"# {inputs.title}", ""]
    if not inputs.findings:
        return "\n".join([*lines, "Nothing was found.", ""])
    counts = ", ".join(f"{count} {severity}" for severity, count in by_severity.items() if count)
    lines += [f"{len(inputs.findings)} findings: {counts}.", ""]
    if inputs.omitted_findings:
        lines += [f"{inputs.omitted_findings} more are counted by the scan, not listed here.", ""]
    lines += ["| type | findings |", "|---|---|"]
    lines += [f"| {_cell(kind)} | {count} |" for kind, count in by_type.items()]
    lines += ["", "| file | findings |", "|---|---|"]
    lines += [f"| {_cell(each.file)} | {each.findings} |" for each in top_files]
    worst = [it for it in inputs.findings if it.severity in _LISTED_SEVERITIES]
    worst.sort(key=lambda it: (SEVERITIES.index(it.severity), it.file, it.line))
    if worst:
        lines += ["", "## Look at these first", ""]
        lines += [
            f"- **{it.severity}** {_cell(it.file)}:{it.line}: {_cell(it.description)}"
            for it in worst[: inputs.top]
        ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Text from a repository as one cell of a table: it cannot break out of it."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

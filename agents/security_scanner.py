"""The agent `security-scanner`: secrets and insecure Python in a folder of source code.

The work is done by `agents/scan_process.py` in a process of its own, one for each scan:
detect-secrets keeps its settings and bandit its plugins in globals, both are pure Python that
would hold the worker's interpreter lock for seconds, and a process can be killed when the scan is
cancelled or runs over its time. It also keeps their imports (half a second) out of the worker.
"""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from agents.agent import Agent
from agents.errors import PermanentError
from agents.finding import SEVERITIES, Finding, Summary
from agents.model import Model
from streams.errors import AgentError

ScanType = Literal["secrets", "python", "all"]

_PROCESS: Final = Path(__file__).with_name("scan_process.py")
_INTERPRETER: Final = (sys.executable, "-X", "utf8", "-P", str(_PROCESS))

scanner = Agent(
    "security-scanner",
    description="Finds secrets (detect-secrets) and insecure Python (bandit) in a repository.",
    type="RULE",
    version="1.0.0",
    concurrency=2,
)


class ScanInput(Model):
    """What to scan."""

    repository_path: str = Field(
        min_length=1,
        description="a folder on the worker's machine; in a git repository only "
        "what git does not ignore is read",
    )
    scan_type: ScanType = "all"
    max_findings: int = Field(
        default=500, ge=1, le=2_000, description="the most severe ones; all are counted"
    )


class ScanOutput(Model):
    """What was found, the most severe first, then by file and line."""

    findings: list[Finding]
    omitted_findings: int = Field(description="counted in the summary, not listed")
    summary: Summary
    scanned_files: int
    skipped_files: int = Field(description="binary, over 1 MB, or unreadable")
    warnings: list[str] = Field(description="files that a scanner could not make sense of")
    scan_duration_ms: int


@scanner.action(timeout=300)
async def scan(inputs: ScanInput) -> ScanOutput:
    """Scan a folder for secrets and insecure Python."""
    began = time.monotonic()
    answer = await _ask({"path": inputs.repository_path, "scanType": inputs.scan_type})
    findings = [Finding.model_validate(each) for each in answer["findings"]]
    findings.sort(key=lambda it: (SEVERITIES.index(it.severity), it.file, it.line, it.type))
    counts = {severity: sum(it.severity == severity for it in findings) for severity in SEVERITIES}
    return ScanOutput(
        findings=findings[: inputs.max_findings],
        omitted_findings=max(0, len(findings) - inputs.max_findings),
        summary=Summary(total=len(findings), **counts),
        scanned_files=answer["scannedFiles"],
        skipped_files=answer["skippedFiles"],
        warnings=answer["warnings"],
        scan_duration_ms=round((time.monotonic() - began) * 1000),
    )


async def _ask(question: dict[str, str]) -> dict[str, Any]:
    """One scan process from start to end. It is killed if this is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *_INTERPRETER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        said, complained = await _talk(process, json.dumps(question).encode() + b"\n")
        status = await process.wait()
    finally:
        if process.returncode is None:
            # Its whole group: it may have a git of its own under way.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        last = complained.decode(errors="replace").strip().rpartition("\n")[2]
        raise AgentError(f"the scan process ended with status {status}: {last or 'no message'}")
    answer: dict[str, Any] = json.loads(said)
    if "error" in answer:
        raise PermanentError(answer["error"])
    return answer


async def _talk(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("the scan process was started without pipes")
    # A process that dies at once closes the pipe; its status and stderr then say why.
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(question)
        await process.stdin.drain()
    # The pipe stays open: its end tells the process that the worker is gone.
    said, complained = await asyncio.gather(process.stdout.read(), process.stderr.read())
    process.stdin.close()
    return said, complained

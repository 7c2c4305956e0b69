"""`commandcenter demo`: the bundled example from end to end, on a system of its own."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from uuid import uuid4

import typer

from infra.commands import output
from infra.commands.options import AsJson, DataDir, settings
from infra.commands.run_text import print_run
from streams.errors import CallerError

if TYPE_CHECKING:
    from gateway.client import GatewayClient
    from infra.system import Running

CHECKOUT: Final = Path(__file__).parents[2]
EXAMPLES: Final = CHECKOUT / "examples"

_RUNS_END_WITHIN_S: Final = 300.0
_TOP_FINDINGS: Final = 5
_SQL: Final = """\
SELECT workflow, node, status, attempt, duration_ms,
       coalesce(JSONExtract(output, 'summary', 'total', 'Nullable(UInt32)'),
                JSONExtract(output, 'total', 'Nullable(UInt32)')) AS findings
FROM agent_runs ORDER BY run_started_at, run_id, dispatched_at"""


class Report(NamedTuple):
    """What the demo found: the ended runs with their steps, and the rows of the same from SQL."""

    runs: list[dict[str, Any]]
    rows: list[dict[str, Any]]


def demo(
    repo: Annotated[
        Path, typer.Option(metavar="PATH", help="A repository to scan.", show_default="this one")
    ] = CHECKOUT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Start everything, run the example workflows, print what they found, and stop everything.

    On free ports and, unless --data-dir is given, in a temporary folder. 0 if every run succeeds.
    """
    if not (EXAMPLES / "workflows").is_dir():
        raise CallerError(f"The examples are not here ({EXAMPLES}): run the demo from a checkout.")
    if not repo.is_dir():
        raise CallerError(f"--repo {repo} is not a folder.")
    began = time.monotonic()
    if data_dir is None:
        with tempfile.TemporaryDirectory(prefix="commandcenter-demo-") as scratch:
            report = asyncio.run(_demo(Path(scratch), repo.resolve(), as_json))
    else:
        report = asyncio.run(_demo(data_dir, repo.resolve(), as_json))
    failed = [run for run in report.runs if run["status"] != "SUCCESS"]
    if as_json:
        output.print_json({"succeeded": not failed, "runs": report.runs, "sql": report.rows})
    else:
        state = f"{len(failed)} of them no SUCCESS" if failed else "every one a SUCCESS"
        print(f"{len(report.runs)} runs, {state}; {time.monotonic() - began:.1f} s in all.")
    if failed:
        raise typer.Exit(1)


async def _demo(data: Path, repo: Path, as_json: bool) -> Report:
    """The system with the scenario played on it; everything is stopped at the end."""
    from infra.kafka_broker import free_port
    from infra.supervisor import stop_on_signals
    from infra.system import run_system

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr if as_json else sys.stdout, flush=True)

    # Its own Kafka and history, whatever the environment says: others' are not for playing.
    chosen = settings(data=data, port=free_port(), kafka_port=0, kafka="", clickhouse="")
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    with stop_on_signals() as stop:
        system = asyncio.create_task(
            run_system(chosen, stop, say=say, on_ready=ready.set_result), name="system"
        )
        scenario = asyncio.create_task(_scenario(ready, repo, say), name="scenario")
        try:
            await asyncio.wait({system, scenario}, return_when=asyncio.FIRST_COMPLETED)
            if scenario.done() and not scenario.exception() and not as_json:
                _print(scenario.result())
        finally:
            scenario.cancel()
            await asyncio.wait({scenario})
            if not stop.wanted.is_set():
                stop.ask()
            await system
    if scenario.cancelled():
        raise KeyboardInterrupt  # asked to stop by a signal
    return scenario.result()


async def _scenario(
    ready: "asyncio.Future[Running]", repo: Path, say: Callable[[str], None]
) -> Report:
    """Publish the workflows and the events, wait for the runs, and ask for them."""
    from gateway.client import GatewayClient
    from infra.commands.following import lines_of, recorded, until_ended
    from infra.commands.trigger import publish, runs_started_by
    from infra.commands.workflow import files_in
    from infra.commands.workflow import publish as publish_workflows
    from streams.workflow_file import read

    running = await ready
    say(f"The page is at {running.url} while this runs.")
    async with GatewayClient(running.url) as client:
        for file in files_in([EXAMPLES / "workflows"]):
            for each in await publish_workflows(client, read(file)):
                say(f"Published the workflow {each['name']} v{each['version']}.")
        events = [_push(EXAMPLES / "vulnerable-app"), _push(repo), _alert()]
        runs = [run for event in events for run in await runs_started_by(client, event)]

        async def begin() -> None:
            for event in events:
                await publish(client, event)
                say(f"Published the event {event['type']} from {event['source']}.")

        def tell(decision: Mapping[str, Any]) -> None:
            for line in lines_of(decision):
                say(line)

        await until_ended(client, runs, begin, timeout_s=_RUNS_END_WITHIN_S, on_decision=tell)
        details = [await _whole(client, await recorded(client, run)) for run in runs]
        rows = (await client.post("/api/sql", {"query": _SQL})).value["rows"]
    return Report(details, rows)


async def _whole(client: "GatewayClient", run: dict[str, Any]) -> dict[str, Any]:
    """The run with all of its outputs: big ones stand in it as references."""
    from gateway.client import path

    for step in run["steps"]:
        output = step.get("output")
        if isinstance(output, dict) and "$blob" in output:
            step["output"] = await client.get(path("runs", run["id"], "payloads", output["$blob"]))
    return run


def _push(folder: Path) -> dict[str, Any]:
    """The event that a repository was pushed to."""
    data = {"repository": {"name": folder.name, "path": str(folder)}, "branch": "main"}
    return _event("repo.push", "demo/repositories", folder.name, data)


def _alert() -> dict[str, Any]:
    """The event that something is on fire."""
    data = {"severity": "critical", "service": "checkout", "summary": "error rate above 5 %"}
    return _event("alert.fired", "demo/alerts", "checkout", data)


def _event(kind: str, source: str, subject: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": source,
        "type": kind,
        "subject": subject,
        "project": "default",
        "data": data,
    }


def _print(report: Report) -> None:
    """The runs with their steps and worst findings, and the same as SQL sees them."""
    for run in report.runs:
        print()
        print_run(run)
        for step in run["steps"]:
            found = step.get("output") or {}
            if isinstance(found, dict) and "findings" in found:
                _print_findings(step["id"], found)
    print(f'\n$ commandcenter sql "{_SQL}"')
    columns = list(report.rows[0]) if report.rows else []
    output.print_table(columns, [list(row.values()) for row in report.rows], "No rows.")
    print()


def _print_findings(step: str, found: Mapping[str, Any]) -> None:
    summary = found["summary"]
    counts = [f"{count} {name}" for name, count in summary.items() if name != "total" and count]
    print(
        f"\n{step}: {summary['total']} findings in {found['scannedFiles']} files"
        f"{' (' + ', '.join(counts) + ')' if counts else ''}; the worst:"
    )
    output.print_table(
        ("SEVERITY", "WHERE", "TYPE", "WHAT"),
        [
            (each["severity"], f"{each['file']}:{each['line']}", each["type"], each["description"])
            for each in found["findings"][:_TOP_FINDINGS]
        ],
        "None.",
    )

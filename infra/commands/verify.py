"""`commandcenter verify`: whether the log, the table of runs and ClickHouse agree."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.commands import output
from infra.commands.options import AsJson, DataDir, Url, settings
from streams.errors import CallerError

if TYPE_CHECKING:
    from infra.settings import Settings
    from infra.verification import Ask, Say, Verdict

_DAY_S: Final = 86_400
_MARGIN_S: Final = 3_600


def verify(
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME|SPAN", help="Only what began since then: 2030-01-31T12:00 (UTC), 2h, 7d."
        ),
    ] = "",
    settled: Annotated[
        bool, typer.Option("--settled", help="All work is done: a run under way is a difference.")
    ] = False,
    within: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="With --settled: how long to wait for what is open."
        ),
    ] = 10.0,
    data_dir: DataDir = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Audit everything: compare the log, the table of runs and ClickHouse; 1 if they differ.

    It reads only, and can be done while everything runs.
    """
    chosen = settings(data=data_dir)
    verdict = asyncio.run(_verify(chosen, url, _moment(since), settled, within, _progress(as_json)))
    if as_json:
        output.print_json(_json(verdict))
    else:
        _print(verdict)
    if not verdict.agrees:
        raise typer.Exit(1)


async def _verify(
    chosen: "Settings", url: str, since: int, settled: bool, within: float, say: "Say"
) -> "Verdict":
    from infra.commands.processes import bootstrap_of
    from infra.verification import verify as audit
    from streams.run import Limits

    bootstrap = bootstrap_of(chosen)
    limits = Limits(payload=chosen.payload_limit, trigger=chosen.trigger_limit)
    async with _store(chosen, url) as ask:
        return await audit(
            bootstrap,
            ask,
            since=since,
            settled=settled,
            within=within,
            kept_from=_kept_from(chosen.retention),
            limits=limits,
            say=say,
        )


@asynccontextmanager
async def _store(chosen: "Settings", url: str) -> AsyncIterator["Ask"]:
    """The store to compare with.

    A server is asked itself. The embedded store belongs to the gateway's process while that runs;
    where none answers it is opened here.
    """
    from gateway.client import GatewayClient, GatewayUnreachableError
    from infra.system import gateway_url
    from infra.verification import of_store, through_gateway
    from sinks.clickhouse import open_store
    from sinks.store import Limits

    embedded = chosen.store.startswith("chdb:")
    if embedded:
        async with GatewayClient(url or gateway_url(chosen)) as client:
            try:
                await client.get("/api/health")
            except GatewayUnreachableError:
                if url or not (chosen.data / "clickhouse").is_dir():
                    raise
            else:
                yield through_gateway(client)
                return
    store = await open_store(chosen.store, Limits.within(chosen.store_memory))
    try:
        yield of_store(store)
    finally:
        await store.close()


def _kept_from(days: int) -> int:
    """From when on runs are in the store for certain, in milliseconds, while this is read too."""
    return int((time.time() - days * _DAY_S + _MARGIN_S) * 1_000) if days else 0


def _moment(text: str) -> int:
    """A time (RFC 3339, UTC where it does not say), or a span before now, in milliseconds."""
    from datetime import UTC, datetime

    from streams import duration

    if not text:
        return 0
    try:
        return int(time.time() * 1_000) - duration.parse(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CallerError(
            f"--since {text!r} is neither a time such as 2030-01-31T12:00 nor a span such as 2h"
        ) from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000)


def _progress(as_json: bool) -> "Say":
    """One line that changes on a terminal; a line for each partition otherwise."""
    if as_json:
        return lambda _what, _done, _total: None
    if sys.stderr.isatty():

        def show(what: str, done: int, total: int) -> None:
            sys.stderr.write(f"\r\x1b[K{what} {done:,} of {total:,}")
            sys.stderr.flush()

        return show

    def tell(what: str, done: int, total: int) -> None:
        if done == total:
            print(f"read {what}: {total}", file=sys.stderr, flush=True)

    return tell


def _print(verdict: "Verdict") -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    counts = verdict.counts
    ended = {name.removeprefix("ended."): n for name, n in counts.items() if "ended." in name}

    print(
        f"Log: {counts.get('triggers', 0):,} triggers, {counts.get('starts', 0):,} starts,"
        f" {counts.get('runs', 0):,} runs, {counts.get('decisions', 0):,} decisions with"
        f" {counts.get('events', 0):,} events, {counts.get('repetitions', 0):,} repetitions,"
        f" {counts.get('dead letters', 0):,} dead letters."
    )
    shown = ", ".join(f"{number:,} {status}" for status, number in sorted(ended.items()))
    print(f"Runs ended: {shown or 'none'}. Forgotten by the table: {counts.get('forgotten', 0):,}.")
    print(
        f"Store: {counts.get('recorded events', 0):,} events, {counts.get('recorded runs', 0):,}"
        f" runs and {counts.get('costs', 0):,} costs compared."
    )
    if doubtful := counts.get("doubtful triggers", 0):
        print(f"{doubtful:,} triggers came while their workflow changed: not judged.")
    _print_findings("Open", verdict.open_counts, verdict.open)
    _print_findings("Differs", verdict.difference_counts, verdict.differences)
    total = sum(verdict.difference_counts.values())
    print(f"{total:,} differences." if total else "Everything agrees.")


def _print_findings(title: str, counts: Any, findings: Any) -> None:
    for check, number in sorted(counts.items()):
        print(f"{title}: {check} ({number:,})")
        shown = [finding for finding in findings if finding.check == check]
        for finding in shown:
            print(f"  {output.text(finding.subject)}: {output.text(finding.text)}")
        if number > len(shown):
            print(f"  … and {number - len(shown):,} more")


def _json(verdict: "Verdict") -> dict[str, Any]:
    return {
        "agrees": verdict.agrees,
        "differences": [finding._asdict() for finding in verdict.differences],
        "differenceCounts": dict(verdict.difference_counts),
        "open": [finding._asdict() for finding in verdict.open],
        "openCounts": dict(verdict.open_counts),
        "counts": dict(verdict.counts),
    }

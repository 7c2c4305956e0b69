"""`commandcenter rebuild`: the history in ClickHouse anew from the log."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from infra.commands import output
from infra.commands.options import AsJson, DataDir, settings
from streams.errors import OperatorError

if TYPE_CHECKING:
    from infra.settings import Settings
    from sinks.rebuild import Rebuilt, Say


_AGAIN: Final = "\r\x1b[K"
"""To the beginning of a terminal's line, which is emptied."""


def rebuild(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Make all tables of ClickHouse anew from the log, beside the old ones, then exchange them.

    Stop `commandcenter up` (or all recorders) first. Killed, it goes on where it was when it is
    run again. A folder of the embedded store that cannot be opened is put aside.
    """
    chosen = settings(data=data_dir)
    began = time.monotonic()
    done = asyncio.run(_rebuild(chosen, _progress(as_json)))
    if sys.stderr.isatty() and not as_json:
        sys.stderr.write(_AGAIN)
    took = time.monotonic() - began
    if as_json:
        output.print_json({**done._asdict(), "seconds": round(took, 3)})
        return
    print(
        f"Rebuilt from {done.records:,} records in {took:.1f} s: {done.events:,} events."
        + (f" Went on at record {done.resumed_at:,}." if done.resumed_at else "")
        + (f" {done.unreadable:,} records cannot be read." if done.unreadable else "")
    )


async def _rebuild(chosen: "Settings", say: "Say") -> "Rebuilt":
    from infra.topic_admin import group_members
    from sinks import rebuild, retention
    from sinks.store import Limits

    limits = Limits.within(chosen.store_memory)
    embedded = chosen.store.startswith("chdb:")
    async with _kafka(chosen) as bootstrap:
        if not embedded and (members := await group_members(bootstrap, "commandcenter-recorder")):
            raise OperatorError(
                f"{members} recorders are running: stop them first. Gateways and workers may go on."
            )
        store = await rebuild.opened(
            chosen.store, limits, lambda text: print(text, file=sys.stderr)
        )
        try:
            done = await rebuild.rebuild(store, chosen.store, bootstrap, limits=limits, say=say)
            await retention.apply(store, chosen.retention)
        finally:
            await store.close()
    return done


@asynccontextmanager
async def _kafka(chosen: "Settings") -> AsyncIterator[str]:
    """The Kafka of the settings, the one that runs for the data directory, or one for this time."""
    from infra.local_kafka import LocalKafka, read_bootstrap

    running = chosen.kafka or read_bootstrap(chosen.data)
    if running:
        yield running
        return
    if not (chosen.data / "kafka").is_dir():
        raise OperatorError(
            f"There is no log in {chosen.data} to rebuild from. Name the data directory with "
            "--data-dir or COMMANDCENTER_DATA, or another Kafka with COMMANDCENTER_KAFKA."
        )
    print("Starting Kafka.", file=sys.stderr, flush=True)
    async with LocalKafka(chosen.data) as kafka:
        yield kafka.bootstrap


def _progress(as_json: bool) -> "Say":
    """One line that changes on a terminal; a line for each tenth otherwise."""
    shown = -1

    def say(done: int, total: int) -> None:
        nonlocal shown
        if as_json:
            return
        if sys.stderr.isatty():
            sys.stderr.write(f"{_AGAIN}{done:,} of {total:,} records")
            sys.stderr.flush()
        elif (tenth := 10 * done // max(1, total)) > shown:
            shown = tenth
            print(f"{done:,} of {total:,} records", file=sys.stderr, flush=True)

    return say

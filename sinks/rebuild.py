"""All tables anew from the log, beside the old ones, and then in their place.

Rules:
- The new tables stand in a database of their own. The same recorder fills them, so they say
  themselves how far they are: a rebuild that was killed goes on where it was.
- Each exchange of two tables is atomic, all together are not. So it is written down first which
  ones are to be exchanged, and whoever opens the store next ends what was begun.
- Whoever rebuilds is the only one that writes. Readers see the old tables up to the exchange.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sinks import schema
from sinks.catalog_recording import CatalogRecording
from sinks.clickhouse import DamagedStoreError, open_store
from sinks.history import History
from sinks.queries import query
from sinks.recorder import Recorder
from sinks.recording import LogRecord
from sinks.rollups import Rollups
from sinks.store import DEFAULT_LIMITS, Limits, Store
from streams.topics import EVENTS

BESIDE: Final = "_rebuild"
"""What the name of the database with the new tables ends with."""

_EMBEDDED: Final = "chdb://"
_SAY_EVERY_S: Final = 1.0

Say = Callable[[int, int], None]
"""Told how many records of the log are recorded, and of how many."""


class Rebuilt(NamedTuple):
    """What a rebuild did: records and events of the log, and records that could not be read."""

    records: int
    events: int
    unreadable: int
    resumed_at: int


async def opened(url: str, limits: Limits, tell: Callable[[str], object]) -> Store:
    """The store to rebuild, with the schema applied.

    An embedded one that cannot be opened or read is put aside, which `tell` is told, and an empty
    one is in its place.

    Raises:
        OperatorError: It is away, or refuses.
    """
    try:
        return await _readable(url, limits)
    except DamagedStoreError as error:
        if not url.startswith(_EMBEDDED):
            raise
        tell(f"{error} It is now {_put_aside(Path(url.removeprefix(_EMBEDDED)))}.")
    return await _readable(url, limits)


async def _readable(url: str, limits: Limits) -> Store:
    store = await open_store(url, limits)
    try:
        await schema.apply(store)
        await finish(store)
    except BaseException:
        await store.close()
        raise
    return store


def _put_aside(folder: Path) -> Path:
    aside = next(
        path
        for number in range(1, 1_000)
        if not (path := folder.with_name(f"{folder.name}.damaged-{number}")).exists()
    )
    folder.rename(aside)
    return aside


async def rebuild(
    store: Store,
    url: str,
    bootstrap: str,
    *,
    topic: str = EVENTS,
    catalog: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    say: Say = lambda _done, _total: None,
) -> Rebuilt:
    """Make every table anew from the log, and put it in the old one's place.

    Args:
        store: With the schema applied; nobody else writes to it.
        url: That it was opened with.
        bootstrap: Kafka, `host:port[,host:port]`.
        topic: The events topic.
        catalog: Also record workflows and agents.
        limits: That the store was opened with.
        say: Told of the progress.

    Raises:
        OperatorError: Kafka or the store is out of reach; begun again it goes on.
    """
    await finish(store)
    shadow = await open_store(url, limits, beside=BESIDE)
    try:
        await schema.apply(shadow)
        done = await _record(shadow, bootstrap, topic, say)
        if catalog:
            async with CatalogRecording(bootstrap, shadow) as recording:
                await recording.caught_up()
        await Rollups(shadow, topic).refresh(await History(shadow, topic).positions())
        await _note_exchange(store, shadow)
    finally:
        await shadow.close()
    await finish(store)
    return done


async def _record(shadow: Store, bootstrap: str, topic: str, say: Say) -> Rebuilt:
    unreadable = 0

    async def pass_by(_record: LogRecord, _error: Exception) -> None:
        # It was put among the dead letters when it was read first.
        nonlocal unreadable
        unreadable += 1

    began = await History(shadow, topic).positions()
    recorder = Recorder(bootstrap, shadow, pass_by, topic=topic)
    work = asyncio.create_task(recorder.run(), name="rebuild")
    ready = asyncio.create_task(recorder.ready.wait())
    try:
        await asyncio.wait({work, ready}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
        ends = await recorder.ends()
        reached = asyncio.create_task(recorder.reached(ends))
        try:
            while not reached.done():
                say(_records(recorder.watermark), _records(ends))
                await asyncio.wait(
                    {work, reached}, timeout=_SAY_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                if work.done():
                    await work
        finally:
            reached.cancel()
        say(_records(recorder.watermark), _records(ends))
    finally:
        ready.cancel()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    [(events,)] = (await shadow.query("SELECT count() FROM events")).rows
    return Rebuilt(_records(ends), int(events), unreadable, _records(began))


def _records(offsets: Mapping[int, int]) -> int:
    return sum(last + 1 for last in offsets.values())


async def _note_exchange(store: Store, shadow: Store) -> None:
    """Write down which tables are to be exchanged: from here on it can only go forward."""
    rows = (await store.query(query("shadow_tables"), {"beside": BESIDE})).rows
    new = {name: place for database, name, place in rows if database.endswith(BESIDE)}
    await shadow.command(
        "CREATE TABLE IF NOT EXISTS exchange (name String COMMENT 'Table',"
        " place String COMMENT 'Where its new rows are') ENGINE = MergeTree ORDER BY name"
        " COMMENT 'Tables that a rebuild puts in place of the old ones'"
    )
    await shadow.insert("exchange", {"name": list(new), "place": list(new.values())})


async def finish(store: Store) -> None:
    """End an exchange that was begun; nothing where none was.

    Raises:
        OperatorError: The store is away or refuses.
    """
    [(database,)] = (await store.query("SELECT currentDatabase()")).rows
    beside = f"`{database}{BESIDE}`"
    noted = await store.query(
        "SELECT count() FROM system.tables WHERE name = 'exchange' AND database = {name:String}",
        {"name": f"{database}{BESIDE}"},
    )
    if not noted.rows[0][0]:
        return
    # The name of the database is our own.
    written = await store.query(f"SELECT name, place FROM {beside}.exchange")  # noqa: S608
    wanted: dict[str, str] = {row[0]: row[1] for row in written.rows}
    if not wanted:  # killed before it was written down: the rebuild has not come so far
        return
    rows = (await store.query(query("shadow_tables"), {"beside": BESIDE})).rows
    here = {name: place for found, name, place in rows if found == database}
    for name, place in wanted.items():
        if here[name] != place:
            await store.command(f"EXCHANGE TABLES `{database}`.`{name}` AND {beside}.`{name}`")
    await store.command(f"DROP DATABASE {beside} SYNC")

"""ClickHouse behind the `Store` interface: chDB in this process, or a server over HTTP.

The two differ in how a client is made and in who may own the data; everything else is one class.
A client serialises its calls (chDB: one handle, one lock), so each thread of a role has its own.
"""

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

import clickhouse_connect
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver import options
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    NotSupportedError,
)

from sinks import guest_sql
from sinks.guest_sql import QueryError
from sinks.queries import query
from sinks.store import DEFAULT_LIMITS, Columns, Limits, Parameters, Rows, Store
from streams.errors import CallerError, OperatorError

# Inserts look whether they were given a DataFrame, and load pandas for that: a second and 60 MB in
# the first insert. None is this module's own word for "pandas is not there".
options.pd = None

WRITERS: Final = 2
"""While the engine inserts one block, Python writes the next."""
READERS: Final = 3
GUESTS: Final = 2

_STOP_AGAIN_S: Final = 0.1
_STOP_AGAIN_LONGEST_S: Final = 2.0
_TOO_LONG: Final = 159
_TOO_MANY_ROWS: Final = frozenset({158, 396})
_TOO_MUCH_MEMORY: Final = 241
_READONLY: Final = 164
# What a query may run into wherever it reads.
_LIMITS: Final = frozenset({_TOO_LONG, *_TOO_MANY_ROWS, _TOO_MUCH_MEMORY, 394})
_BAD_ARGUMENTS: Final = 36
# What reading a damaged part says: it ends early, or its sums, sizes or packing are others.
_DAMAGE: Final = frozenset({3, 32, 33, 40, 74, 76, 107, 226, 246, 271, 432})
# The store's or its network's trouble, whatever the statement was.
_OPERATOR: Final = frozenset(
    {
        23, 24, 74, 75, 76, 202, 209, 210, 217, 225, 242, 243, 252, 279, 319, 425, 439,
        497, 516, 192, 193, 194, 198, 236, 373, 571, 586, 594, 668, 743,
    }
)  # fmt: skip

_MIB: Final = 1024 * 1024
_PIECE: Final = 256 * 1024
_CHDB_DATABASE: Final = "default"

Client = Any
Make = Callable[[Mapping[str, Any]], Client]
Export = Callable[[Client, str, Mapping[str, Any], str, Path], None]
"""Writes the answer of a client to a statement, with its parameters, in a format, into a file."""
T = TypeVar("T")

# A batch goes in as one block with one answer: it is there when the call returns.
_WRITER: Final = {"async_insert": 0, "max_insert_threads": 1, "max_threads": 1}
_READER: Final = {"max_threads": 2, "max_execution_time": 60}


async def open_store(url: str, limits: Limits = DEFAULT_LIMITS, *, beside: str = "") -> Store:
    """Open the store that the setting names.

    Args:
        url: `chdb:///folder`, or `clickhouse://user:password@host:8123/database`, with
            `?secure=true` for TLS.
        limits: Of the embedded engine, and of the guests' queries.
        beside: Open another database of the same engine, called as the store's with this behind;
            it is made if need be.

    Raises:
        OperatorError: It cannot be opened; the text says why and what to do.
    """
    parts = urlsplit(url)
    if parts.scheme == "chdb":
        folder = Path(url.removeprefix("chdb://"))
        return await asyncio.to_thread(_open_chdb, folder, limits, beside)
    if parts.scheme == "clickhouse":
        return await asyncio.to_thread(_open_server, url, limits, beside)
    raise OperatorError(
        f"The store {parts.scheme or url!r} is not known: use chdb:///folder or "
        "clickhouse://user:password@host:8123/database (COMMANDCENTER_CLICKHOUSE)."
    )


def _open_chdb(folder: Path, limits: Limits, beside: str) -> Store:
    if not folder.is_absolute() or "?" in str(folder):
        raise OperatorError(f"chdb://{folder} does not name an absolute folder, as chdb:///folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"The folder {folder} cannot be used by the store: {error}.") from error

    def connect(database: str | None, settings: Mapping[str, Any]) -> Client:
        try:
            return clickhouse_connect.get_client(
                interface="chdb",
                path=str(folder),
                database=database,
                settings=dict(settings),
                tz_mode="aware",
                chdb_options=_engine_options(limits.engine_bytes),
            )
        except ClickHouseError as error:
            raise _why_not_opened(folder, error) from error

    name = f"{_CHDB_DATABASE}{beside}" if beside else None
    if name is not None:
        first = connect(None, {})
        try:
            first.command(f"CREATE DATABASE IF NOT EXISTS `{name}`")
        finally:
            first.close()
    return ClickHouse(
        f"chDB in {folder}",
        lambda settings: connect(name, settings),
        limits,
        export=_into_outfile,
        leaves_rest=True,
    )


def _engine_options(memory: int) -> dict[str, str]:
    """How the embedded engine shares the machine; its caches would take gigabytes by themselves."""
    return {
        # The machine is shared with a broker and workers: two threads to merge are plenty.
        "background_pool_size": "2",
        "background_schedule_pool_size": "2",
        "max_server_memory_usage": str(memory),
        "mark_cache_size": str(memory // 8),
        "primary_index_cache_size": str(memory // 8),
        "index_mark_cache_size": str(memory // 16),
        "compiled_expression_cache_size": str(memory // 32),
        "query_condition_cache_size": str(memory // 32),
    }


def _why_not_opened(folder: Path, error: ClickHouseError) -> OperatorError:
    if owner := _owner(folder):
        return OperatorError(
            f"The store in {folder} is in use by {owner}: only one process can have it. Stop that "
            "one, or give this one another data directory (COMMANDCENTER_DATA)."
        )
    if "already initialized with path" in str(error):
        return OperatorError(
            f"This process already has another chDB open, so {folder} cannot be opened."
        )
    why = _OPENING.sub("", _plain(error)).strip(" .")
    return DamagedStoreError(
        f"chDB cannot open {folder}{': ' if why else ''}{why}. If the folder is damaged, "
        "`commandcenter rebuild` makes a new one from the log, and keeps this one beside it."
    )


def _owner(folder: Path) -> str | None:
    """Who holds the engine's lock, if another process does."""
    try:
        with (folder / "status").open() as status:
            try:
                fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = re.search(r"PID: (\d+)", status.read())
                if found and int(found[1]) == os.getpid():
                    return None
                return f"process {found[1]}" if found else "another process"
    except OSError:
        return None
    return None


def _open_server(url: str, limits: Limits, beside: str) -> Store:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise OperatorError(f"The address of the ClickHouse server is wrong: {error}.") from error
    secure = parse_qs(parts.query).get("secure", ["false"])[0].lower() in ("1", "true", "yes")
    host = parts.hostname or "localhost"
    port = port or (8443 if secure else 8123)
    database = (parts.path.strip("/") or "default") + beside
    where = f"ClickHouse at {host}:{port}, database {database}"

    def connect(name: str, settings: Mapping[str, Any]) -> Client:
        try:
            return clickhouse_connect.get_client(
                interface="https" if secure else "http",
                host=host,
                port=port,
                username=unquote(parts.username or "default"),
                password=unquote(parts.password or ""),
                database=name,
                settings=dict(settings),
                tz_mode="aware",
                connect_timeout=5,
                send_receive_timeout=90,
                autogenerate_session_id=False,
            )
        except (ClickHouseError, OSError) as error:
            raise OperatorError(f"{where} cannot be reached: {_plain(error)}.") from error

    if database != "default":
        first = connect("default", {})
        try:
            first.command(f"CREATE DATABASE IF NOT EXISTS `{database.replace('`', '')}`")
        except ClickHouseError as error:
            raise OperatorError(f"{where} cannot be created: {_plain(error)}.") from error
        finally:
            first.close()
    return ClickHouse(
        where, lambda settings: connect(database, settings), limits, database, export=_download
    )


_OPENING: Final = re.compile(
    r"Unable to open the chdb engine at '[^']*': |Failed to create connection: "
    r"|Error initializing EmbeddedServer: ?"
)
"""What every failure to open says, before the reason (if there is one)."""
_ECHO: Final = re.compile(r":? In scope |: while executing ")
"""What is behind this in an error is the query."""
_UNREADABLE: Final = re.compile(r"while reading from part \S*?/?([^/\s]+)/ in table (\S+)")
REBUILD: Final = (
    "Stop CommandCenter and run `commandcenter rebuild`: it makes the tables anew from the log."
)


class DamagedStoreError(OperatorError):
    """A part cannot be read; or the embedded store not opened, though no other process has it."""


class ClickHouse:
    """The `Store` over one kind of client.

    Args:
        description: Where it is, for people.
        make: Makes a client with the given session settings.
        limits: Of the guests' queries.
        database: The database that the client works in.
        export: Writes an answer into a file.
        leaves_rest: A query that fails leaves what it has answered so far to the client's next one.
            (chDB does: without a client of its own, that one would tell what another has asked.)
    """

    def __init__(
        self,
        description: str,
        make: Make,
        limits: Limits,
        database: str = "default",
        *,
        export: Export,
        leaves_rest: bool = False,
    ) -> None:
        self._description = description
        self._database = database
        self._limits = limits
        self._export = export
        self._types: dict[str, dict[str, Any]] = {}
        self._writer = _Role("writer", WRITERS, lambda: make(_WRITER), renews=leaves_rest)
        self._upkeep = _Role("upkeep", 1, lambda: make(_WRITER), renews=leaves_rest)
        self._readers = _Role("reader", READERS, lambda: make(_READER), renews=leaves_rest)
        self._guests = _Role("guest", GUESTS, lambda: _Guest(make, limits), renews=leaves_rest)
        self._writer.open_one()

    @property
    def description(self) -> str:
        """Where it is, for people; without a password."""
        return self._description

    async def command(self, sql: str, parameters: Parameters | None = None) -> None:
        """Run one statement that answers nothing; it does not hold up the inserts."""
        given = dict(parameters) if parameters else None
        try:
            await self._upkeep.run(lambda client: client.command(sql, parameters=given))
        except ClickHouseError as error:
            raise OperatorError(
                f"{self._description} refused a statement: {_plain(error)}."
            ) from error

    async def insert(self, table: str, columns: Columns, *, token: str = "") -> None:
        """Insert rows, given by column, as one atomic block."""

        def insert(client: Client) -> None:
            types = self._column_types(client, table)
            client.insert(
                table,
                list(columns.values()),
                column_names=list(columns),
                column_types=[types[name] for name in columns],
                column_oriented=True,
                settings={"insert_deduplication_token": token} if token else None,
            )

        try:
            await self._writer.run(insert)
        except (ClickHouseError, OSError) as error:
            raise OperatorError(
                f"{self._description} did not take rows for {table}: {_plain(error)}."
            ) from error

    def _column_types(self, client: Client, table: str) -> dict[str, Any]:
        """Asked once a table: the client would ask before every insert."""
        if table not in self._types:
            answer = client.query(f"DESCRIBE TABLE {table}").result_rows
            self._types[table] = {row[0]: get_from_name(row[1]) for row in answer}
        return self._types[table]

    async def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask one of our own queries."""
        return await self._answer(self._readers.run(lambda client: _rows(client, sql, parameters)))

    async def query_readonly(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask a guest's query."""
        checked, given = await self._checked(sql, parameters)
        limits = self._limits
        most = (
            f"{limits.rows:,} rows or {limits.answer_bytes // _MIB:,} MiB: add LIMIT, aggregate, "
            f"or ask for CSVWithNames, say, which may have {limits.export_rows:,} rows."
        )
        return await self._ask_as_guest(
            checked, lambda guest, marked: _named_rows(guest.rows, marked, given), most
        )

    async def export_readonly(
        self,
        sql: str,
        parameters: Parameters | None = None,
        *,
        output_format: str,
        file: Path,
        rows: int = 0,
    ) -> None:
        """Ask a guest's query; the answer becomes a file, in one of ClickHouse's output formats."""
        checked, given = await self._checked(sql, parameters)
        if not re.fullmatch(r"[A-Za-z0-9]+", output_format):
            raise CallerError(f"{output_format!r} is not the name of an output format.")
        if rows:
            checked = f"SELECT * FROM (\n{checked}\n) LIMIT {rows}"  # noqa: S608  # it was checked
        limits = self._limits
        most = (
            f"{limits.export_rows:,} rows or {limits.export_bytes // _MIB:,} MiB: add LIMIT, or "
            "aggregate."
        )
        await self._ask_as_guest(
            checked,
            lambda guest, marked: self._export(guest.exports, marked, given, output_format, file),
            most,
        )

    async def _checked(self, sql: str, parameters: Parameters | None) -> tuple[str, dict[str, Any]]:
        checked = await asyncio.to_thread(guest_sql.check, sql, self._database)
        given = guest_sql.bound(checked.sql, parameters or {})
        if checked.tables or checked.functions:
            names = {"tables": list(checked.tables), "functions": list(checked.functions)}
            taken = await self.query(query("guest_names"), names)
            guest_sql.refuse_taken([name for (name,) in taken.rows])
        for table in sorted(checked.tables):
            # To the embedded engine a file in the working directory is a table, too.
            exists = await self.query(f"EXISTS TABLE `{table}`")
            guest_sql.refuse_taken([table] if exists.rows[0][0] else [])
        return checked.sql, given

    async def _ask_as_guest(self, sql: str, ask: Callable[["_Guest", str], T], most: str) -> T:
        """Ask with a mark in the text; if this is cancelled, the engine stops what has the mark."""
        mark = f"-- guest {uuid4().hex}"
        work = self._guests.start(lambda guest: ask(guest, f"{sql}\n{mark}"))
        try:
            return await self._answer(asyncio.wrap_future(work), most)
        except asyncio.CancelledError:
            stop = f"KILL QUERY WHERE query_kind = 'Select' AND position(query, '{mark}') > 0"
            pause = _STOP_AGAIN_S
            while not work.done():  # it may have begun, and not be known to the engine yet
                # Whether it has ended is not waited for there: a reader's thread would wait, too.
                await self._answer(self._readers.run(lambda client: client.command(stop)))
                await asyncio.wait([asyncio.wrap_future(work)], timeout=pause)
                pause = min(2 * pause, _STOP_AGAIN_LONGEST_S)
            raise

    async def _answer(self, asked: Awaitable[T], most: str = "") -> T:
        """`most` is what an answer may have, for guests."""
        try:
            return await asked
        except (ClickHouseError, OSError) as error:
            raise self._fault(error, most) from error

    def _fault(self, error: Exception, most: str) -> CallerError | OperatorError:
        code = error.code if isinstance(error, DatabaseError) else None
        if code == _TOO_MUCH_MEMORY and (not most or "(total)" in str(error)):
            memory = self._limits.engine_bytes // _MIB
            return OperatorError(
                f"{self._description} has no memory left for the query: ask for less, ask again "
                f"later, or give it more than {memory:,} MiB (COMMANDCENTER_CLICKHOUSE_MEMORY)."
            )
        if most and isinstance(error.__cause__, UnicodeDecodeError):
            text = "The query is wrong; what the engine says about it has bytes that are not UTF-8."
            return QueryError(text, _BAD_ARGUMENTS)
        # A guest's text may say anything, and comes back in errors: only what no text brings about.
        trusted = code in _DAMAGE if most else code not in _LIMITS
        if trusted and (part := _UNREADABLE.search(_ECHO.split(str(error))[0])):
            return DamagedStoreError(
                f"{self._description} is damaged: the part {part[1]} of the table {part[2]} cannot"
                f" be read: {_plain(error).split(': ')[0]}. {REBUILD}"
            )
        if code is None or code in _OPERATOR:
            return OperatorError(f"{self._description} does not answer: {_plain(error)}.")
        return QueryError(self._what_is_wrong(code, error, most), code)

    def _what_is_wrong(self, code: int, error: Exception, most: str) -> str:
        if code == _TOO_LONG:
            seconds = f"{self._limits.seconds:g} s"
            return f"The query was stopped after {seconds}: ask for a shorter time."
        if code in _TOO_MANY_ROWS:
            return f"The answer has more than {most}"
        if code == _TOO_MUCH_MEMORY:
            memory = self._limits.memory_bytes // _MIB
            return f"The query needs more than {memory:,} MiB of memory: ask for less."
        if code == _READONLY:
            return "The query is refused: only reading is allowed."
        return f"The query is wrong: {_plain(error)}."

    async def ping(self) -> None:
        """Return if the store answers, else `OperatorError`."""
        await self.query("SELECT 1")

    async def close(self) -> None:
        """Wait for what is under way, then let go of the engine. Harmless twice."""
        for role in (self._guests, self._readers, self._upkeep, self._writer):
            await asyncio.to_thread(role.close)


class _Role:
    """Some threads with a client each, made when first needed, with the settings of the role.

    Args:
        name: Of the role.
        threads: How many there are.
        make: Makes a client.
        renews: After work that fails there is a new client.
    """

    def __init__(
        self, name: str, threads: int, make: Callable[[], Client], *, renews: bool
    ) -> None:
        self._make = make
        self._renews = renews
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"store-{name}")
        self._idle: SimpleQueue[Client] = SimpleQueue()
        self._closed = False

    def open_one(self) -> None:
        self._idle.put(self._make())

    async def run(self, work: Callable[[Client], T]) -> T:
        return await asyncio.wrap_future(self.start(work))

    def start(self, work: Callable[[Client], T]) -> Future[T]:
        if self._closed:
            raise OperatorError("The store is closed.")
        return self._threads.submit(self._with, work)

    def _with(self, work: Callable[[Client], T]) -> T:
        # As many clients as threads at most: a thread that finds none makes one.
        client = self._make() if self._idle.empty() else self._idle.get()
        try:
            answer = work(client)
        except BaseException:
            self._put_back_after_failure(client)
            raise
        self._idle.put(client)
        return answer

    def _put_back_after_failure(self, client: Client) -> None:
        if not self._renews:
            self._idle.put(client)
            return
        try:  # first, as with its last client the engine stops
            self._idle.put(self._make())
        finally:
            client.close()

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get().close()


class _Guest:
    """What a guest's thread asks with: the one for rows, the other for whole files."""

    def __init__(self, make: Make, limits: Limits) -> None:
        self.rows = _confine(make, limits, limits.rows, limits.answer_bytes)
        self.exports = _confine(make, limits, limits.export_rows, limits.export_bytes)

    def close(self) -> None:
        self.rows.close()
        self.exports.close()


def _confine(make: Make, limits: Limits, rows: int, answer_bytes: int) -> Client:
    client = make(
        {
            "max_threads": 2,
            "max_execution_time": limits.seconds,
            # Inserts and our own reads go first: on two cores a guest's long query would slow them
            # to twenty times. Needs CAP_SYS_NICE, and does nothing without it.
            "os_thread_priority": 15,
            "max_result_rows": rows,
            "max_result_bytes": answer_bytes,
            "result_overflow_mode": "throw",
            "max_memory_usage": limits.memory_bytes,
            # What is big is sorted and grouped on the disk, before it is refused.
            "max_bytes_before_external_group_by": limits.memory_bytes // 4,
            "max_bytes_before_external_sort": limits.memory_bytes // 4,
            "max_temporary_data_on_disk_size_for_query": 4 * limits.engine_bytes,
            "allow_ddl": 0,
            "allow_introspection_functions": 0,
        }
    )
    client.set_client_setting("readonly", 1)  # last: it refuses every further setting
    return client


def _into_outfile(
    client: Client, sql: str, parameters: Mapping[str, Any], output_format: str, file: Path
) -> None:
    """The embedded engine writes the file by itself."""
    name = str(file).replace("\\", "\\\\").replace("'", "\\'")
    client.raw_query(
        f"{sql}\nINTO OUTFILE '{name}'", parameters=dict(parameters), fmt=output_format
    )


def _download(
    client: Client, sql: str, parameters: Mapping[str, Any], output_format: str, file: Path
) -> None:
    """The server keeps the answer until it is whole, so a mistake is told before the first byte."""
    with (
        client.raw_stream(
            sql,
            parameters=dict(parameters),
            fmt=output_format,
            settings={"wait_end_of_query": 1},
        ) as answer,
        file.open("xb") as written,
    ):
        shutil.copyfileobj(answer, written, _PIECE)


def _rows(client: Client, sql: str, parameters: Parameters | None) -> Rows:
    answer = client.query(sql, parameters=dict(parameters or {}))
    return Rows(tuple(answer.column_names), answer.result_rows)


def _named_rows(client: Client, sql: str, parameters: Parameters) -> Rows:
    """Rows with the names of the columns, which the embedded engine leaves out where no row is."""
    try:
        rows = _rows(client, sql, parameters)
    except (NotSupportedError, TypeError) as error:  # a state of an aggregate; a map by arrays
        raise QueryError(
            "The answer has a value that rows cannot have: ask for CSVWithNames, say."
        ) from error
    except UnicodeDecodeError as error:
        raise QueryError("The answer has a column whose name is not UTF-8: give it one.") from error
    if rows.columns:
        return rows
    return _rows(client, f"SELECT * FROM (\n{sql}\n) LIMIT 0", parameters)  # noqa: S608  # checked


def _plain(error: Exception) -> str:
    """The part of an engine's message that a person can act on."""
    text = str(error)
    if network := re.search(r"\[Errno -?\d+\] ([^'\")]+)", text):
        return network[1]
    text = re.sub(r"^.*server response: |Code: \d+\. |DB::Exception: ", "", text, flags=re.DOTALL)
    for tail in (" (for url ", "Stack trace:", ". Expected one of", " (version ", "\n FORMAT "):
        text = text.split(tail)[0]
    text = re.sub(r"\s*\([A-Z_]{4,}\)\s*$", "", text.strip())
    return " ".join(text.split())[:500].rstrip(".")

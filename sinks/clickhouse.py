"""ClickHouse behind the `Store` interface: chDB in this process, or a server over HTTP.

The two differ in how a client is made and in who may own the data; everything else is one class.
A client serialises its calls (chDB: one handle, one lock), so each thread of a role has its own.
"""

import asyncio
import fcntl
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from sinks import guest_sql, native
from sinks.guest_sql import QueryError
from sinks.store import DEFAULT_LIMITS, Columns, Limits, Parameters, Rows, Store
from streams.errors import CallerError, OperatorError

# Inserts look whether they were given a DataFrame, and load pandas for that: a second and 60 MB in
# the first insert. None is this module's own word for "pandas is not there".
options.pd = None

MEMORY_BYTES: Final = 2 * 1024**3
WRITERS: Final = 2
"""While the engine inserts one block, Python writes the next."""
READERS: Final = 3
GUESTS: Final = 2

_TOO_LONG: Final = 159
_TOO_MANY_ROWS: Final = frozenset({158, 396})
_TOO_MUCH_MEMORY: Final = 241
_READONLY: Final = 164
# The store's or its network's trouble, whatever the statement was.
_OPERATOR: Final = frozenset(
    {
        23, 24, 74, 75, 76, 202, 209, 210, 217, 225, 242, 243, 252, 279, 319, 425, 439,
        497, 516, 192, 193, 194, 198, 236, 373, 571, 586, 594, 668, 743,
    }
)  # fmt: skip

_CHDB_DATABASE: Final = "default"

Client = Any
Make = Callable[[Mapping[str, Any]], Client]
T = TypeVar("T")

# A batch goes in as one block with one answer: it is there when the call returns.
_WRITER: Final = {"async_insert": 0, "max_insert_threads": 1, "max_threads": 1}
_READER: Final = {"max_threads": 2, "max_execution_time": 60}


async def open_store(
    url: str, limits: Limits = DEFAULT_LIMITS, *, beside: str = "", memory: int = MEMORY_BYTES
) -> Store:
    """Open the store that the setting names.

    Args:
        url: `chdb:///folder`, or `clickhouse://user:password@host:8123/database`, with
            `?secure=true` for TLS.
        limits: Of the guests' queries.
        beside: Open another database of the same engine, called as the store's with this behind;
            it is made if need be.
        memory: Bytes that chDB may use in all, caches included; a server has a limit of its own.
            What needs more is refused, and the recorder tries again.

    Raises:
        OperatorError: It cannot be opened; the text says why and what to do.
    """
    parts = urlsplit(url)
    if parts.scheme == "chdb":
        folder = Path(url.removeprefix("chdb://"))
        return await asyncio.to_thread(_open_chdb, folder, limits, beside, memory)
    if parts.scheme == "clickhouse":
        return await asyncio.to_thread(_open_server, url, limits, beside)
    raise OperatorError(
        f"The store {parts.scheme or url!r} is not known: use chdb:///folder or "
        "clickhouse://user:password@host:8123/database (COMMANDCENTER_CLICKHOUSE)."
    )


def _open_chdb(folder: Path, limits: Limits, beside: str, memory: int) -> Store:
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
                # The machine is shared with a broker and workers: two threads to merge are plenty.
                chdb_options={
                    "background_pool_size": "2",
                    "background_schedule_pool_size": "2",
                    "max_server_memory_usage": str(memory),
                    "mark_cache_size": str(memory // 8),
                    "primary_index_cache_size": str(memory // 8),
                    "index_mark_cache_size": str(memory // 16),
                },
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
    return ClickHouse(f"chDB in {folder}", lambda settings: connect(name, settings), limits)


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
    return DamagedStoreError(
        f"chDB cannot open {folder}: {_plain(error)}. If the folder is damaged, `commandcenter "
        "rebuild` makes a new one from the log, and keeps this one beside it."
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
    return ClickHouse(where, lambda settings: connect(database, settings), limits, database)


class DamagedStoreError(OperatorError):
    """The embedded store's folder cannot be opened, and no other process has it."""


class ClickHouse:
    """The `Store` over one kind of client.

    Args:
        description: Where it is, for people.
        make: Makes a client with the given session settings.
        limits: Of the guests' queries.
        database: The database that the client works in.
    """

    def __init__(
        self, description: str, make: Make, limits: Limits, database: str = "default"
    ) -> None:
        self._description = description
        self._database = database
        self._limits = limits
        self._types: dict[str, dict[str, str]] = {}
        self._writer = _Role("writer", WRITERS, lambda: make(_WRITER))
        self._upkeep = _Role("upkeep", 1, lambda: make(_WRITER))
        self._readers = _Role("reader", READERS, lambda: make(_READER))
        self._guests = _Role("guest", GUESTS, lambda: _confine(make, limits))
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
            client.raw_insert(
                table,
                column_names=list(columns),
                insert_block=native.block(columns, types),
                fmt="Native",
                settings={"insert_deduplication_token": token} if token else None,
            )

        try:
            await self._writer.run(insert)
        except (ClickHouseError, OSError) as error:
            raise OperatorError(
                f"{self._description} did not take rows for {table}: {_plain(error)}."
            ) from error

    def _column_types(self, client: Client, table: str) -> dict[str, str]:
        """Asked once a table."""
        if table not in self._types:
            answer = client.query(f"DESCRIBE TABLE {table}").result_rows
            self._types[table] = {row[0]: row[1] for row in answer}
        return self._types[table]

    async def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask one of our own queries."""
        return await self._ask(self._readers, lambda client: _rows(client, sql, parameters))

    async def query_readonly(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask a guest's query."""
        checked = guest_sql.check(sql, self._database)
        given = guest_sql.bound(checked, parameters or {})
        return await self._ask(self._guests, lambda client: _rows(client, checked, given))

    async def export_readonly(
        self, sql: str, parameters: Parameters | None = None, *, output_format: str
    ) -> bytes:
        """Ask a guest's query; the answer in one of ClickHouse's output formats."""
        checked = guest_sql.check(sql, self._database)
        given = guest_sql.bound(checked, parameters or {})
        if not re.fullmatch(r"[A-Za-z0-9]+", output_format):
            raise CallerError(f"{output_format!r} is not the name of an output format.")

        def export(client: Client) -> bytes:
            answer: bytes = client.raw_query(checked, parameters=given, fmt=output_format)
            return answer

        return await self._ask(self._guests, export)

    async def _ask(self, role: "_Role", ask: Callable[[Client], T]) -> T:
        try:
            return await role.run(ask)
        except (ClickHouseError, OSError) as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> CallerError | OperatorError:
        code = error.code if isinstance(error, DatabaseError) else None
        if code == _TOO_MUCH_MEMORY and "(total)" in str(error):
            return OperatorError(
                f"{self._description} has used up the memory that it may have: ask again later, or "
                "allow it more (COMMANDCENTER_STORE_MEMORY)."
            )
        if code is None or code in _OPERATOR:
            return OperatorError(f"{self._description} does not answer: {_plain(error)}.")
        return QueryError(self._what_is_wrong(code, error), code)

    def _what_is_wrong(self, code: int, error: Exception) -> str:
        if code == _TOO_LONG:
            seconds = f"{self._limits.seconds:g} s"
            return f"The query was stopped after {seconds}: ask for a shorter time."
        if code in _TOO_MANY_ROWS:
            rows, size = self._limits.rows, self._limits.answer_bytes // 1024**2
            return (
                f"The answer has more than {rows:,} rows or {size:,} MiB: add LIMIT, or aggregate."
            )
        if code == _TOO_MUCH_MEMORY:
            memory = self._limits.memory_bytes // 1024**2
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
    """Some threads with a client each, made when first needed, with the settings of the role."""

    def __init__(self, name: str, threads: int, make: Callable[[], Client]) -> None:
        self._make = make
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"store-{name}")
        self._idle: SimpleQueue[Client] = SimpleQueue()
        self._closed = False

    def open_one(self) -> None:
        self._idle.put(self._make())

    async def run(self, work: Callable[[Client], T]) -> T:
        if self._closed:
            raise OperatorError("The store is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._with, work)

    def _with(self, work: Callable[[Client], T]) -> T:
        # As many clients as threads at most: a thread that finds none makes one.
        client = self._make() if self._idle.empty() else self._idle.get()
        try:
            return work(client)
        finally:
            self._idle.put(client)

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown()
        while not self._idle.empty():
            self._idle.get().close()


def _confine(make: Make, limits: Limits) -> Client:
    client = make(
        {
            "max_threads": 2,
            "max_execution_time": limits.seconds,
            # Inserts and our own reads go first: on two cores a guest's long query would slow them
            # to twenty times. Needs CAP_SYS_NICE, and does nothing without it.
            "os_thread_priority": 15,
            "max_result_rows": limits.rows,
            "max_result_bytes": limits.answer_bytes,
            "result_overflow_mode": "throw",
            "max_memory_usage": limits.memory_bytes,
            "allow_ddl": 0,
            "allow_introspection_functions": 0,
        }
    )
    client.set_client_setting("readonly", 1)  # last: it refuses every further setting
    return client


def _rows(client: Client, sql: str, parameters: Parameters | None) -> Rows:
    answer = client.query(sql, parameters=dict(parameters or {}))
    return Rows(tuple(answer.column_names), answer.result_rows)


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

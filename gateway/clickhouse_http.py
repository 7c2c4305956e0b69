"""ClickHouse's HTTP interface at `/clickhouse`, so that its clients work with the history.

Behind it is what `/api/sql` has: the guests' SQL and limits, the embedded store or a server. What a
client says about sessions and limits is taken and has no effect; a setting that would change what a
query means is refused, as a read-only server does. JDBC knows no path, so POST to `/` is the same.
"""

import asyncio
import base64
import hmac
import json
import re
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import uuid4

import structlog
from aiohttp import hdrs, web
from lz4.frame import LZ4FrameCompressor

from gateway import answer_file, clickhouse_greeting, watermark
from gateway.clickhouse_blocks import BlockPacker, unpack
from gateway.requests import body
from gateway.running_queries import QUERIES
from gateway.services import SERVICES
from sinks import guest_filters
from sinks.guest_sql import Escaped, QueryError, split_format, without_settings
from streams.errors import CallerError, CommandCenterError, OperatorError

_log = structlog.get_logger(__name__)

PATH: Final = "/clickhouse"
_FORMATS: Final = {
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNames": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Arrow": "application/vnd.apache.arrow.file",
    "ArrowStream": "application/vnd.apache.arrow.stream",
    "Parquet": "application/vnd.apache.parquet",
    "JSON": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONColumns": "application/json; charset=UTF-8",
    "JSONColumnsWithMetadata": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONCompactStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONStringsEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRowWithNames": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRowWithNamesAndTypes": "application/x-ndjson; charset=UTF-8",
    "JSONLines": "application/x-ndjson; charset=UTF-8",
    "NDJSON": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TSVWithNames": "text/tab-separated-values; charset=UTF-8",
    "TSVWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
    "Pretty": "text/plain; charset=UTF-8",
    "PrettyCompact": "text/plain; charset=UTF-8",
    "PrettyCompactMonoBlock": "text/plain; charset=UTF-8",
    "PrettySpace": "text/plain; charset=UTF-8",
    "Values": "text/plain; charset=UTF-8",
    "Vertical": "text/plain; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Null": "text/plain; charset=UTF-8",
}
_QUERY_ID: Final = "X-ClickHouse-Query-Id"
_USUAL: Final = "TabSeparated"

_OURS: Final = frozenset(
    {
        "query", "database", "default_format", "user", "password", "query_id", "compress",
        "decompress", "enable_http_compression", "limit", "max_result_rows",
        "result_overflow_mode",
    }
)  # fmt: skip
_ENCODINGS: Final = ("lz4", "gzip", "deflate")
_KILL: Final = re.compile(
    r"\s*KILL\s+QUERY\s+WHERE\s+query_id\s*=\s*'([^'\\]*)'[\s;]*", re.IGNORECASE
)
_FAST: Final = 1  # of zlib's levels
# Of the transport, or limits, of which ours hold; none changes what the rows say.
_WITHOUT_EFFECT: Final = frozenset(
    {
        "add_http_cors_header", "allow_ddl", "allow_introspection_functions", "async_insert",
        "buffer_size", "cancel_http_readonly_queries_on_client_close", "client_protocol_version",
        "connect_timeout", "http_headers_progress_interval_ms", "http_receive_timeout",
        "http_send_timeout", "http_zlib_compression_level", "log_comment", "log_queries",
        "max_block_size", "max_bytes_before_external_group_by", "max_bytes_before_external_sort",
        "max_execution_time", "max_insert_threads", "max_memory_usage", "max_result_bytes",
        "max_temporary_data_on_disk_size_for_query", "max_threads", "network_compression_method",
        "network_zstd_compression_level", "os_thread_priority",
        "output_format_binary_write_json_as_string", "priority", "quota_key", "readonly",
        "receive_timeout", "send_progress_in_http_headers", "send_timeout", "session_check",
        "session_id", "session_timeout", "wait_end_of_query", "wait_for_async_insert",
    }
)  # fmt: skip
# Drivers send these with the value that they have anyway; another one would change the answer.
_AS_THEY_ARE: Final = {"extremes": "0"}

_READONLY: Final = 164
_WRONG_KEY: Final = 516
_UNKNOWN_DATABASE: Final = 81
_UNKNOWN_FORMAT: Final = 73
_NOT_IMPLEMENTED: Final = 48
_NO_CONNECTION: Final = 210
_EMPTY: Final = 62
_STATUS: Final = {_WRONG_KEY: 403, 497: 403, _READONLY: 403, _UNKNOWN_DATABASE: 404}


class _Asked(NamedTuple):
    """A request of a client; `rows` are the first ones that it wants, 0: all."""

    sql: str
    output_format: str
    parameters: Mapping[str, Any]
    rows: int
    encoding: str
    at_least: str | None


def add_routes(app: web.Application) -> None:
    """Bind the interface; clients ask with or without the slash, and for /ping."""
    for path in (PATH, f"{PATH}/"):
        app.router.add_get(path, answer)
        app.router.add_post(path, answer)
    app.router.add_post("/", answer)
    for path in (f"{PATH}/ping", "/ping"):
        app.router.add_get(path, ping)


async def ping(_request: web.Request) -> web.Response:
    """ClickHouse's sign of life, which needs no key."""
    return web.Response(text="Ok.\n")


async def answer(request: web.Request) -> web.StreamResponse:
    """The rows that a client asks for, or ClickHouse's kind of error."""
    headers = {"X-ClickHouse-Server-Display-Name": "CommandCenter"}
    try:
        headers[_QUERY_ID] = _query_id(request)
        given = {**request.query, **await _form(request)}
        if not given and not await body(request):
            return web.Response(text="Ok.\n")
        _hold_key(request, given)
        return await _rows(request, await _asked(request, given), headers)
    except CommandCenterError as error:
        return _refusal(error, headers)


def _query_id(request: web.Request) -> str:
    found = request.query.get("query_id") or request.headers.get(_QUERY_ID) or str(uuid4())
    if not found.isprintable():  # it goes into a header of the answer
        raise QueryError("The query_id has characters that cannot be printed.", _EMPTY)
    return found


async def _rows(
    request: web.Request, asked: _Asked, headers: Mapping[str, str]
) -> web.StreamResponse:
    seen = await watermark.reached(request, asked.at_least)
    if clickhouse_greeting.is_greeting(asked.sql) and "client_protocol_version" in request.query:
        return await _greet(request, asked, headers)
    if kill := _KILL.fullmatch(asked.sql):
        if request.method != hdrs.METH_POST:  # a link does not stop anything
            raise QueryError("KILL QUERY has to be sent by POST.", _READONLY)
        asked = asked._replace(sql=await _stop(request, kill[1]))
    began = time.perf_counter_ns()
    async with answer_file.answered(
        request,
        asked.sql,
        asked.parameters,
        asked.output_format,
        query_id=headers[_QUERY_ID],
        rows=asked.rows,
    ) as file:
        summary = {
            "elapsed_ns": str(time.perf_counter_ns() - began),
            "result_bytes": str(file.size),
        }
        return await answer_file.send(
            request,
            file,
            {
                **headers,
                **_kind(asked.output_format, asked.encoding),
                "X-ClickHouse-Summary": json.dumps(summary),
                watermark.HEADER: watermark.text(seen),
            },
            _packing(asked.encoding),
        )


async def _stop(request: web.Request, query_id: str) -> str:
    """Stop a query; the statement whose answer says so, as ClickHouse does."""
    found = await request.app[QUERIES].stop(query_id)
    return f"SELECT 'finished' AS kill_status, '{query_id}' AS query_id WHERE {int(found)}"


async def _greet(
    request: web.Request, asked: _Asked, headers: Mapping[str, str]
) -> web.StreamResponse:
    found = await request.app[SERVICES].store.query("SELECT version(), timezone()")
    content = clickhouse_greeting.native(*found.rows[0])
    packing = _packing(asked.encoding)
    if packing is not None:
        content = packing.compress(content) + packing.flush()
    return web.Response(body=content, headers={**headers, **_kind("Native", asked.encoding)})


def _kind(output_format: str, encoding: str) -> dict[str, str]:
    """The headers that say what an answer is."""
    found = {hdrs.CONTENT_TYPE: _FORMATS[output_format], "X-ClickHouse-Format": output_format}
    if encoding in _ENCODINGS:
        found[hdrs.CONTENT_ENCODING] = encoding
    return found


def _packing(encoding: str) -> answer_file.Packing | None:
    match encoding:
        case "gzip":
            return zlib.compressobj(_FAST, wbits=31)
        case "deflate":
            return zlib.compressobj(_FAST)
        case "lz4":
            return _Lz4Frames()
        case "blocks":
            return BlockPacker()
        case _:
            return None


class _Lz4Frames(LZ4FrameCompressor):  # type: ignore[misc]  # lz4 ships no types
    """One LZ4 frame, begun with its first piece."""

    def compress(self, data: bytes) -> bytes:
        head: bytes = b"" if self.started() else self.begin()
        return head + super().compress(data)  # type: ignore[no-any-return]  # as above


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a multipart body; other bodies are a query, whatever their type says."""
    if request.content_type != "multipart/form-data":
        return {}
    try:
        fields = await request.post()
    except (web.RequestPayloadError, ValueError) as error:
        raise QueryError("The body is no multipart form as its headers say.", _EMPTY) from error
    if files := [name for name, value in fields.items() if not isinstance(value, str)]:
        raise QueryError(f"A file cannot be sent with a query ({files[0]}).", _NOT_IMPLEMENTED)
    return {name: str(value) for name, value in fields.items()}


async def _asked(request: web.Request, given: Mapping[str, str]) -> _Asked:
    sql = given.get("query", "")
    if request.content_type != "multipart/form-data":
        try:
            sql = "\n".join(part for part in (sql, (await _text(request, given)).decode()) if part)
        except UnicodeDecodeError as error:
            raise QueryError("The query is not UTF-8.", _EMPTY) from error
    if not sql.strip():
        raise QueryError("There is no query: send it as the body, or as ?query=.", _EMPTY)
    _refuse_settings(given)
    await _hold_database(request, given)
    sql, output_format = await asyncio.to_thread(_parts, sql)
    output_format = (
        output_format
        or given.get("default_format")
        or request.headers.get("X-ClickHouse-Format")
        or _USUAL
    )
    if output_format not in _FORMATS:
        raise QueryError(
            f"Format {output_format} is not one of {', '.join(_FORMATS)}.", _UNKNOWN_FORMAT
        )
    parameters = {
        name.removeprefix("param_"): Escaped(value)
        for name, value in given.items()
        if name.startswith("param_")
    }
    return _Asked(
        sql,
        output_format,
        parameters,
        _wanted_rows(given),
        _encoding(request, given),
        given.get(watermark.AT_LEAST),
    )


def _parts(sql: str) -> tuple[str, str]:
    """The query, and the format that it asks for; a long one takes a while."""
    asked, output_format = split_format(sql)
    return without_settings(guest_filters.applied(asked), _WITHOUT_EFFECT), output_format


async def _text(request: web.Request, given: Mapping[str, str]) -> bytes:
    content = await body(request)
    if _is_on(given.get("decompress")):
        return unpack(content, request.app[SERVICES].body_limit)
    return content


def _is_on(value: str | None) -> bool:
    return value not in (None, "", "0", "false")


def _wanted_rows(given: Mapping[str, str]) -> int:
    """The least that `limit` (Grafana) and `max_result_rows` with `break` (JDBC) say; 0: all."""
    wanted = [given.get("limit", "")]
    if given.get("result_overflow_mode") == "break":
        wanted.append(given.get("max_result_rows", ""))
    numbers = [int(text) for text in wanted if re.fullmatch(r"\d{1,18}", text, re.ASCII)]
    return min((number for number in numbers if number), default=0)


def _encoding(request: web.Request, given: Mapping[str, str]) -> str:
    """How the answer is packed: as `blocks`, as a content encoding, or not at all."""
    if _is_on(given.get("compress")):
        return "blocks"
    if not _is_on(given.get("enable_http_compression")):
        return ""
    accepted = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    names = [each.partition(";")[0].strip() for each in accepted.split(",")]
    return next((name for name in _ENCODINGS if name in names), "")


def _refuse_settings(given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if not (
            name in _OURS
            or name in _WITHOUT_EFFECT
            or _AS_THEY_ARE.get(name) == value
            or name == watermark.AT_LEAST
            or name.startswith("param_")
        ):
            raise QueryError(f"Cannot modify {name!r} setting in readonly mode.", _READONLY)


async def _hold_database(request: web.Request, given: Mapping[str, str]) -> None:
    wanted = given.get("database") or request.headers.get("X-ClickHouse-Database") or "default"
    if wanted != "default":
        rows = await request.app[SERVICES].store.query("SELECT currentDatabase()")
        if rows.rows[0][0] != wanted:
            raise QueryError(f"Database {wanted} does not exist.", _UNKNOWN_DATABASE)


def _hold_key(request: web.Request, given: Mapping[str, str]) -> None:
    key = request.app[SERVICES].sql_key
    if key and not any(
        hmac.compare_digest(_bytes(candidate), _bytes(key)) for candidate in _keys(request, given)
    ):
        raise QueryError(
            "Authentication failed: the password has to be the key of COMMANDCENTER_SQL_KEY.",
            _WRONG_KEY,
        )


def _keys(request: web.Request, given: Mapping[str, str]) -> list[str]:
    """What the request gives as its key, in any of the ways that clients have."""
    found = [request.headers.get("X-ClickHouse-Key", ""), given.get("password", "")]
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(value.strip())
    elif scheme.lower() == "basic":
        with suppress(ValueError):  # as good as no key
            found.append(base64.b64decode(value, validate=True).decode().partition(":")[2])
    return found


def _bytes(text: str) -> bytes:
    """The text as it was sent; a header may have bytes that are no UTF-8."""
    return text.encode(errors="surrogateescape")


def _refusal(error: CommandCenterError, headers: Mapping[str, str]) -> web.Response:
    code = error.code if isinstance(error, QueryError) else _EMPTY
    status = _STATUS.get(code, 400)
    if isinstance(error, OperatorError):
        code, status = _NO_CONNECTION, 503
        _log.warning("query refused", why=str(error))
    elif not isinstance(error, CallerError):
        code, status = 1002, 500
        _log.error("query failed", why=str(error))
    return web.Response(
        status=status,
        text=f"Code: {code}. DB::Exception: {error}\n",
        headers={**headers, "X-ClickHouse-Exception-Code": str(code)},
    )

"""`POST /api/sql`: read-only questions about the history, in ClickHouse's SQL."""

import time
from typing import Final
from uuid import uuid4

import msgspec
from aiohttp import hdrs, web

from gateway import answer_file, watermark
from gateway.requests import JSON, json_object
from gateway.running_queries import QUERIES
from gateway.services import SERVICES
from gateway.views import SqlAnswer
from streams.errors import CallerError

_FORMATS: Final = {
    "JSONEachRow": "application/x-ndjson",
    "CSVWithNames": "text/csv; charset=utf-8",
    "TSVWithNames": "text/tab-separated-values; charset=utf-8",
    "Parquet": "application/vnd.apache.parquet",
    "ArrowStream": "application/vnd.apache.arrow.stream",
    "PrettyCompactMonoBlock": "text/plain; charset=utf-8",
    "Markdown": "text/markdown; charset=utf-8",
}
_FIELDS: Final = ("query", "parameters", "format")


async def ask(request: web.Request) -> web.StreamResponse:
    """The answer to one SELECT over the tables that are public.

    These are `events`, `runs`, `agent_runs`, `approvals`, `costs`, `run_costs`, `workflows`,
    `workflow_tags`, `agents`, `positions`, and what is counted by minute and day, such as
    `runs_per_day`. `DESCRIBE` tells the columns of each.

    The answer has all that is before its watermark, and `?atLeast=` waits for one: a watermark, a
    cursor of the stream, or the id of a run.

    `parameters` fill `{name:Type}` in the query; `format` asks for one of ClickHouse's formats
    instead of JSON rows.
    """
    given = await json_object(request)
    unknown = sorted(set(given) - set(_FIELDS))
    if unknown:
        raise CallerError(f"unknown field {unknown[0]!r} (there are: {', '.join(_FIELDS)})")
    query = given.get("query")
    if not isinstance(query, str) or not query.strip():
        raise CallerError("'query' must be a SELECT")
    parameters = given.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise CallerError("'parameters' must be an object")
    wanted = given.get("format", "JSON")
    if not isinstance(wanted, str) or (wanted != "JSON" and wanted not in _FORMATS):
        raise CallerError(f"format {wanted!r} is not one of JSON, {', '.join(_FORMATS)}")
    seen = await watermark.reached(request, request.query.get(watermark.AT_LEAST))
    headers = {watermark.HEADER: watermark.text(seen)}
    began = time.perf_counter()
    if wanted != "JSON":
        async with answer_file.answered(
            request, query, parameters, wanted, query_id=str(uuid4())
        ) as file:
            return await answer_file.send(
                request, file, {**headers, hdrs.CONTENT_TYPE: _FORMATS[wanted]}
            )
    asked = request.app[SERVICES].store.query_readonly(query, parameters)
    rows = await request.app[QUERIES].run(request, str(uuid4()), asked)
    view = SqlAnswer(
        columns=list(rows.columns),
        rows=rows.dicts(),
        row_count=len(rows.rows),
        elapsed_ms=round((time.perf_counter() - began) * 1000, 1),
        watermark={str(partition): offset for partition, offset in sorted(seen.items())},
    )
    return web.Response(
        body=msgspec.json.encode(view, enc_hook=str), content_type=JSON, headers=headers
    )

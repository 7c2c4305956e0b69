"""Logs and traces of a process.

- One log line is one JSON object, or coloured text on a terminal; libraries that use the standard
  `logging` come out the same way.
- Secrets are masked last, whatever a caller puts into a line: values under a telling name, and
  credentials inside URLs.
- Traces are exported where `OTEL_EXPORTER_OTLP_ENDPOINT` says (gRPC); without it there is no
  exporter, and spans cost next to nothing. The other `OTEL_*` variables mean what OpenTelemetry
  says; `OTEL_SERVICE_NAME` is `commandcenter-<process>` by default.
"""

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from structlog.typing import EventDict, Processor

if TYPE_CHECKING:
    from streams.tracing import Tracing

MASK: Final = "***"

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TELLING: Final = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|authorization|cookie|api[_-]?key|private[_-]?key",
    re.IGNORECASE,
)
_URL_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s@?#]+(?=@)")
# They say too much below this level, at each rebalance or request.
_QUIET: Final = {
    "aiokafka": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "asyncio": logging.WARNING,
    "clickhouse_connect": logging.WARNING,
}


def configure(process: str) -> None:
    """Set up logs (standard error) and traces of this process.

    Args:
        process: `worker` or `gateway`: in every log line and in the service's name.
    """
    _configure_logs(process, sys.stderr.isatty())
    if _exports_traces():
        _configure_traces(process)


def tracing() -> "Tracing | None":
    """What makes spans of runs and tasks; None where no traces are exported."""
    if not _exports_traces():
        return None
    from opentelemetry import trace

    from streams.tracing import Tracing

    return Tracing(trace.get_tracer("commandcenter"))


def _exports_traces() -> bool:
    return any(os.environ.get(name) for name in _ENDPOINTS)


def redact(_logger: Any, _method: str, line: EventDict) -> EventDict:
    """A structlog processor: mask secrets in a line, at any depth."""
    return {key: _redacted(key, value) for key, value in line.items()}


def _redacted(key: object, value: Any) -> Any:
    if isinstance(value, str):
        if isinstance(key, str) and _TELLING.search(key):
            return MASK
        return _URL_CREDENTIALS.sub(MASK, value)
    if isinstance(value, MutableMapping):
        return {name: _redacted(name, item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(key, item) for item in value]
    if isinstance(value, bytes):
        return _redacted(key, value.decode(errors="replace"))
    return value


def _configure_logs(process: str, is_terminal: bool) -> None:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _named(process),
    ]
    last: list[Processor]
    if is_terminal:
        last = [redact, structlog.dev.ConsoleRenderer()]
    else:
        last = [
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=repr),
        ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _named(process: str) -> Processor:
    def add(_logger: Any, _method: str, line: EventDict) -> EventDict:
        line["process"] = process
        return line

    return add


def _configure_traces(process: str) -> None:
    # Half a second of imports that only those pay who export.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or f"commandcenter-{process}"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

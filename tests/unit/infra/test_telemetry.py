import json
import subprocess
import sys

from infra.telemetry import redact

LINES = """
import logging, structlog
from infra import telemetry
telemetry.configure("worker")
structlog.get_logger("engine").info("ready", store="clickhouse://me:geheim@db/x", run="r1")
logging.getLogger("some.library").warning("at %s", "kafka://me:geheim@broker")
structlog.get_logger("engine").debug("too much")
try:
    raise ValueError("postgres://me:geheim@db")
except ValueError:
    structlog.get_logger("engine").exception("failed")
"""


def test_every_log_line_is_one_json_object_without_secrets() -> None:
    done = subprocess.run((sys.executable, "-c", LINES), capture_output=True, text=True, check=True)
    assert "geheim" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["logger"], line["event"]) for line in lines] == [
        ("info", "engine", "ready"),
        ("warning", "some.library", "at kafka://***@broker"),
        ("error", "engine", "failed"),
    ]
    assert {line["process"] for line in lines} == {"worker"}
    assert lines[0]["run"] == "r1"
    assert "ValueError: postgres://***@db" in lines[2]["exception"]


def test_secrets_are_masked_by_name_and_inside_urls_at_any_depth() -> None:
    line = {
        "event": "x",
        "api_key": "k",
        "headers": {"Authorization": "Bearer b", "Accept": "json"},
        "urls": ["http://a:b@c/d", "http://c/d@e"],
        "tokens": 12,
        "password": b"p",
    }
    assert redact(None, "info", line) == {
        "event": "x",
        "api_key": "***",
        "headers": {"Authorization": "***", "Accept": "json"},
        "urls": ["http://***@c/d", "http://c/d@e"],
        "tokens": 12,
        "password": "***",
    }


def test_tracing_is_off_and_not_loaded_without_an_endpoint() -> None:
    code = (
        "import sys; from infra import telemetry; telemetry.configure('worker');"
        "print(telemetry.tracing(), 'opentelemetry' in sys.modules)"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "None False\n"

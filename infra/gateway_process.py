"""The gateway process, and the recorder: beside the gateway where the store is embedded.

chDB lets one process at a time have its folder, so with the embedded store the gateway's process
hosts the recorder, and the live tail shares the recorder's consumer. With a ClickHouse server the
recorder is a process of its own, and the gateway reads the log itself.
"""

import asyncio
import gc
import shutil
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import structlog

from gateway.live import LiveTail
from gateway.server import serving
from gateway.services import Services
from infra.readiness import announce_ready
from infra.settings import Settings
from infra.supervisor import Stop
from infra.topic_admin import cluster_id, ensure_topics
from infra.worker_watch import WorkerWatch
from sinks import damage, rebuild, retention, schema
from sinks.catalog_recording import CatalogRecording
from sinks.clickhouse import open_store
from sinks.recorder import Recorder
from sinks.recording import DeadLetterBox, LogRecord
from sinks.rollups import Rollups
from sinks.store import Limits, Store
from streams import dead_letters, topics
from streams.blob_store import BlobStore
from streams.errors import OperatorError
from streams.outbox import Outbox, Parcel

_log = structlog.get_logger(__name__)

RECORDER_GROUP: Final = "commandcenter-recorder"
_ANSWER_S: Final = 3600
"""No SQL answer is under way for so long. Gateways may share a data directory."""
CLUSTER_DEFAULT: Final = -1
"""As many replicas of a topic as the cluster's default says."""


async def run_gateway(settings: Settings, bootstrap: str, stop: Stop) -> None:
    """Serve until asked to stop.

    Raises:
        OperatorError: Kafka or the store is out of reach, or the port is taken.
    """
    async with AsyncExitStack() as stack:
        store = await _open(settings, bootstrap, stack)
        tail = LiveTail()
        log_id = await cluster_id(bootstrap)
        watch = await stack.enter_async_context(WorkerWatch(bootstrap))
        services = Services(
            bootstrap=bootstrap,
            store=store,
            blobs=BlobStore(settings.blob_url, settings.payload_limit),
            tail=tail,
            log_id=log_id,
            checks={"worker": watch.check},
            trigger_limit=settings.trigger_limit,
            definition_limit=settings.definition_limit,
            nodes_limit=settings.nodes_limit,
            fan_out_limit=settings.fan_out_limit,
            scratch=_scratch(settings),
            sql_key=settings.sql_key,
        )
        if settings.store.startswith("chdb:"):
            recorder = await _recorder(settings, bootstrap, store, stack, group=None, tail=tail)
            services = replace(
                services,
                recorded=lambda: _next_offsets(recorder.watermark),
                checks={"recorder": lambda: _check(recorder), **services.checks},
            )
            work = stack.enter_context(_Running(recorder)).task
        else:
            services = replace(services, follow_log=True)
            work = None
        await stack.enter_async_context(serving(services, settings.host, settings.port))
        # As in the worker: what start-up made stays, and records make few cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 20)
        announce_ready()
        _log.info("gateway ready", url=f"http://{settings.host}:{settings.port}")
        await _until_stopped(stop, work)


async def run_recorder(settings: Settings, bootstrap: str, stop: Stop) -> None:
    """Record into a ClickHouse server until asked to stop; errors as for `run_gateway`."""
    if settings.store.startswith("chdb:"):
        raise OperatorError(
            "The embedded store is recorded by the gateway's process. Set"
            " COMMANDCENTER_CLICKHOUSE to a server to run recorders of their own."
        )
    async with AsyncExitStack() as stack:
        store = await _open(settings, bootstrap, stack)
        recorder = await _recorder(
            settings, bootstrap, store, stack, group=RECORDER_GROUP, tail=None
        )
        work = stack.enter_context(_Running(recorder)).task
        announce_ready()
        await _until_stopped(stop, work)


async def _open(settings: Settings, bootstrap: str, stack: AsyncExitStack) -> Store:
    await ensure_topics(
        bootstrap, topics.TOPICS, partitions=settings.partitions, replication=CLUSTER_DEFAULT
    )
    store = await open_store(settings.store, Limits.within(settings.store_memory))
    stack.push_async_callback(store.close)
    await damage.refuse(store)
    await schema.apply(store)
    await rebuild.finish(store)
    await retention.apply(store, settings.retention)
    return store


def _scratch(settings: Settings) -> Path:
    """A folder for SQL answers under way; what a process that was killed left there is removed."""
    folder = settings.data / "answers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            if time.time() - left.stat().st_mtime > _ANSWER_S:
                shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise OperatorError(f"The folder {folder} cannot be used: {error}.") from error
    return folder


async def _recorder(
    settings: Settings,
    bootstrap: str,
    store: Store,
    stack: AsyncExitStack,
    *,
    group: str | None,
    tail: LiveTail | None,
) -> Recorder:
    outbox = Outbox(bootstrap, "commandcenter-recorder")
    await outbox.start()
    stack.push_async_callback(outbox.stop)
    dead_letter = await _dead_letter_box(outbox)
    recorder = Recorder(
        bootstrap,
        store,
        dead_letter,
        group=group,
        on_records=None if tail is None else tail.on_records,
    )
    await stack.enter_async_context(CatalogRecording(bootstrap, store, dead_letter))
    rollups = Rollups(store, retention_days=settings.retention)
    stack.enter_context(_Beside(rollups.follow(lambda: dict(recorder.watermark)), "rollups"))
    return recorder


async def _dead_letter_box(outbox: Outbox) -> DeadLetterBox:
    partitions = await outbox.partitions(topics.DEAD_LETTERS)

    async def keep(record: LogRecord, error: Exception) -> None:
        parcel = Parcel()
        dead_letters.put(parcel, partitions, record, error)
        await outbox.deliver(parcel)

    return keep


class _Running:
    """The recorder's task, ended with its owner."""

    def __init__(self, recorder: Recorder) -> None:
        self.task = asyncio.create_task(recorder.run(), name="recorder")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.task.cancel()


class _Beside:
    """A task that goes on for ever, ended with its owner."""

    def __init__(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._task = asyncio.create_task(work, name=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()


def _next_offsets(watermark: Mapping[int, int]) -> dict[int, int]:
    """The recorder speaks of the last offset recorded, the gateway of the next one to come."""
    return {partition: last + 1 for partition, last in watermark.items()}


async def _check(recorder: Recorder) -> None:
    health = recorder.health()
    if health.last_error is not None:
        raise OperatorError(f"the recorder cannot write: {health.last_error}")
    if not health.ready:
        raise OperatorError("the recorder is still starting")


async def _until_stopped(stop: Stop, work: asyncio.Task[None] | None) -> None:
    wanted = asyncio.create_task(stop.wanted.wait())
    try:
        watched = {wanted} if work is None else {wanted, work}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if work is not None and work.done():
            await work
        elif work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    finally:
        wanted.cancel()

"""The worker process: router, orchestrator and agents on one Faust app.

Starting up, top to bottom: metrics, topics, producer, definitions, agents' registrations, engine.
"""

import asyncio
import gc
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import msgspec
import structlog
import uvloop

from agents.cost import Rate
from agents.execution import Execution
from agents.orders import OrderReader
from agents.payloads import Payloads
from agents.presence import Presence
from agents.published_results import PublishedResults, on_log
from agents.registry import AgentRegistry
from agents.runtime import AgentRuntime
from agents.secrets import WorkerSecrets
from infra import telemetry
from infra.agent_sandbox import readable_paths, sandboxed_actions
from infra.group_session import session_seconds
from infra.metrics_port import metrics_served
from infra.readiness import announce_ready
from infra.settings import Settings
from infra.supervisor import Stop
from infra.task_topics import RegisteredAgents, TaskTopics
from infra.topic_admin import ensure_topics
from streams import codec, topics
from streams.blob_store import BlobStore
from streams.engine import Engine
from streams.errors import OperatorError
from streams.faust_shell import EngineApp
from streams.messages import TaskCancellation
from streams.orchestrator import Orchestrator
from streams.outbox import Outbox, Parcel
from streams.publishing import CatalogReader
from streams.registry import AgentRecord
from streams.router import Router
from streams.run import Limits

_log = structlog.get_logger(__name__)

STOP_GRACE_S: Final = 10.0
CLUSTER_DEFAULT: Final = -1
"""As many replicas of a topic as the cluster's default says."""
_ASK_AGAIN_S: Final = 1.0


def _now_ms() -> int:
    return int(time.time() * 1000)


def _steady_clock() -> Callable[[], float]:
    """The wall clock as it was at the start, and what has passed since: no step of it fires timers.

    The time that a machine sleeps counts, where that can be told.
    """
    number = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    at_zero = time.time() - time.clock_gettime(number)
    return lambda: at_zero + time.clock_gettime(number)


async def run_worker(
    settings: Settings, bootstrap: str, registry: AgentRegistry, stop: Stop
) -> None:
    """Serve until asked to stop; `OperatorError` if Kafka is out of reach or not as needed."""
    partitions, replication = settings.partitions, CLUSTER_DEFAULT
    blobs = BlobStore(settings.blob_url, settings.payload_limit)
    limits = Limits(
        payload=settings.payload_limit,
        events=settings.run_events_limit,
        depth=settings.run_depth_limit,
        items=settings.fan_out_limit,
        trigger=settings.trigger_limit,
    )
    # Faust's consumer thread makes its loop by the policy, whatever loop we run on.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    name = f"{socket.gethostname()}/{os.getpid()}"
    task_topics = TaskTopics(bootstrap, partitions, replication)
    async with AsyncExitStack() as stack:
        stack.enter_context(metrics_served(settings.host, settings.worker_metrics_port))
        await ensure_topics(
            bootstrap, topics.TOPICS, partitions=partitions, replication=replication
        )
        await task_topics.prepare(*registry.agents)
        # A producer has one request under way: each for what should not wait for the others.
        outbox, results, changelog = [
            Outbox(bootstrap, f"commandcenter-{what}-{name}")
            for what in ("worker", "results", "changelog")
        ]
        for each in (outbox, results, changelog):
            await each.start()
            stack.push_async_callback(each.stop)
        definitions = await stack.enter_async_context(CatalogReader(bootstrap))
        await definitions.ready()
        await _register(outbox, registry, name)
        execution = Execution(
            registry,
            Payloads(blobs),
            now_ms=_now_ms,
            worker=name,
            rate=Rate(settings.compute_rate, _price_list(settings)),
            secrets=WorkerSecrets(os.environ, settings.secrets),
            blobs=blobs,
            sandboxed=await sandboxed_actions(settings, registry, stack),
            paths=readable_paths(settings),
        )
        stack.callback(execution.close)

        tracing = telemetry.tracing()

        runtimes: dict[str, AgentRuntime] = {}
        published = PublishedResults(on_log(bootstrap, partitions))

        def handlers(app: EngineApp) -> dict[str, AgentRuntime]:
            for name, agent in registry.agents.items():
                runtimes[name] = AgentRuntime(
                    app, results, execution, published, name, partitions, agent.concurrency, tracing
                )
            return runtimes

        def obey(order: TaskCancellation) -> None:
            if order.agent in runtimes:
                runtimes[order.agent].cancel(order)

        engine = Engine(
            bootstrap,
            partitions,
            Router(
                outbox,
                partitions,
                definitions.catalog,
                _until_answered(definitions.caught_up),
                blobs,
                limits,
            ),
            Orchestrator(
                outbox,
                changelog,
                partitions,
                _until_answered(definitions.plan_of),
                _until_answered(task_topics.prepare),
                blobs,
                limits=limits,
                tracing=tracing,
                clock=_steady_clock(),
            ),
            handlers,
            session_s=await session_seconds(bootstrap),
        )
        # What start-up made stays; the many short-lived values of each batch are freed by
        # reference counts, and looking for cycles among them costs some 5 % of the worker.
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 20)
        orders = await stack.enter_async_context(OrderReader(bootstrap, _now_ms, obey))
        await orders.ready()
        registered = await stack.enter_async_context(RegisteredAgents(bootstrap, task_topics))
        presence = Presence(
            outbox,
            registry,
            name,
            started_at=_now_ms(),
            interval=settings.heartbeat,
            in_hand=lambda agent: runtimes[agent].in_hand,
            trouble=lambda: "; ".join(filter(None, (definitions.trouble, orders.trouble))),
        )
        await engine.start()
        engine.actors.start("signs of life", presence.run())
        engine.actors.start("topics of registered agents", registered.run())
        engine.actors.start(f"read {topics.AGENTS}", registered.failure())
        engine.actors.start(f"read {topics.WORKFLOWS}", definitions.failure())
        engine.actors.start(f"read {topics.CONTROL}", orders.failure())
        try:
            await _serve(engine, stop)
        finally:
            await engine.stop(0.0 if stop.urgent.is_set() else STOP_GRACE_S)
            await presence.leave()


def _price_list(settings: Settings) -> str:
    """Where the price of compute comes from."""
    return "setting" if "compute_rate" in settings.model_fields_set else "default"


async def _serve(engine: Engine, stop: Stop) -> None:
    watch = asyncio.create_task(engine.actors.failure())
    ready = asyncio.create_task(engine.ready.wait())
    wanted = asyncio.create_task(stop.wanted.wait())
    try:
        await asyncio.wait({watch, ready, wanted}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            announce_ready()
            _log.info("worker ready")
        await asyncio.wait({watch, wanted}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            await watch
    finally:
        for task in (watch, ready, wanted):
            task.cancel()


async def _register(outbox: Outbox, registry: AgentRegistry, worker: str) -> None:
    """Say on the agents topic what this worker serves."""
    parcel = Parcel()
    for descriptor in registry.descriptors():
        record = AgentRecord(
            name=descriptor["name"],
            version=descriptor["version"],
            worker=worker,
            registered_at=_now_ms(),
            descriptor=msgspec.Raw(msgspec.json.encode(descriptor)),
        )
        parcel.add(topics.AGENTS, 0, record.name.encode(), codec.encode(record))
    await outbox.deliver(parcel)


P = ParamSpec("P")
T = TypeVar("T")


def _until_answered(ask: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The same, asked until Kafka answers: it being away is the fault of no event and no run."""

    @wraps(ask)
    async def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await ask(*args, **kwargs)
            except OperatorError as error:
                _log.warning("Kafka is asked again", why=str(error))
                await asyncio.sleep(_ASK_AGAIN_S)

    return patient

"""The product's own processes on one data directory, each of which can be killed.

Used by the tests and benchmarks that look at the whole from outside.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from aiokafka import AIOKafkaProducer

from infra.kafka_broker import free_port
from infra.local_kafka import LocalKafka
from infra.owned_process import OwnedProcess
from infra.readiness import READY_FD
from infra.topic_admin import ensure_topics
from streams import topics
from streams.publishing import CatalogReader, publish

PARTITIONS = 4


class System:
    """Kafka, workers and gateway on one data directory, each of which can be killed."""

    def __init__(
        self,
        data: Path,
        agents: Path | None = None,
        bootstrap: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """A system on a Kafka of its own, or on the one at `bootstrap`.

        `agents` is the folder of the modules that workers load agents from; `env` is added to the
        environment of every process.
        """
        self.data = data
        self._bootstrap = bootstrap
        self._agents = agents
        self._env = dict(env or {})
        self.port = free_port()
        self.kafka: LocalKafka | None = None
        self.gateway: OwnedProcess | None = None
        self._processes: list[OwnedProcess] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bootstrap(self) -> str:
        return self._bootstrap if self.kafka is None else self.kafka.bootstrap

    async def start_kafka(self) -> None:
        self.kafka = LocalKafka(self.data)
        await self.kafka.start()
        await ensure_topics(self.bootstrap, topics.TOPICS, partitions=PARTITIONS, replication=1)

    async def start(self, *arguments: str) -> OwnedProcess:
        """A process of the product, returned when it says that it serves."""
        reading, writing = os.pipe()
        with (self.data / "log").open("ab") as log:
            process = await OwnedProcess.start(
                [sys.executable, "-m", "infra", *arguments],
                env={
                    **os.environ,
                    "COMMANDCENTER_KAFKA": self.bootstrap,
                    "COMMANDCENTER_DATA": str(self.data),
                    "COMMANDCENTER_PORT": str(self.port),
                    "COMMANDCENTER_PARTITIONS": str(PARTITIONS),
                    "PYTHONPATH": str(self._agents or ""),
                    READY_FD: str(writing),
                    **self._env,
                },
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
            )
        self._processes.append(process)
        os.close(writing)
        try:
            told = await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 60)
        finally:
            os.close(reading)
        if not told:
            raise RuntimeError((self.data / "log").read_text()[-4000:])
        return process

    async def worker(self, *agents: str) -> OwnedProcess:
        """A worker that serves these agents (`module:variable`) besides the built-in ones."""
        return await self.start("worker", *(word for a in agents for word in ("--agents", a)))

    async def start_gateway(self) -> OwnedProcess:
        """The gateway, which records too."""
        self.gateway = await self.start("gateway")
        return self.gateway

    async def kill(self, process: OwnedProcess) -> None:
        """End it at once, as a crash would."""
        process.kill()
        await process.wait()
        self._processes.remove(process)

    async def kill_everything(self) -> None:
        assert self.kafka is not None
        for process in self._processes:
            process.kill()
        await self.kafka.kill()
        for process in self._processes:
            await process.wait()
        self._processes.clear()
        await self.kafka.stop()  # its owner, this test, lives on: let go of the data directory

    async def stop(self) -> None:
        for process in reversed(self._processes):
            await process.stop(20)
        if self.kafka is not None:
            await self.kafka.stop()


async def define(bootstrap: str, plan: Any) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    async with CatalogReader(bootstrap) as definitions:
        await publish(producer, definitions, plan.spec)
    await producer.stop()


def python_below(process: OwnedProcess) -> psutil.Process:
    """The worker itself, below the process that watches over it."""
    return psutil.Process(process.pid).children()[0]

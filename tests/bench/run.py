"""Throughput and latency of chain3 through the real stack, as JSON.

Starts the embedded Kafka, a worker and the gateway with recorder and chDB on fresh data, sends
trigger events to Kafka and watches the events topic for the end of each run, whose output is
checked. `runs_per_s` and latencies are the client's; CPU and memory are of the product's processes
(Kafka, worker, gateway), without the client.

    python tests/bench/run.py [--seconds 10] [--repeats 3] [--in-flight 1,256,1024] [--out FILE]
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any, Self

import psutil
import uvloop
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from infra.topic_admin import ensure_topics
from streams import codec, topics
from streams.events import Decision, NodeSucceeded
from streams.ids import run_id
from streams.lifecycle import TERMINAL
from streams.plan import parse
from streams.records import RunStatus

HERE = Path(__file__).parent
HOPS = 8  # trigger, start, and task and result of each of three steps
FLOOR_RUNS = 300
sys.path.insert(0, str(HERE.parent / "support"))

from system import PARTITIONS, System, define  # noqa: E402  # found through the line above


class Client:
    """Sends triggers and awaits the ends of their runs."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._numbers: Iterator[int] = count()
        self._bodies: Iterator[int] = count()
        self._tail: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        partitions = [TopicPartition(topics.EVENTS, p) for p in range(PARTITIONS)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        self._tail = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tail is not None:
            self._tail.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    # The last decision alone is decoded: the client is to be no load.
                    if b'"type":"run.s' in record.value and b"run.started" not in record.value:
                        self._ended(record)
                    elif b'"type":"run.f' in record.value or b'"type":"run.t' in record.value:
                        raise SystemExit(f"a run did not succeed: {record.value!r}")

    def _ended(self, record: Any) -> None:
        decision = codec.decisions.decode(record.value)
        waiting = self._waiting.pop(decision.run, None)
        if waiting is None or decision.status not in TERMINAL:
            return
        if decision.status is RunStatus.SUCCESS:
            waiting.set_result(decision)
        else:
            waiting.set_exception(RuntimeError(repr(record.value)))

    async def run(self, workflow: str, body: Any, within_s: float = 60.0) -> Decision:
        """Start a run of the workflow, whose event is `bench.<workflow>`: its last decision."""
        number = next(self._numbers)
        run = run_id("default", workflow, "/bench", f"{os.getpid()}-{number}")
        done = self._waiting[run] = asyncio.get_running_loop().create_future()
        await self._producer.send(
            topics.TRIGGERS,
            json.dumps(body).encode(),
            partition=number % PARTITIONS,
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_id", f"{os.getpid()}-{number}".encode()),
                ("ce_source", b"/bench"),
                ("ce_type", f"bench.{workflow}".encode()),
                ("content-type", b"application/json"),
            ],
        )
        async with asyncio.timeout(within_s):
            return await done

    async def one(self) -> float:
        """One run, from send to seen end; seconds."""
        number = next(self._bodies)
        body = {"run": number, "value": number % 1000, "topic": "orchestration", "note": "n" * 120}
        begun = time.perf_counter()
        decision = await self.run("chain3", body)
        took = time.perf_counter() - begun
        last = [e for e in decision.events if isinstance(e, NodeSucceeded)][-1]
        output = json.loads(bytes(last.output))
        if output["run"] != number or output["value"] != number % 1000 + 6:
            raise SystemExit(f"wrong output: {output}")
        return took

    async def load(self, in_flight: int, seconds: float) -> tuple[float, list[float]]:
        """Closed loop with `in_flight` runs at a time: (runs/s, latencies in seconds)."""
        latencies: list[float] = []
        begun = time.perf_counter()

        async def loop() -> None:
            while time.perf_counter() - begun < seconds:
                latencies.append(await self.one())

        await asyncio.gather(*(loop() for _ in range(in_flight)))
        return len(latencies) / (time.perf_counter() - begun), sorted(latencies)


class Usage:
    """CPU seconds and memory of the product's processes, children with them."""

    def __init__(self, roots: dict[str, int]) -> None:
        self._roots = roots

    def _processes(self, root: int) -> list[psutil.Process]:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]

    def cpu(self) -> dict[str, float]:
        totals = {}
        for name, root in self._roots.items():
            times = [p.cpu_times() for p in self._processes(root)]
            totals[name] = sum(t.user + t.system for t in times)
        return totals

    def memory_mb(self) -> dict[str, float]:
        return {
            name: round(sum(p.memory_info().rss for p in self._processes(root)) / 2**20)
            for name, root in self._roots.items()
        }


async def floor(bootstrap: str) -> list[float]:
    """The same number of hops through Kafka with a bare producer and consumer: seconds each.

    What a run at one in flight cannot be faster than on this machine, at this minute.
    """
    topic = topics.Topic("bench.floor", "-", "the benchmark's own", "delete", single_partition=True)
    await ensure_topics(bootstrap, [topic], partitions=1, replication=1)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=bootstrap)
    await producer.start()
    await consumer.start()
    await consumer.seek_to_end()  # else a first record that is sent before it has a place is missed
    taken = []
    for _ in range(FLOOR_RUNS):
        begun = time.perf_counter()
        for _ in range(HOPS):
            await producer.send(topic.name, b"x" * 300)
            await consumer.getone()
        taken.append(time.perf_counter() - begun)
    await consumer.stop()
    await producer.stop()
    return sorted(taken)


def broker_pid(data: Path) -> int:
    """Of the broker that serves: one that makes the AOT cache may run beside it."""
    record = data / "kafka" / "bootstrap.json"
    return int(json.loads(record.read_text())["pid"])


def percentile(values: list[float], share: float) -> float:
    return round(values[min(len(values) - 1, int(len(values) * share))] * 1000, 2)


async def measure(client: Client, usage: Usage, in_flight: int, options: Any) -> dict[str, Any]:
    rates, latencies, runs = [], [], 0
    before, own = usage.cpu(), time.process_time()
    for _ in range(options.repeats):
        rate, taken = await client.load(in_flight, options.seconds)
        rates.append(rate)
        latencies += taken
        runs += len(taken)
    after, own = usage.cpu(), time.process_time() - own
    latencies.sort()
    cpu = {name: round((after[name] - before[name]) * 1000 / runs, 3) for name in after}
    return {
        "in_flight": in_flight,
        "runs_per_s": round(statistics.median(rates), 1),
        "runs_per_s_min": round(min(rates), 1),
        "runs_per_s_max": round(max(rates), 1),
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "runs": runs,
        "cpu_s_per_1000_runs": round(sum(cpu.values()), 3),
        "cpu_s_per_1000_runs_by_process": cpu,
        "client_cpu_s_per_1000_runs": round(own * 1000 / runs, 3),
        "memory_mb": usage.memory_mb(),
    }


async def bench(options: Any) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="commandcenter-bench")))
        system = System(data, agents=HERE)
        stack.push_async_callback(system.stop)
        await system.start_kafka()
        roots = {"kafka": broker_pid(data)}
        roots["worker"] = (await system.worker("bench_agent:bench")).pid
        if not options.without_gateway:
            roots["gateway"] = (await system.start("gateway")).pid
        await define(system.bootstrap, parse(yaml.safe_load((HERE / "chain3.yaml").read_text())))
        client = await stack.enter_async_context(Client(system.bootstrap))
        usage = Usage(roots)
        await client.load(64, options.warm_up)
        before = await floor(system.bootstrap)
        results = [await measure(client, usage, n, options) for n in options.in_flight]
        after = await floor(system.bootstrap)
        report = {
            "system": "commandcenter",
            "job": "chain3",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "floor_p50_ms": [percentile(before, 0.5), percentile(after, 0.5)],
            "results": results,
        }
        for result in results:
            print(json.dumps(result), flush=True)
        print(f"floor, {HOPS} bare hops: p50 {report['floor_p50_ms']} ms", flush=True)
        return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", type=float, default=5.0)
    parser.add_argument("--without-gateway", action="store_true", help="Kafka and worker alone")
    parser.add_argument(
        "--in-flight", type=lambda s: [int(n) for n in s.split(",")], default=[1, 256, 1024]
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    report = uvloop.run(bench(options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()

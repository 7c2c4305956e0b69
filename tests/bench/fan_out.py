"""One run of ever more items through the real stack: whether it grows linearly, as JSON.

A run is a node with `forEach` over so many numbers, each item a task of its own through Kafka.
Per item: milliseconds from trigger to end, CPU of the product's processes, bytes that the run's
state and its events add to the log.

    python tests/bench/fan_out.py [--items 1000,3000,10000] [--repeats 3] [--out FILE]
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
import yaml
from run import HERE, Client, Usage, broker_pid
from system import System, define

from streams import topics
from streams.plan import parse


def bytes_on_the_log(data: Path, topic: str) -> int:
    """What the topic's segments hold; rolled or not, nothing is removed from them meanwhile."""
    folders = (data / "kafka" / "log").glob(f"{topic}-*")
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


async def measure(
    client: Client, usage: Usage, data: Path, items: int, repeats: int
) -> dict[str, Any]:
    took, cpu, logged = [], [], {topics.STATE: [], topics.EVENTS: []}
    for _ in range(repeats):
        before = {topic: bytes_on_the_log(data, topic) for topic in logged}
        used, begun = sum(usage.cpu().values()), time.perf_counter()
        await client.run("fan", {"numbers": list(range(items))}, within_s=300)
        took.append(time.perf_counter() - begun)
        cpu.append(sum(usage.cpu().values()) - used)
        for topic, values in logged.items():
            values.append(bytes_on_the_log(data, topic) - before[topic])
    return {
        "items": items,
        "seconds": round(statistics.median(took), 2),
        "ms_per_item": round(statistics.median(took) * 1000 / items, 3),
        "cpu_ms_per_item": round(statistics.median(cpu) * 1000 / items, 3),
        "state_bytes_per_item": round(statistics.median(logged[topics.STATE]) / items),
        "event_bytes_per_item": round(statistics.median(logged[topics.EVENTS]) / items),
    }


async def bench(options: argparse.Namespace) -> list[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="commandcenter-bench")))
        system = System(data, agents=HERE)
        stack.push_async_callback(system.stop)
        await system.start_kafka()
        roots = {"kafka": broker_pid(data)}
        roots["worker"] = (await system.worker("bench_agent:bench")).pid
        roots["gateway"] = (await system.start("gateway")).pid
        await define(system.bootstrap, parse(yaml.safe_load((HERE / "fan.yaml").read_text())))
        client = await stack.enter_async_context(Client(system.bootstrap))
        usage = Usage(roots)
        await client.run("fan", {"numbers": list(range(1_000))})
        figures = []
        for items in options.items:
            figures.append(await measure(client, usage, data, items, options.repeats))
            print(json.dumps(figures[-1]), flush=True)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a run of many items.")
    parser.add_argument(
        "--items", type=lambda s: [int(n) for n in s.split(",")], default=[1_000, 3_000, 10_000]
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/fan-out.json"))
    options = parser.parse_args()
    figures = uvloop.run(bench(options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()

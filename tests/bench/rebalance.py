"""What a worker that joins, leaves or dies costs the runs under way, as JSON.

A steady load of short runs (chain3) at a fixed rate on one worker, whatever happens; a second
worker joins, and leaves by SIGTERM or is killed by SIGKILL, several times each. The delay of a run
is its time from trigger to seen end, less the median without disturbance. The percentiles are those
of the delayed runs alone: the ones that took three times the median, or longer than nearly all did.

    python tests/bench/rebalance.py [--rate 200] [--repeats 4] [--out FILE]
"""

import argparse
import asyncio
import json
import signal
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
import yaml
from run import HERE, Client, percentile
from system import System, define, python_below

from streams.plan import parse

AGENT = "bench_agent:bench"
JOIN, LEAVE, DIE = "join", "leave", "die"


class Run(NamedTuple):
    """One run: when it was sent, and how long it took; seconds."""

    sent: float
    took: float


class Load:
    """Runs at a fixed rate, until stopped; what they took is kept."""

    def __init__(self, client: Client, rate: float) -> None:
        self._client = client
        self._interval = 1 / rate
        self._under_way: set[asyncio.Task[None]] = set()
        self.runs: list[Run] = []

    async def go_on(self) -> None:
        """Send until cancelled, late or not: a system that stands still is sent to all the same."""
        due = time.perf_counter()
        while True:
            task = asyncio.create_task(self._one())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _one(self) -> None:
        sent = time.perf_counter()
        self.runs.append(Run(sent, await self._client.one()))

    async def all_ended(self) -> None:
        """Wait for the runs under way now."""
        await asyncio.gather(*self._under_way)


def delayed(runs: list[Run], at: float, until: float, normal: float) -> list[Run]:
    """The runs under way at `at` or sent before `until` that took longer than `normal`."""
    return [r for r in runs if r.sent + r.took >= at and r.sent < until and r.took > normal]


async def events(system: System, load: Load, options: Any) -> list[tuple[str, float, float]]:
    """Let workers join, leave and die: (what, when, how long until the next)."""
    happened = []

    async def then_settle(what: str, at: float) -> None:
        await asyncio.sleep(options.settle)
        happened.append((what, at, time.perf_counter()))
        await load.all_ended()

    for number in range(2 * options.repeats):
        at = time.perf_counter()
        second = await system.worker(AGENT)
        await then_settle(JOIN, at)
        at = time.perf_counter()
        python_below(second).send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
        await then_settle(DIE if number % 2 else LEAVE, at)
        await second.wait()
    return happened


async def bench(options: Any) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="commandcenter-bench")))
        system = System(data, agents=HERE)
        stack.push_async_callback(system.stop)
        await system.start_kafka()
        await system.worker(AGENT)
        await define(system.bootstrap, parse(yaml.safe_load((HERE / "chain3.yaml").read_text())))
        client = await stack.enter_async_context(Client(system.bootstrap))
        await client.load(256, options.warm_up)  # a changelog of some size
        load = Load(client, options.rate)
        sending = asyncio.create_task(load.go_on())
        await asyncio.sleep(options.settle)
        calm = sorted(run.took for run in load.runs)
        happened = await events(system, load, options)
        sending.cancel()
        if options.keep_log:
            options.keep_log.write_text((data / "log").read_text())
        return report(load.runs, calm, happened, options.rate)


def report(
    runs: list[Run], calm: list[float], happened: list[tuple[str, float, float]], rate: float
) -> dict[str, Any]:
    median = statistics.median(calm)
    normal = max(calm[int(len(calm) * 0.99)], 3 * median)
    kinds: dict[str, dict[str, Any]] = {}
    for kind in (JOIN, LEAVE, DIE):
        each = [delayed(runs, at, until, normal) for what, at, until in happened if what == kind]
        delays = sorted(max(0.0, run.took - median) for some in each for run in some) or [0.0]
        kinds[kind] = {
            "events": len(each),
            "runs_delayed": sum(map(len, each)),
            "delay_p50_ms": percentile(delays, 0.50),
            "delay_p99_ms": percentile(delays, 0.99),
            "delay_max_ms": percentile(delays, 1.0),
            "delay_max_ms_of_each": [
                round(max((r.took - median for r in some), default=0.0) * 1000) for some in each
            ],
        }
    return {
        "job": "chain3",
        "runs_per_s": rate,
        "runs": len(runs),
        "calm_p50_ms": percentile(calm, 0.50),
        "calm_p99_ms": percentile(calm, 0.99),
        "kinds": kinds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--repeats", type=int, default=4, help="leaves, and deaths")
    parser.add_argument("--settle", type=float, default=8.0, help="seconds after each event")
    parser.add_argument("--warm-up", type=float, default=5.0)
    parser.add_argument("--keep-log", type=Path, help="a copy of what the workers said")
    parser.add_argument("--out", type=Path, default=Path("build/bench-rebalance.json"))
    options = parser.parse_args()
    found = uvloop.run(bench(options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()

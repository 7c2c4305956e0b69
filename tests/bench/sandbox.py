"""What a sandbox costs: time from asking for a small action to its result, and memory of each.

Measured one at a time on a warm sandbox, as a worker has it, and as new processes of Python for
comparison. JSON on stdout.

    python tests/bench/sandbox.py [--jobs 200]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from agents.sandbox import Call, Command, Job, ProcessSandbox, bubblewrap

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
MEGABYTE = 1_000_000


def milliseconds(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 1), "p99_ms": round(cuts[98] * 1000, 1)}


def resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # what kept the last job has just ended
        return 0


async def timed(sandbox: ProcessSandbox, job: Job, jobs: int) -> list[float]:
    seconds = []
    for _ in range(jobs):
        began = time.perf_counter()
        outcome = await sandbox.run(job)
        seconds.append(time.perf_counter() - began)
        if outcome.failure is not None:
            raise SystemExit(f"the job failed: {outcome.failure}")
    return seconds


async def own_memory(sandbox: ProcessSandbox) -> float:
    """MB that one idle job has for itself: what it does not share with the warm process."""
    before = {each.pid for each in psutil.process_iter()}
    said = asyncio.Event()

    class Listener:
        def told(self, kind: str, body: Any) -> None:
            said.set()

        async def asked(self, kind: str, body: Any) -> Any:
            raise AssertionError(kind)

    job = Job(work=Call(target="sandboxed:until_cancelled"))
    running = asyncio.create_task(sandbox.run(job, Listener(), stop := asyncio.Event()))
    await said.wait()
    new = [each for each in psutil.process_iter() if each.pid not in before]
    used = sum(each.memory_full_info().uss for each in new if each.is_running())
    stop.set()
    await running
    return round(used / MEGABYTE, 1)


async def new_interpreter(jobs: int) -> list[float]:
    seconds = []
    for _ in range(jobs):
        began = time.perf_counter()
        line = "from sandboxed import repeat"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", line, env={"PYTHONPATH": ":".join(sys.path)}
        )
        await process.wait()
        seconds.append(time.perf_counter() - began)
    return seconds


async def bench(jobs: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    action = Job(work=Call(target="sandboxed:repeat", inputs=b'{"text": "x"}'))
    kinds = {"process": False}
    if bubblewrap.usable()[0] is not None:
        kinds["process with bubblewrap"] = True
    with tempfile.TemporaryDirectory() as folder:
        for name, wrapped in kinds.items():
            began = time.perf_counter()
            async with ProcessSandbox(
                ["sandboxed"], folder=Path(folder), use_bubblewrap=wrapped
            ) as sandbox:
                opened = time.perf_counter() - began
                await timed(sandbox, action, 5)
                warm = psutil.Process(sandbox.forking_processes[0])
                family = [warm, *warm.children(recursive=True)]
                figures[name] = {
                    "open_ms": round(opened * 1000),
                    "action": milliseconds(await timed(sandbox, action, jobs)),
                    "command": milliseconds(
                        await timed(sandbox, Job(work=Command(argv=("true",))), jobs)
                    ),
                    "warm_process_mb": round(sum(map(resident, family)) / MEGABYTE, 1),
                    "mb_per_job": await own_memory(sandbox),
                }
        figures["a new Python each time"] = milliseconds(await new_interpreter(max(10, jobs // 10)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    print(json.dumps({"sandbox": uvloop.run(bench(parser.parse_args().jobs))}, indent=1))


if __name__ == "__main__":
    main()

"""The store: ingest, dashboard queries, bytes, memory and lag, on generated history, as JSON.

Runs of three steps, made by the real core once and repeated under other names. Decisions go through
the recording into chDB as the recorder does it. Larger sizes are copies that the engine makes of
what was recorded, so that the queries have as much to read as after so many events: 100,000,000
take some minutes more and 2 GB of disk.

    python tests/bench/store.py [--runs 40000] [--events 1000000,10000000] [--lag-runs 1000]
        [--live-runs 100] [--out FILE]
"""

import argparse
import asyncio
import gc
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
from aiohttp import ClientSession
from aiokafka import AIOKafkaProducer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

from small_log import BEGAN, Record, SmallLog, run_of  # noqa: E402  # found through the line above

from gateway.live import LiveTail  # noqa: E402
from gateway.server import serving  # noqa: E402
from gateway.services import Services  # noqa: E402
from infra.local_kafka import LocalKafka  # noqa: E402
from infra.topic_admin import ensure_topics  # noqa: E402
from sinks import schema  # noqa: E402
from sinks.clickhouse import open_store  # noqa: E402
from sinks.history import History, RunFilter  # noqa: E402
from sinks.recorder import Recorder  # noqa: E402
from sinks.recording import LogRecord, Recording  # noqa: E402
from sinks.rollups import Rollups  # noqa: E402
from sinks.store import DEFAULT_LIMITS, Store  # noqa: E402
from streams import topics  # noqa: E402
from streams.blob_store import BlobStore  # noqa: E402
from streams.topics import Topic  # noqa: E402

BATCH = 10_000
EVERY_MS = 3  # a run begins
SHIFT_MS = 600_000  # a copy of all runs begins
COPIES_AT_ONCE = 16
# Beside the merges a copy has to fit into what the engine may use.
COPYING = (
    "max_threads = 1, min_insert_block_size_rows = 262144, min_insert_block_size_bytes = 134217728"
)
DISK_BYTES = 100  # of one event with all that belongs to it, merges under way included: at most
TIMES = {
    "events": ("at", "run_started_at"),
    "runs_log": ("started_at",),
    "agent_runs_log": ("run_started_at",),
    "costs_log": ("run_started_at", "at"),
}
REPEATS = 100
CALM = 6  # looks in a row at which nothing is merged
DASHBOARD = {
    "runs per minute": "SELECT minute, sum(runs), sum(failed) FROM runs_per_minute"
    " WHERE minute > (SELECT max(minute) FROM runs_per_minute) - INTERVAL 6 HOUR GROUP BY minute",
    "runs per day": "SELECT day, workflow, sum(runs), sum(failed) FROM runs_per_day GROUP BY ALL",
    "failure rate": "SELECT workflow, version, sum(failed) / sum(runs) FROM runs_per_day"
    " GROUP BY ALL",
    "duration p95": "SELECT minute, max(p95_ms) FROM runs_per_minute GROUP BY minute",
    "slowest steps": "SELECT node, agent, sum(duration_ms) / sum(attempts) AS ms FROM steps_per_day"
    " GROUP BY ALL ORDER BY ms DESC LIMIT 10",
    "retries": "SELECT agent, sum(retried), sum(attempts) FROM steps_per_day GROUP BY ALL",
    "queueing": "SELECT minute, sum(queued_ms) / sum(attempts) FROM steps_per_minute"
    " GROUP BY minute",
    "cost per day": "SELECT day, workflow, currency, sum(amount) FROM costs_per_day GROUP BY ALL",
    "cost per model": "SELECT model, source, currency, sum(amount) FROM costs_per_day GROUP BY ALL",
    "events per minute": "SELECT minute, type, sum(events) FROM events_per_minute GROUP BY ALL",
}


def template() -> list[bytes]:
    """The decisions of one run called `r`."""
    log = SmallLog()
    log.start("r")
    for node in ("scan", "lint", "tell"):
        log.answer("r", node)
    return [entry.value for entry in log.events if entry.value is not None]


class Generator:
    """Decisions of ever more runs, as bytes: the template's, with run and times replaced."""

    def __init__(self) -> None:
        values = template()
        self._run = run_of("r").encode()
        # Between what stays: milliseconds since the epoch, which are never near a power of ten.
        self._pieces = [re.split(rb"\b(1[67]\d{11})\b", value) for value in values]
        self.runs = 0
        self.events = sum(value.count(b'"type":"') for value in values)

    def run(self) -> list[bytes]:
        """One more run; they begin 3 ms apart."""
        number, self.runs = self.runs, self.runs + 1
        name = b"%08x" % number + self._run[8:]
        later = number * EVERY_MS
        return [
            b"".join(
                [b"%d" % (int(piece) + later) if n % 2 else piece for n, piece in enumerate(pieces)]
            ).replace(self._run, name)
            for pieces in self._pieces
        ]


class Memory:
    """Of this process, resident, in MiB."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._most = 0

    def now(self) -> int:
        """At this moment."""
        return int(self._process.memory_info().rss) // 2**20

    async def watch(self) -> None:
        """Look ten times a second, until cancelled."""
        while True:
            self._most = max(self._most, self.now())
            await asyncio.sleep(0.1)

    def take_most(self) -> int:
        """The most since this was asked last."""
        most, self._most = max(self._most, self.now()), 0
        return most


async def refuse(_record: LogRecord, error: Exception) -> None:
    raise AssertionError(error)


async def main() -> None:
    options = _options()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        make_sure_of_room(Path(folder), max(options.events, default=0))
        store = await open_store(f"chdb://{folder}/store")
        try:
            await schema.apply(store)
            memory = Memory()
            figures["memory_mb"] = {
                "limit_of_the_engine": DEFAULT_LIMITS.engine_bytes // 2**20,
                "at_rest": memory.now(),
            }
            watching = asyncio.create_task(memory.watch())
            figures["ingest"] = await ingest(store, options.runs)
            figures["memory_mb"]["most_while_ingesting"] = memory.take_most()
            print(json.dumps(figures["ingest"]), file=sys.stderr)
            copies = Copies(store, figures["ingest"].pop("all"), options.runs * len(template()))
            for size in options.events:
                started = time.monotonic()
                await copies.until(size)
                print(f"{size:,} events after {time.monotonic() - started:.1f} s", file=sys.stderr)
                memory.take_most()
                print(f"merged after {await merged(store):.1f} s more", file=sys.stderr)
                figures[f"at {size} events"] = await ask(store)
                figures["memory_mb"][f"most_while_asking_at_{size}"] = memory.take_most()
                print(json.dumps(figures[f"at {size} events"]), file=sys.stderr)
            if options.lag_runs:
                figures["lag"] = await lag(store, Path(folder), options.lag_runs)
                figures["memory_mb"]["most_at_lag_runs"] = memory.take_most()
            if options.live_runs:
                figures["live"] = await live(store, Path(folder), options.live_runs)
                figures["memory_mb"]["most_while_watched_live"] = memory.take_most()
            watching.cancel()
        finally:
            await store.close()
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the store.")
    parser.add_argument("--runs", type=int, default=40_000, help="runs that are ingested")
    parser.add_argument("--events", default="1000000,10000000", help="sizes that are asked")
    parser.add_argument("--lag-runs", type=int, default=1_000, help="runs a second; 0: no lag")
    parser.add_argument("--live-runs", type=int, default=100, help="runs a second, live; 0: none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.events = [int(size) for size in options.events.split(",") if size]
    return options


async def ingest(store: Store, runs: int) -> dict[str, Any]:
    """Record so many runs while ten dashboard queries a second are asked."""
    generator = Generator()
    values = [value for _ in range(runs) for value in generator.run()]
    log = [
        Record(topics.EVENTS, 0, offset, BEGAN, None, value) for offset, value in enumerate(values)
    ]
    gc.freeze()  # as the gateway does
    gc.set_threshold(200_000, 20, 20)
    recording = Recording(store, topics.EVENTS, refuse)
    await recording.resume([0])
    await recording.record(log[:1_000])
    await Rollups(store).refresh(recording.watermark)
    asked: list[float] = []
    asking = asyncio.create_task(_ten_a_second(store, asked))
    recorded, cpu, began = recording.counts.events, time.process_time(), time.monotonic()
    for start in range(1_000, len(log), BATCH):
        await recording.record(log[start : start + BATCH])
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    asking.cancel()
    events = recording.counts.events - recorded
    return {
        "all": recording.counts.events,
        "events": events,
        "events_per_s": round(events / took),
        "cpu_us_per_run": round(cpu / (events / generator.events) * 1e6, 1),
        "queries": len(asked),
        "query_p95_ms": _percentile(asked, 0.95),
    }


async def _ten_a_second(store: Store, took: list[float]) -> None:
    texts = list(DASHBOARD.values())
    while True:
        due = asyncio.create_task(asyncio.sleep(0.1))
        began = time.monotonic()
        await store.query(texts[len(took) % len(texts)])
        took.append(time.monotonic() - began)
        await due


class Copies:
    """Makes copies of what was recorded, in the engine: other names, later, further on in the log.

    Args:
        store: Where it was recorded, from offset 0 on.
        events: How many events were recorded.
        decisions: How many decisions.
    """

    def __init__(self, store: Store, events: int, decisions: int) -> None:
        self._store = store
        self._events = events
        self._decisions = decisions
        self._made = 0

    async def until(self, events: int) -> None:
        """Copy until there are so many events; then the rollups are counted."""
        wanted = -(-events // self._events) - 1
        while self._made < wanted:
            some = min(COPIES_AT_ONCE, wanted - self._made)
            for table, times in TIMES.items():
                await self._copy(table, times, self._made + 1, some)
            await self._store.command(
                "INSERT INTO run_places (run_hash, started_at)"
                " SELECT DISTINCT cityHash64(run_id), started_at FROM runs_log WHERE started_at >="
                f" fromUnixTimestamp64Milli({BEGAN + SHIFT_MS * (self._made + 1)}, 'UTC')"
            )
            self._made += some
        await Rollups(self._store).refresh({0: (self._made + 1) * self._decisions - 1})

    async def _copy(self, table: str, times: tuple[str, ...], first: int, some: int) -> None:
        changed = ["concat(leftPad(lower(hex(copy)), 4, '0'), substring(run_id, 5)) AS run_id"]
        changed += [
            f"{column} + toIntervalMillisecond(copy * {SHIFT_MS}) AS {column}" for column in times
        ]
        if table == "events":
            changed.append(f"offset + copy * {self._decisions} AS offset")
            original = f"offset < {self._decisions}"
        else:
            # Copies begin when all that was recorded has begun.
            original = f"{times[0]} < fromUnixTimestamp64Milli({BEGAN + SHIFT_MS}, 'UTC')"
        source = f"(SELECT * FROM {table} WHERE {original}) AS t"
        await self._store.command(
            f"INSERT INTO {table} SELECT * EXCEPT (copy) REPLACE ({', '.join(changed)})"
            f" FROM (SELECT t.*, n.number AS copy FROM {source}"
            f" CROSS JOIN numbers({first}, {some}) AS n) SETTINGS {COPYING}"
        )


def make_sure_of_room(folder: Path, events: int) -> None:
    """Refuse what would not fit."""
    needed, free = events * DISK_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise SystemExit(
            f"{events:,} events may take {needed // 2**30} GiB in {folder}, where {free // 2**30}"
            " GiB are free: choose smaller --events, or another TMPDIR."
        )


async def merged(store: Store) -> float:
    """Wait until the engine merges nothing any more, as it is long after so much was taken in."""
    began = time.monotonic()
    calm = 0
    while calm < CALM:
        await asyncio.sleep(0.5)
        [(merges,)] = (await store.query("SELECT count() FROM system.merges")).rows
        calm = 0 if merges else calm + 1
    return time.monotonic() - began


async def ask(store: Store) -> dict[str, Any]:
    """Every query some times, alone."""
    history = History(store)
    [(size, events, runs)] = (
        await store.query(
            "SELECT (SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database ="
            " currentDatabase()), (SELECT count() FROM events), (SELECT count() FROM runs)"
        )
    ).rows
    names = await store.query(
        f"SELECT run_id, started_at FROM runs ORDER BY cityHash64(run_id) LIMIT {REPEATS}"
    )
    places = cycle(names.rows)

    def a_run() -> str:
        return str(next(places)[0])

    async def detail() -> None:  # as GET /api/runs/{id} asks
        await history.run_events(a_run(), limit=501)

    async def keyset() -> None:
        run, at = next(places)
        await history.runs(limit=50, before=(int(at.timestamp() * 1000), run))

    async def events_before() -> None:
        run, at = next(places)
        await history.events(before=(int(at.timestamp() * 1000), run, 0))

    async def failed() -> None:
        await history.runs(RunFilter(statuses=("FAILED",)), limit=50)

    found: dict[str, Any] = {
        "events": events,
        "runs": runs,
        "bytes_per_event": round(size / events, 1),
    }
    found["run_ms"] = await _timed(detail)
    found["run_agent_runs_ms"] = await _timed(lambda: history.agent_runs(a_run()))
    found["newest_runs_ms"] = await _timed(lambda: history.runs(limit=50))
    found["page_ms"] = await _timed(keyset)
    found["page_of_failed_ms"] = await _timed(failed)
    found["newest_events_ms"] = await _timed(lambda: history.events(limit=100))
    found["page_of_events_ms"] = await _timed(events_before)
    found["thousand_decisions_ms"] = await _timed(lambda: history.decisions(0, after=1_000))
    found["dashboard_ms"] = {
        name: await _timed(lambda text=text: store.query(text)) for name, text in DASHBOARD.items()
    }
    return found


async def _timed(work: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    took = []
    for _ in range(REPEATS):
        began = time.monotonic()
        await work()
        took.append(time.monotonic() - began)
    return {"p50": _percentile(took, 0.5), "p95": _percentile(took, 0.95)}


def _percentile(values: list[float], part: float) -> float:
    ordered = sorted(values) or [0.0]
    return round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 1)


async def lag(store: Store, folder: Path, runs_per_s: int, seconds: int = 10) -> dict[str, Any]:
    """From the broker's acknowledgement to the row that a query finds."""
    made = Topic("bench.events", "run id", "a benchmark", "delete", -1)
    took: list[float] = []
    async with LocalKafka(folder / "kafka") as kafka:
        await ensure_topics(kafka.bootstrap, [made], partitions=1, replication=1)
        recorder = Recorder(kafka.bootstrap, store, refuse, topic=made.name)
        work = asyncio.create_task(recorder.run())
        generator = Generator()
        generator.runs = 0x70000000
        waiting: list[asyncio.Task[None]] = []

        async def watch(offset: int) -> None:
            began = time.monotonic()
            await recorder.reached({0: offset})
            took.append(time.monotonic() - began)

        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await recorder.ready.wait()
            for tick in range(seconds * 20):
                due = asyncio.create_task(asyncio.sleep(0.05))
                sent = [
                    await producer.send(made.name, value, partition=0)
                    for _ in range(runs_per_s // 20)
                    for value in generator.run()
                ]
                last = await sent[-1]
                if tick >= 20:  # the first second warms up
                    waiting.append(asyncio.create_task(watch(last.offset)))
                await due
            await asyncio.gather(*waiting)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return {
        "runs_per_s": runs_per_s,
        "p50_ms": round(1000 * statistics.median(took), 1),
        "p99_ms": _percentile(took, 0.99),
    }


async def live(store: Store, folder: Path, runs_per_s: int) -> dict[str, Any]:
    """From sending a run's end to the websocket that tells it: alone, and beside endless guests."""
    made = Topic("bench.live", "run id", "a benchmark", "delete", -1)
    tail = LiveTail()
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(LocalKafka(folder / "live"))
        await ensure_topics(kafka.bootstrap, [made, *topics.TOPICS], partitions=1, replication=1)
        recorder = Recorder(
            kafka.bootstrap, store, refuse, topic=made.name, on_records=tail.on_records
        )
        work = asyncio.create_task(recorder.run())
        services = Services(
            bootstrap=kafka.bootstrap,
            store=store,
            blobs=BlobStore(str(folder / "blobs"), 1_000_000),
            recorded=lambda: {part: last + 1 for part, last in recorder.watermark.items()},
            tail=tail,
        )
        url = await stack.enter_async_context(serving(services, "127.0.0.1", 0))
        http = await stack.enter_async_context(ClientSession())
        producer = await stack.enter_async_context(
            AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        )
        await recorder.ready.wait()
        generator = Generator()
        generator.runs = 0x60000000
        found = {}
        for name, guests in (("alone", 0), ("beside two guests", 2)):
            asking = [asyncio.create_task(_endless(http, url)) for _ in range(guests)]
            await asyncio.sleep(1 if guests else 0)
            took = await _seen_live(http, url, producer, made.name, generator, runs_per_s)
            for task in asking:
                task.cancel()
            found[name] = {
                "p50_ms": round(1000 * statistics.median(took), 1),
                "p99_ms": _percentile(took, 0.99),
            }
        work.cancel()
        await asyncio.gather(work, *asking, return_exceptions=True)
    return {"runs_per_s": runs_per_s, **found}


async def _endless(http: ClientSession, url: str) -> None:
    query = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"
    while True:
        async with http.post(f"{url}/api/sql", json={"query": query}) as response:
            await response.read()


async def _seen_live(
    http: ClientSession,
    url: str,
    producer: AIOKafkaProducer,
    topic: str,
    generator: Generator,
    runs_per_s: int,
    seconds: int = 8,
) -> list[float]:
    sent: dict[str, float] = {}
    took: list[float] = []
    async with http.ws_connect(f"{url}/api/stream", max_msg_size=0) as socket:
        await socket.send_json({"type": "subscribe", "id": 1, "filter": {}})
        await socket.receive_json()  # the snapshot

        async def hear() -> None:
            while len(took) < runs_per_s * seconds:
                frame = await socket.receive_json()
                now = time.monotonic()
                took.extend(
                    now - sent.pop(decision["run"])
                    for decision in frame.get("decisions", ())
                    if decision["status"] == "SUCCESS"
                )

        hearing = asyncio.create_task(hear())
        for _ in range(seconds * 20):
            due = asyncio.create_task(asyncio.sleep(0.05))
            for _ in range(runs_per_s // 20):
                values = generator.run()
                sent[json.loads(values[-1])["run"]] = time.monotonic()
                for each in values:
                    await producer.send(topic, each, partition=0)
            await producer.flush()
            await due
        async with asyncio.timeout(60):
            await hearing
    return took


if __name__ == "__main__":
    asyncio.run(main())

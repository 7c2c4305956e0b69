"""One worker's Faust app: which topics it reads, and what handles their batches.

The hot path is three kinds of Faust agents over batches: the router on triggers, the orchestrator
on the inbox (with the run table, whose changelog the orchestrator writes itself), and one agent
for each kind of task, whose handler is handed in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from streams import topics
from streams.actors import Actors
from streams.faust_shell import (
    SESSION_S,
    Batch,
    BatchConsumer,
    EngineApp,
    batch_topic,
    new_app,
)
from streams.orchestrator import Decided, Orchestrator
from streams.partition_watch import PartitionWatch
from streams.read_ahead import read_ahead
from streams.router import Router
from streams.state_log import StateLog
from streams.watchdog import PATIENCE_S

_log = structlog.get_logger(__name__)

BATCHES_AT_ONCE: Final = 64
STEP_S: Final = 5.0
"""For the last results, the batch in hand and the commit, when a worker stops."""


class TaskHandler(Protocol):
    """What serves one agent's task topic."""

    async def accept(self, batch: Batch) -> None:
        """Begin the batch's tasks."""

    async def run_results(self) -> None:
        """Publish results until cancelled; raises what goes wrong with any task."""

    async def drain(self, grace: float) -> None:
        """Finish or give up what is under way, and publish the results."""


class _Changelog:
    """What the orchestrator knows and tells of the table's changelog."""

    def __init__(
        self,
        consumer: BatchConsumer,
        partitions: Mapping[int, StateLog],
        bootstrap: str,
        actors: Actors,
    ) -> None:
        self.may_write = consumer.may_write
        self._partitions = partitions
        self._bootstrap = bootstrap
        self._actors = actors
        self._looking: dict[int, asyncio.Task[None]] = {}

    def to_mend(self, partition: int, reads: int) -> set[bytes]:
        return self._partitions[partition].to_mend(reads)

    def written(self, partition: int, first: int | None, count: int, reads: int) -> None:
        log = self._partitions[partition]
        if log.written(first, count, reads) or partition in self._looking:
            return
        # Somebody else wrote too. What is newest is told apart for as long as both records are in
        # the log; before compaction takes the older one, a next write repeats ours.
        _log.warning("the state has records of another worker", partition=partition, offset=first)
        task = self._actors.start(f"look at state {partition}", self._look(partition, log))
        self._looking[partition] = task
        task.add_done_callback(lambda _: self._looking.pop(partition))

    async def _look(self, partition: int, log: StateLog) -> None:
        try:
            await read_ahead(
                self._bootstrap,
                topics.STATE,
                {partition: log.seen + 1},
                lambda _, records: log.look(records),
            )
        except KafkaError as error:  # after the next write it is tried again
            _log.warning("the state could not be read", partition=partition, error=repr(error))

    async def release(self) -> None:
        """Look no further: whoever is given the partitions reads what is in the changelog."""
        looking = list(self._looking.values())
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)  # the actors hear of errors


class Engine:
    """The Faust app of one worker, from start to stop."""

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        router: Router,
        orchestrator: Orchestrator,
        handlers: Callable[[EngineApp], Mapping[str, TaskHandler]],
        group: str = "commandcenter",
        session_s: float = SESSION_S,
    ) -> None:
        """`handlers` gives the handler of each agent by its name."""
        self.app = new_app(group, bootstrap, partitions, session_s)
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._orchestrator = orchestrator
        self._router = router
        self._handlers = dict(handlers(self.app))
        self._table: Any = self.app.Table(
            "runs",
            partitions=partitions,
            key_type=bytes,
            value_type=bytes,
            changelog_topic=batch_topic(self.app, topics.STATE),
            # Of what is applied already. 1 would make Faust read what the owner writes itself.
            recovery_buffer_size=2,
        )
        self._writing: asyncio.Task[None] | None = None
        self.actors = Actors()
        """What works in this worker; others may add theirs."""
        self.ready = asyncio.Event()
        """Set while the group is joined and what is owned, if anything is, is restored."""
        self._connect()

    def _connect(self) -> None:
        app = self.app
        self._agent(topics.TRIGGERS, self._route)
        self._agent(topics.INBOX, self._orchestrate)
        for name, handler in self._handlers.items():
            self._agent(topics.tasks(name), self._accept(handler))
        on_revoked: Any = self._on_revoked
        app.on_partitions_revoked.connect(on_revoked, weak=False)

    def _agent(self, topic: str, handle: Callable[[list[Batch]], Awaitable[None]]) -> None:
        async def agent(stream: Any) -> None:
            try:
                await self._serve(stream, handle)
            except Exception as error:  # noqa: BLE001  # whatever it is, the worker ends by it
                self.actors.failed(topic, error)
                # Faust would restart an agent that ends, behind the batch that failed, and what
                # comes next would be acknowledged. So it stands still until the app stops.
                await asyncio.Event().wait()

        self.app.agent(batch_topic(self.app, topic), name=topic, concurrency=1)(agent)

    async def _serve(self, stream: Any, handle: Callable[[list[Batch]], Awaitable[None]]) -> None:
        waiting: list[Batch] = []
        async for batch in stream.noack():
            waiting.append(batch)
            if stream.channel.empty() or len(waiting) >= BATCHES_AT_ONCE:
                batches, waiting = waiting, []
                await handle(batches)

    async def _route(self, batches: list[Batch]) -> None:
        await self._router.process(batches)
        self._done(batches)

    async def _orchestrate(self, batches: list[Batch]) -> None:
        """Decide the batches; their state is written while the next ones are decided."""
        # One that waited here through a rebalance is read again, from where the state says. Decided
        # now, it might be ahead of that, and what lies between would count as read.
        generation = self.app.consumer_generation_id
        batches = [batch for batch in batches if batch.generation == generation]
        decided = await self._orchestrator.decide(batches)
        before = self._writing
        self._writing = self.actors.start("state writer", self._write(decided, before))
        if before is not None:
            await asyncio.wait([before])  # two batches at most are not written yet

    async def _write(self, decided: Decided, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._done(await self._orchestrator.write(decided))

    def _accept(self, handler: TaskHandler) -> Callable[[list[Batch]], Awaitable[None]]:
        async def accept(batches: list[Batch]) -> None:
            for batch in batches:
                await handler.accept(batch)

        return accept

    def _done(self, batches: Sequence[Batch]) -> None:
        consumer = self.app.batches
        for batch in batches:
            consumer.mark_done(batch.tp, batch.generation, batch.records[-1].offset + 1)

    # --- ownership ---

    async def _resume_offset(self, tp: TP) -> int | None:
        """Where a partition resumes: the inbox where its state says, the rest where committed."""
        if tp.topic != topics.INBOX:
            return None
        return self._orchestrator.own(tp.partition, self._table.partition(tp.partition).data)

    async def _on_revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        self.ready.clear()
        await self._orchestrator.release()
        await self._changelog.release()
        await self.app.batches.commit()
        _log.info("partitions revoked", partitions=len(revoked))

    # --- life ---

    async def start(self) -> None:
        """Read the state, then join the group; `ready` is set when the partitions are restored."""
        consumer = self.app.batches
        consumer.resume_offset = self._resume_offset
        consumer.on_resumed = self.ready.set
        consumer.on_failed = self.actors.failed
        self._changelog = _Changelog(
            consumer, self._table.store.partitions, self._bootstrap, self.actors
        )
        self._orchestrator.changelog = self._changelog
        everything = dict.fromkeys(range(self._partitions), 0)
        await read_ahead(self._bootstrap, topics.STATE, everything, self._table.store.restore)
        await self.app.start()
        self.actors.start("timers", self._orchestrator.run_timers())
        for name, handler in self._handlers.items():
            self.actors.start(f"tasks of {name}", handler.run_results())
        watch = PartitionWatch(consumer.offsets, PATIENCE_S)
        self.actors.start("partition watch", watch.run())
        self.actors.start("faust", self._app_end())

    async def _app_end(self) -> None:
        await self.app.wait_until_stopped()
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    async def stop(self, grace: float) -> None:
        """Take no more, finish what is under way for `grace` seconds, commit, leave the group.

        What cannot be finished in order, after a failure, is said and left: the group is left in
        any case, and what is not committed is done by the successor.
        """
        self.app.batches.stop_flow()
        await _attempt("finish what is under way", self._finish(grace), grace + STEP_S)
        await self.actors.stop()
        # A crashed Faust does not come to its end: the group misses it after a session.
        seconds = 1.0 if self.app.crashed else 2 * STEP_S
        await _attempt("leave the group", self.app.stop(), seconds)

    async def _finish(self, grace: float) -> None:
        await asyncio.gather(*(h.drain(grace) for h in self._handlers.values()))
        await self._orchestrator.release()
        if not self.app.batches.crashed:  # its thread would never answer
            await self.app.batches.commit()


async def _attempt(what: str, work: Coroutine[Any, Any, object], seconds: float) -> None:
    """Do it as far as it goes, in a task of its own: a crashed Faust cancels who waits for it."""
    task = asyncio.create_task(work, name=what)
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
        _log.error("the worker stops without an end of this", what=what, seconds=seconds)
    elif task.cancelled() or task.exception() is not None:
        error = None if task.cancelled() else task.exception()
        _log.error("the worker stops without this", what=what, exc_info=error)

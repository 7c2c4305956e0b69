"""Consuming tasks: Faust hands over batches, actions run side by side, results go to the inbox.

Rules:
- At most `concurrency` tasks of one agent run at once in this worker; beyond twice that the
  partitions are no longer fetched, and other topics are not held up.
- A partition's offset advances only past finished tasks, in order (`Watermark`). A task that was
  under way when its partition was revoked is done again by the new owner: agents see its id twice.
  If the partition comes back here meanwhile, the work under way counts, and is not begun again.
- Results are published before the offset of their task is committed, and after whatever is said of
  the task's progress. Of progress that waits to be published the newest of each task is kept.
- A task that is called off while it waits is answered at once and never begun; one that comes after
  the order to end it is, too.
- A task that is long is no reason to do finished ones behind it again: the commit says which those
  are. And one that is delivered again has its result published again, not its work done again: this
  worker's own is remembered, that of an owner before is looked for on the log.
- What goes wrong here with a task, and is not the agent's fault, `run_results` raises: the task is
  done again by whoever comes after this worker.
"""

import asyncio
import time
from typing import Any

import structlog
from faust.types import TP
from prometheus_client import Counter, Gauge

from agents.attempt import Attempt, RevokedError
from agents.execution import Execution
from agents.orders import Orders
from agents.published_results import PublishedResults
from agents.recent_results import RecentResults
from streams import codec, dead_letters, topics
from streams.errors import UnreadableRecordError
from streams.faust_shell import Batch, EngineApp
from streams.messages import Progress, Result, Task, TaskCancellation
from streams.outbox import Outbox, Parcel
from streams.tracing import Tracing
from streams.watermark import Watermark

_log = structlog.get_logger(__name__)
_tasks = Counter("commandcenter_tasks_total", "Tasks executed.", ["agent", "outcome"])
_in_hand = Gauge("commandcenter_tasks_in_hand", "Tasks running or next to run.", ["agent"])

_Place = tuple[TP, int]
"""A partition in one generation of the consumer group."""


class AgentRuntime:
    """Serves one agent's task topic."""

    def __init__(
        self,
        app: EngineApp,
        outbox: Outbox,
        execution: Execution,
        published: PublishedResults,
        agent: str,
        partitions: int,
        concurrency: int,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._app = app
        self._outbox = outbox
        self._execution = execution
        self._published = published
        self._agent = agent
        self._partitions = partitions
        self._concurrency = concurrency
        self._in_hand = _in_hand.labels(agent)
        self._successes = _tasks.labels(agent, "success")
        self._succeeded = 0
        self._free = asyncio.Semaphore(concurrency)
        self._watermarks: dict[_Place, Watermark] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._places: dict[str, list[tuple[_Place, int]]] = {}
        self._attempts: dict[str, Attempt] = {}
        self._orders = Orders(time.monotonic)
        self._progress: dict[str, tuple[Task, Progress]] = {}
        self._listened_for: list[asyncio.Future[None]] = []
        self._held: set[TP] = set()
        self._results = RecentResults()
        self._finished: list[tuple[_Place, int]] = []
        self._parcel = Parcel()
        self._something_finished = asyncio.Event()
        self._fault: BaseException | None = None
        self._stopping = False

    @property
    def in_hand(self) -> int:
        """Tasks that run or wait for their turn."""
        return len(self._work)

    async def accept(self, batch: Batch) -> None:
        """Begin every task of the batch; back-pressure is on the partition, not on the caller."""
        place = (batch.tp, batch.generation)
        watermark = self._watermarks.get(place)
        if watermark is None:
            for old in [p for p in self._watermarks if p[0] == batch.tp]:
                del self._watermarks[old]
            finished = self._app.batches.finished_beyond(batch.tp)
            watermark = self._watermarks[place] = Watermark(finished)
        end = self._app.batches.end_at_takeover(batch.tp)
        for record in batch.records:
            if not watermark.begin(record.offset):
                self._something_finished.set()  # by an owner before: so much more may be committed
                continue
            try:
                task = codec.tasks.decode(record.value)
            except UnreadableRecordError as error:
                dead_letters.put(self._parcel, self._partitions, record, error)
                self._finish(place, record.offset)
                continue
            if (result := await self._known(task, record, batch.generation, end)) is not None:
                self._put(task, result)
                self._results.put(task.id, result)
                for each in (*self._not_begun(task), (place, record.offset)):
                    self._finish(*each)
                continue
            if (places := self._places.get(task.id)) is not None:
                # Delivered again while under way, or sent twice: it is done once, for each of them.
                places[:] = [p for p in places if p[0] in self._watermarks]
                places.append((place, record.offset))
                continue
            self._places[task.id] = [(place, record.offset)]
            order = self._orders.get(task.id)
            if order is not None:
                self._conclude(task, self._execution.refuse(task, order))
                continue
            attempt = self._execution.attempt(task, self._say, self._until_told)
            self._attempts[task.id] = attempt
            work = attempt.executed_by = asyncio.create_task(self._run(attempt))
            self._work.add(work)
            work.add_done_callback(self._ended)
        if len(self._work) > 2 * self._concurrency:
            self._app.batches.hold(batch.tp)
            self._held.add(batch.tp)

    async def _known(self, task: Task, record: Any, generation: int, end: int) -> bytes | None:
        """The result that the task has; None where it is at work here, or has none yet.

        `end` is up to where the partition went when it was taken over: what is before may have been
        done by its owner before.
        """
        attempt = self._attempts.get(task.id)
        if attempt is not None and attempt.has_its_turn:
            return None
        result = self._results.get(task.id) or self._published.found(task.id)
        if result is None and record.offset < end:
            await self._published.look(generation, record.timestamp)
            return await self._known(task, record, generation, 0)  # it may have ended meanwhile
        return result

    def _not_begun(self, task: Task) -> list[tuple[_Place, int]]:
        """The records of a task that waits for its turn, which it will not get."""
        if self._attempts.pop(task.id, None) is None:
            return []
        return [p for p in self._places.pop(task.id) if p[0] in self._watermarks]

    def cancel(self, order: TaskCancellation) -> None:
        """End the task, or do not begin it: wherever it is now, and should it come again."""
        self._orders.put(order)
        attempt = self._attempts.get(order.task)
        if attempt is None:
            return
        if attempt.has_its_turn:
            attempt.cancel(order)
        else:
            del self._attempts[order.task]
            self._conclude(attempt.task, self._execution.refuse(attempt.task, order))

    async def _run(self, attempt: Attempt) -> None:
        task = attempt.task
        result = None
        try:
            await self._free.acquire()  # by hand: `async with` makes two more coroutines a task
            try:
                if self._may_begin(attempt):
                    result = await self._execution.execute(task, attempt)
            except asyncio.CancelledError:
                if self._stopping:
                    raise
                result = self._execution.broken_off(attempt)
            except RevokedError:
                pass
            finally:
                self._free.release()
        finally:
            attempt.end()
            if self._attempts.get(task.id) is attempt:
                del self._attempts[task.id]
                if result is None:
                    del self._places[task.id]
        if result is not None:
            self._conclude(task, result)

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._fault = self._fault or error
            self._something_finished.set()
        elif self._held and len(self._work) <= self._concurrency:
            self._something_finished.set()  # it may have had no result: others wait for its place

    def _may_begin(self, attempt: Attempt) -> bool:
        task = attempt.task.id
        if self._attempts.get(task) is not attempt:
            return False  # called off while it waited: it is answered already
        (_, generation), _ = self._places[task][-1]
        # Revoked while it waited: whoever owns it now begins it.
        return bool(generation == self._app.consumer_generation_id)

    def _conclude(self, task: Task, result: Result) -> None:
        """Have the result published, and then the task acknowledged."""
        places = self._places.pop(task.id)
        if self._tracing is not None:
            self._tracing.task_ended(task, result)
        if result.failure is None:
            self._succeeded += 1
        else:
            _tasks.labels(self._agent, result.failure.kind).inc()
        if task.id in self._progress:
            said, progress = self._progress.pop(task.id)
            self._put(said, codec.encode(progress))
        encoded = codec.encode(result)
        self._results.put(task.id, encoded)
        self._put(task, encoded)
        for place, offset in places:
            self._finish(place, offset)

    def _say(self, task: Task, progress: Progress) -> None:
        self._progress[task.id] = (task, progress)
        self._something_finished.set()

    async def _until_told(self, task: Task) -> bool:
        attempt = self._attempts[task.id]
        told = asyncio.get_running_loop().create_future()
        self._listened_for.append(told)
        self._something_finished.set()
        await told
        return self._may_begin(attempt)

    def _put(self, task: Task, message: bytes) -> None:
        self._parcel.add(topics.INBOX, task.reply_partition, task.run.encode(), message)

    def _finish(self, place: _Place, offset: int) -> None:
        self._finished.append((place, offset))
        self._something_finished.set()

    async def run_results(self) -> None:
        """Publish results as they come, many at once, until cancelled or a task has a fault."""
        while self._fault is None:
            await self._something_finished.wait()
            await self.publish()
        raise self._fault

    async def publish(self) -> None:
        """Publish what is finished or said now, then let offsets be committed."""
        self._something_finished.clear()
        said, self._progress = self._progress, {}
        listened_for, self._listened_for = self._listened_for, []
        for task, progress in said.values():
            self._put(task, codec.encode(progress))
        finished, self._finished = self._finished, []
        parcel, self._parcel = self._parcel, Parcel()
        if parcel:
            await self._outbox.deliver(parcel)
        for told in listened_for:
            if not told.done():  # who waited may have been cancelled
                told.set_result(None)
        self._in_hand.set(len(self._work))
        self._successes.inc(self._succeeded)
        self._succeeded = 0
        consumer = self._app.batches
        for place, offset in finished:
            watermark = self._watermarks.get(place)
            if watermark is not None:
                watermark.done(offset)
        for (tp, generation), watermark in self._watermarks.items():
            if watermark.next_offset is not None:
                consumer.mark_done(tp, generation, watermark.next_offset, watermark.note)
        if self._held and len(self._work) <= self._concurrency:
            for tp in self._held:
                consumer.release(tp)
            self._held.clear()

    async def drain(self, grace: float) -> None:
        """Let tasks under way finish for `grace` seconds, cancel the rest, publish the results."""
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=grace)
            self._stopping = True
            for work in late:
                work.cancel()
            for attempt in self._attempts.values():
                attempt.hasten()
            if late:
                _log.warning("tasks given up at stop", agent=self._agent, tasks=len(late))
                await asyncio.wait(late)
        await self.publish()

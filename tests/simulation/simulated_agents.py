"""The real agent runtime of one process, served by a consumer group in memory.

`AgentRuntime`, `Execution`, `Attempt`, `Watermark` and what they rest on are the product's; the
log, the group and the loop are ours. What an agent does is chosen by chance: it says how it goes
on, sleeps, answers, fails, hangs, or does not want to end.
"""

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from faust.types import TP
from hand_driven_loop import HandDrivenLoop
from laws import LawBrokenError
from pydantic import BaseModel, ConfigDict, RootModel
from simulated_blobs import SimulatedBlobs
from simulated_log import Log, SimulatedOutbox, pause
from simulated_work import OUTPUTS

from agents import Agent, Context, PermanentError
from agents.execution import Execution
from agents.payloads import Payloads
from agents.published_results import MARGIN_MS, PublishedResults
from agents.recent_results import RecentResults
from agents.registry import AgentRegistry
from agents.runtime import AgentRuntime
from streams import codec, topics, watermark
from streams.faust_shell import Batch
from streams.ids import task_id
from streams.messages import Result, Task

SERVED: Final = "x"
"""The agent that the workers serve. All others are somebody else's, in any language."""
CONCURRENCY: Final = 2
_TOPIC: Final = topics.tasks(SERVED)
_DEEDS: Final = ("goes on", "says something", "sleeps", "sleeps")
_FATES: Final = (
    *["succeeds"] * 10, *["fails"] * 2, "fails for good", "exits", "hangs", "will not end",
    "ends itself",
)  # fmt: skip
_RAISED: Final[dict[str, type[BaseException]]] = {
    "fails": RuntimeError,
    "fails for good": PermanentError,
    "exits": SystemExit,
}

_host: ContextVar["AgentHost"] = ContextVar("host")

agent: Final = Agent(SERVED, description="Does as it pleases.", concurrency=CONCURRENCY)


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class Said(RootModel[Any]):
    pass


@agent.action(timeout=20)
async def do(_: Anything, context: Context) -> Said:
    return await _host.get().act(context)


@agent.action(timeout=20)
async def undo(_: Anything, context: Context) -> Said:
    return await _host.get().act(context)


class Place(NamedTuple):
    """A task's record."""

    partition: int
    offset: int


class TaskGroup:
    """What the brokers know: who owns the partitions in which generation, and what is committed."""

    def __init__(self, log: Log, partitions: int) -> None:
        self._log = log
        self.generation = 0
        self.clock_is_steady = True
        """By the broker's clock it is known from where on the inbox is to be looked at."""
        self.committed: dict[int, tuple[int, str]] = dict.fromkeys(range(partitions), (0, ""))
        self._answered: dict[str, set[str]] = {}
        self._answered_at: dict[str, int] = {}
        self._looked: dict[int, int] = {}

    def commit(self, partition: int, offset: int, note: str) -> None:
        """Take a commit. All that it calls done must have its answer on the log."""
        before, _ = self.committed[partition]
        if offset < before:
            raise LawBrokenError(f"{_TOPIC}-{partition} goes back from {before} to {offset}")
        self.committed[partition] = (offset, note)
        for place in self.acknowledged(partition):
            task = self.task(place)
            if task.id not in self.answered():
                raise LawBrokenError(f"task {task.id} is committed ({place}), and has no result")

    def acknowledged(self, partition: int) -> list[Place]:
        """The records that nobody needs to work on any more."""
        offset, note = self.committed[partition]
        ranges = [(0, offset), *watermark.decode(offset, note)]
        return [Place(partition, n) for first, end in ranges for n in range(first, end)]

    def answered(self) -> dict[str, set[str]]:
        """The tasks that have a result on the log, and the workers that it is from."""
        for topic, partition in self._log.places(topics.INBOX):
            for record in self._log.read(topic, partition, self._looked.get(partition, 0)):
                message = codec.messages.decode(record.value)
                if isinstance(message, Result):
                    name = task_id(message.run, message.node, message.item, message.attempt)
                    self._answered.setdefault(name, set()).add(message.worker)
                    self._answered_at[name] = record.timestamp
            self._looked[partition] = self._log.end(topic, partition)
        return self._answered

    def answered_near(self, place: Place) -> str | None:
        """The task at this place, if it has a result that is not older than is looked for."""
        (record,) = self._log.read(_TOPIC, place.partition, place.offset, place.offset + 1)
        self.answered()
        name = self.task(place).id
        at = self._answered_at.get(name, 0)
        return name if at >= record.timestamp - MARGIN_MS else None

    def task(self, place: Place) -> Task:
        (record,) = self._log.read(_TOPIC, place.partition, place.offset, place.offset + 1)
        task: Task = codec.tasks.decode(record.value)
        return task

    def check_all_done(self) -> None:
        """Every task that was ever sent is answered and committed."""
        for partition, (offset, _) in self.committed.items():
            if offset != self._log.end(_TOPIC, partition):
                end = self._log.end(_TOPIC, partition)
                raise LawBrokenError(f"{_TOPIC}-{partition} is done to {offset} of {end}")


class GroupConsumer:
    """What the runtime sees of the consumer."""

    def __init__(self) -> None:
        self.generation = 0
        self.begin: dict[int, int] = {}
        self.position: dict[int, int] = {}
        self.finished: dict[int, watermark.Intervals] = {}
        self.ends: dict[int, int] = {}
        self.held: set[int] = set()
        self.done: dict[int, tuple[int, Callable[[], str]]] = {}

    def finished_beyond(self, tp: TP) -> watermark.Intervals:
        return self.finished.get(tp.partition, ())

    def end_at_takeover(self, tp: TP) -> int:
        return self.ends.get(tp.partition, 0)

    def hold(self, tp: TP) -> None:
        self.held.add(tp.partition)

    def release(self, tp: TP) -> None:
        self.held.discard(tp.partition)

    def mark_done(self, tp: TP, generation: int, offset: int, note: Callable[[], str]) -> None:
        if generation == self.generation:
            self.done[tp.partition] = (offset, note)


class _App:
    """What the runtime sees of Faust's app."""

    def __init__(self) -> None:
        self.batches = GroupConsumer()

    @property
    def consumer_generation_id(self) -> int:
        return self.batches.generation


class AgentHost:
    """The agents of one process.

    Args:
        log: where tasks come from and results go to.
        group: the consumer group of its tasks.
        chance: decides what happens next.
        now_ms: the clock of the world.
        kept: the blob store's content.
        resend: as `SimulatedOutbox` takes it.
        number: of the worker.
        say: takes what happens.
    """

    def __init__(
        self,
        log: Log,
        group: TaskGroup,
        chance: random.Random,
        now_ms: Callable[[], int],
        blobs: SimulatedBlobs,
        resend: float,
        number: int,
        partitions: int,
        say: Callable[[str], None],
    ) -> None:
        self._log = log
        self._group = group
        self._chance = chance
        self._say = say
        self._number = number
        self._name = f"w{number}"
        self._app = _App()
        self._obeyed = log.end(topics.CONTROL, 0)
        self._at_work: set[str] = set()
        self._answered: set[str] = set()  # of what was to be done when it joined
        self._broken: list[str] = []
        self._now_ms = now_ms
        self._began = now_ms()
        # From zero: a float of seconds since the epoch has no room for what is added to it.
        self.loop = HandDrivenLoop(lambda: (now_ms() - self._began) / 1000)
        app: Any = self._app
        outbox: Any = SimulatedOutbox(log, chance, resend)
        execution = Execution(
            AgentRegistry([agent]),
            Payloads(blobs),
            now_ms=now_ms,
            worker=self._name,
            clock_ns=lambda: now_ms() * 1_000_000,
        )
        published = PublishedResults(self._look)
        self._runtime = AgentRuntime(
            app, outbox, execution, published, SERVED, partitions, CONCURRENCY
        )
        self._publishing = self.loop.create_task(self._runtime.run_results())

    async def _look(self, since: int, found: RecentResults) -> None:
        """The results on the log since then, as of the broker's clock, which steps at times."""
        ends = {place: self._log.end(*place) for place in self._log.places(topics.INBOX)}
        await pause()
        for place, end in ends.items():
            records = self._log.read(*place, 0, end)
            # As Kafka finds the first record that is not older.
            start = next((n for n, r in enumerate(records) if r.timestamp >= since), end)
            for record in records[start:]:
                said = codec.messages.decode(record.value)
                if isinstance(said, Result):
                    name = task_id(said.run, said.node, said.item, said.attempt)
                    assert record.value is not None
                    found.put(name, record.value)

    # --- the agent ---

    async def act(self, context: Context) -> Said:
        """Be the agent, for one task."""
        task = context.task_id
        if task in self._at_work:
            self._broken.append(f"{task} is worked on twice at once")
        if self._name in self._group.answered().get(task, ()):
            self._broken.append(f"{task} is worked on again, and has its result from here")
        if self._is_member and task in self._acknowledged():
            self._broken.append(f"{task} is worked on, and was committed before")
        if task in self._answered and self._group.clock_is_steady:
            self._broken.append(f"{task} is worked on, and had its result before this worker came")
        self._at_work.add(task)
        if len(self._at_work) > CONCURRENCY:
            self._broken.append(f"at work on {sorted(self._at_work)}")
        self._say(f"worker {self._number} begins {task}")
        try:
            return await self._acted(context)
        finally:
            self._at_work.discard(task)

    async def _acted(self, context: Context) -> Said:
        for _ in range(self._chance.randint(0, 3)):
            deed = self._chance.choice(_DEEDS)
            if deed == "goes on":
                await asyncio.sleep(0)
            elif deed == "says something":
                await context.progress(self._chance.randint(0, 100))
            else:
                await asyncio.sleep(self._chance.choice((0.001, 0.2, 3)))
        await self._meets(self._chance.choice(_FATES))
        if self._chance.random() < 0.05:
            return Said(float("nan"))  # which is no JSON
        return Said.model_validate_json(self._chance.choice(OUTPUTS))

    async def _meets(self, fate: str) -> None:
        """How the work ends, where it ends otherwise than with an output."""
        if fate in _RAISED:
            raise _RAISED[fate]("boom")
        if fate == "hangs":
            await asyncio.Event().wait()
        if fate == "will not end":
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3_600)  # by the world's clock, as all here
            if self._chance.random() < 0.5:
                await asyncio.Event().wait()
        if fate == "ends itself":
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await asyncio.sleep(0)

    # --- the group ---

    def join(self, partitions: list[int]) -> None:
        """A member in the group's generation, which owns these partitions."""
        batches = self._app.batches
        committed = {p: self._group.committed[p] for p in partitions}
        batches.generation = self._group.generation
        batches.begin = {p: offset for p, (offset, _) in committed.items()}
        batches.position = dict(batches.begin)
        batches.finished = {p: watermark.decode(*found) for p, found in committed.items()}
        batches.ends = {p: self._log.end(_TOPIC, p) for p in partitions}
        batches.held.clear()
        batches.done.clear()
        left = [
            Place(p, n) for p, end in batches.ends.items() for n in range(batches.begin[p], end)
        ]
        self._answered = {name for place in left if (name := self._group.answered_near(place))}

    def commit(self) -> None:
        """Say what is done; who is no member in this generation is not heard."""
        batches = self._app.batches
        if not self._is_member:
            return
        for partition, (offset, note) in sorted(batches.done.items()):
            self._say(f"worker {self._number} commits {_TOPIC}-{partition}@{offset}")
            self._group.commit(partition, offset, note())

    @property
    def _is_member(self) -> bool:
        return self._app.batches.generation == self._group.generation

    def _acknowledged(self) -> set[str]:
        """The tasks of its partitions that need no work; one that was sent twice is two records."""
        done, left = set(), set()
        for partition in self._app.batches.position:
            acknowledged = set(self._group.acknowledged(partition))
            for offset in range(self._log.end(_TOPIC, partition)):
                place = Place(partition, offset)
                (done if place in acknowledged else left).add(self._group.task(place).id)
        return done - left

    # --- what it does ---

    def step(self, redeliver: float = 0.0) -> None:
        """Something: a round of the loop, mostly."""
        move = self._chance.choice(("go on",) * 6 + ("take", "take", "obey", "commit"))
        if move == "take":
            self.take(redeliver)
        elif move == "obey":
            self.obey()
        elif move == "commit":
            self.commit()
        self.go_on()

    def go_on(self) -> None:
        """One round of the loop."""
        token = _host.set(self)
        try:
            self.loop.step()
        finally:
            _host.reset(token)
        if self._publishing.done():
            fault = self._publishing.exception()
            raise LawBrokenError(f"worker {self._number}: {fault!r}") from fault
        for trouble in (*self._broken, *self.loop.troubles):
            raise LawBrokenError(f"worker {self._number}: {trouble}")

    def take(self, redeliver: float = 0.0) -> None:
        """Fetch tasks. What was fetched before a partition was held comes all the same."""
        batches = self._app.batches
        for partition, position in sorted(batches.position.items()):
            end = self._log.end(_TOPIC, partition)
            held = partition in batches.held and self._chance.random() < 0.7
            if position >= end or held:
                continue
            if self._chance.random() < redeliver:
                position = self._chance.randint(batches.begin[partition], position)
            end = self._chance.randint(position + 1, end)
            batches.position[partition] = max(batches.position[partition], end)
            records = self._log.read(_TOPIC, partition, position, end)
            self._say(f"worker {self._number} takes {_TOPIC}-{partition}@{position}+{len(records)}")
            batch = Batch(TP(_TOPIC, partition), batches.generation, records)
            self._inside(self._accept(batch))

    async def _accept(self, batch: Batch) -> None:
        await self._runtime.accept(batch)

    def obey(self) -> None:
        """Read the orders to end tasks that are new."""
        end = self._log.end(topics.CONTROL, 0)
        for record in self._log.read(topics.CONTROL, 0, self._obeyed, end):
            order = codec.cancellations.decode(record.value)
            if order.agent == SERVED:
                self._say(f"worker {self._number} is to end {order.task}")
                self._inside(self._cancel(order))
        self._obeyed = end

    async def _cancel(self, order: Any) -> None:
        self._runtime.cancel(order)

    def _inside(self, coroutine: Any) -> None:
        """Do it in the loop, whole: nothing of it waits."""
        token = _host.set(self)
        try:
            work = self.loop.create_task(coroutine)
        finally:
            _host.reset(token)
        while not work.done():
            self.go_on()
        work.result()

    @property
    def next_due(self) -> int | None:
        """When there is something to do, in milliseconds; None: not before others act."""
        if self._has_more():
            return self._now_ms()
        due = self.loop.next_due
        return None if due is None else self._began + math.ceil(due * 1000)

    def _has_more(self) -> bool:
        batches = self._app.batches
        unread = any(
            position < self._log.end(_TOPIC, p)
            for p, position in batches.position.items()
            if p not in batches.held
        )
        return unread or self._obeyed < self._log.end(topics.CONTROL, 0)

    def leave(self, tick: Callable[[], None]) -> None:
        """Stop in order: finish for a while what is in hand, give up the rest, commit."""
        token = _host.set(self)
        try:
            draining = self.loop.create_task(
                self._runtime.drain(self._chance.choice((0.001, 1, 60)))
            )
        finally:
            _host.reset(token)
        while not draining.done():
            self.go_on()
            tick()
        draining.result()
        self.commit()
        self.crash()

    def crash(self) -> None:
        """End here and now."""
        self.loop.abandon()

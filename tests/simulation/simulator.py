"""The whole engine under faults, without Kafka, threads or a clock: one seed, one history.

The real `Router`, `Orchestrator`, `RunStore`, `StateLog`, `Timers` and core run against a log in
memory. Their coroutines are driven by hand, one effect at a time; between any two effects another
worker goes on, agents report and answer, people approve, pause and cancel, clocks jump, the blob
store is away, or the worker crashes, is relieved of its partitions, follows as a standby, or goes
on as a zombie beside the new owner and perhaps comes back as a member, with the tables that it had.
Then the faults end, and everything has to come to rest; `laws` says how.

    make simulate SEEDS=1000
    python tests/simulation/simulator.py [--seeds 1000] [--from 0] [--trace]
"""

import argparse
import random
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import laws  # this and what follows is found by the path above
from faust.types import TP
from judged_run import SMALL
from msgspec import UNSET, Raw
from random_workflow import CORRELATION, EVENT_TYPE, ROLES
from simulated_agents import SERVED, AgentHost, TaskGroup
from simulated_blobs import SimulatedBlobs
from simulated_log import Log, Record, SimulatedOutbox, pause
from simulated_work import PROJECT, Execution, ended, executed, published
from structlog.testing import capture_logs

from agents import execution as agent_execution
from streams import codec, dead_letters, orchestrator, router, topics
from streams.catalog import Catalog, Definition
from streams.events import NodeApprovalRequested
from streams.faust_shell import Batch
from streams.messages import Approval, Cancel, Pause, Resume, RunMessage, Start
from streams.orchestrator import Decided, Orchestrator
from streams.outbox import partition_of
from streams.plan import Plan
from streams.records import Trigger
from streams.router import Router
from streams.state_log import StateLog
from streams.trigger import IncomingEvent, to_kafka

PARTITIONS: Final = 2
T0: Final = 1_700_000_000_000
PATIENCE: Final = 50_000
"""Steps after which a world without faults must have come to rest."""


class Faults(NamedTuple):
    """What may go wrong: probabilities a step, unless said otherwise."""

    crash: float = 0.02
    rebalance: float = 0.02
    zombie: float = 0.02
    clock: float = 0.03
    blobs: float = 0.02
    forgo: float = 0.2  # of what a standby reads: it is given up, as in a rebalance
    redeliver: float = 0.2  # of a fetched batch: it begins before what was read already
    resend: float = 0.15  # of a parcel
    tear_state: bool = False


ALL_FAULTS: Final = Faults()
Say = Callable[[str], None]


class Worker:
    """One process with a router and an orchestrator; `busy` are its coroutines under way."""

    def __init__(self, world: "World", number: int) -> None:
        self.number = number
        self.skew = 0
        self.zombie = False
        self.position: dict[int, int] = {}
        self.triggers: dict[int, int] = {}
        self.fetched: dict[int, int] = {}  # a zombie reads no further
        self.busy: dict[str, Coroutine[Any, Any, Any]] = {}
        self.done: dict[str, Callable[[], None]] = {}
        self.decided: deque[Decided] = deque()  # and not written yet; at most one waits
        self.state: dict[int, StateLog] = {}  # of what it owns, follows, or has followed
        self.followed: dict[int, int] = {}  # up to where a standby has read
        self.log = world.log
        self.blobs = SimulatedBlobs(world.kept, world.chance)
        outbox: Any = SimulatedOutbox(
            world.log, world.chance, world.faults.resend, tear_state=world.faults.tear_state
        )
        blobs: Any = self.blobs
        self.orchestrator = Orchestrator(
            outbox, outbox, PARTITIONS, world.plan_of, _prepared, blobs, limits=SMALL
        )
        self.orchestrator.changelog = self
        self.router = Router(outbox, PARTITIONS, world.catalog, _caught_up, blobs, SMALL)
        self.agents = AgentHost(
            world.log,
            world.group,
            world.chance,
            lambda: world.now,
            self.blobs,
            world.faults.resend,
            number,
            PARTITIONS,
            world.say,
        )

    # --- what the orchestrator knows and tells of the table's changelog ---

    async def may_write(self) -> bool:
        """The worst case: the group's answer is older than its decision."""
        return True

    def to_mend(self, partition: int, reads: int) -> set[bytes]:
        return self.state[partition].to_mend(reads)

    def written(self, partition: int, first: int | None, count: int, reads: int) -> None:
        look = f"look {partition}"
        if not self.state[partition].written(first, count, reads) and look not in self.busy:
            self.busy[look] = self._look(partition, self.state[partition])

    async def _look(self, partition: int, state: StateLog) -> None:
        end = self.log.end(topics.STATE, partition)
        while state.seen + 1 < end:
            records = self.log.read(topics.STATE, partition, state.seen + 1, end)
            await pause()
            state.look(records[: len(records) // 2 + 1])

    def restore(self, partition: int) -> StateLog:
        """Take all that is in the changelog behind what is here."""
        state = self.state.setdefault(partition, StateLog())
        begin = state.offset + 1
        state.restore(self.log.read(topics.STATE, partition, begin), begin)
        self.followed.pop(partition, None)
        return state

    def let_go(self) -> None:
        """Own nothing any more, and keep the tables."""
        self.orchestrator._stores.clear()
        self.position.clear()
        self.triggers.clear()
        for look in [name for name in self.busy if name.startswith("look")]:
            self.busy.pop(look).close()

    def step(self, name: str) -> None:
        """Let one coroutine go on to its next effect."""
        try:
            self.busy[name].send(None)
        except StopIteration as end:
            del self.busy[name]
            if name == "batch":
                self.decided.append(end.value)
            self.done.pop(name, lambda: None)()

    def finish(self) -> None:
        """End the batch in hand, and write what is decided."""
        while "batch" in self.busy or "write" in self.busy or self.decided:
            if "write" not in self.busy and self.decided:
                self.busy["write"] = self.orchestrator.write(self.decided.popleft())
            self.step("write" if "write" in self.busy else "batch")

    def crash(self) -> None:
        """End here and now; what is in memory is gone."""
        for coroutine in self.busy.values():
            coroutine.close()
        self.busy.clear()
        self.decided.clear()
        self.agents.crash()


def _compacted(records: list[Record]) -> list[Record]:
    """What compaction may leave: of each key the last record."""
    last = {record.key: record.offset for record in records}
    return [record for record in records if last[record.key] == record.offset]


class _Clock(NamedTuple):
    """The wall clock, for a module that looks at it."""

    time: Callable[[], float]


async def _prepared(_agent: str) -> None:
    """Every agent's topic exists."""


async def _caught_up() -> None:
    """Every workflow is in the catalog."""


class World:
    """One history, made by one seed; or by one, and workflows that are given."""

    def __init__(
        self,
        seed: int,
        faults: Faults = ALL_FAULTS,
        say: Say | None = None,
        workflows: Sequence[Definition] = (),
    ) -> None:
        self.chance = random.Random(seed)
        self.faults = faults
        self.say = say or (lambda _: None)
        self.log = Log(say)
        self.group = TaskGroup(self.log, PARTITIONS)
        self.now = T0
        self.broker_skew = 0
        self.kept: dict[str, bytes] = {}
        self.catalog = Catalog()
        for definition in workflows or published(self.chance.choice):
            self.catalog.apply(definition)
        self.most = self.chance.randint(1, 5)
        self.sent: list[IncomingEvent] = []
        self.executions: list[Execution] = []
        self.seen: dict[tuple[str, int], int] = {}
        self.runs: list[str] = []
        self.asked: list[tuple[str, NodeApprovalRequested]] = []
        self.workers: list[Worker] = []
        self.owner: dict[int, Worker] = {}
        self.routed = dict.fromkeys(range(PARTITIONS), 0)
        self.numbers = 0
        self._hire()
        for partition in range(PARTITIONS):
            self._give(partition, self.workers[0])
        self._regroup()

    async def plan_of(self, project: str, workflow: str, version: int) -> Plan | None:
        return self.catalog.get(project, workflow, version)

    # --- the history ---

    def run(self) -> None:
        """Chaos, then rest; `laws.LawBrokenError` where the engine fails."""
        with ExitStack() as small:
            small.callback(lambda: [worker.crash() for worker in self.workers])
            # Nobody sleeps here: the next step is the next try. And big is what is big for us.
            small.enter_context(patch.object(dead_letters, "time", _Clock(lambda: self.now / 1000)))
            small.enter_context(patch.object(orchestrator, "_BLOB_AGAIN_S", 0))
            small.enter_context(patch.object(router, "_BLOB_AGAIN_S", 0))
            small.enter_context(patch.object(router, "INLINE_LIMIT", SMALL.inline))
            small.enter_context(patch.object(agent_execution, "INLINE_LIMIT", SMALL.inline))
            for _ in range(self.chance.randint(50, 400)):
                self._tick()
                self.chance.choice(self._moves())()
            self._settle()
            self._check()
            self._finish()
            states = self._check()
            laws.check_ended(self.log, states)
            for worker in self.workers:
                worker.agents.commit()
            self.group.check_all_done()
            laws.check_requests(self.log, states)
            self._mend()
            for partition in range(PARTITIONS):
                table = self.table(partition, compacted=True)
                laws.check_table(self.log, states, partition, table)

    def _moves(self) -> list[Callable[[], None]]:
        moves: list[Callable[[], None]] = [self._tick]
        moves += [self._send] * (2 if len(self.sent) < self.most else 0)
        moves += [self._send_again] if self.sent and self._is(0.06) else []
        moves += [self._occur] if self._is(0.1) else []
        moves += [self._decide, self._order] if self._is(0.3) else []
        moves += [self._answer] * min(6, len(self.executions))
        for worker in self.workers:
            moves += [lambda w=worker: self._work(w)] * 6
            moves += [lambda w=worker: self._route(w)] * 3
            moves += [lambda w=worker: self._fire(w)] * 2
            moves += [lambda w=worker: self._look_at_state(w)]
            moves += [lambda w=worker: self._follow(w)]
            moves += [lambda w=worker: w.agents.step(self.faults.redeliver)] * 6
        for fault, move in (
            (self.faults.crash, self._crash),
            (self.faults.rebalance, self._rebalance),
            (self.faults.zombie, self._bewitch),
            (self.faults.clock, self._jump),
            (self.faults.blobs, self._block),
        ):
            if self._is(fault):
                moves = [move]
        return moves

    def _is(self, probability: float) -> bool:
        return self.chance.random() < probability

    def _append(self, message: RunMessage) -> None:
        partition = partition_of(message.run, PARTITIONS)
        self.log.append(
            topics.INBOX, partition, [(message.run.encode(), codec.encode(message), ())]
        )

    def _publish(self, event: IncomingEvent) -> None:
        headers, value = to_kafka(event)
        source = event.trigger.source
        self.log.append(
            topics.TRIGGERS,
            partition_of(source, PARTITIONS),
            [(source.encode(), value, tuple(headers))],
        )

    # --- what happens without anybody's fault ---

    def _tick(self) -> None:
        self.now += self.chance.choice((0, 1, 20, 300, 300, 2_000))
        self.log.clock = self.now + self.broker_skew

    def _send(self) -> None:
        """An event comes that starts two workflows."""
        data = self.chance.choice(
            (
                b'{"a":1,"list":["x","y",{"r":3}],"when":"2023-11-14T22:13:22Z"}',
                b'{"a":2,"list":[]}',
                b"1.0",
            )
        )
        trigger = Trigger(id=f"e{len(self.sent)}", source="ci", type="t", data=Raw(data))
        self.sent.append(IncomingEvent(trigger, PROJECT))
        self._publish(self.sent[-1])

    def _send_again(self) -> None:
        """The event is delivered twice."""
        self._publish(self.chance.choice(self.sent))

    def _occur(self) -> None:
        """An event comes that runs may wait for."""
        number = self.chance.randint(0, 9)
        data = Raw(b'{"k":%d}' % self.chance.choice(CORRELATION))
        trigger = Trigger(id=f"o{number}", source=f"s{number}", type=EVENT_TYPE, data=data)
        self._publish(IncomingEvent(trigger, PROJECT))

    def _decide(self) -> None:
        """Somebody answers what was asked, again perhaps, or without the right to."""
        self._look()
        if not self.asked:
            return
        run, asked = self.chance.choice(self.asked[-4:])
        approved = self._is(0.75)
        self._append(
            Approval(
                run=run,
                node=asked.node,
                item=asked.item,
                approved=approved,
                by=self.chance.choice(("ann", "bob")),
                roles=self.chance.choice((ROLES, ())),
                notes="" if approved else "no",
                inputs=Raw(b'{"edited":1}') if self._is(0.2) else UNSET,
            )
        )

    def _order(self) -> None:
        """Somebody cancels, pauses or resumes a run."""
        self._look()
        if not self.runs:
            return
        run = self.chance.choice(self.runs)
        orders: tuple[RunMessage, ...] = (
            Pause(run=run),
            Pause(run=run),
            Resume(run=run),
            Resume(run=run),
            Resume(run=run),
            Cancel(run=run, reason="enough", force=self._is(0.3)),
        )
        order = self.chance.choice(orders)
        self.say(f"order {order}")
        self._append(order)

    def _look(self) -> None:
        """See which runs there are, and what they ask."""
        for record in self._news(topics.INBOX):
            message = codec.messages.decode(record.value)
            if isinstance(message, Start):
                self.runs.append(message.run)
        for record in self._news(topics.EVENTS):
            decision = codec.decisions.decode(record.value)
            self.asked += [
                (decision.run, e) for e in decision.events if isinstance(e, NodeApprovalRequested)
            ]

    def _news(self, prefix: str) -> list[Any]:
        """The records of these topics that were not looked at before."""
        news = []
        for topic, partition in self.log.places(prefix):
            place = (topic, partition)
            news += self.log.read(topic, partition, self.seen.get(place, 0))
            self.seen[place] = self.log.end(topic, partition)
        return news

    def _answer(self) -> None:
        """An agent says what it has to say next of one of its tasks, in no order."""
        execution = self.chance.choice(self.executions)
        if execution.says:
            said = execution.says.popleft()
            self.say(f"{type(said).__name__} of {execution.task.id}")
            place = (topics.INBOX, execution.task.reply_partition)
            self.log.append(*place, [(said.run.encode(), codec.encode(said), ())])
        if not execution.says:
            self.executions.remove(execution)

    def _take_tasks(self) -> None:
        for record in self._news(topics.TASKS_PREFIX):
            if record.topic == topics.tasks(SERVED):
                continue
            task = codec.tasks.decode(record.value)
            self.executions += executed(self.chance, task, self.kept)
        for record in self._news(topics.CONTROL):
            assert record.key is not None
            for execution in self.executions:
                if execution.task.id == record.key.decode():
                    ended(self.chance, execution)

    def _work(self, worker: Worker) -> None:
        """The worker's batch, or the write of the one before, goes on to its next effect.

        What is decided is written in its order; while one waits for that, no other one is begun.
        """
        if "write" not in worker.busy and worker.decided:
            worker.busy["write"] = worker.orchestrator.write(worker.decided.popleft())
        if "batch" not in worker.busy and not worker.decided:
            batches = self._fetch(worker)
            if batches:
                worker.busy["batch"] = worker.orchestrator.decide(batches)
        under_way = [name for name in ("batch", "write") if name in worker.busy]
        if under_way:
            worker.step(self.chance.choice(under_way))
        elif worker.zombie and not worker.busy:
            self._end_zombie(worker)
        self._take_tasks()

    def _end_zombie(self, worker: Worker) -> None:
        """It learns what it is, and goes, or comes back as a member that owns nothing."""
        if self._is(0.5) and len(self.workers) < 4:
            self.say(f"worker {worker.number} is a member again")
            worker.let_go()
            worker.zombie = False
            worker.agents.join([])
        else:
            worker.agents.crash()
            self.workers.remove(worker)

    def _look_at_state(self, worker: Worker) -> None:
        """The worker goes on to look at what others wrote where it is the owner."""
        looks = [name for name in worker.busy if name.startswith("look")]
        if looks:
            worker.step(self.chance.choice(looks))

    def _follow(self, worker: Worker) -> None:
        """As a standby the worker takes some more of what the owner writes; or forgets it all."""
        partition = self.chance.randrange(PARTITIONS)
        if worker.zombie or self.owner[partition] is worker:
            return
        if self._is(0.1):
            worker.state.pop(partition, None)
            worker.followed.pop(partition, None)
            return
        state = worker.state.setdefault(partition, StateLog())
        begin = worker.followed.get(partition, state.offset + 1)
        end = self.chance.randint(begin, self.log.end(topics.STATE, partition))
        worker.followed[partition] = end
        if self._is(self.faults.forgo):
            self.say(f"worker {worker.number} forgoes {partition}@{begin}-{end} of the state")
            return
        state.restore(self.log.read(topics.STATE, partition, begin, end), begin)

    def _fetch(self, worker: Worker) -> list[Batch]:
        batches = []
        for partition, position in worker.position.items():
            end = self.log.end(topics.INBOX, partition)
            if worker.zombie:
                end = min(end, worker.fetched[partition])
            if position >= end:
                continue
            if self._is(self.faults.redeliver):
                position = self.chance.randint(0, position)
            end = self.chance.randint(position + 1, end)
            worker.position[partition] = max(worker.position[partition], end)
            records = self.log.read(topics.INBOX, partition, position, end)
            cut = self.chance.randint(1, len(records))
            tp = TP(topics.INBOX, partition)
            batches += [Batch(tp, 1, part) for part in (records[:cut], records[cut:]) if part]
        for batch in batches:
            first, length = batch.records[0].offset, len(batch.records)
            self.say(f"worker {worker.number} reads {batch.tp.partition}@{first}+{length}")
        return batches

    def _route(self, worker: Worker) -> None:
        """The worker's router goes on to its next effect, or takes the next events."""
        if "router" not in worker.busy:
            behind = self._unrouted(worker)
            if not behind or worker.zombie:
                return
            partition = self.chance.choice(behind)
            first = worker.triggers[partition]
            end = self.chance.randint(first + 1, self.log.end(topics.TRIGGERS, partition))
            records = self.log.read(topics.TRIGGERS, partition, first, end)
            self.say(f"worker {worker.number} routes {partition}@{first}+{len(records)}")
            worker.busy["router"] = worker.router.process(
                [Batch(TP(topics.TRIGGERS, partition), 1, records)]
            )
            worker.done["router"] = lambda: self._routed(worker, partition, end)
        worker.step("router")

    def _unrouted(self, worker: Worker) -> list[int]:
        """The partitions with events that the worker has not routed."""
        return [p for p, n in worker.triggers.items() if n < self.log.end(topics.TRIGGERS, p)]

    def _routed(self, worker: Worker, partition: int, end: int) -> None:
        """The offset is committed, unless the partition is somebody else's by now."""
        if self.owner[partition] is worker:
            worker.triggers[partition] = end
            self.routed[partition] = max(self.routed[partition], end)

    def _fire(self, worker: Worker) -> None:
        """The worker's timers go on to their next effect, or are looked at."""
        if "timers" not in worker.busy:
            worker.busy["timers"] = worker.orchestrator._fire(self.now + worker.skew)
        worker.step("timers")

    # --- faults ---

    def _crash(self) -> None:
        worker = self.chance.choice(self.workers)
        self.say(f"worker {worker.number} crashes in {sorted(worker.busy)}")
        worker.crash()
        self.workers.remove(worker)
        self._replace(worker)

    def _rebalance(self) -> None:
        """Every member finishes its batch and lets go; then the partitions are dealt anew."""
        self.say("rebalance")
        members = [w for w in self.workers if not w.zombie]
        for worker in members:
            worker.blobs.away = False  # or it would hold everybody up, in the real world too
            worker.finish()
            worker.let_go()
            worker.agents.commit()
        if len(members) < 3 and self._is(0.5):
            members.append(self._hire())
        elif len(members) > 1:  # its timers may be half sent
            gone = members.pop()
            if self._is(0.5):
                gone.agents.leave(self._tick)
            gone.crash()
            self.workers.remove(gone)
        for partition in range(PARTITIONS):
            self._give(partition, self.chance.choice(members))
        self._regroup()

    def _bewitch(self) -> None:
        """The owner is taken for dead, but goes on with what it has in hand."""
        worker = self.chance.choice(self.workers)
        if not worker.zombie:
            self.say(f"worker {worker.number} is a zombie in {sorted(worker.busy)}")
            worker.zombie = True
            worker.fetched = {p: self.log.end(topics.INBOX, p) for p in worker.position}
            self._replace(worker)

    def _jump(self) -> None:
        """A clock is set: the broker's, or a worker's."""
        skew = self.chance.choice((-3_600_000, -5_000, -10, 0, 10, 5_000, 3_600_000))
        if self._is(0.5):
            self.broker_skew = skew
            self.group.clock_is_steady = False
        else:
            self.chance.choice(self.workers).skew = skew

    def _block(self) -> None:
        """A worker cannot reach the blob store any more, or can again."""
        worker = self.chance.choice(self.workers)
        worker.blobs.away = not worker.blobs.away
        if worker.blobs.away:
            self.say(f"the blob store is away for worker {worker.number}")

    def _hire(self) -> Worker:
        self.numbers += 1
        worker = Worker(self, self.numbers)
        self.workers.append(worker)
        return worker

    def _replace(self, worker: Worker) -> None:
        """Who owns the worker's partitions from now on: somebody new, or the others."""
        mine = [p for p, owner in self.owner.items() if owner is worker]
        others = [w for w in self.workers if w is not worker and not w.zombie]
        for partition in mine:
            if not others or (len(self.workers) < 4 and self._is(0.5)):
                others.append(self._hire())
            self._give(partition, self.chance.choice(others))
        if mine:
            self._regroup()

    def _regroup(self) -> None:
        """The members join anew; what they have done by then is committed, or not in time."""
        members = [worker for worker in self.workers if not worker.zombie]
        for worker in members:
            if self._is(0.5):
                worker.agents.commit()
        self.group.generation += 1
        for worker in members:
            worker.agents.join([p for p, owner in self.owner.items() if owner is worker])

    def _give(self, partition: int, worker: Worker) -> None:
        """Restore the partition's table from the changelog, and resume where that says."""
        self.owner[partition] = worker
        table = worker.restore(partition).data
        worker.position[partition] = worker.orchestrator.own(partition, table)
        worker.triggers[partition] = self.routed[partition]
        self.say(f"worker {worker.number} owns {partition} from {worker.position[partition]}")

    def table(self, partition: int, *, compacted: bool = False) -> dict[bytes, bytes]:
        """What a restore makes of the changelog."""
        records = self.log.read(topics.STATE, partition)
        if compacted:
            records = _compacted(records)
        state = StateLog()
        state.restore(records)
        return state.data

    # --- rest ---

    def _settle(self) -> None:
        """No more faults: whoever is no owner ends, the owners read the inbox to its end."""
        for worker in list(self.workers):
            if worker not in self.owner.values():
                worker.crash()
                self.workers.remove(worker)
        self.faults = Faults(crash=0, rebalance=0, zombie=0, clock=0, blobs=0, redeliver=0)
        self.broker_skew = 0
        for worker in self.workers:
            worker.skew = 0
            worker.blobs.away = False
        self._read_all()

    def _read_all(self) -> None:
        for _ in range(PATIENCE):
            busy = [(w, name) for w in self.workers for name in w.busy]
            if busy:
                worker, name = self.chance.choice(busy)
                worker.step(name)
                self._take_tasks()
                continue
            for worker in self.workers:
                self._work(worker)
                self._route(worker)
                worker.agents.step()
            if not any(self._has_work(worker) for worker in self.workers):
                return
        raise laws.LawBrokenError("the log is never read to its end")

    def _has_work(self, worker: Worker) -> bool:
        due = worker.agents.next_due
        agents = due is not None and due <= self.now
        unread = any(p < self.log.end(topics.INBOX, n) for n, p in worker.position.items())
        return bool(worker.busy or worker.decided or unread or self._unrouted(worker) or agents)

    def _finish(self) -> None:
        """Agents answer, people resume, time passes, until nothing is left to wait for."""
        for _ in range(PATIENCE):
            self._tick()
            stores = [s for w in self.workers for s in w.orchestrator._stores.values()]
            heads = [state.head for s in stores for state in s._runs.values()]
            paused = [head.run for head in heads if head.paused_at is not None]
            if self.executions:
                self._answer()
            elif paused:
                self._append(Resume(run=paused[0]))
            else:
                dues = [d for s in stores if (d := s.timers.next_due) is not None]
                dues += [d for w in self.workers if (d := w.agents.next_due) is not None]
                if not dues:
                    return
                self.now = max(self.now, min(dues))
                self._tick()
                for worker in self.workers:
                    self._fire(worker)
            self._read_all()
            for store in stores:
                laws.check_timers(store)
        raise laws.LawBrokenError("the runs do not come to an end")

    def _mend(self) -> None:
        """Each owner writes twice more: it learns what others wrote at the end, and repairs it."""
        for _ in range(2):
            for partition in range(PARTITIONS):
                run = next(
                    f"n{n}" for n in range(99) if partition_of(f"n{n}", PARTITIONS) == partition
                )
                self._append(Cancel(run=run, reason="", by_parent=True))  # of a run that never was
            self._read_all()

    def _check(self) -> dict[str, Any]:
        states = laws.check_events(self.log)
        laws.check_tasks(self.log)
        laws.check_letters(self.log)
        laws.check_ends(self.log, states)
        laws.check_orders(self.log)
        for partition, worker in self.owner.items():
            store = worker.orchestrator._stores[partition]
            end = self.log.end(topics.INBOX, partition) or None
            if store.next_offset != end:
                raise laws.LawBrokenError(f"{partition} is read to {store.next_offset} of {end}")
            laws.check_timers(store)
            laws.check_table(self.log, states, partition, store._records)
            laws.check_table(self.log, states, partition, self.table(partition))
        return states


def check(
    seed: int,
    faults: Faults = ALL_FAULTS,
    say: Say | None = None,
    workflows: Sequence[Definition] = (),
) -> int:
    """Run one history; the error that it raises names the seed. Gives how many events it has."""
    with capture_logs() as logs:
        try:
            world = World(seed, faults, say, workflows)
            world.run()
        except Exception as error:
            error.add_note(
                f"seed {seed}: python tests/simulation/simulator.py --from {seed} --seeds 1 --trace"
            )
            raise
    if errors := [entry for entry in logs if entry["log_level"] == "error"]:
        raise laws.LawBrokenError(f"seed {seed}: an error was logged: {errors[0]}")
    return sum(state.head.seq for state in laws.check_events(world.log).values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=None, help="how many histories")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so much CPU time")
    parser.add_argument("--trace", action="store_true", help="say every step")
    arguments = parser.parse_args()
    say = (lambda text: sys.stdout.write(text + "\n")) if arguments.trace else None
    seeds = arguments.seeds or (1 if arguments.trace else 1_000)
    begun = time.process_time()
    played = events = 0
    for seed in range(arguments.first, arguments.first + seeds):
        try:
            events += check(seed, say=say)
        except Exception:  # noqa: BLE001  # whatever it is, the seed is what the user needs
            traceback.print_exc()
            return 1
        played += 1
        spent = time.process_time() - begun
        if arguments.seconds is not None and spent > arguments.seconds:
            break
    sys.stdout.write(f"{played} histories, {events} events, {spent:.1f} s CPU\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

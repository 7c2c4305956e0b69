"""Runs on a log in memory, with the real core, real actions, and a clock that jumps.

Rules:
- What is heard is heard in the order of its time; what it decides is decided by `streams.run`.
- Actions are really executed, in the caller's loop. Their work takes no time on the clock.
- While nothing is at work the clock jumps to what is due next. An action that is at work for longer
  than `patience` (real seconds) is taken to hang: then the clock jumps as well, and its limits
  count. Until then it gives its heartbeats.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from agents.attempt import Attempt
from agents.execution import Execution
from agents.payloads import Payloads
from agents.registry import AgentRegistry
from agents.secrets import GivenSecrets
from streams.errors import NotFoundError
from streams.events import Event
from streams.ids import node_key, request_source
from streams.lifecycle import TERMINAL, RunState
from streams.messages import (
    Message,
    Occurrence,
    Progress,
    Result,
    RunMessage,
    RunRequest,
    Start,
    Task,
    TaskCancellation,
    Timer,
)
from streams.payload import MissingBlobError, Reference, reference_in, reference_to
from streams.plan import Plan
from streams.records import Failure, NodeStatus, Trigger
from streams.routing import REQUESTED_TYPE
from streams.run import DEFAULT_LIMITS, Outcome, decide
from streams.run_state import NodeState

BEGIN: Final = 1_700_000_000_000
"""When the clock begins: 2023-11-14T22:13:20Z."""

_WORKER: Final = "test"
_GRACE_S: Final = 0.5


class Decided(NamedTuple):
    """An event of a run: its place there, when it was decided (ms), and itself."""

    run: str
    seq: int
    at: int
    event: Event


class MemoryBlobStore:
    """Keeps content by its hash, for payloads and actions."""

    def __init__(self) -> None:
        self.limit = DEFAULT_LIMITS.payload
        self._contents: dict[str, bytes] = {}

    async def put(self, _project: str, content: bytes) -> Reference:
        """Keep the content."""
        return self.keep(content)

    async def get(self, _project: str, reference: Reference) -> bytes:
        """The content; `NotFoundError` where there is none."""
        if reference.digest not in self._contents:
            raise NotFoundError(f"there is no payload {reference.digest}")
        return self._contents[reference.digest]

    def keep(self, content: bytes) -> Reference:
        """Keep the content."""
        reference = reference_to(content)
        self._contents[reference.digest] = content
        return reference

    def at_hand(self, reference: Reference) -> bytes:
        """The content, for the core."""
        if reference.digest not in self._contents:
            raise MissingBlobError(reference)
        return self._contents[reference.digest]


class _Work(NamedTuple):
    """A task in hand."""

    attempt: Attempt
    doing: asyncio.Task[None]


class MemoryLog:
    """Runs of some workflows, until everything that they wait for has come.

    Args:
        plans: the workflows by name.
        registry: the agents.
        secrets: the actions' secrets.
        patience: real seconds after which an action that is at work is taken to hang.
        react: called with each event; gives what people and others then say.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        registry: AgentRegistry,
        secrets: Mapping[str, str],
        patience: float,
        react: Callable[[Decided], Iterable[Message]],
    ) -> None:
        self.now = BEGIN
        self.decided: list[Decided] = []
        self.states: dict[str, RunState] = {}
        self._plans = plans
        self._plan_of: dict[str, Plan] = {}
        self._store = MemoryBlobStore()
        self._execution = Execution(
            registry,
            Payloads(self._store),
            now_ms=lambda: self.now,
            worker=_WORKER,
            secrets=GivenSecrets(secrets),
            blobs=self._store,
            clock_ns=lambda: self.now * 1_000_000,
            grace=_GRACE_S,
        )
        self._patience = patience
        self._react = react
        self._inbox: list[tuple[int, int, Message]] = []
        self._order = count()
        self._work: dict[str, _Work] = {}
        self._heard = asyncio.Event()
        self._fault: BaseException | None = None
        self._moved = True
        """Whether a task has begun or ended since patience was last counted anew."""
        self._until = 0.0
        self._last_timer = (0, "", "")
        self._ending = False

    async def run(self, start: Start) -> None:
        """Live through a run, from its start to its end."""
        self.put(start)
        try:
            while True:
                self._hear_all()
                state = self.states.get(start.run)
                if state is not None and state.head.status in TERMINAL:
                    return
                if not self._work or not await self._progress():
                    self._pass_time()
        finally:
            await self._end_work()
            self._execution.close()

    def put(self, message: Message) -> None:
        """Let the run that is meant hear the message now; what happens outside, every run."""
        heapq.heappush(self._inbox, (self.now, next(self._order), message))
        self._heard.set()

    def value(self, payload: Raw) -> Any:
        """The JSON value, with content where references are."""
        return self._whole(msgspec.json.decode(payload))

    def _whole(self, value: Any) -> Any:
        if (reference := reference_in(value)) is not None:
            return self._whole(msgspec.json.decode(self._store.at_hand(reference)))
        if isinstance(value, dict):
            return {key: self._whole(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._whole(each) for each in value]
        return value

    # --- deciding ---

    def _hear_all(self) -> None:
        while self._inbox:
            at, _, message = heapq.heappop(self._inbox)
            self.now = max(self.now, at)
            if isinstance(message, Start):
                self._plan_of.setdefault(message.run, self._plans[message.workflow])
            for run in self._plan_of if isinstance(message, Occurrence) else (message.run,):
                self._hear(run, message)

    def _hear(self, run: str, message: Message) -> None:
        plan = self._plan_of.get(run)
        if plan is None:  # a step that was called off before it began
            return
        state = self.states.get(run)
        outcome = decide(state, message, self.now, plan, 0, blobs=self._store.at_hand)
        for content in outcome.blobs:
            self._store.keep(content)
        if outcome.state is not None:
            self.states[run] = outcome.state
        for task in outcome.tasks:
            self._begin(task)
        for order in outcome.cancellations:
            self._cancel(order)
        for other in outcome.messages:
            self.put(other)
        for request in outcome.requests:
            self.put(self._requested(request))
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        decision = outcome.decision
        if decision is None:
            return
        for seq, event in enumerate(decision.events, decision.seq):
            decided = Decided(decision.run, seq, decision.at, event)
            self.decided.append(decided)
            for message in self._react(decided):
                self.put(message)

    def _requested(self, request: RunRequest) -> RunMessage:
        parent = request.parent
        if request.workflow not in self._plans:
            known = ", ".join(sorted(self._plans))
            text = f"there is no workflow {request.workflow!r} in this test (there are: {known})"
            return Result(
                run=parent.run,
                node=parent.node,
                item=parent.item,
                attempt=parent.attempt,
                started_at=self.now,
                finished_at=self.now,
                failure=Failure(kind="unknown_workflow", message=text, retryable=False),
            )
        return Start(
            run=request.run,
            project=request.project,
            workflow=request.workflow,
            version=1,
            trigger=Trigger(
                id=request.run,
                source=request_source(parent.run),
                type=REQUESTED_TYPE,
                data=request.inputs,
            ),
            depth=request.depth,
            parent=parent,
            traceparent=request.traceparent,
        )

    # --- working ---

    def _begin(self, task: Task) -> None:
        attempt = self._execution.attempt(task, self._say)
        self._moved = True
        self._work[task.id] = _Work(attempt, asyncio.create_task(self._do(attempt)))

    async def _do(self, attempt: Attempt) -> None:
        try:
            result = await self._execution.execute(attempt.task, attempt)
        except asyncio.CancelledError:
            if self._ending:
                raise
            result = self._execution.broken_off(attempt)
        except Exception as error:  # noqa: BLE001 -- ours: it ends the test, not the loop
            self._fault = error
            self._heard.set()
            return
        attempt.end()
        del self._work[attempt.task.id]
        self._moved = True
        self.put(result)

    def _say(self, _task: Task, progress: Progress) -> None:
        self.put(progress)

    def _cancel(self, order: TaskCancellation) -> None:
        work = self._work.get(order.task)
        if work is not None:
            work.attempt.cancel(order)

    async def _progress(self) -> bool:
        """Whether something is heard before patience ends; telling progress does not renew it."""
        if self._moved:
            self._moved = False
            self._until = asyncio.get_running_loop().time() + self._patience
        try:
            async with asyncio.timeout_at(self._until):
                while not self._inbox:
                    if self._fault is not None:
                        raise self._fault
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return False
        return True

    async def _end_work(self) -> None:
        """Whoever is still at work is told that nobody waits any more."""
        self._ending = True
        doing = [work.doing for work in self._work.values()]
        for work in self._work.values():
            work.doing.cancel()
            work.attempt.hasten()
            work.attempt.end()
        await asyncio.gather(*doing, return_exceptions=True)

    # --- time ---

    def _pass_time(self) -> None:
        timer = due, run, key = min(self._due())
        beating = self._beating(due)
        self.now = max(self.now, due - 1 if beating else due)
        for message in beating:
            self.put(message)
        if not beating:
            if timer == self._last_timer:
                raise AssertionError(f"the timer of {key or 'the run'} changes nothing")
            self._last_timer = timer
            self.put(Timer(run=run, due=due, node=key))

    def _due(self) -> Iterator[tuple[int, str, str]]:
        for run, state in self.states.items():
            if state.head.status in TERMINAL:
                continue
            if state.head.paused_at is None:
                yield state.head.deadline, run, ""
            for key, node in state.nodes.items():
                if node.wake_at is not None:
                    yield node.wake_at, run, key

    def _beating(self, due: int) -> list[Progress]:
        """The heartbeats without which attempts in hand would count as lost by then."""
        found = []
        for work in self._work.values():
            task = work.attempt.task
            state = self._state_of(task)
            if state is None or state.beat_by is None or state.beat_by > due or state.stopping:
                continue
            found.append(
                Progress(
                    run=task.run,
                    node=task.node,
                    item=task.item,
                    attempt=task.attempt,
                    worker=_WORKER,
                )
            )
        return found

    def _state_of(self, task: Task) -> NodeState | None:
        run = self.states.get(task.run)
        state = None if run is None else run.nodes.get(node_key(task.node, task.item))
        current = state is not None and state.status is NodeStatus.RUNNING
        return state if current and state is not None and state.attempt == task.attempt else None

"""Executing one task: inputs in, result out, whatever the agent does.

Rules:
- `Execution.execute` raises nothing but the cancellation of its caller: what an agent does wrong
  is a `Failure` in the result.
- Only a failure that another attempt could cure is retryable: an exception or a time-out is, wrong
  inputs or outputs are not, and an agent says so itself with `PermanentError`.
- Whoever was told to end and gives no output has been cancelled, whatever it does about it. An
  output that it gives all the same counts: the work is done, and may have to be undone.
- Every result of an action that was called carries what that cost, a failed one too: the time at
  work at the agent's rate, and what the action recorded. Waiting for a turn is free.
- No secret that the action asked for leaves with the result.
- No log line for a task: the result is the record of it.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import UNSET, Raw

from agents.action import Action
from agents.attempt import Attempt
from agents.blob import BlobKeeper, MemoryBlobs, ProjectBlobs
from agents.colleagues import WorkerColleagues
from agents.context import Context
from agents.cost import DEFAULT_PRICE, Rate, compute
from agents.outcome import failure_of, final, over_time, understood, written
from agents.payloads import PayloadError, Payloads
from agents.readable import ReadablePaths
from agents.registry import AgentRegistry
from agents.reporter import Say, nobody
from agents.sandbox.actions import SandboxedActions
from agents.secrets import GivenSecrets, Secrets, SecretSource
from agents.threads import Threads
from agents.time_limit import GRACE_S, OverTimeError, within
from streams.cost import Cost
from streams.messages import Result, Task, TaskCancellation
from streams.payload import INLINE_LIMIT, has_references
from streams.records import Failure


class Execution:
    """Executes tasks for the agents of a registry.

    Args:
        registry: the agents that this worker serves.
        payloads: where big inputs come from, and big outputs go to.
        now_ms: the clock, milliseconds since the epoch.
        worker: the name of this worker, for the result.
        threads: where sync actions run; its `running` and `abandoned` are worth watching.
        grace: seconds that an async action has to clean up after its time-out.
        rate: the price of compute, for agents that have none of their own.
        secrets: where the actions' secrets are.
        blobs: where the actions' blobs go; in memory if unsaid, for tests.
        sandboxed: where actions that ask for a sandbox are called; in this process if unsaid, for
            tests.
        paths: what of the machine inputs may name; anything if unsaid, for tests.
        clock_ns: measures the time at work, in nanoseconds.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        payloads: Payloads,
        *,
        now_ms: Callable[[], int],
        worker: str = "",
        threads: Threads | None = None,
        grace: float = GRACE_S,
        rate: Rate = DEFAULT_PRICE,
        secrets: SecretSource | None = None,
        blobs: BlobKeeper | None = None,
        sandboxed: SandboxedActions | None = None,
        paths: ReadablePaths | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.threads = threads or Threads()
        self._payloads = payloads
        self._find = registry.find
        self._explain_missing = registry.explain_missing
        self._now_ms = now_ms
        self._worker = worker
        self._grace = grace
        self._secrets = secrets or GivenSecrets({})
        self._blobs = blobs
        self._sandboxed = sandboxed
        self._paths = paths
        self._colleagues = WorkerColleagues(registry, self.threads, sandboxed, grace, paths)
        self._clock_ns = clock_ns
        self._versions = {name: agent.version for name, agent in registry.agents.items()}
        self._rates = {
            name: rate if agent.rate is None else Rate(agent.rate, f"{name}@{agent.version}")
            for name, agent in registry.agents.items()
        }

    def attempt(self, task: Task, say: Say = nobody) -> Attempt:
        """The task, in hand; `say` takes its progress records."""
        return Attempt(task, say, self._worker, self._grace, self._clock_ns)

    def can_block_loop(self, task: Task) -> bool:
        """Whether the task's action is called in the loop itself."""
        action = self._find(task.agent, task.action)
        return action is not None and action.is_async and action.execution != "sandbox"

    async def execute(self, task: Task, attempt: Attempt | None = None) -> Result:
        """Execute one attempt. The time limit is the shorter of the task's and the action's.

        Where `attempt` is given, it carries the action's signals, and can end the work.
        """
        attempt = attempt or self.attempt(task)
        attempt.begin()
        started_at = self._now_ms()
        try:
            outcome = await self._outcome(task, attempt, started_at)
        except PayloadError as error:
            outcome = error.failure
        except asyncio.CancelledError:
            if attempt.cancelled is None:
                raise
            outcome = final("cancelled", "")
        if (reason := attempt.cancelled) is not None:
            _forget_cancellation()
            if isinstance(outcome, Failure):
                outcome = final("cancelled", reason)
        if attempt.context is not None and attempt.context.folder.is_made:
            attempt.end()  # it is done: nobody ends what only tidies up
            await asyncio.to_thread(attempt.context.folder.remove)
        return self._result(task, started_at, outcome, self._costs(attempt))

    def refuse(self, task: Task, order: TaskCancellation) -> Result:
        """The result of a task that is not begun, because it was called off."""
        return self._result(task, self._now_ms(), final("cancelled", order.reason), ())

    def broken_off(self, attempt: Attempt) -> Result:
        """The result of a task whose action cancelled the asyncio task that it was called in."""
        text = "the action cancelled its own asyncio task"
        failure = Failure(kind="agent_error", message=text)
        return self._result(attempt.task, self._now_ms(), failure, self._costs(attempt))

    def _costs(self, attempt: Attempt) -> tuple[Cost, ...]:
        if attempt.worked_ns is None:
            return ()
        agent = attempt.task.agent
        worked = compute(agent, attempt.worked_ns, self._rates[agent])
        context = attempt.context
        return (worked,) if context is None else (worked, *context.cost.entries)

    def _result(
        self, task: Task, started_at: int, outcome: Raw | Failure, costs: tuple[Cost, ...]
    ) -> Result:
        return Result(
            run=task.run,
            node=task.node,
            item=task.item,
            attempt=task.attempt,
            started_at=started_at,
            finished_at=self._now_ms(),
            worker=self._worker,
            agent_version=self._versions.get(task.agent, ""),
            output=UNSET if isinstance(outcome, Failure) else outcome,
            failure=outcome if isinstance(outcome, Failure) else None,
            costs=costs,
        )

    def close(self) -> None:
        """Let the threads end."""
        self.threads.close()

    async def _outcome(self, task: Task, attempt: Attempt, started_at: int) -> Raw | Failure:
        action = self._find(task.agent, task.action)
        if action is None:
            return final("unknown_action", self._explain_missing(task.agent, task.action))
        if action.risk == "APPROVAL_REQUIRED" and not task.approved:
            text = f"a person has to approve {task.agent} {task.action} before it is executed"
            return final("approval_required", text)
        limit = min(task.timeout_ms / 1000, action.timeout)
        content = bytes(task.inputs)
        if has_references(content):
            until = self._end_of(task, started_at)
            content = await self._payloads.inputs(task.project, content, until)
            limit = min(limit, max(0.0, until - asyncio.get_running_loop().time()))
        inputs = understood(action, content, None, self._paths)
        if isinstance(inputs, Failure):
            return inputs
        try:
            produced = await self._call(action, attempt, inputs, limit, started_at)
        except OverTimeError:
            return over_time(limit)
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            return failure_of(error, attempt.context)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- an agent may raise anything
            return failure_of(error, attempt.context)
        finally:
            attempt.end_work()
        output = written(action, produced, attempt.context)
        if isinstance(output, Failure):
            return output
        self._payloads.check(output)
        if len(output) <= INLINE_LIMIT:
            return Raw(output)
        until = self._end_of(task, started_at)
        return await self._payloads.output(task.project, output, until)

    def _end_of(self, task: Task, started_at: int) -> float:
        """When the task's time is over, by the clock of the loop."""
        left = (started_at + task.timeout_ms - self._now_ms()) / 1000
        return asyncio.get_running_loop().time() + left

    async def _call(
        self,
        action: Action[Any, Any],
        attempt: Attempt,
        inputs: object,
        limit: float,
        started_at: int,
    ) -> object:
        task = attempt.task
        sandboxed = self._sandboxed if action.execution == "sandbox" else None
        if action.takes_context or sandboxed is not None:
            context = attempt.context = Context(
                task_id=task.id,
                run_id=task.run,
                project=task.project,
                workflow=task.workflow,
                node=task.node,
                attempt=task.attempt,
                item=task.item,
                agent=task.agent,
                action=task.action,
                started_at=started_at,
                traceparent=task.traceparent,
                signals=attempt.signals,
                secrets=Secrets(self._secrets),
                blobs=self._blobs_of(task.project),
                colleagues=self._colleagues,
            )
            if sandboxed is not None:
                attempt.begin_work()
                return await sandboxed.call(action, context, inputs, limit)
            work = partial(action.function, inputs, context)
        else:
            work = partial(action.function, inputs)
        if action.is_async:
            attempt.begin_work()
            return await within(limit, work(), grace=self._grace, bound_by=attempt.bound_by)
        name = f"{task.agent} {task.action} {task.id}"
        return await self.threads.within(limit, name, work, attempt.begin_work)

    def _blobs_of(self, project: str) -> ProjectBlobs | MemoryBlobs:
        if self._blobs is None:
            return MemoryBlobs()
        return ProjectBlobs(self._blobs, project, asyncio.get_running_loop())


def _is_being_cancelled() -> bool:
    """Whether somebody cancels the caller, or the agent awaited something that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _forget_cancellation() -> None:
    """The attempt was cancelled, not what the current task does next."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()

"""The other actions of the same worker, for an action that calls some of them in its own attempt.

Rules:
- They are called as for a task: inputs and output are validated, the action's time limit and its
  sandbox hold, and each call has a workspace and an idempotency key of its own.
- What a person has to agree to is not called, whoever agreed to the step of the caller.
- A call gets only those secrets that it is given by name.
- Costs, progress and cancellation are those of the caller's attempt. Called actions call no others.
- Calls stand in no event of the run: the caller tells of them.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from agents.action import Action
from agents.context import Context
from agents.errors import PermanentError
from agents.outcome import failure_of, over_time, understood, written
from agents.readable import ReadablePaths
from agents.registry import AgentRegistry
from agents.sandbox.actions import SandboxedActions
from agents.threads import Threads
from agents.time_limit import GRACE_S, OverTimeError, within
from agents.workspace import Workspace
from streams.records import Failure


class WorkerColleagues:
    """Finds and calls the actions of a registry.

    Args:
        registry: the agents that this worker serves.
        threads: where sync actions run.
        sandboxed: where actions that ask for a sandbox are called; in this process if unsaid, for
            tests.
        grace: seconds that an async action has to clean up after its time-out.
        paths: what of the machine inputs may name; anything if unsaid, for tests.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        threads: Threads | None = None,
        sandboxed: SandboxedActions | None = None,
        grace: float = GRACE_S,
        paths: ReadablePaths | None = None,
    ) -> None:
        self._registry = registry
        self._threads = threads or Threads()
        self._sandboxed = sandboxed
        self._grace = grace
        self._paths = paths

    def find(self, agent: str, action: str) -> Action[Any, Any]:
        """An action that may be called. Raises `PermanentError`, which says why not."""
        found = self._registry.find(agent, action)
        if found is None:
            raise PermanentError(self._registry.explain_missing(agent, action))
        if found.risk == "APPROVAL_REQUIRED":
            raise PermanentError(
                f"{agent} {action} is done only when a person has agreed to it; make it a step of"
                " the workflow"
            )
        return found

    async def call(
        self,
        caller: Context,
        agent: str,
        action: str,
        inputs: bytes,
        *,
        secrets: Iterable[str] = (),
        number: int = 1,
    ) -> bytes | Failure:
        """The JSON that the action gives for these JSON inputs, or why there is none.

        `number` tells calls apart that are otherwise equal. Raises `PermanentError` as `find` does,
        and the cancellation of the caller.
        """
        called = self.find(agent, action)
        digest = sha256(b"\0".join((agent.encode(), action.encode(), inputs)))
        context = replace(
            caller,
            task_id=f"{caller.task_id}/{digest.hexdigest()[:16]}-{number}",
            agent=agent,
            action=action,
            secrets=caller.secrets.only(secrets),
            folder=Workspace(),
            colleagues=None,
        )
        parsed = understood(called, inputs, context, self._paths)
        if isinstance(parsed, Failure):
            return parsed
        try:
            return written(called, await self._answer(called, context, parsed), context)
        except OverTimeError:
            return over_time(called.timeout)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- an agent may raise anything
            return failure_of(error, context)
        finally:
            if context.folder.is_made:
                await asyncio.to_thread(context.folder.remove)

    async def _answer(self, action: Action[Any, Any], context: Context, inputs: object) -> object:
        if action.execution == "sandbox" and self._sandboxed is not None:
            return await self._sandboxed.call(action, context, inputs, action.timeout)
        arguments = (inputs, context) if action.takes_context else (inputs,)
        work = partial(action.function, *arguments)
        if action.is_async:
            return await within(action.timeout, work(), grace=self._grace)
        name = f"{action.agent} {action.name} {context.task_id}"
        return await self._threads.within(action.timeout, name, work)

"""Actions with `execution="sandbox"`: called there as they would be called in the worker.

What the action tells and asks through its `Context` is told to, and asked of, the worker's own.
What its inputs want to have cloned (a property `checkout`) is cloned before it begins, by a job of
its own.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from agents.action import Action
from agents.blob import Blob
from agents.context import Context
from agents.outbound import BlockedError
from agents.readable import ReadablePaths, UnreadableError
from agents.repository.checkout import TIME_LIMIT_S as CLONE_S
from agents.repository.checkout import Checkout, addresses, checked_out, surroundings
from agents.sandbox.calling import resolve
from agents.sandbox.job import Call, FailureKind, Job, Limits, Problem, size
from agents.sandbox.sandbox import Sandbox
from streams.cost import Cost
from streams.errors import AgentError, CallerError, CommandCenterError
from streams.records import Failure

_CLONE: Final = f"{checked_out.__module__}:{checked_out.__qualname__}"
_OF_EACH: Final = Limits()
_ADVICE: Final[dict[FailureKind, str]] = {
    "time_limit": "give it less to do, or the step a longer timeout, up to the action's own",
    "out_of_memory": "have it take less at once",
    "cpu_limit": "give it less to do",
    "process_limit": f"have it run fewer than {_OF_EACH.processes} at once",
    "file_limit": f"have it write files of {size(_OF_EACH.file)} at most",
    "disk_limit": "have it write less and fewer files, or remove what it needs no more",
    "open_files_limit": f"have it close files: each process may have {_OF_EACH.open_files} open",
    "output_limit": "have it print less, or into a file",
}
"""What to change where a limit was met."""
_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical"})
_OWN_KEYS: Final = frozenset(
    {"action", "attempt", "event", "level", "logger", "node", "run", "self", "task", "timestamp"}
)
_TOLD: Final = ("task_id", "run_id", "project", "workflow", "node", "attempt", "item", "agent",
                "action", "started_at", "traceparent")  # fmt: skip


class SandboxedError(Exception):
    """The action has no result; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class SandboxedActions:
    """Calls actions in a sandbox.

    Args:
        sandbox: where; opened already.
        paths: what of the machine inputs may name.
        result_limit: bytes of JSON that an action may return.
    """

    def __init__(
        self, sandbox: Sandbox, paths: ReadablePaths, result_limit: int = Limits().result
    ) -> None:
        self._sandbox = sandbox
        self._paths = paths
        self._result_limit = result_limit

    async def call(
        self, action: Action[Any, Any], context: Context, inputs: Any, limit: float
    ) -> object:
        """What the action gives, as plain JSON values.

        `inputs` are of its model. Raises `SandboxedError`. Whoever cancels this kills the action.
        """
        try:
            readable = self._paths.of(inputs)
        except UnreadableError as error:
            raise _refused(error) from error
        async with AsyncExitStack() as stack:
            workspace = None
            checkout = getattr(inputs, "checkout", None)
            if isinstance(checkout, Checkout):
                began = time.monotonic()
                workspace = await stack.enter_async_context(self._sandbox.workspace())
                await self._clone(checkout, workspace, context, limit)
                limit = max(0.1, limit - (time.monotonic() - began))
            outcome = await self._sandbox.run(
                Job(
                    work=Call(
                        target=target(action),
                        inputs=inputs.model_dump_json(by_alias=True).encode(),
                        context={name: getattr(context, name) for name in _TOLD},
                    ),
                    # An attempt that is called off is cancelled after the workflow's grace.
                    limits=Limits(
                        memory=action.memory, wall=limit, grace=None, result=self._result_limit
                    ),
                    readable=readable,
                    workspace=workspace,
                ),
                ContextAttendant(context),
                context.cancelled,
            )
        if outcome.failure is not None:
            raise SandboxedError(_failure(outcome.failure))
        return json.loads(outcome.output or b"null")

    async def _clone(
        self, checkout: Checkout, workspace: Path, context: Context, limit: float
    ) -> None:
        """Put a repository into the workspace; this job alone has the network."""
        context.report_progress(0, "cloning")
        around = surroundings()
        certificates = [Path(around["SSL_CERT_FILE"])] if "SSL_CERT_FILE" in around else []
        try:
            readable = self._paths.checked("repositoryUrl", checkout.path)
            at = await asyncio.to_thread(addresses, checkout.url)
        except (UnreadableError, BlockedError) as error:
            raise _refused(error) from error
        except AgentError as error:
            raise SandboxedError(Failure(kind="agent_error", message=str(error))) from error
        order = {
            "url": checkout.url,
            "revision": checkout.revision,
            "surroundings": around,
            "timeLimit": min(CLONE_S, limit),
            "addresses": at,
        }
        outcome = await self._sandbox.run(
            Job(
                work=Call(target=_CLONE, inputs=msgspec.json.encode(order)),
                limits=Limits(wall=limit),
                readable=(*readable, *certificates),
                workspace=workspace,
                network=True,
            ),
            ContextAttendant(context),
            context.cancelled,
        )
        if outcome.failure is not None:
            raise SandboxedError(_failure(outcome.failure))


def _refused(error: UnreadableError | BlockedError) -> SandboxedError:
    return SandboxedError(Failure(kind="invalid_input", message=str(error), retryable=False))


def target(action: Action[Any, Any]) -> str:
    """The action's name for `Call`."""
    return f"{action.function.__module__}:{action.function.__qualname__}"


def check(actions: Iterable[Action[Any, Any]]) -> list[str]:
    """The modules of these actions. Raises `AgentError` for one that could not be called."""
    modules: dict[str, None] = {}
    for action in actions:
        try:
            found = resolve(target(action))
        except AgentError as error:
            found = error
        if found is not action:
            raise AgentError(
                f"action {action.name!r} of agent {action.agent!r} is executed in a sandbox, so it"
                f" has to stand in its module under the function's name ({target(action)})"
            )
        modules[action.function.__module__] = None
    return list(modules)


class ContextAttendant:
    """Attends to an action for the context that the worker made for it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def told(self, kind: str, body: Any) -> None:
        """Progress, a cost, or a line for the log. Raises `ValueError` for anything else."""
        context = self._context
        try:
            match kind, body:
                case "progress", [None | int() | float() as percent, str(message)]:
                    context.report_progress(percent, message)
                case "cost", dict():
                    _record(context, msgspec.convert(body, Cost))
                case "log", {"level": str(level), "event": event} if level in _LEVELS:
                    _log(context, level, str(event), body)
                case _:
                    raise ValueError(f"{kind!r} was told wrongly")
        except (AgentError, TypeError, msgspec.MsgspecError) as error:
            raise ValueError(str(error)) from error

    async def asked(self, kind: str, body: Any) -> Any:
        """A secret, or a blob to keep or to give. Raises `CommandCenterError`."""
        context = self._context
        match kind, body:
            case "secret", str(name):
                known = name in context.secrets
                return context.secrets[name] if known else None
            case "write", {"content": bytes(content), "mediaType": str(media), "name": str(name)}:
                blob = await asyncio.to_thread(
                    context.blobs.write, content, media_type=media, name=name
                )
                return blob.model_dump(by_alias=True)
            case "read", Mapping() as named:
                try:
                    wanted = Blob.model_validate(named)
                except ValueError as error:
                    raise CallerError(f"that names no blob: {error}") from error
                return await asyncio.to_thread(context.blobs.read, wanted)
        raise CommandCenterError(f"{kind!r} was asked wrongly")


def _record(context: Context, cost: Cost) -> None:
    """Counted anew: what comes out of a sandbox says how much, not what that amounts to."""
    context.cost.record(
        kind=cost.kind,
        source=cost.source,
        quantity=cost.quantity,
        unit=cost.unit,
        unit_price=cost.unit_price,
        model=cost.model,
        currency=cost.currency,
        price_version=cost.price_version,
    )


def _log(context: Context, level: str, event: str, body: Mapping[str, Any]) -> None:
    given = {str(key): value for key, value in body.items() if key not in _OWN_KEYS}
    getattr(context.logger, level)(event, **given)


def _failure(problem: Problem) -> Failure:
    kind = "timeout" if problem.kind == "time_limit" else problem.kind
    advice = _ADVICE.get(problem.kind)
    return Failure(
        kind=kind,
        message=f"{problem.message}; {advice}" if advice else problem.message,
        retryable=problem.retryable,
        error=problem.error,
    )

"""A Python function called inside a sandbox, and its line to the worker.

The function sees an ordinary `Context`: what it tells and asks there travels over the line.
"""

import asyncio
import errno
import inspect
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import reduce
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from agents.action import Action, wrong_inputs, wrong_output
from agents.blob import OCTETS, Blob
from agents.context import Context
from agents.cost import Costs
from agents.errors import PermanentError
from agents.sandbox.errors import LimitError
from agents.sandbox.job import Call, FailureKind
from agents.sandbox.wire import Answer, Asked, Cancel, Pipe, Raised, Returned, Told, frame, to_job
from agents.secrets import Secrets
from agents.signals import Signals
from agents.workspace import Workspace
from streams.cost import Cost
from streams.errors import AgentError

_MESSAGE_LENGTH: Final = 100_000
"""Much more than is kept: the worker first cuts secrets out, and half of one it would not know."""
_LIMITS: Final[dict[int, FailureKind]] = {
    errno.EFBIG: "file_limit",
    errno.EMFILE: "open_files_limit",
    errno.EAGAIN: "process_limit",
    errno.ENOMEM: "out_of_memory",
}


class Line:
    """The job's end of the line. May be used in any thread."""

    def __init__(self, channel: Pipe) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._numbers = count()
        self._waiting: dict[int, Future[Any]] = {}
        self._cancel: Callable[[str], None] = lambda _reason: None

    def listen(self, cancel: Callable[[str], None]) -> None:
        """Take answers, and pass on the order to end, from now on."""
        self._cancel = cancel
        threading.Thread(target=self._read, name="worker", daemon=True).start()

    def say(self, message: Told | Asked | Returned | Raised) -> None:
        """Send it. A worker that is gone is no error: this process is about to be killed."""
        try:
            with self._sending:
                self._channel.sendall(frame(message))
        except OSError:
            return

    def ask(self, kind: str, body: Any) -> Any:
        """Send the question, and wait for the answer. Raises `AgentError` as the worker says."""
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._waiting[number] = future
        self.say(Asked(id=number, kind=kind, body=body))
        return future.result()

    def _read(self) -> None:
        while (message := to_job(self._channel)) is not None:
            if isinstance(message, Cancel):
                self._cancel(message.reason)
            elif isinstance(message, Answer) and message.id in self._waiting:
                future = self._waiting.pop(message.id)
                if message.error is None:
                    future.set_result(message.body)
                else:
                    future.set_exception(AgentError(message.error))


def answer(call: Call, line: Line, workspace: Path) -> int:
    """Make the call, and say what came of it; the exit status for this process."""
    try:
        line.say(Returned(output=_called(call, line, workspace)))
        status = 0
    except BaseException as error:  # noqa: BLE001 -- an agent may raise anything
        line.say(_raised(error))
        status = 1
    return status


class _InvalidInputError(Exception):
    """The inputs do not fit the model."""


class _InvalidOutputError(Exception):
    """The output does not fit the model."""


def _called(call: Call, line: Line, workspace: Path) -> bytes:
    target = resolve(call.target)
    signals = Signals(lambda: line.say(Told(kind="progress", body=signals.progress)))
    context = _context(call, line, signals, workspace)
    if not isinstance(target, Action):
        line.listen(signals.cancel)
        return json.dumps(_made(target(json.loads(call.inputs)))).encode()
    try:
        inputs = target.parse(call.inputs)
    except ValidationError as error:
        raise _InvalidInputError(wrong_inputs(error)) from error
    arguments = (inputs, context) if target.takes_context else (inputs,)
    if target.is_async:
        produced = asyncio.run(_awaited(target, arguments, signals, line))
    else:
        line.listen(signals.cancel)
        produced = target.function(*arguments)
    try:
        return target.write(produced)
    except ValidationError as error:
        raise _InvalidOutputError(wrong_output(error)) from error
    except PydanticSerializationError as error:
        raise _InvalidOutputError(str(error)) from error


async def _awaited(
    action: Action[Any, Any], arguments: tuple[Any, ...], signals: Signals, line: Line
) -> object:
    loop = asyncio.get_running_loop()
    line.listen(lambda reason: _in_loop(loop, signals, reason))
    produced: object = await action.function(*arguments)
    return produced


def _in_loop(loop: asyncio.AbstractEventLoop, signals: Signals, reason: str) -> None:
    try:
        loop.call_soon_threadsafe(signals.cancel, reason)
    except RuntimeError:  # the loop is closed: the action has ended
        return


def _made(value: Any) -> Any:
    async def awaited() -> Any:
        return await value

    return asyncio.run(awaited()) if inspect.isawaitable(value) else value


def resolve(target: str) -> Any:
    """What `package.module:attribute` names. Raises `PermanentError`."""
    module, _, attribute = target.partition(":")
    try:
        return reduce(getattr, attribute.split("."), import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise PermanentError(f"{target!r} cannot be called in a sandbox: {error}") from error


def _context(call: Call, line: Line, signals: Signals, workspace: Path) -> Context:
    return Context(
        **call.context,
        signals=signals,
        cost=_Costs(line),
        secrets=Secrets(_SecretSource(line)),
        blobs=_Blobs(line),
        folder=_Folder(workspace),
    )


class _Costs(Costs):
    """Costs that the worker hears of at once: they count however the job ends."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def add(self, cost: Cost) -> None:
        super().add(cost)
        self._line.say(Told(kind="cost", body=msgspec.to_builtins(cost)))


class _SecretSource:
    """The worker's secrets, asked for one at a time."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def find(self, name: str) -> str | None:
        found: str | None = self._line.ask("secret", name)
        return found


class _Blobs:
    """The worker's blobs."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def write(self, content: bytes, *, media_type: str = OCTETS, name: str = "") -> Blob:
        body = {"content": bytes(content), "mediaType": media_type, "name": name}
        return Blob.model_validate(self._line.ask("write", body))

    def read(self, blob: Blob) -> bytes:
        content: bytes = self._line.ask("read", blob.model_dump(by_alias=True))
        return content


class _Folder(Workspace):
    """The workspace of the job, which whoever made it removes."""

    __slots__ = ("_given",)

    def __init__(self, given: Path) -> None:
        super().__init__()
        self._given = given

    @property
    def path(self) -> Path:
        return self._given


def _raised(error: BaseException) -> Raised:
    name = type(error).__name__
    text = f"{name}: {error}".rstrip(": ")
    kind: FailureKind = "agent_error"
    match error:
        case _InvalidInputError():
            kind, text = "invalid_input", str(error)
        case _InvalidOutputError():
            kind, text = "invalid_output", str(error)
        case LimitError():
            kind, text = error.kind, str(error)
        case MemoryError():
            kind, text = "out_of_memory", "it needed more memory than it may use"
        case OSError() if error.errno in _LIMITS:
            kind = _LIMITS[error.errno]
        case RuntimeError() if str(error) == "can't start new thread":
            kind = "process_limit"
    text = text.encode(errors="replace").decode()
    return Raised(
        kind=kind,
        message=text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…",
        retryable=kind == "agent_error" and not isinstance(error, PermanentError),
        error=name if kind == "agent_error" else "",
    )


def log_over(line: Line) -> None:
    """Structured log lines go to the worker, which writes them as its own."""

    def send(_logger: Any, method: str, event: Any) -> Any:
        plain = json.loads(json.dumps(dict(event), default=repr))
        line.say(Told(kind="log", body={"level": method, **plain}))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, send])

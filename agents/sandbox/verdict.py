"""How a job ended, from all that is known of it: the limits, its exit, what it said."""

import signal
from typing import Final

from agents.sandbox.conversation import Conversation, Output
from agents.sandbox.job import FINAL, Call, Command, FailureKind, Outcome, Problem
from agents.sandbox.wire import Ended

CANCELLED: Final = "the job was told to end"
_NAMES: Final[dict[int, str]] = {6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_TAIL: Final = 200


def outcome(
    work: Command | Call,
    ended: Ended,
    talk: Conversation,
    output: Output,
    *,
    problem: Problem | None,
    stopped: bool,
    wall: float,
) -> Outcome:
    """The outcome. `problem`: why the worker ended the job, if it did."""
    found = problem or _problem(work, ended, talk, output)
    if stopped and found is not None and problem is None:
        found = Problem(kind="cancelled", message=CANCELLED, retryable=False)
    returned = talk.returned if found is None else None
    return Outcome(
        status=ended.status if isinstance(work, Command) else None,
        stdout=bytes(output.stdout),
        stderr=bytes(output.stderr),
        output=returned,
        failure=found,
        wall=wall,
        memory=ended.memory,
    )


def _problem(
    work: Command | Call, ended: Ended, talk: Conversation, output: Output
) -> Problem | None:
    if ended.kind is not None:
        return _made(ended.kind, ended.message)
    if talk.raised is not None:
        raised = talk.raised
        return Problem(
            kind=raised.kind,
            message=raised.message,
            retryable=raised.retryable and raised.kind not in FINAL,
            error=raised.error,
        )
    if ended.status == -signal.SIGXFSZ:
        return _made("file_limit", "it wrote a larger file than it may")
    if ended.status == -signal.SIGXCPU:
        return _made("cpu_limit", "it used more CPU time than it may")
    if ended.status < 0:
        name = _NAMES.get(-ended.status, f"signal {-ended.status}")
        return _made("killed", f"{name} ended it{_tail(output)}")
    if isinstance(work, Call) and talk.returned is None:
        text = f"its process ended with status {ended.status} and no result{_tail(output)}"
        return _made("agent_error", text)
    return None


def _made(kind: FailureKind, message: str) -> Problem:
    return Problem(kind=kind, message=message, retryable=kind not in FINAL)


def _tail(output: Output) -> str:
    last = output.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f": {last[-_TAIL:]}" if last else ""

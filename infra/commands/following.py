"""Runs as the stream tells of them: from snapshots and decisions to the runs as they stand now."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.client import GatewayClient, path
from infra.commands.output import clock
from infra.commands.sentences import sentence, subject
from streams.errors import CommandCenterError

ENDED: Final = frozenset({"SUCCESS", "FAILED", "CANCELLED", "TIMED_OUT"})

_NODE_ENDED: Final = frozenset(
    {"node.succeeded", "node.reused", "node.failed", "node.skipped", "node.cancelled"}
)
_NODE_BEGINS: Final = frozenset(
    {"node.dispatched", "node.runRequested", "node.sleeping", "node.awaiting"}
)
_RECORDED_WITHIN_S: Final = 15.0
_LOOK_AGAIN_S: Final = 0.05


class WaitedTooLongError(CommandCenterError):
    """The runs did not end in the time that the caller gave them."""


@dataclass
class RunRow:
    """One run as a list shows it. Times are ms since the epoch.

    `ended_nodes` is None where a snapshot does not say it.
    """

    id: str
    workflow: str = ""
    status: str = "PENDING"
    nodes: int = 0
    ended_nodes: int | None = 0
    started_at: int = 0
    finished_at: int = 0
    doing: str = ""

    @property
    def progress(self) -> str:
        """How many of its nodes have ended."""
        if not self.nodes:
            return ""
        return f"{'…' if self.ended_nodes is None else self.ended_nodes}/{self.nodes}"

    @property
    def has_ended(self) -> bool:
        """Whether the run is in a terminal status."""
        return self.status in ENDED

    def apply(self, decision: Mapping[str, Any]) -> None:
        """Take in the run's next decision."""
        self.workflow = decision["workflow"]
        self.status = decision["status"]
        for event in decision["events"]:
            kind = event["type"]
            if kind == "run.started":
                self.nodes, self.started_at = event["nodes"], decision["at"]
            elif kind in _NODE_ENDED and self.ended_nodes is not None and _is_node(event):
                self.ended_nodes = min(self.nodes, self.ended_nodes + 1)
            if kind in _NODE_BEGINS:
                self.doing = subject(event)
            elif kind == "node.approvalRequested":
                self.doing = f"{subject(event)} waits for approval"
            elif kind == "run.ending":
                self.doing = event["stage"]
            elif "failure" in event:
                self.doing = f"{subject(event)} {event['failure']['message']}".strip()
        if self.has_ended and not self.finished_at:  # costs may be told after the end
            self.finished_at = decision["at"]


def _is_node(event: Mapping[str, Any]) -> bool:
    """Whether an event is about a node itself: not about an item of it, nor about its undoing."""
    return "item" not in event and not event["node"].endswith(".compensate")


def row_of(run: Mapping[str, Any]) -> RunRow:
    """A run of a snapshot."""
    error = run.get("error") or {}
    steps = None if run.get("next") else run.get("steps")  # of some it is not told how many ended
    done = {*ENDED, "SKIPPED"}
    own = [] if steps is None else [step for step in steps if not step.get("handler")]
    ended = None if steps is None else sum(step["status"] in done for step in own)
    return RunRow(
        id=run["id"],
        workflow=run["workflow"],
        status=run["status"],
        nodes=run.get("nodes") or 0,
        ended_nodes=run.get("nodes") if run["status"] == "SUCCESS" else ended,
        started_at=_milliseconds(run.get("startedAt")),
        finished_at=_milliseconds(run.get("finishedAt")),
        doing=error.get("message", ""),
    )


async def until_ended(
    client: GatewayClient,
    runs: Sequence[str],
    begin: Callable[[], Any],
    *,
    timeout_s: float,
    on_decision: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, str]:
    """Follow runs to their ends.

    Args:
        client: Open.
        runs: Ids, also of runs that do not exist yet.
        begin: Awaited once the stream is there, so that nothing of what it starts is missed.
        timeout_s: For all of them.
        on_decision: Told every decision, once.

    Returns:
        Run → terminal status, in the order of `runs`.

    Raises:
        WaitedTooLongError: Some did not end in time.
        GatewayUnreachableError: The stream broke and could not be taken up again.
    """
    ended: dict[str, str] = {}
    waiting = set(range(len(runs)))
    try:
        async with (
            asyncio.timeout(timeout_s),
            aclosing(client.follow(*({"run": run} for run in runs))) as frames,
        ):
            async for frame in frames:
                statuses = _statuses(frame, on_decision)
                ended |= {run: status for run, status in statuses if status in ENDED}
                if waiting and frame["type"] == "snapshot":
                    waiting.discard(frame["id"])
                    if not waiting:
                        await begin()
                if len(ended) == len(runs):
                    break
    except TimeoutError as error:
        missing = ", ".join(run for run in runs if run not in ended)
        raise WaitedTooLongError(f"After {timeout_s:g} s not ended yet: {missing}.") from error
    return {run: ended[run] for run in runs}


async def recorded(client: GatewayClient, run: str) -> dict[str, Any]:
    """The run's detail once its end is recorded, which is a moment after the stream has told it.

    Raises:
        WaitedTooLongError: The recorder is far behind.
    """
    try:
        async with asyncio.timeout(_RECORDED_WITHIN_S):
            while True:
                detail: dict[str, Any] = await client.whole(path("runs", run), "steps")
                if detail["status"] in ENDED:
                    return detail
                await asyncio.sleep(_LOOK_AGAIN_S)  # the store tells nobody when it has recorded
    except TimeoutError as error:
        raise WaitedTooLongError(
            f"Run {run} has ended, but is not recorded after {_RECORDED_WITHIN_S:g} s: see "
            "`commandcenter doctor`."
        ) from error


def lines_of(decision: Mapping[str, Any]) -> Iterator[str]:
    """A decision as lines of text, one for each event that says more than that work goes on."""
    head = f"{clock(decision['at'])}  {decision['run']}  {decision['workflow']}"
    for event in decision["events"]:
        said = event.get("message") or event.get("percent") is not None
        if said or event["type"] != "node.progressed":
            yield f"{head}  {sentence(event)}"


def _statuses(
    frame: Mapping[str, Any], on_decision: Callable[[dict[str, Any]], None]
) -> Iterator[tuple[str, str]]:
    if frame["type"] == "snapshot" and frame["run"] is not None:
        yield frame["run"]["id"], frame["run"]["status"]
    for decision in frame.get("decisions", ()):
        on_decision(decision)
        yield decision["run"], decision["status"]


def _milliseconds(value: str | None) -> int:
    return round(datetime.fromisoformat(value).timestamp() * 1_000) if value else 0

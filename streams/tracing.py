"""Runs and tasks as OpenTelemetry spans, made when they end, with the times on the log.

A span belongs to the trace of the event that started the run (W3C `traceparent`); an event without
one gets a trace named by its run, so that the run id finds the trace.
"""

from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from streams.messages import Result, Task
from streams.records import Failure, RunStatus
from streams.run_state import RunHead

_NS_PER_MS = 1_000_000


def traceparent_of(run: str) -> str:
    """The W3C trace context of a run whose event came without: the trace id is the run id."""
    name = run.replace("-", "")
    return f"00-{name}-{name[:15]}1-01"


class Tracing:
    """Makes the spans. Only where traces are exported is there one."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def run_ended(self, head: RunHead) -> None:
        """The span of a run that is terminal now."""
        self._span(
            f"run {head.workflow}",
            head.traceparent,
            head.started_at,
            head.finished_at or head.started_at,
            {
                "commandcenter.run": head.run,
                "commandcenter.project": head.project,
                "commandcenter.workflow": head.workflow,
                "commandcenter.workflow.version": head.version,
                "commandcenter.run.status": head.status.value,
            },
            head.failure if head.status is not RunStatus.SUCCESS else None,
        )

    def task_ended(self, task: Task, result: Result) -> None:
        """The span of one attempt at a node."""
        self._span(
            f"{task.agent} {task.action}",
            task.traceparent,
            result.started_at,
            result.finished_at,
            {
                "commandcenter.task": task.id,
                "commandcenter.run": task.run,
                "commandcenter.workflow": task.workflow,
                "commandcenter.node": task.node,
                "commandcenter.attempt": task.attempt,
                "commandcenter.agent": task.agent,
                "commandcenter.action": task.action,
            },
            result.failure,
        )

    def _span(
        self,
        name: str,
        traceparent: str | None,
        started_at: int,
        finished_at: int,
        attributes: dict[str, str | int],
        failure: Failure | None,
    ) -> None:
        context = get_global_textmap().extract({"traceparent": traceparent or ""})
        span = self._tracer.start_span(
            name,
            context,
            SpanKind.CONSUMER,
            attributes=attributes,
            start_time=started_at * _NS_PER_MS,
        )
        if failure is not None:
            span.set_status(Status(StatusCode.ERROR, f"{failure.kind}: {failure.message}"))
        span.end(finished_at * _NS_PER_MS)

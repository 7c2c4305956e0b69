"""Runs and tasks become spans of the trace that their event belongs to."""

import msgspec
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streams.messages import Result, Task
from streams.records import Failure, RunStatus
from streams.run_state import RunHead
from streams.tracing import Tracing, traceparent_of

RUN = "0f8a2c5a-2f0b-5a43-9d0e-3d1c3b0a7c51"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def spans(parent: str, failure: Failure | None) -> list[object]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider.get_tracer("test"))
    task = Task(
        id=f"{RUN}/scan/2",
        run=RUN,
        project="default",
        workflow="review",
        node="scan",
        attempt=2,
        agent="security-scanner",
        action="scan",
        inputs=msgspec.Raw(b"{}"),
        timeout_ms=1_000,
        reply_partition=0,
        traceparent=parent,
    )
    result = Result(
        run=RUN, node="scan", attempt=2, started_at=1_500, finished_at=1_900, failure=failure
    )
    tracing.task_ended(task, result)
    tracing.run_ended(
        RunHead(
            run=RUN,
            project="default",
            workflow="review",
            version=3,
            status=RunStatus.SUCCESS if failure is None else RunStatus.FAILED,
            seq=9,
            started_at=1_000,
            finished_at=2_000,
            deadline=90_000,
            open=0,
            failure=failure,
            traceparent=parent,
        )
    )
    return list(exporter.get_finished_spans())


def test_a_task_and_its_run_are_in_the_trace_of_their_event() -> None:
    found = [
        (s.name, f"{s.context.trace_id:032x}", s.start_time, s.end_time, s.status.is_ok)
        for s in spans(PARENT, None)
    ]
    assert found == [
        ("security-scanner scan", TRACE, 1_500_000_000, 1_900_000_000, True),
        ("run review", TRACE, 1_000_000_000, 2_000_000_000, True),
    ]


def test_a_failure_is_on_the_span() -> None:
    failure = Failure(kind="timeout", message="it hung")
    assert [s.status.description for s in spans(PARENT, failure)] == ["timeout: it hung"] * 2


def test_a_run_whose_event_has_no_trace_names_one() -> None:
    task, run = spans(traceparent_of(RUN), None)
    assert f"{run.context.trace_id:032x}" == f"{task.context.trace_id:032x}" == RUN.replace("-", "")

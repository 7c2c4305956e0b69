"""Whole workflows in a unit test: the real core and real actions on a log in memory, no server.

    result = await run_workflow("review.yaml", [scanner], {"path": "."}, approve=True)
    assert result.status == "SUCCESS"

Delays, retries and time-outs take no time: the clock jumps to what is due next. What Kafka, workers
and the store do is left out; a run decides here as it does there.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw

from agents.agent import Agent
from agents.memory_log import Decided, MemoryLog
from agents.registry import AgentRegistry
from agents.workflow_answers import Answer, Approve, Asked, People
from agents.workflow_result import NodeResult, WorkflowResult, told
from streams import pattern
from streams.errors import CallerError, DefinitionError
from streams.events import NodeApprovalRequested, NodeAwaiting
from streams.ids import run_id
from streams.messages import Message, Occurrence, Start
from streams.plan import Plan, parse
from streams.records import Trigger
from streams.workflow_file import read, read_text

__all__ = ["Answer", "Asked", "NodeResult", "WorkflowResult", "run_workflow"]

Workflow = Mapping[str, Any] | str | Path
"""A definition, the YAML or JSON text of one, or the path of its file."""

PATIENCE_S: Final = 5.0
SOURCE: Final = "/test"
EVENT_TYPE: Final = "test.started"


async def run_workflow(
    workflow: Workflow,
    agents: Iterable[Agent],
    trigger: Any = None,
    *,
    approve: Approve = None,
    events: Iterable[tuple[str, Any]] = (),
    workflows: Iterable[Workflow] = (),
    secrets: Mapping[str, str] | None = None,
    event_type: str = EVENT_TYPE,
    subject: str | None = None,
    patience: float = PATIENCE_S,
) -> WorkflowResult:
    """Run a workflow from its trigger to its end.

    Args:
        workflow: a definition, the YAML or JSON text of one, or the path of its file.
        agents: those that its nodes name.
        trigger: the data of the event that starts it, any JSON value. Whether the event would
            start it (`trigger.event`, `trigger.filter`) is not asked.
        approve: what people answer: the same to all, one answer for each question in turn, or a
            function of the question. Unsaid, nobody answers, and the deadlines decide.
        events: (type, data) of events that nodes wait for (`waitForEvent`); each comes once, as
            soon as a node waits for its type.
        workflows: others that nodes run as steps.
        secrets: what `context.secrets` gives the actions.
        event_type: type of the event that starts the run.
        subject: subject of that event.
        patience: real seconds that an action may be at work before it is taken to hang and the
            clock goes on to its time-out.

    Raises:
        DefinitionError: A workflow is wrong, or names an agent or action that there is not.
        CallerError: A file cannot be read.
        AgentError: `approve` has fewer answers than there were questions.
    """
    plans = {plan.spec.name: plan for plan in map(_plan, (workflow, *workflows))}
    main = _plan(workflow)
    registry = AgentRegistry(agents)
    for plan in plans.values():
        _check(plan, registry)
    people = People(approve, lambda payload: log.value(payload))
    world = _World(main.spec.project, list(events))

    def react(decided: Decided) -> Iterable[Message]:
        if isinstance(decided.event, NodeApprovalRequested):
            return people.answer(decided.run, decided.event)
        return world.occur(decided)

    log = MemoryLog(plans, registry, secrets or {}, patience, react)
    run = run_id(main.spec.project, main.spec.name, SOURCE, "1")
    await log.run(
        Start(
            run=run,
            project=main.spec.project,
            workflow=main.spec.name,
            version=1,
            trigger=Trigger(
                id="1",
                source=SOURCE,
                type=event_type,
                subject=subject,
                data=Raw(msgspec.json.encode(trigger)),
            ),
        )
    )
    return told([each for each in log.decided if each.run == run], main, log)


def _plan(workflow: Workflow) -> Plan:
    if isinstance(workflow, Mapping):
        return parse(workflow)
    is_path = isinstance(workflow, Path) or "\n" not in workflow
    found = read(Path(workflow)) if is_path else read_text(str(workflow), "workflow")
    if len(found) != 1:
        names = ", ".join(document.name for document in found)
        raise CallerError(f"one workflow was expected, there are {len(found)}: {names}")
    return parse(found[0].definition)


def _check(plan: Plan, registry: AgentRegistry) -> None:
    for path, agent, action, *_ in plan.spec.actions():
        if registry.find(agent, action) is None:
            where = ".".join(map(str, path))
            raise DefinitionError(f"{where}: {registry.explain_missing(agent, action)}")


class _World:
    """The events that come from outside, each as soon as somebody waits for it."""

    def __init__(self, project: str, events: list[tuple[str, Any]]) -> None:
        self._project = project
        self._events = list(enumerate(events))

    def occur(self, decided: Decided) -> Iterator[Message]:
        event = decided.event
        if not isinstance(event, NodeAwaiting):
            return
        for place, (number, (kind, data)) in enumerate(self._events):
            if pattern.matches(event.event, kind):
                del self._events[place]
                trigger = Trigger(
                    id=f"event {number}",
                    source=SOURCE,
                    type=kind,
                    data=Raw(msgspec.json.encode(data)),
                )
                yield Occurrence(project=self._project, trigger=trigger)
                return

"""One event, many runs that wait for it: the fault of one run is not the others' loss."""

from types import SimpleNamespace
from typing import Any

from faust.types import TP
from structlog.testing import capture_logs

from streams import codec, topics
from streams.faust_shell import Batch
from streams.messages import Occurrence, Start
from streams.orchestrator import Orchestrator
from streams.outbox import Parcel
from streams.plan import Plan, parse
from streams.records import Trigger

PLAN = parse({"name": "w", "nodes": [{"id": "a", "waitForEvent": {"event": "go"}}]})
START = Trigger(id="e", source="s", type="t")
EVENT = Occurrence(project="default", trigger=Trigger(id="o", source="s", type="go"))


async def test_a_run_that_cannot_hear_of_an_event_does_not_keep_it_from_the_others() -> None:
    sent: list[tuple[str, bytes]] = []

    class Sent:
        async def deliver(self, parcel: Parcel, *, whole: bool = False) -> list[None]:
            for (topic, _), records in parcel.partitions():
                sent.extend((topic, value or b"") for _, value, _ in records)
            return [None] * len(parcel.partitions())

    plans = {"w": PLAN, "v": PLAN}

    async def plan_of(_project: str, workflow: str, _version: int) -> Plan | None:
        return plans.get(workflow)

    async def prepared(_agent: str) -> None:
        pass

    out: Any = Sent()
    blobs: Any = None
    orchestrator = Orchestrator(out, out, 1, plan_of, prepared, blobs)
    orchestrator.own(0, {})
    starts = [
        Start(run=run, project="default", workflow=workflow, version=1, trigger=START)
        for run, workflow in (("r1", "w"), ("r2", "v"), ("r3", "w"))
    ]

    async def hear(offset: int, *messages: Any) -> None:
        records = [
            SimpleNamespace(
                topic=topics.INBOX, partition=0, offset=offset + n, timestamp=1, key=b"k",
                value=codec.encode(message), headers=(),
            )
            for n, message in enumerate(messages)
        ]  # fmt: skip
        batch = Batch(TP(topics.INBOX, 0), 1, records)
        await orchestrator.write(await orchestrator.decide([batch]))

    await hear(0, *starts)
    del plans["v"]  # nobody knows the version any more
    orchestrator._plans.clear()
    sent.clear()
    with capture_logs():
        await hear(3, EVENT)
    decided = [codec.decisions.decode(value).run for topic, value in sent if topic == topics.EVENTS]
    assert decided == ["r1", "r3"]
    assert [topic for topic, _ in sent if topic == topics.DEAD_LETTERS] == [topics.DEAD_LETTERS]

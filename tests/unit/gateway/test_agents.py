"""Who serves an agent: told by the workers' signs of life, and by their silence."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw
from story import Story

from gateway.agents_view import AgentsView
from streams import codec
from streams.errors import UnreadableRecordError
from streams.ids import worker_key
from streams.registry import AgentRecord, Serving, WorkerRecord


class View(AgentsView):
    """Without its topic, and with a clock of its own."""

    trouble = ""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__("nowhere:1", lambda: self.now)

    def register(self, name: str) -> None:
        record = AgentRecord(
            name=name, version="1", worker="a/1", registered_at=0, descriptor=Raw(b"{}")
        )
        self.apply(name.encode(), codec.encode(record))

    def hear(self, worker: str, *serves: str, version: str = "1", at: float | None = None) -> None:
        record = WorkerRecord(
            worker=worker,
            started_at=5,
            interval_ms=5_000,
            agents=tuple(
                Serving(name=name, version=version, capacity=8, in_hand=3) for name in serves
            ),
        )
        self.apply(worker_key(worker).encode(), codec.encode(record), at)


def workers(view: View, agent: str) -> list[str]:
    return [server.worker for server in view.servers(agent)]


def test_a_worker_serves_until_it_has_been_silent_for_three_intervals() -> None:
    view = View()
    view.register("scanner")
    view.hear("b/2", "scanner", "notifier")
    view.now += 10
    view.hear("a/1", "scanner")
    assert workers(view, "scanner") == ["a/1", "b/2"]
    assert workers(view, "notifier") == ["b/2"]
    view.now += 5
    assert workers(view, "scanner") == ["a/1", "b/2"]
    view.now += 0.1
    assert workers(view, "scanner") == ["a/1"]
    view.hear("b/2", "scanner")
    assert workers(view, "scanner") == ["a/1", "b/2"]


def test_a_worker_that_says_so_is_gone_at_once() -> None:
    view = View()
    view.hear("a/1", "scanner")
    view.apply(worker_key("a/1").encode(), None)
    view.apply(worker_key("never/seen").encode(), None)
    assert workers(view, "scanner") == []


def test_what_was_said_before_the_gateway_started_is_as_old_as_it_says() -> None:
    view = View()
    view.hear("old/1", "scanner", at=view.now - 16)
    view.hear("new/1", "scanner", at=view.now - 14)
    view.hear("ahead/1", "scanner", at=view.now + 9_000)  # a clock that is wrong
    assert workers(view, "scanner") == ["ahead/1", "new/1"]
    view.now += 16
    assert workers(view, "scanner") == []


def test_it_says_why_nobody_works() -> None:
    view = View()
    assert view.unserved("x") == "no worker serves agent 'x', and none ever has"
    view.register("x")
    assert view.unserved("x") == "no worker serves agent 'x' now; start one that does"
    view.hear("a/1", "x")
    assert view.unserved("x") == ""


def test_while_the_topic_is_not_read_nothing_is_said() -> None:
    view = View()
    view.trouble = "Kafka is away"
    assert view.unserved("x") == ""


def test_a_record_that_is_no_sign_of_life_is_refused() -> None:
    with pytest.raises(UnreadableRecordError, match="a worker's sign of life"):
        View().apply(b"worker/a", b"{}")


@pytest.fixture
def served(gateway: Any) -> Any:
    record = WorkerRecord(
        worker="a/1",
        started_at=1_000,
        interval_ms=60_000,
        agents=(Serving(name="scanner", version="2", capacity=8, in_hand=3),),
    )
    gateway.agents.apply(worker_key("a/1").encode(), codec.encode(record))
    return gateway


async def test_readyz_says_what_a_worker_cannot_read(served: Any) -> None:
    record = WorkerRecord(
        worker="a/1", started_at=1, interval_ms=60_000, agents=(), trouble="control: no answer"
    )
    key = worker_key("a/1").encode()
    served.agents.apply(key, codec.encode(record))
    response = await served.client.get("/readyz")
    parts = (await response.json())["parts"]
    assert (response.status, parts["readers"]) == (503, "worker a/1: control: no answer")
    served.agents.apply(key, codec.encode(msgspec.structs.replace(record, trouble="")))
    assert (await served.client.get("/readyz")).status == 200
    served.agents.apply(key, codec.encode(record))
    served.agents.apply(key, None)  # who is gone has no trouble
    assert (await served.client.get("/readyz")).status == 200


async def test_an_agent_says_who_serves_it(served: Any) -> None:
    served.serve_agent("idle", "x")
    agents = (await (await served.client.get("/api/agents")).json())["agents"]
    said = {a["name"]: (a["alive"], a["capacity"], a["inHand"], len(a["workers"])) for a in agents}
    assert said == {"idle": (False, 0, 0, 0), "scanner": (True, 8, 3, 1)}
    one = await (await served.client.get("/api/agents/scanner")).json()
    (worker,) = one["workers"]
    assert (worker["worker"], worker["version"]) == ("a/1", "2")
    assert worker["startedAt"] == "1970-01-01T00:00:01Z"


def definition(agent: str) -> dict[str, Any]:
    return {
        "name": "w",
        "nodes": [
            {"id": "n", "agent": agent, "action": "a"},
            {"id": "later", "agent": agent, "action": "a", "dependsOn": ["n"]},
            {"id": "nap", "delay": "1h"},
        ],
    }


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("scanner", None),
        ("ghost", "no worker serves agent 'ghost', and none ever has"),
    ],
)
async def test_a_step_that_waits_for_a_worker_says_so(
    served: Any, agent: str, said: str | None
) -> None:
    story = Story(definition(agent)).start()
    served.reads.rows[story.run] = story.rows()
    run = await (await served.client.get(f"/api/runs/{story.run}")).json()
    assert {step["id"]: step["unserved"] for step in run["steps"]} == {"n": said, "nap": None}
    story.answer("n")
    story.answer("later")
    served.reads.rows[story.run] = story.rows()
    run = await (await served.client.get(f"/api/runs/{story.run}")).json()
    assert {step["unserved"] for step in run["steps"]} == {None}

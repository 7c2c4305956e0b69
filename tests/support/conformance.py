"""Judges a worker by what is on the log: the cases of docs/conformance, and how they are played.

Nothing here knows in which language the worker is written. It has to serve the agent of
docs/conformance/README.md; everything it is asked goes through the engine, and all that it says is
read where the engine reads it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from jsonschema import Draft7Validator
from system import PARTITIONS, define

from streams import codec, topics
from streams.ids import run_id
from streams.messages import Approval, Cancel, RunMessage
from streams.outbox import partition_of
from streams.plan import parse

ROOT = Path(__file__).parents[2]
CASES = {file.stem: json.loads(file.read_text()) for file in ROOT.glob("docs/conformance/*.json")}
_DOCUMENT = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
_ENDS = {
    "run.succeeded": "SUCCESS",
    "run.failed": "FAILED",
    "run.cancelled": "CANCELLED",
    "run.timedOut": "TIMED_OUT",
}


def expanded(value: Any) -> Any:
    """A case's value with the long texts that it only describes."""
    if isinstance(value, dict):
        if "$repeat" in value:
            return value["$repeat"] * value["times"]
        return {name: expanded(each) for name, each in value.items()}
    return [expanded(each) for each in value] if isinstance(value, list) else value


class Log:
    """All that was written about one agent and its runs, as it comes."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.records: dict[str, list[ConsumerRecord]] = {}
        self._more = asyncio.Condition()

    @asynccontextmanager
    async def followed(self, bootstrap: str) -> AsyncIterator["Log"]:
        """Read along until the end of the block."""
        reading = asyncio.create_task(self._follow(bootstrap))
        try:
            yield self
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _follow(self, bootstrap: str) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            names = (topics.INBOX, topics.EVENTS, topics.DEAD_LETTERS, topics.tasks(self.agent))
            places = [TopicPartition(name, p) for name in names for p in range(PARTITIONS)]
            singles = [TopicPartition(name, 0) for name in (topics.AGENTS, topics.CONTROL)]
            consumer.assign(places + singles)
            while True:
                for place, records in (await consumer.getmany(timeout_ms=500)).items():
                    self.records.setdefault(place.topic, []).extend(records)
                async with self._more:
                    self._more.notify_all()
        finally:
            await consumer.stop()

    async def until(self, reached: Callable[[], Any], what: str) -> Any:
        """Wait for what is looked for; it fails after a minute and a half."""
        try:
            async with asyncio.timeout(90), self._more:
                return await self._more.wait_for(reached)
        except TimeoutError as error:
            raise AssertionError(f"the log never had {what}") from error

    def of(self, topic: str, run: str = "", kind: str = "") -> Iterator[tuple[ConsumerRecord, Any]]:
        """Records of a topic with their values, of one run and kind where that is asked for."""
        for record in self.records.get(topic, ()):
            with suppress(ValueError):
                value = json.loads(record.value or b"{}")
                if run in ("", value.get("run")) and kind in ("", value.get("type")):
                    yield record, value

    def events(self, run: str) -> list[Any]:
        return [
            event for _, decision in self.of(topics.EVENTS, run) for event in decision["events"]
        ]

    def end(self, run: str) -> str | None:
        ends = [event["type"] for event in self.events(run) if event["type"] in _ENDS]
        return _ENDS[ends[-1]] if ends else None  # what it cost may be told after it


def check_schema(name: str, value: Any) -> None:
    """The value is what docs/asyncapi.yaml says of it."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": _DOCUMENT["components"]}
    Draft7Validator(schema).validate(value)


class Play:
    """One case, played against a worker."""

    def __init__(self, name: str, log: Log, producer: AIOKafkaProducer, bootstrap: str) -> None:
        self._case = CASES[name]
        self._name = f"{log.agent}.{name}"
        self._log = log
        self._producer = producer
        self._bootstrap = bootstrap
        self.run = run_id("default", self._name, "/conformance", "1")

    async def play(self, blobs: Path) -> None:
        """Do what the case says, and hold what comes of it against what it expects."""
        if "record" in self._case:
            await self._send_record()
            return
        await self._start()
        for moment, order in self._case.get("when", {}).items():
            await self._log.until(lambda moment=moment: self._reached(moment), moment)
            await self._carry_out(order)
        expected = self._case["expect"]
        wanted = expanded(expected["results"])
        await self._log.until(
            lambda: self._log.end(self.run) and len(self._results()) >= len(wanted),
            f"{len(wanted)} results and the end of {self._name}",
        )
        self._check_tasks(expected)
        self._check_results(wanted, expected, blobs)
        self._check_progress(expected.get("progress", {}))
        assert self._log.end(self.run) == expected["run"]

    async def _start(self) -> None:
        node = {
            "id": "only",
            "agent": self._log.agent,
            "retry": {"attempts": 1},
            **self._case["node"],
        }
        plan = {"name": self._name, "trigger": {"event": self._name}, "nodes": [expanded(node)]}
        await define(self._bootstrap, parse({**plan, **self._case.get("workflow", {})}))
        attributes = {"specversion": "1.0", "id": "1", "source": "/conformance", "type": self._name}
        await self._producer.send_and_wait(
            topics.TRIGGERS,
            msgspec.json.encode(expanded(self._case.get("context"))),
            headers=[(f"ce_{key}", text.encode()) for key, text in attributes.items()],
        )

    async def _send_record(self) -> None:
        record = self._case["record"]
        value = (record if isinstance(record, str) else json.dumps(record)).encode()
        topic = topics.tasks(self._log.agent)
        place = await self._producer.send_and_wait(topic, value, key=b"r/n/1")

        def letters() -> list[Any]:
            found = [letter for _, letter in self._log.of(topics.DEAD_LETTERS)]
            where = (place.topic, place.partition, place.offset)
            return [x for x in found if (x["topic"], x["partition"], x["offset"]) == where]

        await self._log.until(letters, "the dead letter")
        (letter,) = letters()
        check_schema("DeadLetter", letter)
        assert codec.dead_letters.decode(json.dumps(letter).encode()).value == value
        assert letter["reason"]
        assert letter["worker"]

    def _reached(self, moment: str) -> object:
        if moment == "progress":
            return list(self._log.of(topics.INBOX, self.run, "progress"))
        if moment == "waiting":
            events = self._log.events(self.run)
            return [event for event in events if event["type"] == "node.approvalRequested"]
        return self._log.end(self.run) and self._results()

    async def _carry_out(self, order: str) -> None:
        if order == "cancel":
            await self._tell(Cancel(run=self.run, reason="no longer wanted"))
        elif order == "approve":
            await self._tell(Approval(run=self.run, node="only", approved=True, by="ada"))
        else:
            (first, _), *_ = self._log.of(topics.tasks(self._log.agent), self.run)
            await self._producer.send_and_wait(
                first.topic, first.value, key=first.key, partition=first.partition
            )

    async def _tell(self, message: RunMessage) -> None:
        await self._producer.send_and_wait(
            topics.INBOX,
            codec.encode(message),
            key=message.run.encode(),
            partition=partition_of(message.run, PARTITIONS),
        )

    def _results(self) -> list[tuple[ConsumerRecord, Any]]:
        return list(self._log.of(topics.INBOX, self.run, "result"))

    def _check_tasks(self, expected: Any) -> None:
        for record, task in self._log.of(topics.tasks(self._log.agent), self.run):
            check_schema("Task", task)
            assert record.key.decode() == task["id"]
            if expected.get("inputsByReference"):
                assert b'"$blob"' in record.value

    def _check_results(self, wanted: list[Any], expected: Any, blobs: Path) -> None:
        results = self._results()
        tasks = [task for _, task in self._log.of(topics.tasks(self._log.agent), self.run)]
        addresses = [(task["attempt"], task.get("item")) for task in tasks]
        for record, result in results:
            check_schema("Result", result)
            assert (result["attempt"], result.get("item")) in addresses
            assert result["node"] == "only"
            assert (record.key.decode(), record.partition) == (self.run, tasks[0]["replyPartition"])
            assert result["startedAt"] <= result["finishedAt"]
            assert result["worker"]
            for cost in result.get("costs", ()):
                exact = Decimal(cost["quantity"]) * Decimal(cost["unitPrice"])
                assert abs(Decimal(cost["amount"]) - exact) <= Decimal("1e-12")
        found = [value for _, value in results]
        found.sort(key=lambda result: (result.get("item", 0), result["attempt"]))
        assert len(found) == len(wanted)
        for one, result in zip(wanted, found, strict=True):
            _check_outcome(one, result, blobs)
        if expected.get("sameResult"):
            assert len({record.value for record, _ in results}) == 1
        if expected.get("outputByReference"):
            succeeded = next(e for e in self._log.events(self.run) if e["type"] == "node.succeeded")
            assert set(succeeded["output"]) == {"$blob", "size"}

    def _check_progress(self, expected: Any) -> None:
        progress = [value for _, value in self._log.of(topics.INBOX, self.run, "progress")]
        for each in progress:
            check_schema("Progress", each)
        assert len(progress) >= expected.get("atLeast", 0)
        if expected.get("percent"):
            told = [each["percent"] for each in progress if "percent" in each]
            assert told
            assert all(0 <= percent <= 100 for percent in told)
            kinds = [event["type"] for event in self._log.events(self.run)]
            assert kinds.index("node.progressed") < kinds.index("node.succeeded")


def _check_outcome(wanted: Any, result: Any, blobs: Path) -> None:
    assert result.get("item") == wanted.get("item")
    if "failure" in wanted:
        failure = result["failure"]
        assert "output" not in result
        told = {"kind": failure["kind"], "retryable": failure.get("retryable", True)}
        assert told == {name: wanted["failure"][name] for name in told}, failure
        assert failure["message"]
        assert wanted["failure"].get("message", "") in failure["message"]
    else:
        assert "failure" not in result, result["failure"]
        assert wanted["output"] in ({"$any": True}, _content(result["output"], blobs))


def _content(output: Any, blobs: Path) -> Any:
    """The output, from where its reference says that it is."""
    if not isinstance(output, dict) or set(output) != {"$blob", "size"}:
        return output
    content = (blobs / "default" / output["$blob"][:2] / output["$blob"]).read_bytes()
    assert len(content) == output["size"]
    return json.loads(content)

"""Payloads that travel by reference, as an action meets them: not at all."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from pydantic import BaseModel

from agents import Agent, AgentRegistry
from agents.execution import Execution
from agents.payloads import Payloads
from streams.blob_store import BlobStore
from streams.errors import OperatorError
from streams.messages import Task
from streams.payload import INLINE_LIMIT, Reference, as_reference, reference_to
from streams.records import Failure

LIMIT = 300_000

agent = Agent("keeper", description="Takes and gives anything.")


class Anything(BaseModel):
    value: Any = None


class Size(BaseModel):
    size: int = 0


class Floats(BaseModel):
    model_config = {"ser_json_inf_nan": "constants"}
    value: float


@agent.action
async def echo(inputs: Anything) -> Anything:
    return inputs


@agent.action
async def give(inputs: Size) -> Anything:
    return Anything(value="x" * inputs.size)


@agent.action
async def nest(inputs: Size) -> Anything:
    value: Any = 0
    for _ in range(inputs.size - 1):
        value = [value]
    return Anything(value=value)


@agent.action
async def give_no_number(inputs: Size) -> Floats:
    return Floats(value=float("nan"))


class Flaky:
    """A blob store that is away for the first questions; the real one is behind it."""

    def __init__(self, store: BlobStore, fails: list[Exception]) -> None:
        self.limit = store.limit
        self.store = store
        self.fails = fails

    async def put(self, project: str, content: bytes) -> Reference:
        self._fail()
        return await self.store.put(project, content)

    async def get(self, project: str, reference: Reference) -> bytes:
        self._fail()
        return await self.store.get(project, reference)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path), LIMIT)


@pytest.fixture
async def execution(store: BlobStore) -> AsyncIterator[Execution]:
    made = over(store)
    yield made
    made.close()


def over(blobs: BlobStore | Flaky) -> Execution:
    return Execution(AgentRegistry([agent]), Payloads(blobs), now_ms=lambda: 1_000)


async def outcome(
    execution: Execution, action: str, inputs: bytes | dict[str, Any], timeout_ms: int = 60_000
) -> bytes | Failure:
    """The output of an action, or the failure of its task."""
    task = Task(
        id="t",
        run="r",
        project="shop",
        workflow="w",
        node="n",
        attempt=1,
        agent="keeper",
        action=action,
        inputs=Raw(inputs if isinstance(inputs, bytes) else json.dumps(inputs).encode()),
        timeout_ms=timeout_ms,
        reply_partition=0,
    )
    result = await execution.execute(task)
    if result.failure is not None:
        return result.failure
    assert isinstance(result.output, Raw)
    return bytes(result.output)


async def kept(store: BlobStore, value: Any, project: str = "shop") -> dict[str, Any]:
    """A reference to the value, which is in the store."""
    reference = await store.put(project, json.dumps(value).encode())
    return dict(json.loads(reference.encode()))


def failure(found: bytes | Failure) -> Failure:
    assert isinstance(found, Failure)
    return found


# --- inputs ---------------------------------------------------------------------------------------


async def test_the_inputs_may_be_a_reference_as_a_whole(
    execution: Execution, store: BlobStore
) -> None:
    reference = await kept(store, {"value": "found"})
    assert await outcome(execution, "echo", reference) == b'{"value":"found"}'


async def test_references_are_replaced_at_any_depth_and_more_than_once(
    execution: Execution, store: BlobStore
) -> None:
    one = await kept(store, [1, 2])
    two = await kept(store, {"deep": "ü"})
    value = {"value": {"a": [one, {"b": two}, one], "c": 3, "d": {"$blob": "no hash", "size": 1}}}
    found = await outcome(execution, "echo", value)
    assert isinstance(found, bytes)
    expected = {"a": [[1, 2], {"b": {"deep": "ü"}}, [1, 2]], "c": 3}
    expected["d"] = {"$blob": "no hash", "size": 1}
    assert json.loads(found)["value"] == expected


async def test_what_a_reference_names_may_refer_further(
    execution: Execution, store: BlobStore
) -> None:
    inner = await kept(store, "inside")
    outer = await kept(store, {"value": {"inner": inner}})
    assert await outcome(execution, "echo", outer) == b'{"value":{"inner":"inside"}}'


async def test_content_that_is_not_there_is_a_failure_for_good(
    execution: Execution, store: BlobStore
) -> None:
    elsewhere = await kept(store, "theirs", project="other")
    found = failure(await outcome(execution, "echo", {"value": elsewhere}))
    assert (found.kind, found.retryable) == ("invalid_input", False)
    assert elsewhere["$blob"] in found.message


async def test_content_of_another_size_is_refused(execution: Execution, store: BlobStore) -> None:
    reference = await kept(store, "some")
    found = failure(await outcome(execution, "echo", {"value": {**reference, "size": 1}}))
    assert (found.kind, found.retryable) == ("invalid_input", False)
    assert "6 bytes, not 1" in found.message


async def test_inputs_that_grow_beyond_the_limit_are_refused(
    execution: Execution, store: BlobStore
) -> None:
    # Each level names the one below it ten times.
    reference = await kept(store, "x" * 100)
    for _ in range(8):
        reference = await kept(store, {"value": [reference] * 10})
    found = failure(await outcome(execution, "echo", reference))
    assert (found.kind, found.retryable) == ("inputs_too_large", False)
    assert "300,000" in found.message
    assert "COMMANDCENTER_PAYLOAD_LIMIT" in found.message


async def test_a_long_chain_of_references_is_refused(
    execution: Execution, store: BlobStore
) -> None:
    reference = await kept(store, "the end")
    for _ in range(1_000):
        reference = await kept(store, {"value": reference})
    found = failure(await outcome(execution, "echo", reference))
    assert (found.kind, found.retryable) == ("invalid_input", False)


async def test_no_path_is_taken_from_a_reference(tmp_path: Path, execution: Execution) -> None:
    (tmp_path.parent / "secret").write_text('"secret"')
    digest = ("../" * 40)[-58:] + "secret"
    value = {"$blob": digest, "size": 8}
    found = await outcome(execution, "echo", {"value": value})
    assert found == b'{"value":' + json.dumps(value, separators=(",", ":")).encode() + b"}"


async def test_what_is_no_json_to_its_depth_is_invalid_input(execution: Execution) -> None:
    deep = b"[" * 5_000 + b'"$blob"' + b"]" * 5_000
    found = failure(await outcome(execution, "echo", b'{"value":' + deep + b"}"))
    assert (found.kind, found.retryable) == ("invalid_input", False)


# --- outputs --------------------------------------------------------------------------------------


async def test_a_big_output_is_kept_and_its_reference_is_the_output(
    execution: Execution, store: BlobStore
) -> None:
    small = INLINE_LIMIT - len('{"value":""}')
    inline = await outcome(execution, "give", {"size": small})
    assert inline == b'{"value":"' + b"x" * small + b'"}'
    found = await outcome(execution, "give", {"size": small + 1})
    content = b'{"value":"' + b"x" * (small + 1) + b'"}'
    assert isinstance(found, bytes)
    assert as_reference(found) == reference_to(content)
    assert await store.get("shop", reference_to(content)) == content


async def test_an_output_of_one_task_is_the_input_of_the_next(execution: Execution) -> None:
    big = await outcome(execution, "give", {"size": 200_000})
    assert isinstance(big, bytes)
    assert await outcome(execution, "echo", b'{"value":[' + big + b"]}") != b""
    whole = await outcome(execution, "echo", big)
    assert whole == big


async def test_an_output_beyond_the_limit_is_refused(execution: Execution) -> None:
    found = failure(await outcome(execution, "give", {"size": LIMIT}))
    assert (found.kind, found.retryable) == ("output_too_large", False)
    assert "300,000" in found.message
    assert "COMMANDCENTER_PAYLOAD_LIMIT" in found.message


async def test_an_output_nested_too_deep_is_refused(execution: Execution) -> None:
    assert isinstance(await outcome(execution, "nest", {"size": 200}), bytes)
    for levels in (201, 400):
        found = failure(await outcome(execution, "nest", {"size": levels}))
        assert (found.kind, found.retryable) == ("invalid_output", False), levels


async def test_an_output_that_is_no_json_is_refused(execution: Execution) -> None:
    found = failure(await outcome(execution, "give_no_number", {}))
    assert (found.kind, found.retryable) == ("invalid_output", False)
    assert "not JSON" in found.message


# --- a store that is away -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OperatorError("away"), RuntimeError("away")])
async def test_a_store_that_is_away_for_a_moment_is_waited_for(
    store: BlobStore, error: Exception
) -> None:
    execution = over(Flaky(store, [error]))
    reference = await kept(store, {"size": INLINE_LIMIT})
    found = await outcome(execution, "give", reference)
    assert isinstance(found, bytes)
    assert as_reference(found) is not None


@pytest.mark.parametrize("action", ["give", "echo"])
async def test_a_store_that_stays_away_is_a_time_out(store: BlobStore, action: str) -> None:
    execution = over(Flaky(store, [OperatorError("the disk is gone")] * 1_000))
    inputs = {"size": INLINE_LIMIT} if action == "give" else await kept(store, {})
    found = failure(await outcome(execution, action, inputs, timeout_ms=20))
    assert (found.kind, found.retryable) == ("timeout", True)
    assert "the disk is gone" in found.message

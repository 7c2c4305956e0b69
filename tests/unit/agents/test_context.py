"""What an action is given with its task: secrets, a workspace, blobs, costs, a logger."""

import asyncio
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Raw
from pydantic import BaseModel
from structlog.testing import LogCapture

from agents import Agent, AgentError, AgentRegistry, Blob, Context, Secrets
from agents.blob import MemoryBlobs
from agents.cost import Rate
from agents.execution import Execution
from agents.payloads import Payloads
from agents.secrets import WorkerSecrets
from streams.blob_store import BlobStore
from streams.messages import Result, Task

TOKEN = 'tok"en-éight-characters'


class Asked(BaseModel):
    what: str = ""
    blob: Blob | None = None


class Told(BaseModel):
    text: str = ""
    blob: Blob | None = None


agent = Agent("helper", description="Uses its context.", rate="0.06", version="3.1.0")
heavy = Agent("heavy", description="Has no rate of its own.")
seen: list[Any] = []


@agent.action
async def tell_the_secret(inputs: Asked, context: Context) -> Told:
    return Told(text=context.secrets["API_TOKEN"])


@agent.action
async def fail_with_the_secret(inputs: Asked, context: Context) -> Told:
    token = context.secrets["API_TOKEN"]
    await context.progress(1, f"asking with {token}")
    raise ValueError(f"401 for {token}{inputs.what}{token}")


@agent.action
async def use_the_secret(inputs: Asked, context: Context) -> Told:
    return Told(text=str(len(context.secrets["API_TOKEN"])))


@agent.action
async def ask_for(inputs: Asked, context: Context) -> Told:
    return Told(text=context.secrets[inputs.what])


@agent.action
def work_in_a_folder(inputs: Asked, context: Context) -> Told:
    folder = context.workspace
    seen.append(folder)
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    (folder / "deep").chmod(0o500)
    if inputs.what == "fail":
        raise ValueError("no")
    return Told(text=str(folder.stat().st_mode & 0o777))


@agent.action
def keep(inputs: Asked, context: Context) -> Told:
    blob = context.blobs.write(inputs.what.encode(), media_type="text/plain", name="a.txt")
    return Told(blob=blob)


@agent.action
async def fetch(inputs: Asked, context: Context) -> Told:
    assert inputs.blob is not None
    content = await asyncio.to_thread(context.blobs.read, inputs.blob)
    return Told(text=content.decode(), blob=inputs.blob)


@agent.action
async def fetch_in_the_loop(inputs: Asked, context: Context) -> Told:
    context.blobs.write(b"x")
    return Told()


@agent.action(timeout=0.05)
async def pay(inputs: Asked, context: Context) -> Told:
    context.cost.record(
        kind="tokens",
        source="anthropic",
        model="m",
        quantity=1000,
        unit="input_token",
        unit_price="0.000003",
    )
    if inputs.what == "fail":
        raise ValueError("no")
    if inputs.what == "hang":
        await asyncio.Event().wait()
    return Told()


@agent.action(risk="APPROVAL_REQUIRED")
async def dare(inputs: Asked) -> Told:
    return Told()


@heavy.action
async def lift(inputs: Asked) -> Told:
    return Told()


def task(action: str, inputs: Any = None, of: str = "helper") -> Task:
    return Task(
        id="task-1",
        run="run-1",
        project="shop",
        workflow="w",
        node="n",
        attempt=1,
        agent=of,
        action=action,
        inputs=Raw(json.dumps(inputs or {}).encode()),
        timeout_ms=9_000,
        reply_partition=0,
    )


@pytest.fixture
def execution(tmp_path: Path) -> Iterator[Execution]:
    seen.clear()
    store = BlobStore(str(tmp_path / "blobs"), limit=1_000)
    made = Execution(
        AgentRegistry([agent, heavy]),
        Payloads(store),
        now_ms=lambda: int(time.time() * 1000),
        rate=Rate(Decimal("0.5"), "setting"),
        secrets=WorkerSecrets({"COMMANDCENTER_SECRET_API_TOKEN": TOKEN}, tmp_path / "secrets"),
        blobs=store,
        clock_ns=count(0, 60_000_000_000).__next__,
    )
    yield made
    made.close()


async def output(execution: Execution, action: str, inputs: Any = None) -> dict[str, Any]:
    result = await execution.execute(task(action, inputs))
    assert result.failure is None, result.failure
    assert isinstance(result.output, Raw)
    found: dict[str, Any] = json.loads(bytes(result.output))
    return found


# --- secrets ---


async def test_a_secret_is_used_and_leaves_in_no_way(execution: Execution) -> None:
    assert (await output(execution, "use_the_secret"))["text"] == str(len(TOKEN))
    told = await execution.execute(task("tell_the_secret"))
    assert told.failure is not None
    assert told.failure.kind == "invalid_output"
    assert told.failure.message == "the secret API_TOKEN stands in the output"
    failed = await execution.execute(task("fail_with_the_secret"))
    assert failed.failure is not None
    assert failed.failure.message == "ValueError: 401 for ******"
    for length in (1_950, 1_970, 1_980):  # the message is cut there
        failed = await execution.execute(task("fail_with_the_secret", {"what": "x" * length}))
        assert failed.failure is not None
        assert TOKEN[:4] not in failed.failure.message


async def test_progress_has_no_secret_in_it() -> None:
    context = Context(secrets=Secrets({"API_TOKEN": TOKEN}))
    with pytest.raises(ValueError, match="401"):
        await fail_with_the_secret.test({}, context)
    assert context.signals.progress == (1.0, "asking with ***")
    assert TOKEN not in repr(context)


@pytest.mark.parametrize("name", ["API_TOKEN_2", "api_token", "../../etc/passwd", ""])
async def test_a_secret_that_is_not_there_says_how_to_give_it(
    execution: Execution, name: str
) -> None:
    result = await execution.execute(task("ask_for", {"what": name}))
    assert result.failure is not None
    if name == "API_TOKEN_2":
        assert "COMMANDCENTER_SECRET_API_TOKEN_2" in result.failure.message
        assert "COMMANDCENTER_SECRETS" in result.failure.message
    else:
        assert "names no secret" in result.failure.message


def test_secrets_come_from_files_as_well_and_are_read_anew(tmp_path: Path) -> None:
    secrets = Secrets(WorkerSecrets({"COMMANDCENTER_SECRET_A": "from the environment"}, tmp_path))
    (tmp_path / "A").write_text("from a file")
    (tmp_path / "B").write_text("first\n")
    assert (secrets["A"], secrets["B"]) == ("from the environment", "first")
    (tmp_path / "B").write_text("second\n\n")
    assert secrets["B"] == "second\n"
    assert "B" in secrets
    assert "C" not in secrets
    (tmp_path / "C").write_bytes(b"\xff")
    with pytest.raises(AgentError, match="it is not UTF-8"):
        secrets["C"]
    (tmp_path / "D").mkdir()
    with pytest.raises(AgentError, match="the secret D in"):
        secrets["D"]
    assert repr(secrets) == "Secrets(A, B)"


def test_the_logger_says_whose_task_it_is_and_no_secret() -> None:
    captured = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[captured])
    try:
        context = Context(task_id="t", secrets=Secrets({"API_TOKEN": TOKEN}))
        context.logger.info("before", token=TOKEN)
        assert context.secrets["API_TOKEN"] == TOKEN
        error = ValueError(TOKEN)
        said = f"asked with {TOKEN}"
        context.logger.error(said, exc_info=error, headers={"token": TOKEN})
    finally:
        structlog.configure(**before)
    first, second = captured.entries
    assert first["task"] == "t"
    assert second["event"] == "asked with ***"
    assert "***" in second["headers"]
    assert "ValueError" in second["exception"]
    assert TOKEN not in str(second)


# --- workspace ---


@pytest.mark.parametrize("what", ["", "fail"])
async def test_a_workspace_is_private_and_gone_afterwards(execution: Execution, what: str) -> None:
    result = await execution.execute(task("work_in_a_folder", {"what": what}))
    assert (result.failure is not None) == bool(what)
    await execution.execute(task("work_in_a_folder", {"what": what}))
    first, second = seen
    assert first != second
    assert not first.exists()
    assert not second.exists()
    if not what:
        assert json.loads(bytes(result.output))["text"] == str(0o700)  # type: ignore[arg-type]  # it succeeded


async def test_the_workspace_of_a_tests_context_is_there_to_be_looked_at() -> None:
    context = Context()
    await work_in_a_folder.test({}, context)
    folder = context.workspace
    assert (folder / "deep" / "file").read_text() == "x"
    context.folder.remove()
    assert not folder.exists()


# --- blobs ---


async def test_a_blob_is_kept_for_other_actions_and_is_not_put_in_place(
    execution: Execution,
) -> None:
    blob = (await output(execution, "keep", {"what": "hé"}))["blob"]
    assert blob == {
        "blob": blob["blob"],
        "size": 3,
        "mediaType": "text/plain",
        "name": "a.txt",
    }
    assert await output(execution, "fetch", {"blob": blob}) == {"text": "hé", "blob": blob}


async def test_what_is_wrong_with_a_blob_is_said(execution: Execution) -> None:
    blob = {"blob": "0" * 64, "size": 3}
    for action, inputs, text in (
        ("fetch", {"blob": blob}, "is not in the blob store"),
        ("fetch", {"blob": {"blob": "../../etc/passwd", "size": 1}}, "should match pattern"),
        ("keep", {"what": "x" * 1_001}, "COMMANDCENTER_PAYLOAD_LIMIT"),
        ("fetch_in_the_loop", {}, "asyncio.to_thread"),
    ):
        result = await execution.execute(task(action, inputs))
        assert result.failure is not None
        assert text in result.failure.message


async def test_blobs_need_no_server_in_a_test() -> None:
    context = Context()
    kept = await keep.test({"what": "x"}, context)
    assert kept.blob is not None
    assert (await fetch.test(Asked(blob=kept.blob), context)).text == "x"
    with pytest.raises(AgentError, match="there is no blob"):
        MemoryBlobs().read(kept.blob)


# --- costs ---


def paid(result: Result) -> list[tuple[str, str, str, str]]:
    return [(c.kind, c.source, f"{c.amount:f}", c.price_version) for c in result.costs]


@pytest.mark.parametrize(
    ("what", "kind"), [("", None), ("fail", "agent_error"), ("hang", "timeout")]
)
async def test_what_was_used_is_paid_whatever_became_of_it(
    execution: Execution, what: str, kind: str | None
) -> None:
    result = await execution.execute(task("pay", {"what": what}))
    assert (None if result.failure is None else result.failure.kind) == kind
    assert paid(result) == [
        ("compute", "helper", "0.06", "helper@3.1.0"),
        ("tokens", "anthropic", "0.003", ""),
    ]


async def test_the_worker_sets_the_rate_of_those_that_have_none(execution: Execution) -> None:
    result = await execution.execute(task("lift", of="heavy"))
    assert paid(result) == [("compute", "heavy", "0.5", "setting")]


@pytest.mark.parametrize(
    ("action", "inputs"), [("dare", {}), ("keep", {"what": 1}), ("nothing", {})]
)
async def test_what_was_not_begun_is_free(execution: Execution, action: str, inputs: Any) -> None:
    result = await execution.execute(task(action, inputs))
    assert result.failure is not None
    assert result.costs == ()


# --- names for others ---


def test_a_task_is_named_to_outside_systems() -> None:
    context = Context(task_id="run/node/1", traceparent="00-1-2-01")
    assert context.idempotency_key == "run/node/1"
    assert context.trace_headers == {"traceparent": "00-1-2-01"}
    assert Context().trace_headers == {}

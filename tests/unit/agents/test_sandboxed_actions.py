"""Actions with `execution="sandbox"` through the worker's `Execution`."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio
import sandboxed
from msgspec import Raw, structs
from pydantic import BaseModel
from structlog.testing import capture_logs

from agents import AgentError, AgentRegistry, Readable
from agents.attempt import Attempt
from agents.execution import Execution
from agents.payloads import Payloads
from agents.readable import ReadablePaths, UnreadableError
from agents.sandbox import ProcessSandbox
from agents.sandbox.actions import ContextAttendant, SandboxedActions, check
from agents.secrets import GivenSecrets
from agents.security_scanner import scanner
from streams.blob_store import BlobStore
from streams.messages import Progress, Result, Task, TaskCancellation

SECRET = "very-hidden"


@pytest_asyncio.fixture
async def execution(tmp_path: Path) -> AsyncIterator[Execution]:
    blobs = BlobStore(str(tmp_path / "blobs"), 1_000_000)
    registry = AgentRegistry([sandboxed.agent])
    modules = check(sandboxed.agent.actions.values())
    async with ProcessSandbox(modules, folder=tmp_path) as sandbox:
        yield Execution(
            registry,
            Payloads(blobs),
            now_ms=lambda: 0,
            secrets=GivenSecrets({"TOKEN": SECRET}),
            blobs=blobs,
            sandboxed=SandboxedActions(sandbox, ReadablePaths()),
        )


def task(action: str, timeout_ms: int = 30_000, **inputs: Any) -> Task:
    return Task(
        id="t", run="r", project="p", workflow="w", node="n", attempt=1, agent="sandboxed",
        action=action, inputs=Raw(json.dumps(inputs).encode()), timeout_ms=timeout_ms,
        reply_partition=0,
    )  # fmt: skip


def output(result: Result) -> Any:
    assert result.failure is None, result.failure
    assert isinstance(result.output, Raw)
    return json.loads(bytes(result.output))


async def test_an_action_does_not_know_where_it_runs(execution: Execution) -> None:
    assert output(await execution.execute(task("repeat", text="so"))) == {"said": "so"}
    process, *rest = output(await execution.execute(task("where", text="x")))["said"].split(" ", 1)
    assert rest == ["['note'] n"]
    assert process != ""


async def test_what_it_tells_and_asks_reaches_its_context(execution: Execution) -> None:
    said: list[Progress] = []
    given = task("everything", text="content")
    attempt: Attempt = execution.attempt(given, lambda _task, progress: said.append(progress))
    with capture_logs() as lines:
        result = await execution.execute(given, attempt)
    assert output(result)["blob"]["size"] == 7
    assert output(result)["blob"]["mediaType"] == "text/plain"
    assert [(cost.source, cost.amount) for cost in result.costs[1:]] == [("ver", Decimal("0.5"))]
    assert attempt.signals.progress == (50.0, "half")
    (line,) = [each for each in lines if each["event"] == "at work"]
    assert line["task"] == "t"


async def test_what_fails_there_is_the_tasks_failure(execution: Execution) -> None:
    failure = (await execution.execute(task("fail", text="for good"))).failure
    assert failure is not None
    assert (failure.kind, failure.error, failure.retryable) == (
        "agent_error",
        "PermanentError",
        False,
    )


async def test_who_runs_over_its_time(execution: Execution) -> None:
    failure = (await execution.execute(task("stubborn", 300))).failure
    assert failure is not None
    assert (failure.kind, failure.retryable) == ("timeout", True)


async def test_who_is_called_off_can_tidy_up(execution: Execution) -> None:
    given = task("until_cancelled")
    attempt, begun = begun_attempt(execution, given)
    running = asyncio.create_task(execution.execute(given, attempt))
    await begun.wait()
    attempt.cancel(TaskCancellation(task="t", agent="sandboxed", reason="no", grace_ms=10_000))
    assert output(await running) == {"said": "tidied up"}


async def test_who_does_not_end_when_called_off_is_killed(execution: Execution) -> None:
    given = task("stubborn")
    attempt, begun = begun_attempt(execution, given)
    running = asyncio.create_task(execution.execute(given, attempt))
    await begun.wait()
    attempt.cancel(TaskCancellation(task="t", agent="sandboxed", reason="enough", grace_ms=10))
    failure = (await running).failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("cancelled", "enough")
    assert output(await execution.execute(task("repeat", text="on"))) == {"said": "on"}


def begun_attempt(execution: Execution, given: Task) -> tuple[Attempt, asyncio.Event]:
    begun = asyncio.Event()
    return execution.attempt(given, lambda _task, _progress: begun.set()), begun


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("progress", "fast"),
        ("progress", [[], ""]),
        ("cost", {"kind": "compute", "source": "x", "quantity": "1", "unit": "m",
                  "unitPrice": "1", "amount": "1"}),
        ("cost", {"kind": "api"}),
        ("log", {"level": "__class__", "event": ""}),
        ("whatever", None),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused(kind: str, body: Any) -> None:
    from agents import Context

    with pytest.raises(ValueError, match=r"."):
        ContextAttendant(Context()).told(kind, body)


def test_an_action_that_cannot_be_found_again() -> None:
    from agents import Agent

    made = Agent("lost", description="")

    @made.action(execution="sandbox")
    async def inner(inputs: sandboxed.Text) -> sandboxed.Said:
        return sandboxed.Said(said="")

    with pytest.raises(AgentError, match="'inner' of agent 'lost'"):
        check(made.actions.values())


class Scan(BaseModel):
    repository: Annotated[str, Readable()]
    other: str = "/etc"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "code" / "inner").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "code" / "to-etc").symlink_to("/etc")
    (tmp_path / "code" / "to-inner").symlink_to("inner")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "given"),
    [("code/inner", ["code/inner"]), ("code/to-inner", ["code/inner"]), ("code/nothing", [])],
)
def test_inputs_name_what_may_be_read(tree: Path, text: str, given: list[str]) -> None:
    paths = ReadablePaths([tree], [tree / "data"])
    assert paths.of(Scan(repository=f"{tree}/{text}")) == tuple(tree / each for each in given)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{tree}/code/../data", "'..'"),
        ("{tree}/code/to-etc", "leads to /etc"),
        ("{tree}/data", "private"),
        ("{tree}", "private"),
        ("/", "private"),
        ("/proc/self/root", "private"),
        ("relative", "absolute"),
        ("/usr", "only"),
        ("/a\0b", "absolute"),
    ],
)
def test_inputs_cannot_name_anything(tree: Path, text: str, why: str) -> None:
    paths = ReadablePaths([tree], [tree / "data"])
    with pytest.raises(UnreadableError, match=why):
        paths.of(Scan(repository=text.format(tree=tree)))


def test_an_operator_may_name_a_folder_in_a_private_place(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a build server keeps its repositories in /var/lib."""
    monkeypatch.setattr(Path, "home", lambda: tree)
    named, own = tree / ".config" / "repositories", tree / ".config" / "repositories" / "data"
    for folder in (own, named / "code", tree / ".config" / "more"):
        folder.mkdir(parents=True)
    paths = ReadablePaths([named], [own])
    assert paths.of(Scan(repository=f"{named}/code")) == (named / "code",)
    for folder in (tree / ".config", tree / ".config" / "more", own, named):
        with pytest.raises(UnreadableError, match="private"):
            paths.of(Scan(repository=str(folder)))


@pytest.mark.parametrize("text", ["https://example.org/x.git", ""])
def test_a_url_is_no_path(tree: Path, text: str) -> None:
    assert ReadablePaths().of(Scan(repository=text)) == ()


class Judge(BaseModel):
    policy: Annotated[str, Readable(or_within=True)]


def test_a_path_may_lead_into_something_else(tree: Path) -> None:
    assert ReadablePaths().of(Judge(policy="policy.yaml")) == ()
    assert ReadablePaths().of(Judge(policy=f"{tree}/code")) == (tree / "code",)


class Files(BaseModel):
    one: Annotated[str, Readable()] | None = None
    some: list[Annotated[str, Readable()]] = []
    by_name: dict[str, tuple[Scan, ...]] = {}
    plain: str = "/etc"


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ({"one": "/etc"}, "one"),
        ({"some": ["/srv", "/etc"]}, "some"),
        ({"by_name": {"a": [{"repository": "/etc"}]}}, "by_name.repository"),
    ],
)
def test_a_mark_counts_wherever_it_stands(inputs: dict[str, Any], place: str) -> None:
    with pytest.raises(UnreadableError, match=f"^{place}: '/etc' leads to /etc"):
        ReadablePaths().of(Files.model_validate(inputs))
    assert ReadablePaths().of(Files()) == ()


def git(folder: Path, *arguments: str) -> None:
    settings = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    git(made, "init")
    (made / ".gitignore").write_text("ignored.py\n")
    for name in ("a.py", "ignored.py"):
        (made / name).write_text("eval('1')\n")
    git(made, "add", ".")
    git(made, "commit", "-m", "first")
    return made


def test_a_worktree_is_read_with_its_repository(repository: Path, tmp_path: Path) -> None:
    worktree = tmp_path / "worktree"
    git(repository, "worktree", "add", str(worktree))
    found = ReadablePaths().of(Scan(repository=str(worktree)))
    assert found == (worktree, repository / ".git")
    with pytest.raises(UnreadableError, match=r"worktree.*private"):
        ReadablePaths(private=[repository]).of(Scan(repository=str(worktree)))


def test_a_folder_cannot_make_itself_anybodys_worktree(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", str(tmp_path / "worktree"))
    posing = tmp_path / "posing"
    posing.mkdir()
    (posing / ".git").write_text((tmp_path / "worktree" / ".git").read_text())
    assert ReadablePaths().of(Scan(repository=str(posing))) == (posing,)


@pytest.mark.parametrize("kind", ["folder", "worktree", "url"])
async def test_a_repository_is_read_as_git_sees_it(
    repository: Path, tmp_path: Path, kind: str
) -> None:
    inputs = {"repositoryPath": str(repository)}
    if kind == "worktree":
        git(repository, "worktree", "add", str(tmp_path / "worktree"))
        (tmp_path / "worktree" / "ignored.py").write_text("eval('1')\n")
        inputs = {"repositoryPath": str(tmp_path / "worktree")}
    elif kind == "url":
        inputs = {"repositoryUrl": repository.as_uri()}
    result = await scanned(tmp_path, inputs)
    assert [it["file"] for it in output(result)["findings"]] == ["a.py"]
    assert output(result)["scannedFiles"] == 1


async def test_a_url_that_leads_to_private_folders_is_not_cloned(
    repository: Path, tmp_path: Path
) -> None:
    result = await scanned(tmp_path, {"repositoryUrl": repository.as_uri()}, private=[repository])
    assert result.failure is not None
    assert (result.failure.kind, result.failure.retryable) == ("invalid_input", False)
    assert "private" in result.failure.message


async def test_a_url_of_a_private_host_is_not_cloned(tmp_path: Path) -> None:
    result = await scanned(tmp_path, {"repositoryUrl": "https://127.0.0.1:9/x.git"})
    assert result.failure is not None
    assert (result.failure.kind, result.failure.retryable) == ("invalid_input", False)
    assert "not a public address" in result.failure.message


async def scanned(folder: Path, inputs: dict[str, Any], private: Sequence[Path] = ()) -> Result:
    (action,) = scanner.actions.values()
    async with ProcessSandbox(check([action]), folder=folder, preload=action.preload) as sandbox:
        blobs = BlobStore(str(folder / "blobs"), 1_000_000)
        execution = Execution(
            AgentRegistry([scanner]),
            Payloads(blobs),
            now_ms=lambda: 0,
            blobs=blobs,
            sandboxed=SandboxedActions(sandbox, ReadablePaths(private=private)),
        )
        given = task("scan", 60_000, scanType="python", **inputs)
        return await execution.execute(structs.replace(given, agent="security-scanner"))

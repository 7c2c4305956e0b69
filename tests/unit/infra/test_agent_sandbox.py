"""Which sandbox a worker opens, and what its actions may be given."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sandboxed
from msgspec import Raw

from agents import Agent, AgentRegistry, Context
from agents.colleagues import WorkerColleagues
from agents.execution import Execution
from agents.patcher import patcher
from agents.payloads import Payloads
from agents.sandbox import Job, SandboxError
from agents.sandbox.actions import SandboxedActions, SandboxedError
from agents.sandbox.docker import DockerSandbox
from agents.sandbox.job import Call, Limits
from infra.agent_sandbox import readable_paths, sandboxed_actions
from infra.settings import Settings
from streams.blob_store import BlobStore
from streams.messages import Task

light = Agent("light", description="")


@light.action
async def look(inputs: sandboxed.Place) -> sandboxed.Said:
    return sandboxed.Said(said=inputs.path)


async def opened(stack: AsyncExitStack, agent: Agent, **flags: object) -> SandboxedActions | None:
    return await sandboxed_actions(Settings.load(**flags), AgentRegistry([agent]), stack)


@pytest.mark.parametrize("kind", ["process", "inline"])
async def test_the_sandbox_of_the_settings_is_opened(kind: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        actions = await opened(stack, sandboxed.agent, sandbox=kind, data=tmp_path)
        assert actions is not None
        said = await actions.call(sandboxed.repeat, Context(), sandboxed.Text(text="so"), 30)
    assert said == {"said": "so"}


async def test_none_is_opened_where_nobody_asks_for_it(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        assert await opened(stack, light, data=tmp_path) is None


@pytest.mark.parametrize("where", ["data/blobs", "secrets", ".."])
async def test_the_workers_own_folders_are_never_given(tmp_path: Path, where: str) -> None:
    for name in ("data/blobs", "secrets", "allowed"):
        (tmp_path / name).mkdir(parents=True)
    flags = {"data": tmp_path / "data", "secrets": tmp_path / "secrets", "sandbox": "inline"}
    async with AsyncExitStack() as stack:
        actions = await opened(stack, sandboxed.agent, **flags)
        assert actions is not None
        path = tmp_path / "allowed" / where if where == ".." else tmp_path / where
        place = sandboxed.Place(path=str(path))
        with pytest.raises(SandboxedError) as raised:
            await actions.call(sandboxed.look, Context(), place, 30)
    assert raised.value.failure.kind == "invalid_input"


async def test_only_folders_of_the_setting_are_given(tmp_path: Path) -> None:
    for name in ("allowed", "other"):
        (tmp_path / name).mkdir()
    async with AsyncExitStack() as stack:
        actions = await opened(
            stack, sandboxed.agent, data=tmp_path / "data",
            sandbox_readable=f"/nonexistent:{tmp_path / 'allowed'}",
        )  # fmt: skip
        assert actions is not None
        place = sandboxed.Place(path=str(tmp_path / "allowed"))
        assert await actions.call(sandboxed.look, Context(), place, 30) == {"said": "[]"}
        other = sandboxed.Place(path=str(tmp_path / "other"))
        with pytest.raises(SandboxedError, match="may be read"):
            await actions.call(sandboxed.look, Context(), other, 30)


def test_the_operators_advisories_may_be_read_wherever_they_are(tmp_path: Path) -> None:
    database = tmp_path / "osv"
    for name in ("allowed", "osv"):
        (tmp_path / name).mkdir()
    paths = readable_paths(
        Settings.load(
            data=tmp_path / "data", sandbox_readable=str(tmp_path / "allowed"), advisories=database
        )
    )
    assert paths.of(sandboxed.Place(path=str(database))) == (database,)


async def test_what_is_not_sandboxed_is_given_no_other_folders(tmp_path: Path) -> None:
    """A step's task, and a call by another action, of the light actions that mark their inputs."""
    target = {"repositoryPath": str(tmp_path / "other"), "file": "a.json"}
    order = {"patchType": "config-update", "target": target, "changes": [{"path": ["a"]}]}
    for name in ("allowed", "other"):
        (tmp_path / name).mkdir()
    paths = readable_paths(
        Settings.load(data=tmp_path / "data", sandbox_readable=str(tmp_path / "allowed"))
    )
    payloads = Payloads(BlobStore(str(tmp_path / "blobs"), 1_000))
    execution = Execution(AgentRegistry([patcher]), payloads, now_ms=lambda: 0, paths=paths)
    task = Task(
        id="t", run="r", project="p", workflow="w", node="n", attempt=1, agent="patcher",
        action="apply", inputs=Raw(json.dumps(order).encode()), timeout_ms=30_000,
        reply_partition=0, approved=True,
    )  # fmt: skip
    refused = (await execution.execute(task)).failure
    assert refused is not None
    assert (refused.kind, refused.retryable) == ("invalid_input", False)
    assert refused.message.startswith(f"target.repositoryPath: '{tmp_path}/other' leads to")

    colleagues = WorkerColleagues(AgentRegistry([light]), paths=paths)
    for name, kind in (("allowed", None), ("other", "invalid_input")):
        place = json.dumps({"path": str(tmp_path / name)}).encode()
        given = await colleagues.call(Context(), "light", "look", place)
        assert getattr(given, "kind", None) == kind


async def test_docker_without_an_engine_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    async with AsyncExitStack() as stack:
        with pytest.raises(SandboxError, match="'docker' needs an engine"):
            await opened(stack, sandboxed.agent, sandbox="docker", data=tmp_path)


def test_a_container_is_confined() -> None:
    job = Job(work=Call(target="m:f"), limits=Limits(memory=1000, processes=7),
              readable=(Path("/srv/code"),))  # fmt: skip
    line = DockerSandbox(image="image").command_line(job, Path("/work"), "name")
    assert {
        "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--memory=1000", "--memory-swap=1000", "--pids-limit=7",
        "--mount=type=bind,source=/srv/code,target=/srv/code,readonly",
        "--mount=type=bind,source=/work,target=/job",
    } <= set(line)  # fmt: skip
    assert not any(each == "--user=0:0" for each in line)

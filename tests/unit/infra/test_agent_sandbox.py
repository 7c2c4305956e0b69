"""Which sandbox a worker opens, and what its actions may be given."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sandboxed

from agents import Agent, AgentRegistry, Context
from agents.sandbox import Job, SandboxError
from agents.sandbox.actions import SandboxedActions, SandboxedError
from agents.sandbox.docker import DockerSandbox
from agents.sandbox.job import Call, Limits
from infra.agent_sandbox import sandboxed_actions
from infra.settings import Settings


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
    light = Agent("light", description="")

    @light.action
    async def nothing(inputs: sandboxed.Text) -> sandboxed.Said:
        return sandboxed.Said(said="")

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

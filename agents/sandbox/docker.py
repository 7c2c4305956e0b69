"""The backend `docker`: each job in a container of its own, by the `docker` command.

The container has no network, no capability, a read-only root, and limits on memory and processes;
it sees the worker's Python packages, what the job may read, and its workspace. The image has to
have a Python of the worker's version. Starting a container takes its time: this is for where the
kernel's own means (`process`) are not there, or not enough.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex
from typing import Final

import structlog

from agents.sandbox import view
from agents.sandbox.attending import Line, see_through
from agents.sandbox.confinement import CPU_GRACE_S
from agents.sandbox.environment import environment
from agents.sandbox.errors import SandboxError
from agents.sandbox.folders import give
from agents.sandbox.in_folders import InFolders
from agents.sandbox.job import MEGABYTE, Call, Command, Job, Outcome
from agents.sandbox.sandbox import Attendant, Guarantees
from agents.sandbox.wire import Ended

IMAGE: Final = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
_NOBODY: Final = 65_534
_HERE: Final = Path("/job")
_NOT_STARTED: Final = (125, 126, 127)
_ASK_S: Final = 20.0

_log = structlog.get_logger("agents.sandbox")


class DockerSandbox(InFolders):
    """Does jobs in containers.

    Args:
        modules: what the jobs will need; their folders are shown to the containers.
        image: with a `python` of this version, and what commands need.
        folder: where workspaces are made; the engine has to see it under the same name.
    """

    name = "docker"

    def __init__(
        self, modules: Iterable[str] = (), *, image: str = IMAGE, folder: Path | None = None
    ) -> None:
        self._modules = tuple(modules)
        self._image = image
        super().__init__(folder)
        self._user = _NOBODY if os.geteuid() == 0 else os.geteuid()
        self._code: tuple[Path, ...] = ()
        self.guarantees = Guarantees(
            reads_only_what_it_may=True,
            writes_only_to_its_workspace=True,
            no_network=True,
            no_other_process=True,
            memory=True,
            processes=True,
            everything_ends=True,
        )

    async def _open(self) -> None:
        fault = await engine_fault()
        if fault is not None:
            raise SandboxError(f"the sandbox 'docker' needs an engine: {fault}")
        prefixes = (Path(sys.prefix), Path(sys.base_prefix))
        packages = {Path(entry) for entry in sys.path if "site-packages" in entry}
        self._code = (*packages, *(set(view.code(self._modules)) - set(prefixes)))

    async def run(
        self, job: Job, attendant: Attendant | None = None, stop: asyncio.Event | None = None
    ) -> Outcome:
        """Do the job, as `agents.sandbox.sandbox.Sandbox` says."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self._folders.one())
            workspace = self._workspace_of(job, folder)
            if os.geteuid() == 0:
                await asyncio.to_thread(give, self._user, workspace)
            name = f"commandcenter-{token_hex(8)}"
            process = await asyncio.create_subprocess_exec(
                *self.command_line(job, workspace, name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=MEGABYTE,
            )
            stack.push_async_callback(_docker, "rm", "--force", "--volumes", name)
            running = _Container(name, process, job.work)
            return await see_through(job, running, attendant, stop, began)

    def command_line(self, job: Job, workspace: Path, name: str) -> list[str]:
        """The `docker` command that does the job in a container called `name`."""
        limits = job.limits
        options = {
            "name": name,
            "user": f"{self._user}:{self._user}",
            "network": "bridge" if job.network else "none",
            "memory": str(limits.memory),
            "memory-swap": str(limits.memory),
            "pids-limit": str(limits.processes),
            "cap-drop": "ALL",
            "security-opt": "no-new-privileges",
            "tmpfs": f"/tmp:size={limits.disk},mode=1777",  # noqa: S108 -- the container's own
            "workdir": str(_HERE),
            "stop-timeout": "0",
        }
        line = ["docker", "run", "--interactive", "--read-only", "--init", "--log-driver=none"]
        line += [f"--{key}={value}" for key, value in options.items()]
        for what, soft, hard in (
            # At the hard one the kernel kills, which says nothing: the signal has to come before.
            ("cpu", limits.cpu, limits.cpu + CPU_GRACE_S),
            ("fsize", limits.file, limits.file),
            ("nofile", limits.open_files, limits.open_files),
            ("core", 0, 0),
        ):
            line.append(f"--ulimit={what}={soft}:{hard}")
        line.append(f"--mount=type=bind,source={workspace},target={_HERE}")
        for path in dict.fromkeys((*self._code, *job.readable)):
            line.append(f"--mount=type=bind,source={path},target={path},readonly")
        given = {**environment(Path("/tmp")), "PATH": "/usr/local/bin:/usr/bin:/bin"}  # noqa: S108 -- as above
        given["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        if isinstance(job.work, Command):
            given |= job.work.environment
        for key, value in given.items():
            line.append(f"--env={key}={value}")
        line.append(self._image)
        if isinstance(job.work, Command):
            return [*line, *job.work.argv]
        return [*line, "python", "-X", "utf8", "-P", "-m", "agents.sandbox.contained"]


class _Container:
    """A job in its container; what it says in a call comes over its stdout."""

    keeps_time = False

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, work: Command | Call
    ) -> None:
        self._name = name
        self._process = process
        self._asked: set[asyncio.Task[str]] = set()
        self.line: Line | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr = process.stderr
        if process.stdin is None or process.stdout is None:
            raise AssertionError("docker was started without pipes")
        if isinstance(work, Call):
            self.line = (process.stdout, process.stdin)
        else:
            self.stdout = process.stdout
            process.stdin.write(work.stdin)
            process.stdin.close()

    async def ended(self) -> Ended:
        """Its status, and whether it was the memory."""
        status = await self._process.wait()
        if await _docker("inspect", "--format={{.State.OOMKilled}}", self._name) == "true":
            text = "it used more memory than it may"
            return Ended(status=status, kind="out_of_memory", message=text)
        if status in _NOT_STARTED and not await self._has_run():
            text = "the container could not be started"
            return Ended(status=status, kind="not_started", message=text)
        # What ended by a signal says so as shells do.
        return Ended(status=128 - status if status > 128 else status)

    async def _has_run(self) -> bool:
        started = await _docker("inspect", "--format={{.State.StartedAt}}", self._name)
        return not started.startswith("0001") and started != ""

    def terminate(self) -> None:
        """SIGTERM to its first process, which passes it on."""
        self._kill("TERM")

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._kill("KILL")

    def _kill(self, signal: str) -> None:
        task = asyncio.create_task(_docker("kill", f"--signal={signal}", self._name))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)


async def engine_fault() -> str | None:
    """Why there is no engine; None where there is one."""
    try:
        process = await asyncio.create_subprocess_exec(
            "docker", "version", "--format={{.Server.Version}}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_ASK_S):
            _, said = await process.communicate()
    except OSError as error:
        return f"the docker command cannot be run: {error.strerror}"
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"docker did not answer within {_ASK_S:g} s"
    return None if process.returncode == 0 else said.decode(errors="replace").strip()


async def _docker(*arguments: str) -> str:
    """What a docker command says; empty where it fails, which it does for what has ended."""
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    said, _ = await process.communicate()
    return said.decode(errors="replace").strip() if process.returncode == 0 else ""

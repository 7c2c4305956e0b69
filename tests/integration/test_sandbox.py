"""One contract for every backend of the sandbox, and attempts to get out of those that confine.

Each attempt is bounded in itself (see `sandboxed`), and small limits make each short.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from msgspec import structs

from agents.sandbox import Call, Command, Job, Limits, Outcome, ProcessSandbox, Sandbox, bubblewrap
from agents.sandbox.confinement import LANDLOCK
from agents.sandbox.docker import DockerSandbox
from agents.sandbox.inline import InlineSandbox
from agents.sandbox.job import MEGABYTE

LIMITS = Limits(
    memory=256 * MEGABYTE,
    processes=40,
    disk=100 * MEGABYTE,
    file=64 * MEGABYTE,
    wall=15,
    grace=0.5,
    output=100_000,
    result=1_000_000,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_BUBBLEWRAP = bubblewrap.usable()[1]
needs_bubblewrap = pytest.mark.skipif(bool(NO_BUBBLEWRAP), reason=NO_BUBBLEWRAP)
needs_landlock = pytest.mark.skipif(not LANDLOCK, reason="the kernel has no Landlock")

CONFINING = [
    pytest.param("process with bubblewrap", marks=[needs_bubblewrap, needs_landlock]),
    pytest.param("process alone", marks=needs_landlock),
    pytest.param("process without Landlock", marks=needs_bubblewrap),
    pytest.param("docker", marks=pytest.mark.containers),
]
ALL = [*CONFINING, "inline"]


def made(kind: str, folder: Path) -> Sandbox:
    modules = ["sandboxed"]
    match kind:
        case "process with bubblewrap":
            return ProcessSandbox(modules, folder=folder)
        case "process alone":
            return ProcessSandbox(modules, folder=folder, use_bubblewrap=False)
        case "process without Landlock":
            return ProcessSandbox(modules, folder=folder, use_landlock=False)
        case "docker":
            return DockerSandbox(modules, folder=folder)
        case _:
            return InlineSandbox(folder=folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ALL)
async def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandbox]:
    folder = tmp_path_factory.mktemp("sandbox")
    async with made(request.param, folder) as sandbox:
        yield sandbox
    assert not leftovers(folder)


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(opened: Sandbox) -> AsyncIterator[Sandbox]:
    yield opened
    # Whatever a job did, the next one is done.
    assert await output(opened, "asynchronous") == "awaited"


confining = pytest.mark.parametrize("opened", CONFINING, indirect=True, scope="module")
by_processes = pytest.mark.parametrize("opened", CONFINING[:3], indirect=True, scope="module")
within_bubblewrap = pytest.mark.parametrize("opened", CONFINING[:1], indirect=True, scope="module")


async def call(sandbox: Sandbox, function: str, limits: Limits = LIMITS, **inputs: Any) -> Outcome:
    work = Call(target=f"sandboxed:{function}", inputs=json.dumps(inputs).encode())
    return await sandbox.run(Job(work=work, limits=limits))


async def output(sandbox: Sandbox, function: str, **inputs: Any) -> Any:
    outcome = await call(sandbox, function, **inputs)
    assert outcome.failure is None, outcome
    assert outcome.output is not None
    return json.loads(outcome.output)


async def failure(
    sandbox: Sandbox, function: str, limits: Limits = LIMITS, **inputs: Any
) -> tuple[str, str]:
    outcome = await call(sandbox, function, limits, **inputs)
    assert outcome.failure is not None, outcome
    assert outcome.output is None
    return outcome.failure.kind, outcome.failure.message


async def command(sandbox: Sandbox, *argv: str, limits: Limits = LIMITS) -> Outcome:
    return await sandbox.run(Job(work=Command(argv=argv), limits=limits))


class Listener:
    """An attendant that remembers, and knows when it has heard something."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.something = asyncio.Event()

    def told(self, kind: str, body: Any) -> None:
        self.heard.append((kind, body))
        self.something.set()

    async def asked(self, kind: str, body: Any) -> Any:
        return f"{kind} {body}"


# --- what every backend does ----------------------------------------------------------------------


async def test_a_command_gives_its_status_and_what_it_wrote(sandbox: Sandbox) -> None:
    work = Command(
        argv=("sh", "-c", 'cat; echo "$MORE" >&2; exit 3'),
        stdin=b"given",
        environment={"MORE": "complaint"},
    )
    outcome = await sandbox.run(Job(work=work, limits=LIMITS))
    assert (outcome.status, outcome.stdout, outcome.stderr) == (3, b"given", b"complaint\n")
    assert outcome.failure is None


async def test_a_command_that_is_not_there(sandbox: Sandbox) -> None:
    outcome = await command(sandbox, "no-such-program")
    assert outcome.failure is not None
    assert outcome.failure.kind == "not_started"
    assert not outcome.failure.retryable


async def test_a_call_gives_json_and_takes_large_inputs(sandbox: Sandbox) -> None:
    parts = ["y" * 1_000] * 500
    assert await output(sandbox, "sized", size=3, parts=parts) == {"text": "xxx", "parts": parts}


async def test_an_action_validates_what_it_takes_and_gives(sandbox: Sandbox) -> None:
    assert await output(sandbox, "repeat", text="so") == {"said": "so"}
    assert await failure(sandbox, "repeat", text=5) == (
        "invalid_input",
        "the inputs are not what the action takes: text: Input should be a valid string",
    )
    assert (await failure(sandbox, "wrong_output"))[0] == "invalid_output"


@pytest.mark.parametrize(
    ("text", "message", "retryable"),
    [("", "ValueError: not now", True), ("for good", "PermanentError: no way", False)],
)
async def test_what_an_action_raises(
    sandbox: Sandbox, text: str, message: str, retryable: bool
) -> None:
    outcome = await call(sandbox, "fail", text=text)
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.message) == ("agent_error", message)
    assert outcome.failure.retryable is retryable
    assert outcome.failure.error == message.partition(":")[0]


async def test_a_target_that_is_not_there(sandbox: Sandbox) -> None:
    kind, message = await failure(sandbox, "no_such_function")
    assert kind == "agent_error"
    assert "'sandboxed:no_such_function' cannot be called" in message


async def test_a_result_that_is_too_large(sandbox: Sandbox) -> None:
    kind, message = await failure(sandbox, "sized", size=5_000_000, parts=[])
    assert kind == "agent_error"
    assert "bytes" in message


async def test_endless_output(sandbox: Sandbox) -> None:
    outcome = await command(sandbox, "timeout", "20", "yes")
    assert outcome.failure is not None
    assert outcome.failure.kind == "output_limit"
    assert "100,000 bytes" in outcome.failure.message
    assert len(outcome.stdout) == 100_000


async def test_a_command_that_runs_over_its_time(sandbox: Sandbox) -> None:
    limits = Limits(wall=0.3, grace=0.2)
    outcome = await command(
        sandbox, "sh", "-c", "trap '' TERM; sleep 20 & wait; sleep 20", limits=limits
    )
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.retryable) == ("time_limit", True)
    assert "0.3 s" in outcome.failure.message
    assert outcome.wall < 10


async def test_an_action_is_told_to_end_and_its_output_counts(sandbox: Sandbox) -> None:
    listener, stop = Listener(), asyncio.Event()
    work = Call(target="sandboxed:until_cancelled")
    running = asyncio.create_task(sandbox.run(Job(work=work, limits=LIMITS), listener, stop))
    await listener.something.wait()
    assert listener.heard == [("progress", [1.0, "waiting"])]
    stop.set()
    outcome = await running
    assert outcome.output == b'{"said":"tidied up"}'


async def test_a_workspace_keeps_what_is_left_in_it(sandbox: Sandbox) -> None:
    async with sandbox.workspace() as folder:
        (folder / "given").write_text("from outside")
        for line in ("cat given > copy", "cat copy"):
            job = Job(work=Command(argv=("sh", "-c", line)), limits=LIMITS, workspace=folder)
            outcome = await sandbox.run(job)
            assert outcome.status == 0, outcome
        assert outcome.stdout == b"from outside"
        assert (folder / "copy").read_text() == "from outside"
    assert not folder.exists()


async def test_whoever_is_cancelled_ends_the_job(sandbox: Sandbox) -> None:
    listener = Listener()
    job = Job(work=Call(target="sandboxed:until_cancelled"), limits=LIMITS)
    running = asyncio.create_task(sandbox.run(job, listener))
    await listener.something.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# --- what confining backends do -------------------------------------------------------------------


@confining
async def test_the_environment_is_scrubbed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMANDCENTER_SECRET_TOKEN", "hidden")
    seen = await output(sandbox, "environment")
    assert "COMMANDCENTER_SECRET_TOKEN" not in seen
    assert seen["HOME"] == seen["TMPDIR"]


@confining
async def test_what_may_be_read_can_be_read_and_nothing_else(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    (repository / "deep").mkdir(parents=True)
    (repository / "deep" / "file").write_text("source")
    (repository / "way-out").symlink_to("/etc/shadow")
    (tmp_path / "secret").write_text("outside")

    async def reading(path: Path, function: str = "read") -> Outcome:
        work = Call(target=f"sandboxed:{function}", inputs=json.dumps({"path": str(path)}).encode())
        return await sandbox.run(Job(work=work, limits=LIMITS, readable=(repository,)))

    assert (await reading(repository / "deep" / "file")).output == b'"source"'
    for path in (
        tmp_path / "secret",
        repository / ".." / "secret",
        repository / "way-out",
        Path("/etc/shadow"),
        Path(__file__).parents[2] / "Makefile",
        Path(f"/proc/{os.getpid()}/environ"),
        Path(f"/proc/{os.getpid()}/root/etc/shadow"),
    ):
        for function in ("read", "links_out"):
            failed = (await reading(path, function)).failure
            assert failed is not None, path
            assert "PermissionError" in failed.message or "FileNotFound" in failed.message
    for folder in (tmp_path, Path("/root")):
        listed = await reading(folder, "listing")  # of a view of its own it may see the skeleton
        assert listed.failure is not None or b"secret" not in (listed.output or b"")


@confining
@pytest.mark.parametrize("name", ["new", "file"])
async def test_the_repository_is_read_only(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "file").write_text("source")
    repository.chmod(0o777)
    (repository / "file").chmod(0o666)
    inputs = json.dumps({"path": str(repository / name)}).encode()
    work = Call(target="sandboxed:write", inputs=inputs)
    failed = (await sandbox.run(Job(work=work, limits=LIMITS, readable=(repository,)))).failure
    assert failed is not None
    assert failed.error in {"PermissionError", "OSError"}
    assert str(repository / name) in failed.message
    line = f"rm -rf {repository}/*; mv {repository}/file {repository}/other"
    job = Job(work=Command(argv=("sh", "-c", line)), limits=LIMITS, readable=(repository,))
    assert (await sandbox.run(job)).status != 0
    assert [each.name for each in repository.iterdir()] == ["file"]
    assert (repository / "file").read_text() == "source"


@confining
@pytest.mark.parametrize("path", ["/tmp/from-a-sandbox", "/dev/shm/from-a-sandbox", "/var/tmp/x"])
async def test_nothing_can_be_written_elsewhere(sandbox: Sandbox, path: str) -> None:
    outcome = await call(sandbox, "write", path=path)
    assert not is_there(path)
    if outcome.failure is not None:  # else it was written to a folder of the job's own
        assert outcome.failure.kind == "agent_error"
        assert path in outcome.failure.message


@confining
@pytest.mark.parametrize(
    "function", ["grow_memory", "grow_memory_at_once", "grow_memory_in_children"]
)
async def test_a_memory_bomb(sandbox: Sandbox, function: str) -> None:
    assert (await failure(sandbox, function))[0] == "out_of_memory"


@confining
@pytest.mark.parametrize("function", ["fork_bomb", "thread_bomb"])
async def test_a_bomb_of_processes(sandbox: Sandbox, function: str) -> None:
    kind, message = await failure(sandbox, function)
    assert kind == "process_limit"
    assert any(text in message for text in ("40 processes", "BlockingIOError", "new thread"))


@within_bubblewrap
async def test_bombs_of_processes_that_end_and_begin_are_ended(sandbox: Sandbox) -> None:
    """What begins while the table of processes is looked at is found all the same."""
    bomb = "import os\nwhile True: os.fork() and os._exit(0)"
    limits = structs.replace(LIMITS, wall=2, processes=40)
    jobs = [command(sandbox, sys.executable, "-c", bomb, limits=limits) for _ in range(3)]
    async with asyncio.timeout(60):
        await asyncio.gather(*jobs)
    assert not descendants_with(bomb)


@confining
@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("one_large_file", "file_limit"),
        ("fill_disk", "disk_limit"),
        ("open_files", "open_files_limit"),
    ],
)
async def test_files_are_bounded(sandbox: Sandbox, function: str, kind: str) -> None:
    assert (await failure(sandbox, function))[0] == kind


@by_processes
async def test_the_number_of_files_is_bounded(sandbox: Sandbox) -> None:
    limits = structs.replace(LIMITS, disk=20 * MEGABYTE)
    assert (await failure(sandbox, "many_empty_files", limits))[0] == "disk_limit"


@confining
async def test_what_has_ended_is_no_process_any_more(sandbox: Sandbox) -> None:
    line = "for _ in $(seq 100); do (setsid sleep 0.01 &); sleep 0.02; done; echo all"
    outcome = await command(sandbox, "sh", "-c", line)
    assert (outcome.failure, outcome.stdout) == (None, b"all\n")


@confining
async def test_processor_time_is_bounded(sandbox: Sandbox) -> None:
    assert (await failure(sandbox, "use_cpu", Limits(cpu=1)))[0] == "cpu_limit"


@by_processes
@pytest.mark.parametrize("function", ["use_cpu_deaf", "use_cpu_in_a_deaf_child"])
async def test_who_does_not_heed_the_end_of_its_processor_time_is_told_of_it(
    sandbox: Sandbox, function: str
) -> None:
    kind, message = await failure(sandbox, function, Limits(cpu=1))
    assert (kind, "more than 1 s of CPU time" in message) == ("cpu_limit", True)


@confining
async def test_who_ignores_sigterm_is_killed_with_all_that_it_started(sandbox: Sandbox) -> None:
    listener, stop = Listener(), asyncio.Event()
    work = Call(target="sandboxed:stubborn")
    running = asyncio.create_task(sandbox.run(Job(work=work, limits=LIMITS), listener, stop))
    await listener.something.wait()
    stop.set()
    outcome = await running
    assert outcome.failure is not None
    assert outcome.failure.kind == "cancelled"
    assert outcome.wall < 10
    assert not descendants_with("signal.SIG_IGN")


@confining
async def test_no_process_outlives_its_job(sandbox: Sandbox) -> None:
    async with sandbox.workspace() as folder:
        path = folder / "touched"
        work = Call(
            target="sandboxed:leave_processes", inputs=json.dumps({"path": str(path)}).encode()
        )
        outcome = await sandbox.run(Job(work=work, limits=LIMITS, workspace=folder))
        assert outcome.output == b'"left"'
        size = path.stat().st_size
        await output(sandbox, "asynchronous")
        assert path.stat().st_size == size
    assert not descendants_with("time.sleep(0.01)")


@confining
async def test_there_is_no_network(sandbox: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        kind, message = await failure(sandbox, "connect", host=host, port=port)
    assert kind == "agent_error"
    assert "PermissionError" in message or "unreachable" in message
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o777)
        assert (await failure(sandbox, "connect_locally", path=str(path)))[0] == "agent_error"


@by_processes
async def test_the_network_is_there_for_who_may_use_it(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        host, port = server.getsockname()
        inputs = json.dumps({"host": host, "port": port}).encode()
        job = Job(work=Call(target="sandboxed:connect", inputs=inputs), limits=LIMITS, network=True)
        running = asyncio.create_task(sandbox.run(job))
        connection, _ = await asyncio.to_thread(server.accept)
        with connection:
            connection.sendall(b"hello")
        assert (await running).output == b'"hello"'


@confining
async def test_other_processes_cannot_be_harmed(sandbox: Sandbox) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    assert (await failure(sandbox, "kill_others", pid=other.pid))[0] == "agent_error"
    assert other.returncode is None
    await other.communicate(b"\n")
    assert other.returncode == 0


@confining
async def test_doors_that_no_honest_program_needs_are_shut(sandbox: Sandbox) -> None:
    results = await output(sandbox, "other_rights")
    assert "done" not in results.values(), results


@by_processes
async def test_nonsense_to_the_worker_ends_the_job(sandbox: Sandbox) -> None:
    kind, message = await failure(sandbox, "flood_the_line")
    assert kind == "agent_error"
    assert "told the worker" in message


@confining
async def test_a_process_that_ends_without_a_result(sandbox: Sandbox) -> None:
    kind, message = await failure(sandbox, "exit_at_once")
    assert (kind, "status 3" in message) == ("agent_error", True)


# --- the process that forks -----------------------------------------------------------------------


@needs_landlock
@pytest.mark.parametrize("wrapped", [pytest.param(True, marks=needs_bubblewrap), False])
async def test_a_dead_forking_process_is_started_again(tmp_path: Path, wrapped: bool) -> None:
    async with ProcessSandbox(["sandboxed"], folder=tmp_path, use_bubblewrap=wrapped) as sandbox:
        await output(sandbox, "asynchronous")
        (forking,) = sandbox.forking_processes
        process = psutil.Process(forking)
        assert process.environ()["HOME"] == str(sandbox.folder / "home"), "imports leave things"
        # Those within bubblewrap die with it, but a moment later, and might begin one more job.
        for each in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        assert await output(sandbox, "asynchronous") == "awaited"
        assert sandbox.forking_processes != (forking,)


@needs_landlock
async def test_many_jobs_at_once(tmp_path: Path) -> None:
    async with ProcessSandbox(["sandboxed"], folder=tmp_path) as sandbox:
        said = await asyncio.gather(
            *(output(sandbox, "repeat", text=str(number)) for number in range(80))
        )
    assert said == [{"said": str(number)} for number in range(80)]


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("commandcenter-sandbox-*"))


def is_there(path: str) -> bool:
    return Path(path).exists()


def descendants_with(text: str) -> list[str]:
    """Command lines with this text of processes that descend from this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and "pytest" not in line:
            found.append(line)
    return found

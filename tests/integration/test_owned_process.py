"""No process outlives its owner, however the owner ends."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.owned_process import KILLED, PIPE, OwnedProcess, exit_text

FOREVER = "import signal; print('up', flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
WITH_CHILD = (
    "import subprocess, sys; "
    "print(subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']).pid, "
    "flush=True); "
)

OWNER = f"""
import asyncio, signal, sys
from infra.owned_process import OwnedProcess
async def main():
    process = await OwnedProcess.start([sys.executable, "-c", {FOREVER!r}])
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=30)[1]


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("", 0, "exit code 0"),
        ("raise SystemExit(7)", 7, "exit code 7"),
        ("import os; os.abort()", 128 + signal.SIGABRT, "killed by SIGABRT"),
    ],
)
async def test_the_exit_status_is_the_commands(code: str, status: int, text: str) -> None:
    process = await OwnedProcess.start(python(code))
    assert await process.wait() == status
    assert exit_text(status) == text


async def test_a_command_that_does_not_exist_is_status_127() -> None:
    process = await OwnedProcess.start(["/no/such/program"])
    assert await process.wait() == 127


async def test_stop_asks_first() -> None:
    process = await OwnedProcess.start(python(FOREVER), stdout=PIPE)
    assert await process.stdout.readline() == b"up\n"
    assert await process.stop(30) == 128 + signal.SIGTERM


async def test_stop_kills_who_does_not_listen() -> None:
    process = await OwnedProcess.start(python(DEAF), stdout=PIPE)
    assert await process.stdout.readline() == b"up\n"
    assert await process.stop(0.05) == KILLED


async def test_leaving_the_context_kills() -> None:
    async with await OwnedProcess.start(python(FOREVER)) as process:
        assert process.returncode is None
    assert process.returncode == KILLED


async def test_killing_at_any_moment_of_the_start_works() -> None:
    async def live_for(seconds: float) -> int:
        async with await OwnedProcess.start(python(FOREVER), stdout=PIPE) as process:
            await asyncio.sleep(seconds)
        return await process.wait()

    codes = await asyncio.gather(*(live_for(step / 500) for step in range(50)))
    assert set(codes) == {KILLED}


@pytest.mark.parametrize("end", ["", "signal.pause()"])
async def test_what_the_command_left_behind_is_killed_too(end: str) -> None:
    process = await OwnedProcess.start(python(f"import signal; {WITH_CHILD}{end}"), stdout=PIPE)
    grandchild = psutil.Process(int(await process.stdout.readline()))
    if end:
        process.kill()
    await process.wait()
    assert gone([grandchild])


@pytest.mark.parametrize("victim", ["owner", "leash"])
def test_sigkill_of_the_owner_or_the_leash_leaves_no_orphan(victim: str) -> None:
    if victim == "leash" and sys.platform != "linux":
        pytest.skip("only Linux kills the child of a killed leash")
    root = Path(__file__).parents[2]
    with subprocess.Popen(python(OWNER), stdout=subprocess.PIPE, text=True, cwd=root) as owner:
        assert owner.stdout is not None
        leash = psutil.Process(int(owner.stdout.readline()))
        assert owner.stdout.readline() == "up\n"
        [command] = leash.children()
        (owner if victim == "owner" else leash).kill()
        assert gone([leash, command])
        owner.wait(30)

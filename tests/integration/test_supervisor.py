import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.owned_process import OwnedProcess
from infra.supervisor import ChildSpec, Stop, supervise
from streams.errors import OperatorError

ROOT = Path(__file__).parents[2]
SERVE = "from infra.readiness import announce_ready; import signal; announce_ready(); "


def child(name: str, code: str, **options: float) -> ChildSpec:
    env = {"PYTHONPATH": str(ROOT)}
    return ChildSpec(name=name, command=(sys.executable, "-c", code), env=env, **options)


def leaving_a_mark(path: Path, name: str) -> str:
    """Serves until SIGTERM, and then writes its name into the file."""
    return (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
        f"{SERVE} signal.sigwait([signal.SIGTERM]); open({str(path)!r}, 'a').write('{name} ')"
    )


class Supervision:
    """A supervisor under test; what it says can be awaited."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.ready = asyncio.Event()
        self.said: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, *children: ChildSpec) -> None:
        await supervise(children, self.stop, say=self.said.put_nowait, on_ready=self.ready.set)


async def test_children_are_stopped_in_reverse_order(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    case = Supervision()
    run = asyncio.create_task(
        case.run(*(child(name, leaving_a_mark(marks, name)) for name in ("worker", "gateway")))
    )
    await case.ready.wait()
    case.stop.ask()
    await run
    assert marks.read_text() == "gateway worker "
    assert case.said.empty()


async def test_a_child_that_never_gets_ready_ends_everything() -> None:
    case = Supervision()
    with pytest.raises(OperatorError, match=r"gateway did not start \(exit code 3\)"):
        await case.run(
            child("worker", f"{SERVE} signal.pause()"), child("gateway", "raise SystemExit(3)")
        )
    assert not case.ready.is_set()


async def test_a_child_that_hangs_before_it_is_ready_ends_everything() -> None:
    case = Supervision()
    with pytest.raises(OperatorError, match=r"worker did not start \(not ready within"):
        await case.run(child("worker", "import signal; signal.pause()", ready_within_s=0.2))


async def test_a_crashed_child_is_started_again_and_it_is_said(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    code = (
        f"from pathlib import Path; import os; {SERVE} seen = Path({str(crashed)!r})\n"
        "if seen.exists():\n"
        "    raise SystemExit(9)\n"
        "seen.touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    case = Supervision()
    run = asyncio.create_task(case.run(child("worker", code)))
    assert await case.said.get() == (
        "worker ended (killed by SIGKILL); starting it again in 0.2 s."
    )
    assert await case.said.get() == "worker ended (exit code 9); starting it again in 0.4 s."
    case.stop.ask()
    await run


async def test_a_child_that_keeps_crashing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.supervisor.RESTART_PAUSE_S", 0)
    monkeypatch.setattr("infra.supervisor.RESTARTS", 2)
    case = Supervision()
    with pytest.raises(OperatorError, match=r"worker ended 3 times in a row \(exit code 5\)"):
        await case.run(child("worker", f"{SERVE} raise SystemExit(5)"))
    assert case.said.qsize() == 2


async def test_a_child_that_does_not_stop_in_time_is_killed_and_it_is_said() -> None:
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE} signal.pause()"
    case = Supervision()
    run = asyncio.create_task(case.run(child("worker", code, stop_within_s=0.05)))
    await case.ready.wait()
    case.stop.ask()
    await run
    assert await case.said.get() == "worker did not stop within 0 s and was killed."


async def test_asking_twice_stops_at_once() -> None:
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE} signal.pause()"
    case = Supervision()
    run = asyncio.create_task(case.run(child("worker", code, stop_within_s=3600)))
    await case.ready.wait()
    case.stop.ask()
    case.stop.ask()
    await run


async def test_what_runs_beside_ends_everything_when_it_fails() -> None:
    async def kafka_dies() -> None:
        raise OperatorError("Kafka is gone")

    with pytest.raises(OperatorError, match="Kafka is gone"):
        await supervise(
            [child("worker", f"{SERVE} signal.pause()")],
            Stop(),
            say=print,
            beside=[kafka_dies],
        )


SUPERVISOR = f"""
import asyncio, sys
from infra.supervisor import ChildSpec, stop_on_signals, supervise
async def main():
    with stop_on_signals() as stop:
        command = (sys.executable, "-c", {SERVE + "signal.pause()"!r})
        children = [ChildSpec(name=name, command=command) for name in ("worker", "gateway")]
        await supervise(children, stop, say=print, on_ready=lambda: print("ready", flush=True))
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_signal_to_the_supervisor_leaves_a_child(number: signal.Signals) -> None:
    command = [sys.executable, "-c", SUPERVISOR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        descendants = psutil.Process(supervisor.pid).children(recursive=True)
        assert len(descendants) == 4  # two leashes, two children
        supervisor.send_signal(number)
        assert not psutil.wait_procs(descendants, timeout=30)[1]
        assert supervisor.wait(30) == (-number if number == signal.SIGKILL else 0)


async def test_the_ready_pipe_is_not_inherited_further() -> None:
    """Else a grandchild could announce, or hold the pipe open after the child's end."""
    code = (
        "from infra.readiness import announce_ready; import os; announce_ready(); "
        "raise SystemExit('COMMANDCENTER_READY_FD' in os.environ)"
    )
    case = Supervision()
    run = asyncio.create_task(case.run(child("worker", code)))
    assert "exit code 0" in await case.said.get()
    case.stop.ask()
    await run


async def test_announcing_without_a_supervisor_is_harmless() -> None:
    code = "from infra.readiness import announce_ready; announce_ready()"
    process = await OwnedProcess.start([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)})
    assert await process.wait() == 0

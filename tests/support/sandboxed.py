"""Actions and functions for sandboxes to call: honest ones, and ones that try to get out.

Whatever is grown here has a ceiling of its own, so that a sandbox that does not hold does no harm.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Annotated, Any

from pydantic import BaseModel

from agents import Agent, Blob, Context, PermanentError, Readable

CEILING_S = 20

agent = Agent("sandboxed", description="For tests.")


class Text(BaseModel):
    text: str = ""


class Said(BaseModel):
    said: str


class Place(BaseModel):
    path: Annotated[str, Readable()]


class Kept(BaseModel):
    blob: Blob


@agent.action(execution="sandbox")
async def repeat(inputs: Text) -> Said:
    return Said(said=inputs.text)


@agent.action(execution="sandbox")
def where(inputs: Text, context: Context) -> Said:
    """Which process it is, and what is in its workspace after it wrote there."""
    (context.workspace / "note").write_text(inputs.text)
    return Said(said=f"{os.getpid()} {os.listdir(context.workspace)} {context.node}")


@agent.action(execution="sandbox")
def everything(inputs: Text, context: Context) -> Kept:
    """Uses all that a context has."""
    context.report_progress(50, "half")
    context.cost.record(unit_price="0.5", source=context.secrets["TOKEN"][:3])
    context.logger.info("at work", with_=context.secrets["TOKEN"])
    blob = context.blobs.write(inputs.text.encode(), media_type="text/plain", name="text")
    assert context.blobs.read(blob) == inputs.text.encode()
    return Kept(blob=blob)


@agent.action(execution="sandbox")
async def until_cancelled(inputs: Text, context: Context) -> Said:
    await context.progress(1, "waiting")
    await context.cancelled.wait()
    return Said(said="tidied up")


@agent.action(execution="sandbox")
def stubborn(inputs: Text, context: Context) -> Said:
    """Ends for nobody, nor does the process that it starts."""
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    subprocess.Popen([sys.executable, "-c", f"{ignore}time.sleep({CEILING_S})"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context.report_progress(1, "deaf")
    time.sleep(CEILING_S)
    return Said(said="it was let be")


@agent.action(execution="sandbox")
async def fail(inputs: Text) -> Said:
    raise PermanentError("no way") if inputs.text == "for good" else ValueError("not now")


@agent.action(execution="sandbox")
def look(inputs: Place) -> Said:
    return Said(said=str(os.listdir(inputs.path)))


@agent.action(execution="sandbox")
def wrong_output(inputs: Text) -> Said:
    return {"nothing": inputs.text}  # type: ignore[return-value]  # that is the point


@agent.action(execution="sandbox")
def exit_at_once(inputs: Text) -> Said:
    os._exit(3)


def sized(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"text": "x" * inputs["size"], "parts": inputs["parts"]}


def read(inputs: dict[str, Any]) -> str:
    with open(inputs["path"]) as stream:
        return stream.read()


def write(inputs: dict[str, Any]) -> str:
    with open(inputs["path"], "w") as stream:
        stream.write("written")
    return "written"


def listing(inputs: dict[str, Any]) -> list[str]:
    return os.listdir(inputs["path"])


def grow_memory(inputs: dict[str, Any]) -> int:
    kept = [bytearray(os.urandom(1)) * 10_000_000 for _ in range(200)]
    return len(kept)


def grow_memory_at_once(inputs: dict[str, Any]) -> int:
    return len(bytearray(2_000_000_000))


def grow_memory_in_children(inputs: dict[str, Any]) -> int:
    """No process of it has much."""
    code = f"import time; x = bytearray(60_000_000); time.sleep({CEILING_S})"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(12)]
    return sum(each.wait() for each in running)


def fork_bomb(inputs: dict[str, Any]) -> int:
    """Every child forks on, out of its session; 2,000 at most, for some seconds at most."""
    counter = os.open("count", os.O_CREAT | os.O_APPEND | os.O_RDWR)
    ends = time.monotonic() + 8
    while time.monotonic() < ends and os.fstat(counter).st_size < 2_000:
        os.write(counter, b".")
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            time.sleep(0.01)
    time.sleep(max(0.0, ends - time.monotonic()))
    return os.fstat(counter).st_size


def thread_bomb(inputs: dict[str, Any]) -> int:
    for _ in range(1_000):
        threading.Thread(target=time.sleep, args=(CEILING_S,), daemon=True).start()
    time.sleep(CEILING_S)
    return 0


def fill_disk(inputs: dict[str, Any]) -> int:
    for number in range(40):
        with open(f"part{number}", "wb") as stream:
            stream.write(b"x" * 10_000_000)
    time.sleep(CEILING_S)
    return 0


def many_empty_files(inputs: dict[str, Any]) -> int:
    for number in range(40_000):
        os.mknod(f"empty{number}")
    time.sleep(CEILING_S)
    return 0


def one_large_file(inputs: dict[str, Any]) -> int:
    with open("large", "wb") as stream:
        stream.writelines(b"x" * 10_000_000 for _ in range(100))
    return 0


def open_files(inputs: dict[str, Any]) -> int:
    return len([open("/dev/null") for _ in range(5_000)])


def use_cpu(inputs: dict[str, Any]) -> int:
    ends = time.monotonic() + CEILING_S
    while time.monotonic() < ends:
        pass
    return 0


def use_cpu_deaf(inputs: dict[str, Any]) -> int:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    return use_cpu(inputs)


def use_cpu_in_a_deaf_child(inputs: dict[str, Any]) -> int:
    """What becomes of the child is no matter to it."""
    line = f"trap '' XCPU; timeout {CEILING_S} sh -c 'while :; do :; done'"
    subprocess.run(["sh", "-c", f"({line}) 2>/dev/null || true"], check=True)
    return 0


def connect(inputs: dict[str, Any]) -> str:
    import socket

    with socket.create_connection((inputs["host"], inputs["port"]), timeout=2) as connection:
        return connection.recv(100).decode()


def connect_locally(inputs: dict[str, Any]) -> str:
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(inputs["path"])
        return connection.recv(100).decode()


def kill_others(inputs: dict[str, Any]) -> str:
    os.kill(inputs["pid"], signal.SIGKILL)
    return "killed"


def leave_processes(inputs: dict[str, Any]) -> str:
    """One that has left session and group, and outlives its parent; it touches a file for ever."""
    path = inputs["path"]
    code = (
        "import time\n"
        f"for _ in range({CEILING_S * 100}):\n"
        f" open({path!r}, 'a').write('.'); time.sleep(0.01)"
    )
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not os.path.exists(path):
        time.sleep(0.01)
    return "left"


def links_out(inputs: dict[str, Any]) -> str:
    """Reads through a link of its own making."""
    os.symlink(inputs["path"], "link")
    with open("link") as stream:
        return stream.read()


def other_rights(inputs: dict[str, Any]) -> dict[str, str]:
    """Tries what an honest program needs not do; what came of each."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def called(*arguments: Any) -> str:
        return "done" if libc.syscall(*arguments) >= 0 else os.strerror(ctypes.get_errno())

    return {
        "a user namespace": called(272, 0x10000000),
        "another process": called(101, 16, os.getppid(), 0, 0),
        "shared memory": called(29, 1, 4096, 0o1600),
        "anonymous files": called(319, b"x", 0),
        "io_uring": called(425, 1, None),
        "x32": called(0x40000000 + 41, 2, 1, 0),
    }


def environment(inputs: dict[str, Any]) -> dict[str, str]:
    return dict(os.environ)


def flood_the_line(inputs: dict[str, Any]) -> str:
    """Writes nonsense to whatever descriptor leads to the worker."""
    for number in range(3, 64):
        try:
            os.write(number, b"\xff\xff\xff\xff" + b"nonsense" * 100)
        except OSError:
            continue
    time.sleep(CEILING_S)
    return "unheard"


async def asynchronous(inputs: dict[str, Any]) -> str:
    await asyncio.sleep(0)
    return "awaited"

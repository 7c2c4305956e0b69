"""`script run`: what it gives, and what it cannot do in the sandbox that the worker uses."""

import json
import os
import select
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from agents import Context, PermanentError
from agents.readable import ReadablePaths
from agents.sandbox import ProcessSandbox
from agents.sandbox.actions import SandboxedActions, SandboxedError
from agents.script_limits import limit_met
from agents.script_runner import RunInput, RunOutput, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandboxed() -> AsyncIterator[SandboxedActions]:
    async with ProcessSandbox(["agents.script_runner"]) as sandbox:
        yield SandboxedActions(sandbox, ReadablePaths())


async def executed(
    sandboxed: SandboxedActions,
    script: str,
    context: Context | None = None,
    *,
    language: str = "python",
    limit: float = 30,
    **inputs: Any,
) -> RunOutput:
    given = {"language": language, "script": script, **inputs}
    made = RunInput.model_validate_json(json.dumps(given))
    return RunOutput.model_validate(await sandboxed.call(run, context or Context(), made, limit))


async def test_a_python_script(sandboxed: SandboxedActions) -> None:
    output = await executed(
        sandboxed,
        "import sys; print(sys.argv[1:], sys.stdin.read()); print('ü', file=sys.stderr); exit(3)",
        args=["a", "b c", "ü"],
        stdin="from stdin",
    )
    assert output == RunOutput(
        exit_code=3, stdout="['a', 'b c', 'ü'] from stdin\n", stderr="ü\n", truncated=False,
        files={}, missing=[], limits_met=[],
    )  # fmt: skip


async def test_a_bash_script(sandboxed: SandboxedActions) -> None:
    output = await executed(sandboxed, 'echo "$1"; cat', language="bash", args=["x"], stdin="y")
    assert (output.exit_code, output.stdout) == (0, "x\ny")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed here")
async def test_a_node_script(sandboxed: SandboxedActions) -> None:
    output = await executed(
        sandboxed, "console.log(process.argv.slice(2))", language="node", args=["x"]
    )
    assert (output.exit_code, output.stdout) == (0, "[ 'x' ]\n")


async def test_files_go_in_and_come_out(sandboxed: SandboxedActions) -> None:
    context = Context()
    blob = context.blobs.write(b"\x00\xff")
    output = await executed(
        sandboxed,
        "mkdir out; cat in/a.txt b > out/both; ln -s /etc/hostname out/link",
        context,
        language="bash",
        files={"in/a.txt": "a", "b": blob.model_dump(by_alias=True)},
        outputs=["out/both", "out/link", "out/none"],
    )
    assert (output.exit_code, output.missing) == (0, ["out/link", "out/none"])
    assert context.blobs.read(output.files["out/both"]) == b"a\x00\xff"


async def test_output_is_cut_and_the_script_goes_on(sandboxed: SandboxedActions) -> None:
    output = await executed(sandboxed, "print('x' * 1_000_000); exit(4)", maxOutput=10)
    assert (output.exit_code, output.stdout, output.truncated) == (4, "x" * 10, True)


async def test_a_script_that_reads_nothing_is_not_held_up(sandboxed: SandboxedActions) -> None:
    assert (await executed(sandboxed, "print(1)", stdin="x" * 1_000_000)).stdout == "1\n"


@pytest.mark.parametrize(
    "left", ["sleep 1000", "setsid sleep 1000", "trap '' HUP TERM; sleep 1000"]
)
async def test_it_ends_though_something_runs_in_the_background(
    left: str, sandboxed: SandboxedActions
) -> None:
    output = await executed(sandboxed, f"({left}) & echo bg; exit 3", language="bash")
    assert (output.exit_code, output.stdout, output.stderr) == (3, "bg\n", "")


async def test_what_goes_through_tee_is_not_lost(sandboxed: SandboxedActions) -> None:
    output = await executed(sandboxed, "exec > >(tee log); echo through", language="bash")
    assert output.stdout == "through\n"


async def test_what_is_left_in_the_background_is_killed() -> None:
    script = "sleep 1000 > /dev/null 2>&1 & echo $!"
    output = await run.test({"language": "bash", "script": script})
    with suppress(ProcessLookupError):  # it is gone already
        process = os.pidfd_open(int(output.stdout))
        assert select.select([process], [], [], 30)[0]
        os.close(process)


async def test_a_status_can_fail_the_step(sandboxed: SandboxedActions) -> None:
    with pytest.raises(SandboxedError, match="ended with status 5: the reason") as raised:
        await executed(
            sandboxed, "import sys; print('the reason', file=sys.stderr); exit(5)", check=True
        )
    assert not raised.value.failure.retryable


@pytest.mark.parametrize(
    "script",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "open('/etc/shadow').read()",
        "open('/usr/bin/x', 'w')",
    ],
)
async def test_it_gets_nowhere(script: str, sandboxed: SandboxedActions) -> None:
    output = await executed(sandboxed, script)
    assert output.exit_code == 1
    assert "Error" in output.stderr


async def test_it_sees_nothing_of_the_workers_environment(
    sandboxed: SandboxedActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMANDCENTER_SECRET_X", "secret-of-x")
    output = await executed(sandboxed, "import os; print(dict(os.environ))")
    assert "COMMANDCENTER" not in output.stdout


FORK_BOMB = "import os\nwhile True: os.fork()"
FULL_FILE = """
import os
os.mkdir('deep')
open('deep/x', 'wb').truncate(200_000_000)
try:
    with open('deep/x', 'ab', buffering=0) as file:
        while file.write(bytes(1 << 20)): pass
except OSError:
"""
OPEN_FILES = """
import sys
try: [open('/dev/null') for _ in range(999)]
except OSError as error: print(error, file=sys.stderr)
"""
THREAD_BOMB = """
import os, sys, threading, time, traceback
try:
    while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
"""


@pytest.mark.parametrize(
    ("language", "script", "kind", "text"),
    [
        ("python", "x = bytearray(550_000_000)\nwhile True: pass", "out_of_memory", "512 MB"),
        ("python", "x = bytearray(2_000_000_000)", "out_of_memory", "512 MB.*MemoryError"),
        ("bash", "tail /dev/zero", "out_of_memory", "512 MB"),
        ("python", FORK_BOMB, "process_limit", "128"),
        (
            "python",
            "import os\nfor _ in range(999): os.fork() or os._exit(0)",
            "process_limit",
            "128",
        ),
        ("python", THREAD_BOMB, "process_limit", "128.*new thread"),
        ("bash", ":(){ :|:& };:", "process_limit", "128"),
        ("python", "open('x', 'wb').truncate(300_000_000)", "file_limit", "256 MiB"),
        ("bash", "truncate -s 300M x", "file_limit", "256 MiB"),
        ("python", FULL_FILE + "    exit(1)", "file_limit", "256 MiB.*deep/x is as large"),
        ("python", "x = [open('/dev/null') for _ in range(999)]", "open_files_limit", "256"),
        ("bash", "ulimit -S -t 1; while :; do :; done", "cpu_limit", "CPU time"),
        ("bash", "yes", "output_limit", "256 MiB to stdout"),
        ("bash", "yes >&2 || true", "output_limit", "256 MiB to stdout"),
        ("python", "while True: pass", "timeout", "3 s"),
    ],
)
async def test_a_limit_that_ends_it_is_named_with_what_to_change(
    sandboxed: SandboxedActions, language: str, script: str, kind: str, text: str
) -> None:
    limit = 3 if kind == "timeout" else 30
    with pytest.raises(SandboxedError, match=f"{text}.*; (have it|give it)") as raised:
        await executed(sandboxed, script, language=language, limit=limit)
    assert raised.value.failure.kind == kind
    assert raised.value.failure.retryable is (kind == "timeout")


@pytest.mark.parametrize(
    ("script", "kinds"),
    [
        (FULL_FILE + "    pass", ["file_limit"]),
        (OPEN_FILES, ["open_files_limit"]),
    ],
)
async def test_a_limit_that_a_script_copes_with_is_named_in_its_result(
    sandboxed: SandboxedActions, script: str, kinds: list[str]
) -> None:
    output = await executed(sandboxed, script)
    assert (output.exit_code, output.limits_met) == (0, kinds)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (1, "bash: xrealloc: cannot allocate 268435584 bytes", "out_of_memory"),
        (
            134,
            "FATAL ERROR: Reached heap limit - JavaScript heap out of memory\n 1: 0xb",
            "out_of_memory",
        ),
        (1, "numpy._core._exceptions._ArrayMemoryError: Unable to allocate", "out_of_memory"),
        (0, "x.sh: fork: retry: Resource temporarily unavailable", "process_limit"),
        (1, "Error: spawn sleep EAGAIN\n    at ChildProcess", "process_limit"),
        (1, "cat: write error: File too large", "file_limit"),
        (1, "Error: EFBIG: file too large, write\n{\n  errno: -27\n}\n\nNode.js v20", "file_limit"),
        (1, "CalledProcessError: 'dd' died with <Signals.SIGXFSZ: 25>.", "file_limit"),
        (153, "", "file_limit"),
        (-24, "", "cpu_limit"),
        (2, "MemoryError\nOSError: [Errno 24] Too many open files", "open_files_limit"),
    ],
)
async def test_a_limit_is_known_by_what_the_script_says_of_it(
    status: int, words: str, kind: str
) -> None:
    met = limit_met(status, words, 512_000_000)
    assert met is not None
    assert met.kind == kind


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "MemoryError"),  # it has coped
        (1, "upload.csv: File too large"),
        (1, "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
        (1, "ValueError: no MemoryError"),
        (-9, ""),
        (1, ""),
    ],
)
async def test_what_only_looks_like_a_limit_is_the_scripts_own_failure(
    status: int, words: str
) -> None:
    assert limit_met(status, words, 512_000_000) is None


async def test_who_leaves_many_behind_one_after_the_other_meets_no_limit(
    sandboxed: SandboxedActions,
) -> None:
    script = "for _ in {1..200}; do (setsid sleep 0.01 &); sleep 0.01; done; echo all"
    output = await executed(sandboxed, script, language="bash")
    assert (output.exit_code, output.stdout) == (0, "all\n")


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a/", "a\0b"])
async def test_paths_lead_nowhere_else(path: str) -> None:
    for given in ({"files": {path: "x"}}, {"outputs": [path]}):
        with pytest.raises(ValidationError):
            RunInput.model_validate({"language": "bash", "script": "true", **given})


@pytest.mark.parametrize(
    "inputs",
    [
        {"script": ""},
        {"language": "perl"},
        {"args": "x"},
        {"files": {"x": 1}},
        {"maxOutput": -1},
        {"wrong": 1},
    ],
)
async def test_wrong_inputs_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RunInput.model_validate({"language": "bash", "script": "true", **inputs})


async def test_files_cannot_stand_in_each_others_way(tmp_path: Path) -> None:
    given = {"language": "bash", "script": "true", "files": {"a": "x", "a/b": "y"}}
    with pytest.raises(PermanentError, match="stands where a folder has to be"):
        await run.test(given)

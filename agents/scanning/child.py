"""Starts the process that scans, listens to it, and ends it when nobody wants the result.

A process of its own for each scan: detect-secrets keeps its settings and bandit its plugins in
globals, both are pure Python that would hold the worker's interpreter lock for seconds, and a
process can be killed when the scan is cancelled or runs over its time. It also keeps their imports
out of the worker.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any, Final

from agents.context import Context
from agents.errors import PermanentError
from streams.errors import AgentError

_INTERPRETER: Final = (sys.executable, "-X", "utf8", "-P", "-m", "agents.scanning.process")
_MAX_LINE_BYTES: Final = 256 * 1024 * 1024
_LAST_WORDS_BYTES: Final = 16_384


async def ask(question: dict[str, Any], context: Context) -> dict[str, Any]:
    """One scan process from start to end. It is killed if this is cancelled.

    Raises `PermanentError` for what is wrong with the question, `AgentError` for anything else.
    """
    process = await asyncio.create_subprocess_exec(
        *_INTERPRETER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=_MAX_LINE_BYTES,
    )
    try:
        answer, complained = await _talk(process, json.dumps(question).encode() + b"\n", context)
        status = await process.wait()
    finally:
        if process.returncode is None:
            # Its whole group: it may have a git or a semgrep of its own under way.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0 or answer is None:
        last = complained.decode(errors="replace").strip().rpartition("\n")[2]
        raise AgentError(f"the scan process ended with status {status}: {last or 'no message'}")
    if "error" in answer:
        raise (PermanentError if answer["permanent"] else AgentError)(answer["error"])
    return answer


async def _talk(
    process: asyncio.subprocess.Process, question: bytes, context: Context
) -> tuple[dict[str, Any] | None, bytes]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("the scan process was started without pipes")
    # A process that dies at once closes the pipe; its status and stderr then say why.
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(question)
        await process.stdin.drain()
    # The pipe stays open: its end tells the process that the worker is gone.
    answer, complained = await asyncio.gather(
        _answer(process.stdout, context), _last_words(process.stderr)
    )
    process.stdin.close()
    return answer, complained


async def _answer(stream: asyncio.StreamReader, context: Context) -> dict[str, Any] | None:
    answer: dict[str, Any] | None = None
    async for line in stream:
        said: dict[str, Any] = json.loads(line)
        if "progress" in said:
            await context.progress(said["progress"], said["message"])
        else:
            answer = said
    return answer


async def _last_words(stream: asyncio.StreamReader) -> bytes:
    """The end of what was complained: it is bounded whatever a library prints."""
    last = b""
    while said := await stream.read(65_536):
        last = (last + said)[-_LAST_WORDS_BYTES:]
    return last

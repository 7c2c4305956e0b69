"""The process that reads the source files for one scan or check.

It is started as a module: one JSON line on stdin, `{"work": "scan" | "check", …}`, is answered on
stdout by lines of JSON: any number of `{"progress": …, "message": …}`, then the answer of
`scan.py` or `check.py`, or `{"error": …, "permanent": …}`. It ends when stdin does, so it never
outlives a killed worker.
"""

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agents.errors import PermanentError
from agents.scanning.check import check
from agents.scanning.checkout import clone
from agents.scanning.patterns import SemgrepFailedError
from agents.scanning.scan import scan
from streams.errors import AgentError

_WORK: Final = {"scan": scan, "check": check}


def _end_with_stdin() -> None:
    # Not sys.stdin: a daemon thread that holds its lock breaks the interpreter's shutdown.
    while os.read(0, 1):
        pass
    os._exit(1)


def _answered(question: dict[str, Any], say: Any) -> dict[str, Any]:
    def progress(percent: float, message: str) -> None:
        say({"progress": percent, "message": message})

    try:
        if question.get("url"):
            progress(0, "cloning")
            clone(question["url"], question["revision"], Path(question["path"]))
        # An advisory database of the worker's machine, unless the workflow names another.
        question.setdefault("advisories", None)
        question["advisories"] = question["advisories"] or os.environ.get(
            "COMMANDCENTER_ADVISORIES"
        )
        return _WORK[question["work"]](question, progress)
    except ModuleNotFoundError as error:
        return _fault(f"{error.name} is not installed; install the extra: commandcenter[agents]")
    except PermanentError as error:
        return _fault(str(error))
    except (AgentError, SemgrepFailedError) as error:
        return {"error": str(error), "permanent": False}


def _fault(text: str) -> dict[str, Any]:
    return {"error": text, "permanent": True}


def main() -> None:
    """Answer the question on stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints does not get into the answer
    logging.disable()  # bandit's complaints come back as warnings, or may quote the code
    with suppress(OSError):
        os.nice(5)  # the worker's loop goes first
    question = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()

    def say(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    with answers:
        say(_answered(question, say))


if __name__ == "__main__":
    main()

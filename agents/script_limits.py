"""Which limit of the sandbox a script ran into, from how it ended.

The kernel refuses a script what is over a limit, and tells nobody but the script: it fails in its
own way, and all that is seen is its status, its last words, and a file that has become as large as
one may. A script that ends well has coped, but for one that leaves a fork bomb behind: that ends
well at once. What it coped with is told as well, where that much is seen.
"""

import os
import re
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from agents.sandbox.errors import LimitError
from agents.sandbox.job import FailureKind, Limits, size

_OF_EACH: Final = Limits()
_NAMES: Final = {
    "cpu_limit": f"CPU time ({_OF_EACH.cpu} s of each process)",
    "file_limit": f"the largest file ({size(_OF_EACH.file)})",
    "open_files_limit": f"open files ({_OF_EACH.open_files} of each process)",
    "process_limit": f"processes and threads ({_OF_EACH.processes}; threads need memory, too)",
}
_SIGNALS: Final = {signal.SIGXCPU: "cpu_limit", signal.SIGXFSZ: "file_limit"}
_OF_A_SHELL: Final = 128

# What the C library, Python, Bash, node, the core utilities and C++ say. "Resource temporarily
# unavailable" and "File too large" may mean something else as well.
_WORDS: Final = re.compile(
    r"""
      (?P<out_of_memory> ^[\w.]*MemoryError\b | \[Errno\ 12\] | \bENOMEM\b
        | cannot\ allocate\ (?:memory|\d+\ bytes)
        | memory\ exhausted | heap\ out\ of\ memory | buffer\ allocation\ failed | std::bad_alloc )
    | (?P<process_limit> fork (?:.*\n){0,3} .* resource\ temporarily\ unavailable
        | \bspawn\b.*\bEAGAIN\b | can't\ start\ new\ thread )
    | (?P<file_limit> \[Errno\ 27\] | \bEFBIG\b | \bwrit\w*\b.*:\ file\ too\ large
        | file\ size\ limit\ exceeded | \bSIGXFSZ\b )
    | (?P<open_files_limit> \[Errno\ 24\] | \bEMFILE\b | too\ many\ open\ files )
    | (?P<cpu_limit> cpu\ time\ limit\ exceeded | \bSIGXCPU\b )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_LINE_LENGTH: Final = 200


def limit_met(
    status: int, last_words: str, memory: int, full_file: str | None = None
) -> LimitError | None:
    """The error that says so; None where the script met no limit, or ended well all the same.

    Args:
        status: the script's; negative: the signal that ended it.
        last_words: the end of its stderr.
        memory: bytes that it may use.
        full_file: a file that it left, as large as one may be.
    """
    words = list(_WORDS.finditer(last_words))
    kind = words[-1].lastgroup if words else None
    kind = next((it for number, it in _SIGNALS.items() if _is_end(status, number)), kind)
    if kind is None and full_file is not None:
        kind = "file_limit"
    if kind is None or (status == 0 and kind != "process_limit"):
        return None
    limit = _NAMES.get(kind, f"memory ({size(memory)}, all its processes together)")
    text = f"the script ended with status {status} at the limit on {limit}"
    told = next((_line(it) for it in words if it.lastgroup == kind), "")
    if not told and kind == "file_limit" and full_file is not None:
        told = f"{full_file} is as large as that"
    return LimitError(cast("FailureKind", kind), f"{text}: {told}" if told else text)


def limits_coped_with(last_words: str, full_file: str | None) -> list[FailureKind]:
    """Which limits a script met that ended well, as far as that can be seen."""
    kinds = {word.lastgroup for word in _WORDS.finditer(last_words)}
    if full_file is not None:
        kinds.add("file_limit")
    return sorted(cast("set[FailureKind]", kinds))


def full_file(folder: Path) -> str | None:
    """A file in the folder that is as large as this process may make one; None: there is none."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most == resource.RLIM_INFINITY:
        return None
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):  # its name is too long, or something still removes it
                if path.lstat().st_size >= most:
                    return str(path.relative_to(folder))
    return None


def _is_end(status: int, number: signal.Signals) -> bool:
    """Whether the signal ended the script, or, as shells say it, the script's last command."""
    return status in (-number, _OF_A_SHELL + number)


def _line(word: re.Match[str]) -> str:
    """The line that the word ends in."""
    text, end = word.string, word.end()
    line = text[text.rfind("\n", 0, end) + 1 : end] + text[end:].partition("\n")[0]
    return line.strip()[:_LINE_LENGTH]

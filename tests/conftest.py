"""What the whole test session shares: one embedded Kafka, and which tests cannot run here."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest
import pytest_asyncio
from docker.errors import DockerException

from infra.local_kafka import LocalKafka
from infra.settings import PREFIX


def pytest_configure() -> None:
    # The settings of whoever runs the tests must not reach what is tested.
    for variable in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[variable]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)
    need_docker = [item for item in items if item.get_closest_marker("containers")]
    if need_docker and (fault := _docker_fault()):
        for item in need_docker:
            item.add_marker(pytest.mark.skip(reason=f"needs a Docker engine: {fault}"))


def _docker_fault() -> str | None:
    # Looked at first: a failed connection of the client leaves an open socket behind.
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return "no /var/run/docker.sock, and DOCKER_HOST is not set"
    # With a version named, nothing is asked before `ping`, and the client can be closed after it.
    client = docker.from_env(version="1.40", timeout=5)
    try:
        client.ping()
    except (DockerException, OSError) as error:
        return str(error)
    finally:
        client.close()
    return None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The bootstrap address of one Kafka for the whole session."""
    data: Path = tmp_path_factory.mktemp("kafka")
    async with LocalKafka(data) as local:
        # On a cold machine: from here on every Kafka that a test starts takes a second, not four.
        await local.prepared()
        yield local.bootstrap

"""Publishing a workflow version: write it, read it back, and know that it is the one.

There is no lock: two publishers may write the same version at once. The topic's order decides
(`streams.catalog`), and the one that came second goes on to the next number.
"""

import time
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import codec
from streams.catalog import Catalog, CatalogRecord, Definition, Retirement, record_key
from streams.compacted_reader import CompactedReader
from streams.errors import NotFoundError, OperatorError, UnreadableRecordError
from streams.plan import Plan
from streams.topics import WORKFLOWS
from streams.workflow import WorkflowSpec

_log = structlog.get_logger(__name__)

_TRIES: Final = 20


class Publication(NamedTuple):
    """The version that a definition has, and whether this publishing made it."""

    version: int
    created: bool


class CatalogReader:
    """A catalog kept current from the `workflows` topic; an async context manager."""

    def __init__(self, bootstrap: str) -> None:
        self.catalog = Catalog()
        self._reader = CompactedReader(bootstrap, WORKFLOWS, self._apply)

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.__aexit__(*error)

    @property
    def trouble(self) -> str:
        """Why the catalog may be out of date; empty while all is well."""
        return self._reader.trouble

    async def failure(self) -> None:
        """Wait until reading ends, and raise by what."""
        await self._reader.failure()

    async def ready(self) -> None:
        """Wait until the topic has been read to the end it had at the start."""
        await self._reader.ready()

    async def caught_up(self) -> None:
        """Wait until the topic has been read to the end that it has now."""
        await self._reader.caught_up()

    async def plan_of(self, project: str, name: str, version: int) -> Plan | None:
        """A version's plan, looked for once more on the topic where it is not known yet.

        Raises:
            DefinitionError: The version is there, but this release cannot read it.
        """
        plan = self.catalog.get(project, name, version)
        if plan is None:
            await self._reader.caught_up()
            plan = self.catalog.get(project, name, version)
        return plan

    def _apply(self, record: Any) -> None:
        if record.value is None:
            return
        try:
            self.catalog.apply(codec.catalog.decode(record.value))
        except UnreadableRecordError as error:
            _log.error(
                "a workflow definition cannot be read; runs of it cannot go on here",
                key=record.key,
                offset=record.offset,
                why=str(error),
            )


async def publish(
    producer: AIOKafkaProducer, reader: CatalogReader, spec: WorkflowSpec
) -> Publication:
    """Make the definition the workflow's latest version, unless it already is.

    Args:
        producer: Started; it has to wait for all replicas.
        reader: Started; it is caught up before and after the writing.
        spec: A definition that passed `streams.workflow.parse`.

    Raises:
        OperatorError: Kafka does not take or show the record, or others publish without end.
    """
    await reader.caught_up()
    for _ in range(_TRIES):
        active = reader.catalog.active(spec.project, spec.name)
        if active is not None and active.record.digest == spec.digest:
            return Publication(active.record.version, created=False)
        latest = reader.catalog.latest(spec.project, spec.name)
        record = Definition(
            project=spec.project,
            name=spec.name,
            version=1 if latest is None else latest.record.version + 1,
            digest=spec.digest,
            published_at=int(time.time() * 1000),
            definition=msgspec.Raw(spec.canonical()),
        )
        await _write(producer, record)
        await reader.caught_up()
        won = reader.catalog.version(spec.project, spec.name, record.version)
        if won is not None and won.record == record:
            return Publication(record.version, created=True)
    raise OperatorError(
        f"workflow {spec.name!r} is being published by others all the time; try again"
    )


async def retire(producer: AIOKafkaProducer, reader: CatalogReader, project: str, name: str) -> int:
    """End the workflow for new runs; returns the last version that had any.

    Raises:
        NotFoundError: There is no such workflow, or it is retired already.
        OperatorError: Kafka does not take or show the record.
    """
    await reader.caught_up()
    active = reader.catalog.active(project, name)
    if active is None:
        raise NotFoundError(f"there is no active workflow {name!r} in project {project!r}")
    version = active.record.version
    at = int(time.time() * 1000)
    await _write(producer, Retirement(project=project, name=name, version=version, retired_at=at))
    await reader.caught_up()
    return version


async def _write(producer: AIOKafkaProducer, record: CatalogRecord) -> None:
    key = record_key(record, uuid4().hex[:12])
    try:
        await producer.send_and_wait(WORKFLOWS, codec.encode(record), key=key)
    except KafkaError as error:
        raise OperatorError(f"Kafka did not take the definition: {error!r}") from error

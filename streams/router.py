"""Triggers in, starts out: every workflow that an event matches gets a start in its run's inbox.

The run id is derived from the workflow and the event, so an event that is delivered twice, or
routed by two workers, starts one run.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import msgspec
import prometheus_client
import structlog

from streams import codec, dead_letters, topics
from streams.blob_store import BlobStore
from streams.catalog import Catalog, Match
from streams.ending import FINISHED_TYPE
from streams.errors import CallerError, CommandCenterError, OperatorError
from streams.faust_shell import Batch
from streams.ids import run_id
from streams.messages import Cancel, Occurrence, Result, RunRequest, Start
from streams.outbox import Outbox, Parcel, partition_of
from streams.payload import INLINE_LIMIT, reference_to
from streams.records import Failure, Trigger
from streams.routing import CALLED_OFF_TYPE, REQUESTED_TYPE, judge
from streams.run import Limits
from streams.tracing import traceparent_of
from streams.trigger import IncomingEvent, check_size, from_kafka

_log = structlog.get_logger(__name__)
_triggers = prometheus_client.Counter(
    "commandcenter_triggers_total", "Trigger events by outcome.", ["outcome"]
)


_BLOB_AGAIN_S: Final = 1.0
_FINISHED: Final = ("ce_type", FINISHED_TYPE.encode())


class _Made:
    """What a batch of events makes: records, payloads to keep before, and cancels to send last."""

    def __init__(self) -> None:
        self.parcel = Parcel()
        self.big: list[tuple[str, bytes]] = []
        self.cancels: list[Cancel] = []


class Router:
    """Routes batches of the triggers topic."""

    def __init__(
        self,
        outbox: Outbox,
        partitions: int,
        catalog: Catalog,
        catch_up: Callable[[], Awaitable[None]],
        blobs: BlobStore,
        limits: Limits,
    ) -> None:
        """`catch_up` returns when every workflow that is published by now is in the catalog."""
        self._outbox = outbox
        self._partitions = partitions
        self._catalog = catalog
        self._catch_up = catch_up
        self._blobs = blobs
        self._limits = limits

    async def process(self, batches: list[Batch]) -> None:
        """Send the starts that the batches' events make, and dead letters for what is no event."""
        made = _Made()
        records = [record for batch in batches for record in batch.records]
        outcomes = [self._try(record, made) for record in records]
        unmatched = [r for r, o in zip(records, outcomes, strict=True) if o == "unmatched"]
        if unmatched:
            # Its workflow may have been published a moment before the event.
            await self._catch_up()
            outcomes = [o for o in outcomes if o != "unmatched"]
            outcomes += [self._try(record, made, caught_up=True) for record in unmatched]
        for cancel in made.cancels:  # after the starts: none may come before that of its run
            self._send(cancel, made.parcel)
        for outcome, number in Counter(outcomes).items():
            _triggers.labels(outcome).inc(number)
        for project, content in made.big:
            await self._until_kept(project, content)
        if made.parcel:
            await self._outbox.deliver(made.parcel)

    async def _until_kept(self, project: str, content: bytes) -> None:
        while True:
            try:
                await self._blobs.put(project, content)
            except OperatorError as error:
                _log.warning("a payload cannot be kept; trying again", why=str(error))
                await asyncio.sleep(_BLOB_AGAIN_S)
            else:
                return

    def _try(self, record: Any, made: _Made, *, caught_up: bool = False) -> str:
        try:
            return self._route(record, made, caught_up=caught_up)
        except Exception as error:  # noqa: BLE001  # one bad record must not stop the rest
            if not isinstance(error, CommandCenterError):
                _log.exception("routing failed", offset=record.offset)
            dead_letters.put(made.parcel, self._partitions, record, error)
            return "dead_letter"

    def _route(self, record: Any, made: _Made, *, caught_up: bool) -> str:
        check_size(len(record.value or b""), self._limits.trigger)
        if self._is_unwanted_end(record.headers):
            return "unwanted"
        fallback = f"{record.topic}/{record.partition}/{record.offset}"
        event = from_kafka(record.headers, record.value, fallback)
        if event.trigger.type == REQUESTED_TYPE:
            return self._start_requested(event, made.parcel, caught_up=caught_up)
        if event.trigger.type == CALLED_OFF_TYPE:
            made.cancels.append(_cancel(event))
            return "called_off"
        if len(event.trigger.data) > INLINE_LIMIT:  # also where nobody wants it: some may yet
            self._blobs.check(len(event.trigger.data))
        matches = [
            match
            for match in self._catalog.matching(event.project, event.trigger.type)
            if _is_started(match, event)
        ]
        awaited = self._catalog.is_awaited(event.project, event.trigger.type)
        if matches or awaited:
            event = event._replace(trigger=self._light(event, made.big))
        if awaited:
            self._spread(event, made.parcel)
        if matches and event.depth > self._limits.depth:  # who waits for it starts nothing by it
            raise CallerError(
                f"{event.depth} runs led to this event one after the other; {self._limits.depth}"
                " may (COMMANDCENTER_RUN_DEPTH_LIMIT): do workflows start each other in a circle?"
            )
        for match in matches:
            self._start(match, event, made.parcel)
        if matches:
            return "matched"
        # Every run's end is an event: whether a workflow wants them is looked up, not waited for.
        if event.trigger.type == FINISHED_TYPE:
            return "awaited" if awaited else "unwanted"
        return "awaited" if awaited else "unmatched"

    def _is_unwanted_end(self, headers: Collection[tuple[str, bytes]]) -> bool:
        """Whether it is the end of a run, of which there are many, and nobody waits for such."""
        if _FINISHED not in headers:
            return False
        named = dict(headers)
        if named["ce_type"] != _FINISHED[1]:
            return False
        project = named.get("ce_project", b"default").decode(errors="replace")
        return not (
            self._catalog.matching(project, FINISHED_TYPE)
            or self._catalog.is_awaited(project, FINISHED_TYPE)
        )

    def _light(self, event: IncomingEvent, big: list[tuple[str, bytes]]) -> Trigger:
        """The trigger with its data, or with a reference to it where that is big."""
        data = bytes(event.trigger.data)
        if len(data) <= INLINE_LIMIT:
            return event.trigger
        if (event.project, data) not in big:
            big.append((event.project, data))
        return msgspec.structs.replace(event.trigger, data=msgspec.Raw(reference_to(data).encode()))

    def _start(self, match: Match, event: IncomingEvent, parcel: Parcel) -> None:
        trigger = event.trigger
        run = run_id(event.project, match.name, trigger.source, trigger.id)
        start = Start(
            run=run,
            project=event.project,
            workflow=match.name,
            version=match.version,
            trigger=trigger,
            depth=event.depth,
            traceparent=event.traceparent or traceparent_of(run),
        )
        self._send(start, parcel)

    def _send(self, message: Start | Cancel, parcel: Parcel) -> None:
        partition = partition_of(message.run, self._partitions)
        parcel.add(topics.INBOX, partition, message.run.encode(), codec.encode(message))

    def _spread(self, event: IncomingEvent, parcel: Parcel) -> None:
        """Tell every partition of the inbox: a run in any of them may wait for the event."""
        occurrence = codec.encode(Occurrence(project=event.project, trigger=event.trigger))
        for partition in range(self._partitions):
            parcel.add(topics.INBOX, partition, event.trigger.id.encode(), occurrence)

    def _start_requested(self, event: IncomingEvent, parcel: Parcel, *, caught_up: bool) -> str:
        """Start the run that a node of another one asks for, at the version that is active now."""
        try:
            request = msgspec.json.decode(event.trigger.data, type=RunRequest)
        except msgspec.MsgspecError as error:
            raise CallerError(f"not a request for a run: {error}") from error
        active = self._catalog.active(request.project, request.workflow)
        if active is None:
            if not caught_up:
                return "unmatched"
            self._refuse(request, parcel)
            return "refused"
        start = Start(
            run=request.run,
            project=request.project,
            workflow=request.workflow,
            version=active.record.version,
            trigger=msgspec.structs.replace(event.trigger, data=request.inputs),
            depth=request.depth,
            parent=request.parent,
            traceparent=request.traceparent,
        )
        self._send(start, parcel)
        return "requested"

    def _refuse(self, request: RunRequest, parcel: Parcel) -> None:
        """Tell the node that asked: there is no such workflow."""
        parent = request.parent
        text = f"there is no active workflow {request.workflow!r} in project {request.project!r}"
        result = Result(
            run=parent.run,
            node=parent.node,
            item=parent.item,
            attempt=parent.attempt,
            started_at=0,
            finished_at=0,
            failure=Failure(kind="unknown_workflow", message=text, retryable=False),
        )
        partition = partition_of(parent.run, self._partitions)
        parcel.add(topics.INBOX, partition, parent.run.encode(), codec.encode(result))


def _cancel(event: IncomingEvent) -> Cancel:
    message = codec.messages.decode(bytes(event.trigger.data))
    if not isinstance(message, Cancel):
        raise CallerError(f"not a cancel: {type(message).__name__}")
    return message


def _is_started(match: Match, event: IncomingEvent) -> bool:
    verdict = judge(match.name, match.plan, event)
    if verdict.reason:
        _log.info(
            "a filter could not be told",
            workflow=match.name,
            event=event.trigger.id,
            why=verdict.reason,
        )
    return verdict.starts

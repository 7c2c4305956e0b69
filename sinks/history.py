"""What is asked of the store, as typed calls: each runs one named query.

Rows come as dicts by the columns of the public tables `runs`, `agent_runs` and `events`, with times
as aware datetimes in UTC. Times are given in milliseconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sinks import decision_record, stored_rows
from sinks.decision_record import TIME_LIMIT
from sinks.known_runs import Recorded
from sinks.queries import query
from sinks.store import Store
from streams.topics import EVENTS

Row = dict[str, Any]

_LAST_SEQ: Final = 2**32 - 1
_LAST_ITEM: Final = 2**31 - 1
_LAST_OFFSET: Final = 2**63 - 1

_PARTS: Final = 3
"""Of a run's parts, which may not be merged yet, so many are read for the runs of a page."""
_PARTS_LOOKED_AT: Final = 8
"""As many, where they are read only to find the runs that have a status."""
_PARTS_AT_MOST: Final = 10_000

_WINDOWS_MS: Final = tuple(1_000 * 16**n for n in range(5))
"""Before a page of events so much time is looked at for it: from a second to most of a day."""


class RunFilter(NamedTuple):
    """Which runs; what is left empty lets everything through. `since`: started at or after."""

    project: str = ""
    workflow: str = ""
    statuses: tuple[str, ...] = ()
    trigger_type: str = ""
    since: int = 0


class EventFilter(NamedTuple):
    """Which events; what is left empty lets everything through. `since`: at or after."""

    project: str = ""
    workflow: str = ""
    type: str = ""
    node: str = ""
    since: int = 0


class ApprovalFilter(NamedTuple):
    """Which approvals; empty lets everything through. `state`: `pending` or `decided`."""

    project: str = ""
    workflow: str = ""
    run: str = ""
    state: str = ""


class DecisionFilter(NamedTuple):
    """Which decisions; what is left empty lets everything through. Status: the run's after it."""

    project: str = ""
    workflow: str = ""
    run: str = ""
    statuses: tuple[str, ...] = ()


class StoredDecision(NamedTuple):
    """A record of the events topic, given back from the store: `value` is what stood on the log."""

    partition: int
    offset: int
    run: str
    seq: int
    value: bytes


EVERYTHING: Final = DecisionFilter()
ALL_RUNS: Final = RunFilter()
ALL_EVENTS: Final = EventFilter()
ALL_APPROVALS: Final = ApprovalFilter()


class History:
    """The recorded history of runs.

    Args:
        store: With the schema applied.
        topic: The events topic that it was recorded from.
    """

    def __init__(self, store: Store, topic: str = EVENTS) -> None:
        self._store = store
        self._topic = topic

    async def _rows(self, name: str, **parameters: object) -> list[Row]:
        return (await self._store.query(query(name), parameters)).dicts()

    # --- for the gateway ---

    async def runs(
        self,
        wanted: RunFilter = ALL_RUNS,
        *,
        limit: int = 50,
        before: tuple[int, str] | None = None,
    ) -> list[Row]:
        """A page of runs, newest first; `before` is (started_at, run_id) of the last one seen."""
        before_at, before_run = before or (TIME_LIMIT - 1, "")
        if wanted.statuses or wanted.trigger_type:
            return await self._runs_that_were(wanted, limit, before_at, before_run)
        rows: list[Row] = []
        parts = _PARTS * limit
        filters = {"project": wanted.project, "workflow": wanted.workflow, "since": wanted.since}
        while True:
            found = await self._rows(
                "runs_parts", parts=parts, before_at=before_at, before_run=before_run, **filters
            )
            runs = stored_rows.merged(found)
            if len(found) == parts and (len(runs) > 1 or parts < _PARTS_AT_MOST):
                runs.pop()  # it may have more parts
            rows += runs[: limit - len(rows)]
            if len(rows) == limit or len(found) < parts:
                return [stored_rows.run(row) for row in rows]
            parts = min(2 * parts, _PARTS_AT_MOST)
            if runs:
                before_at = round(runs[-1]["started_at"].timestamp() * 1000)
                before_run = runs[-1]["run_id"]

    async def _runs_that_were(
        self, wanted: RunFilter, limit: int, before_at: int, before_run: str
    ) -> list[Row]:
        """As `runs`, where one part of a run may say what is looked for, and the others do not."""
        filters = _lists(wanted._asdict())
        rows: list[Row] = []
        parts = _PARTS_LOOKED_AT * limit
        while True:
            found = await self._rows(
                "runs_newest", parts=parts, before_at=before_at, before_run=before_run, **filters
            )
            runs = list(dict.fromkeys((row["started_at"], row["run_id"]) for row in found))
            if not wanted.statuses:
                runs = runs[:limit]
            if runs:
                rows += await self._rows(
                    "runs_page",
                    times=sorted({_stored_time(at) for at, _ in runs}),
                    runs=[run for _, run in runs],
                    statuses=filters["statuses"],
                    limit=limit - len(rows),
                )
            if len(rows) == limit or len(found) < parts:
                break
            parts = min(2 * parts, _PARTS_AT_MOST)
            at, before_run = runs[-1]
            before_at = round(at.timestamp() * 1000)
        return [stored_rows.run(row) for row in rows]

    async def agent_runs(
        self, run: str, *, after: tuple[int, str, int, int] | None = None, limit: int = 1_000
    ) -> list[Row]:
        """Attempts of a run, in the order of dispatch.

        `after` is (dispatched_at, node, item, attempt) of the last one seen.
        """
        after_at, after_node, after_item, after_attempt = after or (0, "", -1, 0)
        rows = await self._rows(
            "run_agent_runs",
            run=run,
            after_at=after_at,
            after_node=after_node,
            after_item=max(-1, min(after_item, _LAST_ITEM)),
            after_attempt=max(0, min(after_attempt, _LAST_SEQ)),
            limit=limit,
        )
        return [stored_rows.agent_run(row) for row in rows]

    async def run_events(self, run: str, *, from_seq: int = 0, limit: int = 1_000) -> list[Row]:
        """What happened in a run, in order, from a sequence number on."""
        return await self._rows("run_events", run=run, from_seq=from_seq, limit=limit)

    async def newest_run_events(
        self, run: str, *, before_seq: int | None = None, limit: int = 1_000
    ) -> list[Row]:
        """What happened in a run before a sequence number, the newest first."""
        before = _LAST_SEQ if before_seq is None else before_seq
        return await self._rows("run_events_newest", run=run, before_seq=before, limit=limit)

    async def events_naming(self, run: str, digest: str) -> list[Row]:
        """Events of a run that name the payload with this digest, the first of them."""
        return await self._rows("run_events_naming", run=run, digest=digest)

    async def fan_outs(self, run: str) -> list[Row]:
        """The events by which nodes of a run got their items."""
        return await self._rows("run_fan_outs", run=run)

    async def repetitions(self, run: str, since: int) -> list[str]:
        """The runs that repeat a run, which began at `since`, milliseconds since the epoch."""
        rows = await self._rows("run_repetitions", run=run, since=since)
        return [str(row["run_id"]) for row in rows]

    async def run_story(self, run: str, until_seq: int) -> list[Row]:
        """What happened in a run up to a sequence number, in order, but not to items."""
        return await self._rows("run_story", run=run, until_seq=until_seq)

    async def item_costs(self, run: str, until_seq: int) -> list[Row]:
        """What the items of each node cost: rows of node, currency, kind, amount."""
        return await self._rows("item_costs", run=run, until_seq=until_seq)

    async def run_cost_sums(self, run: str, until_seq: int) -> list[Row]:
        """What all that a run is charged adds up to: rows of currency, kind, amount."""
        return await self._rows("run_cost_sums", run=run, until_seq=until_seq)

    async def run_costs(
        self, run: str, until_seq: int, *, after: tuple[int, int] | None = None, limit: int = 1_000
    ) -> list[Row]:
        """What a run is charged, in the order of its events.

        `after` is (seq, entry) of the last one seen.
        """
        after_seq, after_entry = after or (-1, 0)
        return await self._rows(
            "run_costs_page",
            run=run,
            until_seq=until_seq,
            after_seq=after_seq,
            after_entry=after_entry,
            limit=limit,
        )

    async def item_outputs(self, run: str, until_seq: int, nodes: Sequence[str]) -> list[Row]:
        """The events that gave the items of these nodes their outputs, in order."""
        return await self._rows("item_outputs", run=run, until_seq=until_seq, nodes=list(nodes))

    async def item_counts(self, run: str, until_seq: int, *, node: str = "") -> list[Row]:
        """How many items of one node, or of each, had which last event.

        Rows of node, last, reused, items.
        """
        return await self._rows("item_counts", run=run, node=node, until_seq=until_seq)

    async def items_by_last_event(
        self,
        run: str,
        node: str,
        until_seq: int,
        *,
        types: Sequence[str],
        start: int,
        count: int,
        limit: int,
    ) -> list[int]:
        """Of `count` items from `start` on those whose last event is one of `types` ('': none)."""
        rows = await self._rows(
            "items_by_last_event",
            run=run,
            node=node,
            until_seq=until_seq,
            types=list(types),
            start=start,
            count=count,
            limit=limit,
        )
        return [row["item"] for row in rows]

    async def item_events(
        self, run: str, node: str, until_seq: int, items: Sequence[int]
    ) -> list[Row]:
        """All that happened to these items of a node, in order."""
        return await self._rows(
            "item_events", run=run, node=node, until_seq=until_seq, items=list(items)
        )

    async def events(
        self,
        wanted: EventFilter = ALL_EVENTS,
        *,
        limit: int = 100,
        before: tuple[int, str, int] | None = None,
    ) -> list[Row]:
        """A page of events, newest first; `before` is (at, run_id, seq) of the last one seen."""
        before_at, before_run, before_seq = before or (TIME_LIMIT - 1, "", 0)
        filters = wanted._asdict()
        newest = before_at if before else await self._newest_event()
        for window in _WINDOWS_MS:
            since = newest - window
            if since <= wanted.since:
                break
            [found] = await self._rows(
                "events_between", enough=limit, before_at=before_at, **(filters | {"since": since})
            )
            if found["are_enough"]:
                filters["since"] = since
                break
        return await self._rows(
            "events_page",
            limit=limit,
            before_at=before_at,
            before_run=before_run,
            before_seq=min(before_seq, _LAST_SEQ),
            **filters,
        )

    async def _newest_event(self) -> int:
        rows = await self._rows("newest_event")
        return round(rows[0]["at"].timestamp() * 1000) if rows else 0

    async def approvals(
        self,
        wanted: ApprovalFilter = ALL_APPROVALS,
        *,
        limit: int = 50,
        before: tuple[bool, int, str] | None = None,
    ) -> list[Row]:
        """A page of approvals, those that wait first, the newest first.

        `before` is (whether it waits, requested_at, id) of the last one seen.
        """
        before_waits, before_at, before_id = before or (True, TIME_LIMIT - 1, "")
        return await self._rows(
            "approvals_page",
            limit=limit,
            before_waits=int(before_waits),
            before_at=before_at,
            before_id=before_id,
            **wanted._asdict(),
        )

    async def decisions(
        self,
        partition: int,
        *,
        after: int,
        until: int | None = None,
        wanted: DecisionFilter = EVERYTHING,
        limit: int = 1_000,
    ) -> list[StoredDecision]:
        """What follows offset `after` (-1: from the beginning) in a partition, as it stood there.

        Args:
            partition: Of the events topic.
            after: The last offset already seen.
            until: The last offset wanted; None: all that is recorded.
            wanted: Which decisions.
            limit: Fewer than that came back: there are no more.
        """
        rows = await self._rows(
            "decisions_after",
            topic=self._topic,
            partition=partition,
            after=after,
            until=_LAST_OFFSET if until is None else until,
            limit=limit,
            **_lists(wanted._asdict()),
        )
        return [_decision(row) for row in rows]

    # --- for the recorder ---

    async def positions(self) -> dict[int, int]:
        """The last recorded offset of each partition that has any."""
        rows = await self._rows("positions", topic=self._topic)
        return {row["partition"]: row["offset"] for row in rows}

    async def recent_runs(
        self, partition: int, from_offset: int
    ) -> tuple[list[tuple[str, Recorded]], int | None]:
        """The runs of the decisions from `from_offset` on, and the time of the oldest of these.

        Runs that began before are left out; the others come in the order of their last decision.
        """
        rows = await self._rows(
            "recent_runs", topic=self._topic, partition=partition, from_offset=from_offset
        )
        whole = [
            (row["run_id"], Recorded(row["next_seq"], row["first_at"]))
            for row in rows
            if row["first_seq"] == 0
        ]
        return whole, min((row["first_at"] for row in rows), default=None)

    async def recorded_runs(self, runs: Sequence[str]) -> dict[str, Recorded]:
        """What is recorded of the given runs; absent: nothing."""
        rows = await self._rows("recorded_runs", runs=list(runs))
        return {row["run_id"]: Recorded(row["next_seq"], row["started_at"]) for row in rows}

    async def decisions_of(self, runs: Sequence[str]) -> dict[tuple[str, int], bytes]:
        """Every recorded decision of the given runs, by run and first sequence number."""
        rows = await self._rows("decisions_of_runs", runs=list(runs))
        decisions = (_decision(row) for row in rows)
        return {(decision.run, decision.seq): decision.value for decision in decisions}


def _stored_time(at: datetime) -> str:
    """As a parameter of the type `DateTime64(3, 'UTC')`."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _lists(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in parameters.items()
    }


def _decision(row: Row) -> StoredDecision:
    value = decision_record.write(
        run=row["run_id"],
        project=row["project"],
        workflow=row["workflow"],
        version=row["version"],
        seq=row["first_seq"],
        at=row["decided_at"],
        status=row["status"],
        previous=row["previous"],
        payloads=row["payloads"],
        traceparent=row["traceparent"],
    )
    return StoredDecision(row["partition"], row["offset"], row["run_id"], row["first_seq"], value)

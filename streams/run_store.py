"""The runs of one partition: decoded where they are under way, raw bytes in the table otherwise.

Keys of the table: the run id for a head, `run id/node` for a node, `run id/@data` for the data of
its trigger, `@offset` for how far the inbox has been read into the state. The data is written once,
at the start: a head is written with every decision and has to be small (law 7).

The head of a run that has ended is remembered for `REMEMBERED_MS`, so that its event starts nothing
when it comes again; the inbox and the triggers are kept no longer than that.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import structlog
from msgspec import Raw
from msgspec.structs import replace

from streams import codec
from streams.errors import UnreadableRecordError
from streams.lifecycle import TERMINAL, RunState
from streams.records import NULL, RunHead
from streams.run import Outcome
from streams.timers import Timers
from streams.topics import DAY_MS

_log = structlog.get_logger(__name__)

OFFSET_KEY: Final = b"@offset"
_DATA: Final = "@data"

REMEMBERED_MS: Final = 7 * DAY_MS
_FORGOTTEN_AT_ONCE: Final = 500

Change = tuple[bytes, bytes | None]
Wake = tuple[str, str]
"""A timer's key: the run, and the node or `` for the run's own deadline."""


class RunStore:
    """The state of one partition of the inbox, and its timers.

    `records` is the table's data of this partition, live; it is changed through `apply` only.
    """

    def __init__(self, partition: int, records: dict[bytes, bytes]) -> None:
        """Find the runs under way and set their timers; unreadable records are said and left."""
        self.partition = partition
        self.timers: Timers[Wake] = Timers()
        self._records = records
        self._runs: dict[str, RunState] = {}
        self._ended: deque[tuple[int, str]] = deque()
        offset = records.get(OFFSET_KEY)
        self.next_offset = None if offset is None else int(offset)
        self._restore()

    def _restore(self) -> None:
        nodes: dict[str, list[bytes]] = {}
        heads = []
        for key, value in self._records.items():
            if key == OFFSET_KEY:
                continue
            run, _, part = key.decode().partition("/")
            if not part:
                heads.append(value)
            elif part != _DATA:
                nodes.setdefault(run, []).append(value)
        ended = []
        for value in heads:
            try:
                head = codec.heads.decode(value)
                if head.status in TERMINAL:
                    ended.append((head.finished_at or 0, head.run))
                    continue
                states = [codec.nodes.decode(v) for v in nodes.get(head.run, ())]
            except UnreadableRecordError as error:
                _log.error("a run's state cannot be read", partition=self.partition, why=str(error))
                continue
            state = RunState(self._with_data(head), {node.node: node for node in states})
            self._runs[head.run] = state
            for wake, due in _wakes(state):
                self.timers.set(wake, due)
        self._ended.extend(sorted(ended))

    def _with_data(self, head: RunHead) -> RunHead:
        data = self._records.get(_data_key(head.run))
        if data is None:
            return head
        return replace(head, trigger=replace(head.trigger, data=Raw(data)))

    def __len__(self) -> int:
        """How many runs are under way."""
        return len(self._runs)

    def get(self, run: str) -> RunState | None:
        """The run's state, None where there is no such run."""
        state = self._runs.get(run)
        if state is None and (head := self._records.get(run.encode())) is not None:
            return RunState(codec.heads.decode(head), {})
        return state

    def record(self, key: bytes) -> bytes | None:
        """What the table holds under a key."""
        return self._records.get(key)

    def changes(self, before: RunState | None, outcome: Outcome) -> Iterator[Change]:
        """The records that turn the state `before` into the outcome's."""
        after = outcome.state
        if after is None:
            return
        run = after.head.run
        yield _head_record(after.head)
        if after.head.status in TERMINAL:
            if before is not None and _has_data(before.head):
                yield _data_key(run), None
            for node in before.nodes if before else ():
                yield f"{run}/{node}".encode(), None
        else:
            if before is None and _has_data(after.head):
                yield _data_key(run), bytes(after.head.trigger.data)
            for node in sorted(outcome.touched):
                yield f"{run}/{node}".encode(), codec.encode(after.nodes[node])

    def apply(self, changes: Iterable[Change], states: Iterable[RunState]) -> None:
        """Take over what has been written to the changelog: the records and the decoded states."""
        for key, value in changes:
            if value is None:
                self._records.pop(key, None)
            else:
                self._records[key] = value
                if key == OFFSET_KEY:
                    self.next_offset = int(value)
        for state in states:
            self._replace(state)

    def _replace(self, state: RunState) -> None:
        run = state.head.run
        before = self._runs.get(run)
        if before is not None:
            self._set_timers(before, state)
        elif state.head.status not in TERMINAL:
            for wake, due in _wakes(state):
                self.timers.set(wake, due)
        if state.head.status in TERMINAL:
            self._runs.pop(run, None)
            self._ended.append((state.head.finished_at or 0, run))
        else:
            self._runs[run] = state

    def _set_timers(self, before: RunState, after: RunState) -> None:
        run = after.head.run
        if after.head.status in TERMINAL:
            for wake, due in _wakes(before):
                self.timers.cancel(wake, due)
            return
        for name, node in after.nodes.items():
            old = before.nodes.get(name)
            if old is node:
                continue
            if old is not None and old.wake_at is not None:
                self.timers.cancel((run, name), old.wake_at)
            if node.wake_at is not None:
                self.timers.set((run, name), node.wake_at)

    def forgotten(self, now: int) -> list[Change]:
        """Tombstones of runs that ended long enough before `now`, some at a time; written once."""
        changes: list[Change] = []
        while (
            self._ended
            and self._ended[0][0] < now - REMEMBERED_MS
            and len(changes) < _FORGOTTEN_AT_ONCE
        ):
            changes.append((self._ended.popleft()[1].encode(), None))
        return changes

    def due(self, wake: Wake, now: int) -> int | None:
        """When the timer was due, if it still is."""
        state = self._runs.get(wake[0])
        if state is None:
            return None
        if not wake[1]:
            at: int | None = state.head.deadline
        else:
            node = state.nodes.get(wake[1])
            at = None if node is None else node.wake_at
        return at if at is not None and at <= now else None


def _wakes(state: RunState) -> Iterator[tuple[Wake, int]]:
    run = state.head.run
    yield (run, ""), state.head.deadline
    for node in state.nodes.values():
        if node.wake_at is not None:
            yield (run, node.node), node.wake_at


def records_of(state: RunState) -> Iterator[tuple[bytes, bytes]]:
    """Every record of a run's state: what the table holds of it."""
    run = state.head.run
    yield _head_record(state.head)
    if _has_data(state.head):
        yield _data_key(run), bytes(state.head.trigger.data)
    for node in state.nodes.values():
        yield f"{run}/{node.node}".encode(), codec.encode(node)


def _head_record(head: RunHead) -> tuple[bytes, bytes]:
    if _has_data(head):
        head = replace(head, trigger=replace(head.trigger, data=NULL))
    return head.run.encode(), codec.encode(head)


def _has_data(head: RunHead) -> bool:
    return bytes(head.trigger.data) != b"null"


def _data_key(run: str) -> bytes:
    return f"{run}/{_DATA}".encode()

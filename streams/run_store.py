"""The runs of one partition: decoded where they are under way, raw bytes in the table otherwise.

Keys of the table: the run id for a head, `run id/node` for a node and `run id/node.3` for an item
of it, `run id/@trigger` for its trigger, `run id/@items/node` for what a node fanned out over, and
`@offset` for how far the inbox has been read into the state. Trigger and items are written once: a
head is written with every decision and has to be small (law 7).

The head of a run that has ended is remembered for `REMEMBERED_MS`, so that its event starts nothing
when it comes again; the inbox and the triggers are kept no longer than that.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import structlog
from immutables import Map
from msgspec import Raw

from streams import codec
from streams.errors import UnreadableRecordError
from streams.ids import node_key
from streams.lifecycle import TERMINAL, Items, RunState
from streams.messages import Occurrence
from streams.pattern import matches
from streams.run import Outcome
from streams.run_state import NodeState
from streams.state_log import Change
from streams.timers import Timers
from streams.topics import DAY_MS

_log = structlog.get_logger(__name__)

OFFSET_KEY: Final = b"@offset"
_TRIGGER: Final = "@trigger"
_ITEMS: Final = "@items/"

REMEMBERED_MS: Final = 7 * DAY_MS
_FORGOTTEN_AT_ONCE: Final = 500

Wake = tuple[str, str]
"""A timer's key: the run, and the node or `` for the run's own deadline."""


class RunStore:
    """The state of one partition of the inbox, and its timers.

    `records` is the table's data of this partition, live. What is decided is taken over at once
    (`take_over`), so that the next messages can be decided; the table follows when it is written
    to the changelog (`kept`).
    """

    def __init__(self, partition: int, records: dict[bytes, bytes]) -> None:
        """Find the runs under way and set their timers; unreadable records are said and left."""
        self.partition = partition
        self.timers: Timers[Wake] = Timers()
        self._records = records
        self._runs: dict[str, RunState] = {}
        self._ending: dict[bytes, RunState] = {}
        """Runs that have ended, of which the table does not know yet."""
        self._ended: deque[tuple[int, str]] = deque()
        self._unreadable: set[str] = set()
        self._waiting: dict[str, set[str]] = {}
        offset = records.get(OFFSET_KEY)
        self.next_offset = None if offset is None else int(offset)
        """Up to where the inbox is decided; None where nothing of it ever was."""
        self._restore()

    def _restore(self) -> None:
        nodes: dict[str, list[bytes]] = {}
        lists: dict[str, dict[str, Items]] = {}
        triggers: dict[str, bytes] = {}
        heads: list[tuple[str, bytes]] = []
        for key, value in self._records.items():
            if key == OFFSET_KEY:
                continue
            run, _, part = key.decode().partition("/")
            if not part:
                heads.append((run, value))
            elif part.startswith(_ITEMS):
                name = part.removeprefix(_ITEMS)
                lists.setdefault(run, {})[name] = Items(Raw(value))
            elif part == _TRIGGER:
                triggers[run] = value
            else:
                nodes.setdefault(run, []).append(value)
        ended = []
        for run, value in heads:
            try:
                head = codec.heads.decode(value)
                if head.status in TERMINAL:
                    ended.append((head.finished_at or 0, head.run))
                    continue
                trigger = codec.triggers.decode(triggers.get(head.run))
                states = [codec.nodes.decode(v) for v in nodes.get(head.run, ())]
            except UnreadableRecordError as error:
                _log.error("a run's state cannot be read", partition=self.partition, why=str(error))
                self._unreadable.add(run)
                continue
            state = RunState(
                head,
                trigger,
                Map({node_key(node.node, node.item): node for node in states}),
                Map(lists.get(head.run, {})),
            )
            self._runs[head.run] = state
            for wake, due in _wakes(state):
                self.timers.set(wake, due)
            for name, node in state.nodes.items():
                self._note_waiting(head.run, name, node)
        self._ended.extend(sorted(ended))

    def __len__(self) -> int:
        """How many runs are under way."""
        return len(self._runs)

    def get(self, run: str) -> RunState | None:
        """The run's state, None where there is no such run.

        Raises:
            UnreadableRecordError: there is one, but this release cannot read its state.
        """
        state = self._runs.get(run)
        if state is not None:
            return state
        key = run.encode()
        state = self._ending.get(key)
        if state is not None or (record := self._records.get(key)) is None:
            return state
        if run in self._unreadable:
            raise UnreadableRecordError(
                f"the state of run {run} cannot be read by this release; see the worker's log from"
                " when it took over the partition"
            )
        return RunState(codec.heads.decode(record))  # it has ended

    def waiting(self, occurrence: Occurrence) -> list[str]:
        """The runs that wait for an event of this project and type."""
        found = []
        for run, patterns in self._waiting.items():
            head = self._runs[run].head
            if head.project == occurrence.project and any(
                matches(p.partition(" ")[2], occurrence.trigger.type) for p in patterns
            ):
                found.append(run)
        return sorted(found)

    def record(self, key: bytes) -> bytes | None:
        """What the table holds under a key."""
        return self._records.get(key)

    def changes(self, before: RunState | None, outcome: Outcome) -> list[Change]:
        """The records that turn the state `before` into the outcome's."""
        after = outcome.state
        if after is None:
            return []
        run = after.head.run
        changes: list[Change] = [(run.encode(), codec.encode(after.head))]
        if after.trigger is None:  # it has ended
            if before is not None and before.trigger is not None:
                changes.append((_trigger_key(run), None))
                changes += [(f"{run}/{node}".encode(), None) for node in sorted(before.nodes)]
                changes += [(_items_key(run, node), None) for node in sorted(before.lists)]
            return changes
        if before is None:
            changes.append((_trigger_key(run), codec.encode(after.trigger)))
        nodes = after.nodes
        changes += [
            (f"{run}/{node}".encode(), codec.encode(nodes[node]))
            for node in sorted(outcome.touched)
        ]
        for node in sorted(outcome.listed):
            changes.append((_items_key(run, node), bytes(after.lists[node].raw)))
        return changes

    def take_over(
        self, states: Iterable[tuple[RunState, AbstractSet[str]]], next_offset: int | None
    ) -> None:
        """Go on from these states, and from this offset of the inbox.

        Each comes with the keys of its nodes that are new since the last time.
        """
        self.next_offset = next_offset
        for state, touched in states:
            self._replace(state, touched)

    def kept(self, changes: Iterable[Change], ended: Iterable[str]) -> None:
        """Take these records, which the changelog has, into the table.

        `ended` are the runs whose end is among them.
        """
        records = self._records
        for key, value in changes:
            if value is None:
                records.pop(key, None)
            else:
                records[key] = value
        for run in ended:
            key = run.encode()
            newest = self._ending.get(key)
            # What was decided since may be on its way: a cost that was told after the end.
            if newest is not None and records.get(key) == codec.encode(newest.head):
                del self._ending[key]

    def _replace(self, state: RunState, touched: AbstractSet[str]) -> None:
        run = state.head.run
        before = self._runs.get(run)
        if state.trigger is None:  # it has ended
            if before is not None:
                for wake, due in _wakes(before):
                    self.timers.cancel(wake, due)
                del self._runs[run]
            self._waiting.pop(run, None)
            if before is not None or not self._has_ended(run.encode()):
                self._ended.append((state.head.finished_at or 0, run))
            self._ending[run.encode()] = state
            return
        self._runs[run] = state
        if before is None:
            for wake, due in _wakes(state):
                self.timers.set(wake, due)
        else:
            self._set_timers(before, state, touched)
        for key in touched:
            node = state.nodes[key]
            if node.awaits is not None or run in self._waiting:
                self._note_waiting(run, key, node)

    def _has_ended(self, key: bytes) -> bool:
        """Whether the run of this key was known to have ended."""
        record = self._records.get(key)
        if key in self._ending or record is None:
            return key in self._ending
        return codec.heads.decode(record).status in TERMINAL

    def _note_waiting(self, run: str, key: str, node: NodeState) -> None:
        """Know which runs wait for events: `node pattern` of each node that does."""
        waits = self._waiting.get(run)
        if node.awaits is not None:
            self._waiting.setdefault(run, set()).add(f"{key} {node.awaits}")
        elif waits is not None:
            left = {wait for wait in waits if wait.partition(" ")[0] != key}
            if left:
                self._waiting[run] = left
            else:
                del self._waiting[run]

    def _set_timers(self, before: RunState, after: RunState, touched: AbstractSet[str]) -> None:
        run = after.head.run
        if before.head.deadline != after.head.deadline:
            self.timers.cancel((run, ""), before.head.deadline)
            self.timers.set((run, ""), after.head.deadline)
        for name in touched:
            node = after.nodes[name]
            old = before.nodes.get(name)
            if old is not None and old.wake_at is not None:
                self.timers.cancel((run, name), old.wake_at)
            if node.wake_at is not None:
                self.timers.set((run, name), node.wake_at)
        if before.head.paused_at is not None and after.head.paused_at is None:
            for wake, due in _wakes(after):  # what came due in a pause went by unheeded
                self.timers.set(wake, due)

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
    for key, node in state.nodes.items():
        if node.wake_at is not None:
            yield (run, key), node.wake_at


def records_of(state: RunState) -> Iterator[tuple[bytes, bytes]]:
    """Every record of a run's state: what the table holds of it."""
    run = state.head.run
    yield run.encode(), codec.encode(state.head)
    if state.trigger is not None:
        yield _trigger_key(run), codec.encode(state.trigger)
    for key, node in state.nodes.items():
        yield f"{run}/{key}".encode(), codec.encode(node)
    for name, items in state.lists.items():
        yield _items_key(run, name), bytes(items.raw)


def _items_key(run: str, node: str) -> bytes:
    return f"{run}/{_ITEMS}{node}".encode()


def _trigger_key(run: str) -> bytes:
    return f"{run}/{_TRIGGER}".encode()

"""Which runs the triggers must have started: every event against the workflows of its time.

A trigger is routed some time after it was appended, by the workflows that are published then. So a
run is expected only where it makes no difference when that was: the version that was in force when
it was appended, and all that followed, are started by the event. Where they disagree, nobody can
tell, and the trigger is counted as such.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from streams import codec, pattern
from streams.catalog import Published, Retirement
from streams.draft import Limits
from streams.ending import FINISHED_TYPE
from streams.errors import (
    CommandCenterError,
    DefinitionError,
    TooLargeError,
    UnreadableRecordError,
)
from streams.findings import Findings, LogRecord, Place
from streams.ids import run_id
from streams.ledger import Expected, TellsEnd
from streams.messages import RunRequest
from streams.payload import INLINE_LIMIT, check_payload
from streams.records import Trigger
from streams.routing import CALLED_OFF_TYPE, OWN_TYPES, REQUESTED_TYPE, judge
from streams.trigger import IncomingEvent, check_size, from_kafka

_SKEW_MS: Final = 1_000
"""How far the clocks of those who publish workflows and those who send events may be apart."""


class _Change(NamedTuple):
    """From `at` on the workflow has this version; None: it starts no runs."""

    at: int
    published: Published | None


class WorkflowHistory:
    """All that was ever published, with its times."""

    def __init__(self) -> None:
        self._changes: dict[str, dict[str, list[_Change]]] = defaultdict(dict)
        self._known: set[tuple[str, str, int]] = set()

    def take(self, record: LogRecord) -> None:
        """The next record of the workflows topic; one that cannot be read changes nothing."""
        try:
            change = codec.catalog.decode(record.value)
        except UnreadableRecordError:
            return  # said by every worker that reads it
        changes = self._changes[change.project].setdefault(change.name, [])
        if isinstance(change, Retirement):
            changes.append(_Change(change.retired_at, None))
            return
        version = (change.project, change.name, change.version)
        if version not in self._known:  # the first record of a version is the version
            self._known.add(version)
            changes.append(_Change(change.published_at, Published(change)))

    def started(self, event: IncomingEvent, at: int) -> tuple[list[str], bool]:
        """The workflows that the event of that time must start, and whether there are doubts."""
        names, doubtful = [], False
        for name, changes in self._changes.get(event.project, {}).items():
            verdicts = {_starts(change.published, event) for change in _in_force(changes, at)}
            if verdicts == {True}:
                names.append(name)
            doubtful = doubtful or len(verdicts) > 1
        return names, doubtful

    def is_active(self, project: str, name: str, at: int) -> tuple[bool, bool]:
        """Whether the workflow could be started by its name then, and whether that is sure."""
        changes = self._changes.get(project, {}).get(name, [])
        verdicts = {change.published is not None for change in _in_force(changes, at)}
        return True in verdicts, len(verdicts) == 1


def _in_force(changes: list[_Change], at: int) -> list[_Change]:
    """The change that held a little before `at`, and all that followed."""
    before = _Change(0, None)
    after = []
    for change in changes:
        if change.at <= at - _SKEW_MS:
            before = change
        else:
            after.append(change)
    return [before, *after]


def _starts(published: Published | None, event: IncomingEvent) -> bool:
    if published is None:
        return False
    try:
        plan = published.plan
    except DefinitionError:
        return False  # listed with its fault; it can start nothing
    wanted = plan.spec.trigger.event
    if wanted is None or not pattern.matches(wanted, event.trigger.type):
        return False
    return judge(published.record.name, plan, event).starts


class TriggerAudit:
    """Takes every record of the triggers topic; `expected` says what must be in the inbox.

    A record that is over a limit has a dead letter, wanted or not; which excuses the runs that it
    did not start. One that has started its runs came when the limit was another.

    Args:
        history: Complete.
        findings: Takes what is found.
        partition_of: The partition of a run's inbox.
        limits: What an event may have, as the workers have it.
    """

    def __init__(
        self,
        history: WorkflowHistory,
        findings: Findings,
        partition_of: Callable[[str], int],
        limits: Limits,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.expected: dict[int, dict[str, Expected]] = defaultdict(dict)
        self.told_ends: dict[int, dict[str, TellsEnd]] = defaultdict(dict)
        """By partition and run: the first event that tells of the run's end."""
        self._history = history
        self._findings = findings
        self._partition_of = partition_of
        self._limits = limits

    def take(self, record: LogRecord, routed_to: int) -> None:
        """The next record; what stands at `routed_to` or behind may still be routed."""
        self.counts["triggers"] += 1
        place = Place(record.topic, record.partition, record.offset)
        late = record.offset >= routed_to
        try:
            event = from_kafka(record.headers, record.value, str(place))
        except CommandCenterError as error:
            text = f"is no event and has no dead letter: {error}"
            self._findings.unless_letter(place, "trigger.noLetter", place, text, late=late)
            return
        if event.trigger.type == REQUESTED_TYPE:
            self._take_request(event, record.timestamp, place, late=late)
            return
        if event.trigger.type == FINISHED_TYPE:
            self._take_end(event.trigger, place)
        if event.trigger.type == CALLED_OFF_TYPE:
            return  # it starts nothing
        names, doubtful = self._history.started(event, record.timestamp)
        self.counts["doubtful triggers"] += doubtful
        for name in names:
            trigger = event.trigger
            run = run_id(event.project, name, trigger.source, trigger.id)
            partition = self.expected[self._partition_of(run)]
            partition.setdefault(run, Expected(place, name, late))
        over = "" if names else self._over_a_limit(len(record.value or b""), event.trigger)
        if over:
            text = f"is over a limit and has no dead letter: {over}"
            self._findings.unless_letter(place, "trigger.noLetter", place, text, late=late)

    def _over_a_limit(self, size: int, trigger: Trigger) -> str:
        """The limit that the router would have held against the event; '' where there is none."""
        data, limits = len(trigger.data), self._limits
        try:
            check_size(size, limits.trigger)
            if data > INLINE_LIMIT and not trigger.type.startswith(OWN_TYPES):
                check_payload(data, limits.payload)
        except TooLargeError as error:
            return str(error)
        return ""

    def _take_end(self, trigger: Trigger, place: Place) -> None:
        """The end of a run is told: the run has to have ended so."""
        told = self.told_ends[self._partition_of(trigger.id)]
        status = trigger.subject or "nothing"
        known = told.setdefault(trigger.id, TellsEnd(place, status))
        if known.status != status:
            text = f"{place} tells of another end of the run than {known.place}: one is not its own"
            self._findings.differ("trigger.forged", trigger.id, text)

    def _take_request(self, event: IncomingEvent, at: int, place: Place, *, late: bool) -> None:
        """A node asks for a run: it exists, unless the workflow was not active."""
        try:
            request = msgspec.json.decode(event.trigger.data, type=RunRequest)
        except msgspec.MsgspecError as error:
            text = f"is no request for a run and has no dead letter: {error}"
            self._findings.unless_letter(place, "trigger.noLetter", place, text, late=late)
            return
        active, sure = self._history.is_active(request.project, request.workflow, at)
        self.counts["doubtful triggers"] += not sure
        if active and sure:
            partition = self.expected[self._partition_of(request.run)]
            partition.setdefault(request.run, Expected(place, request.workflow, late))

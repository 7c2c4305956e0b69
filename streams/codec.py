"""Records to bytes and back: JSON with a format version in every record.

Decoding is total: whatever cannot be read, an unknown version included, is an
`UnreadableRecordError` with the reason; it never crashes a reader. Encoding the same value gives
the same bytes, which is what makes a duplicate recognisable.
"""

from typing import Final, Generic, TypeVar

import msgspec

from streams.budget import Budget
from streams.catalog import CatalogRecord
from streams.errors import UnreadableRecordError
from streams.events import Decision
from streams.messages import DeadLetter, Message, Task, TaskCancellation
from streams.records import FORMAT, Trigger
from streams.registry import AgentRecord, WorkerRecord
from streams.run_state import NodeState, RunHead

T = TypeVar("T")

_encoder: Final = msgspec.json.Encoder()
_VERSION: Final = b'{"v":%d,' % FORMAT


def encode(record: object) -> bytes:
    """The record's bytes. `v` is written although it is a default."""
    return _VERSION + _encoder.encode(record)[1:]


class Reader(Generic[T]):
    """Decodes one kind of record."""

    def __init__(self, kind: object, name: str) -> None:
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._name = name

    def decode(self, data: bytes | None) -> T:
        """The record, or `UnreadableRecordError` saying why there is none."""
        if data is None:
            raise UnreadableRecordError(f"empty value where {self._name} was expected")
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableRecordError(self._why(data, error)) from error

    def _why(self, data: bytes, error: Exception) -> str:
        """Tell an unknown format version from a broken record."""
        try:
            version = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("v")
            found = None if version is None else msgspec.json.decode(version)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return f"not {self._name}: not a JSON object ({error})"
        if found is not None and found != FORMAT:
            return f"not {self._name}: format version {found!r}, only {FORMAT} is known"
        return f"not {self._name}: {error}"


messages: Final = Reader[Message](Message, "an inbox message")
tasks: Final = Reader[Task](Task, "a task")
decisions: Final = Reader[Decision](Decision, "a decision")
heads: Final = Reader[RunHead](RunHead, "a run's head")
triggers: Final = Reader[Trigger](Trigger, "a run's trigger")
nodes: Final = Reader[NodeState](NodeState, "a node's state")
catalog: Final = Reader[CatalogRecord](CatalogRecord, "a workflow definition")
agents: Final = Reader[AgentRecord](AgentRecord, "an agent's registration")
budgets: Final = Reader[Budget](Budget, "a budget")
workers: Final = Reader[WorkerRecord](WorkerRecord, "a worker's sign of life")
cancellations: Final = Reader[TaskCancellation](TaskCancellation, "an order to end a task")
dead_letters: Final = Reader[DeadLetter](DeadLetter, "a dead letter")

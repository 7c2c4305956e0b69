"""One recorded history of a run: its definition, what it heard, and every byte that it decided."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import json as records

from streams import codec
from streams.lifecycle import RunState, evolve
from streams.messages import Message
from streams.payload import MissingBlobError, Reference, reference_to
from streams.plan import parse
from streams.run import Limits, Outcome, decide
from streams.run_store import RunStore, records_of

FOLDER: Final = Path(__file__).parent

Step = dict[str, Any]
"""What was heard, and what followed, as JSON texts."""


class History:
    """A history as it stands in a file."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.plan = parse(content["definition"])
        self.limits = Limits(**content["limits"])
        self.blobs: dict[str, bytes] = {
            reference_to(text.encode()).digest: text.encode() for text in content["blobs"]
        }
        self.steps: list[Step] = content["steps"]

    @classmethod
    def read(cls, path: Path) -> "History":
        return cls(json.loads(path.read_text()))

    def made_again(self) -> list[Step]:
        """The steps as the core of today makes them."""
        return [step for step, _ in self._walk()]

    def states(self) -> list[RunState | None]:
        """The state after every step, by replaying the recorded decisions."""
        state: RunState | None = None
        states = []
        for step in self.steps:
            if step["decision"] is not None:
                state = evolve(state, codec.decisions.decode(step["decision"].encode()))
            states.append(state)
        return states

    def recorded_records(self) -> list[dict[str, str]]:
        """The records of the run after every step, by what was recorded of them."""
        table: dict[str, str] = {}
        tables = []
        for step in self.steps:
            for key, value in step["records"].items():
                if value is None:
                    table.pop(key, None)
                else:
                    table[key] = value
            tables.append(dict(table))
        return tables

    def _walk(self) -> list[tuple[Step, Outcome]]:
        state: RunState | None = None
        store = RunStore(0, {})
        made = []
        for step in self.steps:
            message: Message = codec.messages.decode(step["message"].encode())
            outcome = decide(
                state, message, step["at"], self.plan, 0, limits=self.limits, blobs=self._blob
            )
            changes = list(store.changes(state, outcome))
            made.append((_step(step["message"], step["at"], outcome, changes), outcome))
            if outcome.state is not None:
                state = outcome.state
                ended = [state.head.run] if state.trigger is None else []
                store.take_over([(state, outcome.touched)], None)
                store.kept(changes, ended)
        return made

    def _blob(self, reference: Reference) -> bytes:
        if reference.digest not in self.blobs:
            raise MissingBlobError(reference)
        return self.blobs[reference.digest]


def recorded(
    about: str,
    definition: dict[str, Any],
    limits: Limits,
    heard: list[tuple[Message, int]],
    blobs: dict[str, bytes],
) -> dict[str, Any]:
    """The content of the file of a history that has just been lived through."""
    content: dict[str, Any] = {
        "about": about,
        "definition": definition,
        "limits": limits._asdict(),
        "blobs": [blob.decode() for blob in blobs.values()],
        "steps": [{"message": codec.encode(m).decode(), "at": at} for m, at in heard],
    }
    content["steps"] = History(content).made_again()
    return content


def _step(message: str, at: int, outcome: Outcome, changes: list[tuple[bytes, Any]]) -> Step:
    step = {
        "message": message,
        "at": at,
        "ignored": outcome.ignored,
        "decision": None if outcome.decision is None else codec.encode(outcome.decision).decode(),
        "records": {k.decode(): None if v is None else v.decode() for k, v in changes},
    }
    effects: dict[str, tuple[Any, Callable[[Any], bytes]]] = {
        "tasks": (outcome.tasks, codec.encode),
        "cancellations": (outcome.cancellations, codec.encode),
        "messages": (outcome.messages, codec.encode),
        "requests": (outcome.requests, records.encode),
        "blobs": (outcome.blobs, bytes),
    }
    for name, (values, encode) in effects.items():
        if values:
            step[name] = [encode(value).decode() for value in values]
    if outcome.announcement is not None:
        step["announcement"] = records.encode(outcome.announcement).decode()
    return step


def table_of(state: RunState | None) -> dict[str, str]:
    """The records of a state as texts."""
    if state is None:
        return {}
    return {key.decode(): value.decode() for key, value in records_of(state)}

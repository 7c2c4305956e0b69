"""Runs in progress outlive an upgrade: what was decided is decided again, to the byte.

Every file is one history as a worker of that version made it. A worker of today that takes over
such a run replays its decisions, and makes those again that its predecessor had not yet kept.
"""

from importlib.metadata import version
from pathlib import Path

import pytest
from history import FOLDER, History, table_of
from lives import LIVES

from streams import codec
from streams.events import Event

FILES = sorted(FOLDER.glob("*/*.json"))
WHAT_TO_DO = """

This is an incompatible change to the core: runs that are in progress while the workers are upgraded
would break, because what {version} decided is not decided again in the same way.
- Not meant: the core has changed more than it should. `git diff main -- streams/` shows where.
- Meant, and a released version differs: keep the old way for records of that version (their format
  is in `v`), or say in CHANGELOG.md that runs have to end before the upgrade.
- Meant, and {version} is not released yet: record it anew with
  `python tests/golden/record.py --again`, and read the difference before you commit it.
"""


def differs(path: Path, number: int, what: str, recorded: object, made: object) -> str:
    return (
        f"{path.relative_to(FOLDER)}, message {number}: {what} is not what was recorded\n"
        f"  recorded: {recorded}\n  made now: {made}" + WHAT_TO_DO.format(version=path.parent.name)
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_core_decides_what_was_decided(path: Path) -> None:
    history = History.read(path)
    for number, (was, now) in enumerate(
        zip(history.steps, history.made_again(), strict=True), start=1
    ):
        for what in sorted(was.keys() | now.keys()):
            if was.get(what) != now.get(what):
                pytest.fail(differs(path, number, what, was.get(what), now.get(what)))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_replaying_the_events_gives_the_recorded_state(path: Path) -> None:
    history = History.read(path)
    pairs = zip(history.recorded_records(), history.states(), strict=True)
    for number, (recorded, state) in enumerate(pairs, start=1):
        if recorded != table_of(state):
            pytest.fail(differs(path, number, "the state", recorded, table_of(state)))


def test_there_is_a_history_of_this_version_for_every_feature() -> None:
    mine = {path.stem for path in FILES if path.parent.name == version("commandcenter")}
    missing = sorted({life.name for life in LIVES} - mine)
    assert not missing, f"python tests/golden/record.py records {', '.join(missing)}"


def test_the_histories_have_every_event_in_them() -> None:
    seen = set()
    for path in FILES:
        for step in History.read(path).steps:
            if step["decision"] is not None:
                decision = codec.decisions.decode(step["decision"].encode())
                seen |= {type(event) for event in decision.events}
    assert {kind.__name__ for kind in Event.__args__} == {kind.__name__ for kind in seen}

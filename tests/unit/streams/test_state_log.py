"""One partition of the run table, for its owner, for a standby, and after both."""

from typing import Any, NamedTuple

from streams.state_log import READS, Change, StateLog


class Record(NamedTuple):
    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Changelog:
    """What all workers write, in order."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def write(self, reads: int, *changes: Change) -> int:
        first = len(self.records)
        for n, (key, value) in enumerate(changes):
            self.records.append(Record(first + n, key, value, ((READS, b"%d" % reads),)))
        return first

    def own(self, owner: StateLog, reads: int, *changes: Change) -> bool:
        """The owner writes: gives whether it knows all that is in the changelog."""
        first = self.write(reads, *changes)
        known = owner.written(first, len(changes), reads)
        owner.apply(changes)
        return known

    def restored(self, *, compacted: bool = False) -> StateLog:
        last = {record.key: record for record in self.records}
        fresh = StateLog()
        fresh.restore([r for r in self.records if not compacted or last[r.key] is r])
        return fresh


def test_a_restore_takes_the_records_in_order_once() -> None:
    log = Changelog()
    log.write(1, (b"a", b"1"), (b"b", b"2"))
    log.write(1, (b"a", None), (b"b", b"4"))
    log.write(2, (b"c", b"5"))
    state = log.restored()
    state.restore(log.records[:3])  # come late, by another connection
    assert (state.data, state.offset, state.reads) == ({b"b": b"4", b"c": b"5"}, 4, 2)
    assert state.to_mend(9) == set()


def test_what_follows_on_a_gap_is_not_taken_until_the_gap_is_read() -> None:
    """A run's later records without its first would be a run that cannot be read."""
    log = Changelog()
    log.write(1, (b"r", b"begun"), (b"r/trigger", b"t"))
    log.write(2, (b"r", b"going on"))
    standby = StateLog()
    standby.restore(log.records[2:], since=2)  # what came before was given up in a rebalance
    assert (standby.data, standby.offset) == ({}, -1)
    standby.restore(log.records, since=0)
    assert (standby.data, standby.offset) == ({b"r": b"going on", b"r/trigger": b"t"}, 2)
    gone = Record(9, b"r", None, ((READS, b"3"),))
    standby.restore([gone], since=3)  # what lay between was compacted
    assert standby.data == {b"r/trigger": b"t"}


def test_own_writes_need_no_second_look() -> None:
    log, owner = Changelog(), StateLog()
    assert log.own(owner, 1, (b"a", b"1"), (b"b", b"2"))
    assert log.own(owner, 2, (b"a", b"3"))
    assert (owner.offset, owner.seen) == (2, 2)


def test_offsets_that_compaction_took_are_no_writes_of_others() -> None:
    state = StateLog()
    state.restore([Record(3, b"k", b"1"), Record(7, b"l", b"1")])
    assert state.written(8, 2, 1)
    assert state.offset == 9


def test_a_write_of_unknown_place_is_looked_at() -> None:
    log, owner = Changelog(), StateLog()
    log.write(1, (b"a", b"1"))
    assert not owner.written(None, 1, 1)
    assert owner.offset == -1
    owner.look(log.records)
    assert owner.offset == 0
    assert log.own(owner, 2, (b"a", b"2"))


def test_what_is_behind_the_owner_is_skipped_and_repaired_with_its_next_write() -> None:
    log, owner = Changelog(), StateLog()
    log.own(owner, 20, (b"k", b"new"), (b"l", b"new"))
    log.write(19, (b"k", b"old"))
    assert not log.own(owner, 21, (b"m", b"1"))
    owner.look(log.records[owner.seen + 1 :])
    assert (owner.data[b"k"], owner.offset) == (b"new", 3)
    assert owner.to_mend(22) == {b"k"}
    assert owner.to_mend(23) == set()
    assert log.own(owner, 22, (b"k", b"new"))
    assert log.restored().data == owner.data


def test_what_is_ahead_of_the_owner_is_read_by_whoever_goes_on_from_its_table() -> None:
    """A run that the replaced owner has ended is under way for this one until it ends it too."""
    log, owner = Changelog(), StateLog()
    log.own(owner, 1, (b"r", b"running"), (b"r/trigger", b"t"))
    log.write(9, (b"r", b"ended"), (b"r/trigger", None))
    assert not log.own(owner, 5, (b"r", b"running on"))
    owner.look(log.records[owner.seen + 1 :])
    assert owner.data == {b"r": b"running on", b"r/trigger": b"t"}
    assert (owner.offset, owner.seen) == (1, 4)

    # Let go by now, it follows its successor, who has restored what is ahead.
    owner.restore(log.records[owner.offset + 1 :])
    assert owner.data == log.restored().data == {b"r": b"ended"}
    assert (owner.reads, owner.offset) == (9, 4)
    assert owner.to_mend(9) == {b"r"}


def test_an_owner_that_has_come_as_far_repairs_what_was_ahead_and_not_before() -> None:
    log, owner = Changelog(), StateLog()
    log.own(owner, 1, (b"r", b"running"))
    log.write(0, (b"s", b"none yet"))
    log.write(9, (b"q", b"1"), (b"r", b"ended"))
    log.own(owner, 5, (b"r", b"ended"))
    owner.look(log.records[owner.seen + 1 :])
    # Not even what is behind: a restore would skip it, by what it reads before.
    assert owner.to_mend(8) == set()
    log.own(owner, 8, (b"r", b"ended"))
    assert owner.offset == 1
    log.own(owner, 9, (b"q", b"1"))
    assert owner.offset == len(log.records) - 1
    mended = owner.to_mend(9)
    assert mended == {b"q", b"r", b"s"}
    log.own(owner, 10, *[(key, owner.data.get(key)) for key in sorted(mended)])
    for restored in (log.restored(), log.restored(compacted=True)):
        assert restored.data == owner.data == {b"q": b"1", b"r": b"ended"}


def test_own_writes_beyond_a_gap_are_told_from_those_of_others() -> None:
    log, owner = Changelog(), StateLog()
    log.write(0, (b"z", b"1"))
    assert not log.own(owner, 1, (b"a", b"1"))
    end = len(log.records)
    assert not log.own(owner, 2, (b"b", b"1"))  # while the changelog is read up to `end`
    owner.look(log.records[:end])
    assert owner.offset == 2
    assert log.own(owner, 3, (b"c", b"1"))
    assert owner.to_mend(3) == {b"z"}

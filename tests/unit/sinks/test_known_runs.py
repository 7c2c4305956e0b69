from sinks import decision_record
from sinks.decision_record import DecisionRecord
from sinks.known_runs import KnownRuns, Recorded
from streams import codec
from streams.events import Decision, RunSucceeded
from streams.records import RunStatus


def decided(run: str, seq: int, at: int) -> DecisionRecord:
    decision = Decision(
        run=run,
        project="p",
        workflow="w",
        version=1,
        seq=seq,
        at=at,
        status=RunStatus.RUNNING,
        previous=RunStatus.RUNNING,
        events=(RunSucceeded(),),
    )
    return decision_record.read(0, 0, codec.encode(decision))


def test_a_run_that_starts_now_needs_no_question_to_the_store() -> None:
    records = [decided("a", 0, 10), decided("a", 1, 20), decided("b", 0, 20)]
    assert KnownRuns().unknown(records) == set()


def test_a_run_seen_only_later_does() -> None:
    assert KnownRuns().unknown([decided("a", 3, 10), decided("a", 4, 20)]) == {"a"}


def test_a_known_run_does_not() -> None:
    known = KnownRuns([("a", Recorded(3, 5))])
    assert known.unknown([decided("a", 3, 10)]) == set()


def test_a_start_from_before_the_remembered_time_does() -> None:
    known = KnownRuns([], since=100_000)
    assert known.unknown([decided("a", 0, 99_000)]) == {"a"}
    assert known.unknown([decided("a", 0, 103_000)]) == {"a"}  # clocks may differ a little
    assert known.unknown([decided("a", 0, 110_000)]) == set()


def test_what_was_forgotten_is_asked_for_again() -> None:
    known = KnownRuns(capacity=2)
    for number, run in enumerate(["a", "b", "c"]):
        known.learn(run, Recorded(1, 100_000 * (number + 1)))
    known.learn("b", Recorded(2, 200_000))  # used again: stays longest
    known.forget_oldest()

    assert known.get("a") is None
    assert known.get("b") == Recorded(2, 200_000)
    assert known.unknown([decided("a", 0, 100_000)]) == {"a"}
    assert known.unknown([decided("new", 0, 400_000)]) == set()

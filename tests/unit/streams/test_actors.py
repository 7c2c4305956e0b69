"""The owner of actors: hears of every failure, counts it by name, and tells the first."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from streams.actors import Actors


def failures(actor: str) -> float:
    labels = {"actor": actor}
    return REGISTRY.get_sample_value("commandcenter_actor_failures_total", labels) or 0.0


async def fail(error: Exception) -> None:
    raise error


async def until_told(actors: Actors) -> None:
    async with asyncio.timeout(20):
        await actors.failure()


async def test_the_first_failure_is_told_and_each_is_counted() -> None:
    actors = Actors()
    before = failures("one"), failures("two"), failures("others' task")
    first = actors.start("one", fail(OSError("first")))
    await asyncio.wait([first])
    second = actors.start("two", fail(OSError("second")))
    await asyncio.wait([second])
    actors.failed("others' task", OSError("third"))
    for _ in range(2):  # it is told to whoever asks, whenever
        with pytest.raises(OSError, match="first"):
            await until_told(actors)
    after = failures("one"), failures("two"), failures("others' task")
    assert after == tuple(number + 1 for number in before)


async def test_whoever_gives_up_waiting_takes_the_failure_from_nobody() -> None:
    actors = Actors()
    impatient = asyncio.create_task(actors.failure())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    actors.failed("one", OSError("late"))
    with pytest.raises(OSError, match="late"):
        await until_told(actors)


async def test_what_is_stopped_or_comes_to_its_end_has_not_failed() -> None:
    actors = Actors()
    before = failures("patient"), failures("done")
    patient = actors.start("patient", asyncio.sleep(3_600))
    await asyncio.wait([actors.start("done", asyncio.sleep(0))])
    await actors.stop()
    assert patient.cancelled()
    assert (failures("patient"), failures("done")) == before

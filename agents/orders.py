"""Orders to end tasks: read from the control topic by every worker, and remembered for a while.

An order and its task come by different topics, so the order may be first. It is kept for an hour,
and the newest ten thousand are; a worker that starts reads those of the last hour.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Self

import structlog
from prometheus_client import Counter

from streams import codec, topics
from streams.compacted_reader import CompactedReader
from streams.errors import UnreadableRecordError
from streams.messages import TaskCancellation

KEPT_S: Final = 3_600.0
KEPT: Final = 10_000

_log = structlog.get_logger(__name__)
_unreadable = Counter("commandcenter_orders_unreadable_total", "Orders to agents not understood.")


class Orders:
    """The orders to one agent that are remembered. `clock` gives seconds; any origin will do."""

    def __init__(
        self, clock: Callable[[], float], *, seconds: float = KEPT_S, count: int = KEPT
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._count = count
        self._orders: OrderedDict[str, tuple[float, TaskCancellation]] = OrderedDict()

    def put(self, order: TaskCancellation) -> None:
        """Remember the order; a later one for the same task takes its place."""
        now = self._clock()
        self._orders[order.task] = (now, order)
        self._orders.move_to_end(order.task)
        while len(self._orders) > self._count or self._oldest() <= now - self._seconds:
            self._orders.popitem(last=False)

    def get(self, task: str) -> TaskCancellation | None:
        """The order to end this task, if there was one."""
        found = self._orders.get(task)
        if found is None or found[0] <= self._clock() - self._seconds:
            return None
        return found[1]

    def _oldest(self) -> float:
        return next(iter(self._orders.values()))[0]


class OrderReader:
    """Hands each order on the control topic to `obey`, which must take any; a context manager."""

    def __init__(
        self, bootstrap: str, now_ms: Callable[[], int], obey: Callable[[TaskCancellation], None]
    ) -> None:
        """`now_ms` is the clock, milliseconds since the epoch."""
        self._obey = obey
        since = now_ms() - int(KEPT_S * 1000)
        self._reader = CompactedReader(bootstrap, topics.CONTROL, self._apply, since)

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.__aexit__(*error)

    @property
    def trouble(self) -> str:
        """Why orders may be missing; empty while all is well."""
        return self._reader.trouble

    async def failure(self) -> None:
        """Wait until reading ends, and raise by what."""
        await self._reader.failure()

    async def ready(self) -> None:
        """Wait until the orders that there were at the start have been handed on."""
        await self._reader.ready()

    def _apply(self, record: Any) -> None:
        try:
            self._obey(codec.cancellations.decode(record.value))
        except UnreadableRecordError as error:
            _unreadable.inc()
            _log.error("an order cannot be read", offset=record.offset, why=str(error))

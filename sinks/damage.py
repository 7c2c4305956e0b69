"""What the engine found broken when it opened the store.

It puts broken parts aside and goes on without them: history would be missing and nobody would be
told. So whoever opens the store asks here first.
"""

from sinks.clickhouse import REBUILD
from sinks.queries import query
from sinks.store import Store
from streams.errors import OperatorError

_NAMED = 5


async def refuse(store: Store) -> None:
    """Return if every part could be read.

    Raises:
        OperatorError: Names what is broken, and how to get it back.
    """
    broken = (await store.query(query("broken_parts"))).rows
    if not broken:
        return
    named = ", ".join(f"{table}/{part}" for table, part in broken[:_NAMED])
    more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    raise OperatorError(
        f"{store.description} is damaged: these parts of its tables cannot be read: {named}{more}. "
        f"{REBUILD}"
    )

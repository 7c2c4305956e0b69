"""How long the history is kept: a TTL on every table, by when the run of a row started.

A run is removed as a whole, whatever its status: retention has to be longer than runs last. The
rollups, the workflows, the agents and the places on the log are kept for ever.
"""

from typing import Final

from sinks.store import Store
from streams.errors import OperatorError

TABLES: Final = {
    "events": "run_started_at",
    "runs_log": "started_at",
    "agent_runs_log": "run_started_at",
    "costs_log": "run_started_at",
    "run_places": "started_at",
}
"""Which column says when the run of a row started."""

# The engine's TTL ends in 2106: what is later is kept as long as what is from 2100.
_EXPIRY: Final = (
    "toDateTime(least({column}, toDateTime64('2100-01-01', 3, 'UTC'))) + toIntervalDay({days})"
)


async def apply(store: Store, days: int) -> None:
    """Make the tables keep so many days; 0: for ever. Only what differs is changed.

    Raises:
        OperatorError: The store is away or refuses.
    """
    rows = await store.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()"
    )
    made: dict[str, str] = {row[0]: row[1] for row in rows.rows}
    for table, column in TABLES.items():
        if table not in made:
            raise OperatorError(
                f"{store.description} has no table {table}: apply the schema first."
            )
        wanted = _EXPIRY.format(column=column, days=days)
        if days and f"toIntervalDay({days})" not in made[table]:
            await store.command(f"ALTER TABLE {table} MODIFY TTL {wanted}")
        elif not days and "toIntervalDay(" in made[table]:
            await store.command(f"ALTER TABLE {table} REMOVE TTL")

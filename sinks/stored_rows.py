"""Runs and attempts as the views `runs` and `agent_runs` have them, made of the stored columns.

The engine takes longer to plan a query over such a view, with its many expressions, than to run it.
So where the gateway asks for single runs, it asks for the columns as they are stored, and the rest
is done here: the same, row by row. A test compares the two.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Row = dict[str, Any]

_UNSET: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def merged(parts: Sequence[Row]) -> list[Row]:
    """Runs made of their parts, as FINAL makes them: of each column the greatest value counts.

    Args:
        parts: Of `runs_log`; those of one run follow each other.
    """
    runs: list[Row] = []
    for part in parts:
        last = runs[-1] if runs else None
        if last is None or last["run_id"] != part["run_id"]:
            runs.append(part)
            continue
        for name, value in part.items():
            if _order(value) > _order(last[name]):
                last[name] = value
    return runs


def _order(value: Any) -> Any:
    """A tuple with names comes as a dict."""
    return tuple(value.values()) if isinstance(value, dict) else value


def run(row: Row) -> Row:
    """A row of the view `runs`.

    Args:
        row: Of `runs_log`, merged: the columns that `runs_parts.sql` names.
    """
    latest = row["latest"]
    finished_at = _set(latest["finished_at"])
    return {
        "run_id": row["run_id"],
        "project": row["project"],
        "workflow": row["workflow"],
        "version": row["version"],
        "status": latest["status"],
        "started_at": row["started_at"],
        "finished_at": finished_at,
        "duration_ms": _between(row["started_at"], finished_at),
        "paused": bool(row["pause"]["paused"]) and finished_at is None,
        "nodes": row["nodes"],
        "tags": row["tags"],
        "trigger_type": row["trigger_type"],
        "trigger_source": row["trigger_source"],
        "trigger_id": row["trigger_id"],
        "trigger_subject": row["trigger_subject"],
        "error_kind": latest["error_kind"],
        "error_node": latest["error_node"],
        "error_message": latest["error_message"],
        "depth": row["depth"],
        "parent_run": row["parent_run"],
        "origin_run": row["origin_run"],
        "origin_kind": row["origin_kind"],
        "deadline": row["deadline"],
        "trace_id": row["trace_id"],
        "seq": latest["seq"],
    }


def agent_run(row: Row) -> Row:
    """A row of the view `agent_runs`.

    Args:
        row: Of `agent_runs_log`, merged: the columns that `run_agent_runs.sql` names.
    """
    outcome, cancelled_at = row["outcome"], _set(row["cancelled_at"])
    started_at = _set(row["started_at"])
    finished_at = _set(row["finished_at"]) if outcome else cancelled_at
    return {
        "task_id": row["task_id"],
        "run_id": row["run_id"],
        "node": row["node"],
        "item": row["item_number"] - 1,
        "attempt": row["attempt"],
        "project": row["project"],
        "workflow": row["workflow"],
        "version": row["version"],
        "agent": row["agent"],
        "action": row["action"],
        "child_run": row["child_run"],
        "status": outcome or ("RUNNING" if cancelled_at is None else "CANCELLED"),
        "dispatched_at": row["dispatched_at"],
        "started_at": started_at,
        "finished_at": finished_at,
        "duration_ms": _between(started_at, finished_at),
        "retry_at": _set(row["retry_at"]),
        "error_kind": row["error_kind"],
        "error_message": row["error_message"],
        "worker": row["worker"],
        "agent_version": row["agent_version"],
        "inputs": row["inputs"],
        "output": row["output"],
        "deadline": _set(row["deadline"]),
        "run_started_at": row["run_started_at"],
    }


def _set(at: datetime) -> datetime | None:
    """A time that a part has set, or None."""
    return None if at == _UNSET else at


def _between(begin: datetime | None, end: datetime | None) -> int | None:
    return None if begin is None or end is None else (end - begin) // _MILLISECOND

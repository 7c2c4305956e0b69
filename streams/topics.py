"""Every topic of CommandCenter in one list: its name, key, what it holds and how it is cleaned up.

`triggers`, `inbox`, `events` and `state` share one partition count: `inbox`, `events` and `state`
are keyed by run id and must map a run to the same partition number.
"""

from typing import Final, Literal, NamedTuple

PREFIX: Final = "commandcenter."

DAY_MS: Final = 24 * 60 * 60 * 1000


class Topic(NamedTuple):
    """What a topic must look like on the broker. `retention_ms` -1 is for ever."""

    name: str
    key: str
    holds: str
    cleanup: Literal["delete", "compact"]
    retention_ms: int = -1
    single_partition: bool = False


TRIGGERS: Final = PREFIX + "triggers"
INBOX: Final = PREFIX + "inbox"
EVENTS: Final = PREFIX + "events"
STATE: Final = PREFIX + "state"
WORKFLOWS: Final = PREFIX + "workflows"
AGENTS: Final = PREFIX + "agents"
DEAD_LETTERS: Final = PREFIX + "dead-letters"
BUDGETS: Final = PREFIX + "budgets"
CONTROL: Final = PREFIX + "control"
TASKS_PREFIX: Final = PREFIX + "tasks."

TOPICS: Final = (
    Topic(TRIGGERS, "event source", "CloudEvents from anyone", "delete", 7 * DAY_MS),
    Topic(INBOX, "run id", "everything addressed to one run", "delete", 7 * DAY_MS),
    Topic(EVENTS, "run id", "one record per decision: the system of record", "delete", -1),
    Topic(STATE, "run id or run id/node", "the run table's changelog", "compact"),
    Topic(WORKFLOWS, "name@version", "workflow definitions, immutable", "compact", -1, True),
    Topic(AGENTS, "name", "agents, their actions and schemas; workers", "compact", -1, True),
    Topic(CONTROL, "task id", "orders to all workers: end a task", "delete", DAY_MS, True),
    Topic(DEAD_LETTERS, "as the original", "what could not be processed", "delete", -1),
    Topic(BUDGETS, "project/name", "what may be spent in a month", "compact", -1, True),
)


def tasks(agent: str) -> str:
    """The topic of the work for one kind of agent."""
    return TASKS_PREFIX + agent


def tasks_topic(agent: str) -> Topic:
    """The declaration of `tasks(agent)`."""
    return Topic(tasks(agent), "task id", f"work for {agent}", "delete", 7 * DAY_MS)

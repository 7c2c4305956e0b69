"""What the gateway works with: handed in by whoever starts it, and opened by the app itself."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from gateway.agents_view import AgentsView
from gateway.budget_reader import BudgetReader
from gateway.letter_reader import LetterReader
from gateway.live import LiveTail
from gateway.log_follower import LogFollower
from gateway.log_writer import LogWriter
from gateway.reads import Reads
from gateway.recent_starts import RecentStarts
from sinks.costs import Costs
from sinks.store import Store
from streams.blob_store import BlobStore
from streams.publishing import CatalogReader
from streams.run import PAYLOAD_LIMIT
from streams.workflow import MAX_NODES

Check = Callable[[], Awaitable[None]]
"""Returns if a part is usable; raises `OperatorError` with the reason if it is not."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the process that starts a gateway decides.

    Attributes:
        bootstrap: The Kafka brokers, `host:port[,host:port]`.
        store: Opened; it stays the caller's.
        recorded: The next offset of each partition that is not recorded yet, where the recorder of
            all partitions runs in this process; without it the store is asked every time.
        tail: The live tail. Feed it by `on_records` from the recorder, or let the gateway read the
            log itself with `follow_log`.
        follow_log: Whether the gateway reads the log for the tail.
        log_id: Names the log, so that cursors of another one are recognised: the cluster's id.
        checks: More parts that `/readyz` asks for, by name, such as the recorder.
        hosts: Names that the server may be addressed by, besides the loopback ones.
        body_limit: Bytes of a request's body, but for those that `trigger_limit` is for.
        trigger_limit: Bytes of an event, or of the context of a run that is started by name.
        blobs: Where payloads are that are too big for the log.
        definition_limit: Bytes of a workflow definition, as canonical JSON.
        nodes_limit: Nodes of a workflow.
        fan_out_limit: Items of a fan-out whose list stands in the definition.
        scratch: A folder on a disk for SQL answers under way; None: the system's for such things.
        sql_key: What clients of `/clickhouse` have to give as their password; empty: nothing.
    """

    bootstrap: str
    store: Store
    blobs: BlobStore
    recorded: Callable[[], Mapping[int, int]] | None = None
    tail: LiveTail = field(default_factory=LiveTail)
    follow_log: bool = False
    log_id: str = ""
    checks: Mapping[str, Check] = field(default_factory=dict)
    hosts: frozenset[str] = frozenset()
    body_limit: int = PAYLOAD_LIMIT
    trigger_limit: int = PAYLOAD_LIMIT
    definition_limit: int = 256 * 1024
    nodes_limit: int = MAX_NODES
    fan_out_limit: int = 20_000
    scratch: Path | None = None
    sql_key: str = ""
    clock: Callable[[], float] = time.time


SERVICES: Final = web.AppKey("services", Services)
WRITER: Final = web.AppKey("writer", LogWriter)
CATALOG: Final = web.AppKey("catalog", CatalogReader)
AGENTS: Final = web.AppKey("agents", AgentsView)
READS: Final = web.AppKey[Reads]("reads", Reads)
STARTS: Final = web.AppKey("starts", RecentStarts)
BUDGETS: Final = web.AppKey("budgets", BudgetReader)
COSTS: Final = web.AppKey("costs", Costs)
LETTERS: Final = web.AppKey("letters", LetterReader)
FOLLOWER: Final = web.AppKey("follower", LogFollower)

-- Every event of every run, append-only: the log's copy, and the recorder's own position in it.
-- One INSERT is one atomic block here, made last: max(offset) of a partition says what is recorded.
-- Duplicates are dropped before the insert. The engine only guards against a writer that lost its
-- partition while an insert was under way: its rows have the same key, so a merge drops them.
-- Sorted as the log is: appends merge cheaply, and time, partition and offset find few granules.
-- Many small inserts, merged at once, are written twelve times over; with a merge base of 20 (for 5)
-- two to three times, for some more parts to read.
CREATE TABLE IF NOT EXISTS events
(
    run_id String COMMENT 'Run that the event belongs to',
    seq UInt32 COMMENT 'Place of the event in its run, from 0; (run_id, seq) is the event''s id',
    type LowCardinality(String) COMMENT 'What happened, for example run.started or node.failed',
    at DateTime64(3, 'UTC') CODEC(Delta, LZ4) COMMENT 'When the message that caused it was appended to the log',
    project LowCardinality(String) COMMENT 'Project of the run',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow that the run is pinned to',
    node LowCardinality(String) COMMENT 'Node that it is about; empty for events of the run itself',
    attempt UInt32 COMMENT 'Attempt at the node, from 1; 0 where there is none',
    agent LowCardinality(String) COMMENT 'Agent that the node was dispatched to (node.dispatched)',
    action LowCardinality(String) COMMENT 'Action of the agent (node.dispatched)',
    worker LowCardinality(String) COMMENT 'Worker that did the work, where the event says so',
    status LowCardinality(String) COMMENT 'Status of the run after the decision that the event is part of',
    previous_status LowCardinality(String) COMMENT 'Status of the run before that decision',
    topic LowCardinality(String) COMMENT 'Topic of the log that the event was read from',
    partition UInt32 COMMENT 'Partition of the topic',
    offset UInt64 CODEC(Delta, LZ4) COMMENT 'Offset of the decision in the partition; its events share it',
    payload String CODEC(ZSTD(1)) COMMENT 'The event as it stands on the log, JSON',
    traceparent String CODEC(ZSTD(1)) COMMENT 'W3C trace context of the run; empty if it has none',
    trace_id String ALIAS splitByChar('-', traceparent)[2] COMMENT 'Trace of the run; not part of SELECT *',
    INDEX events_by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX events_by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
ORDER BY (partition, offset, seq)
SETTINGS non_replicated_deduplication_window = 100, merge_selector_base = 20
COMMENT 'Every event of every run, exactly once, as it stands on the log';
;

ALTER TABLE events
    ADD COLUMN IF NOT EXISTS item Int32 DEFAULT -1
        COMMENT 'Item of the node that it is about, from 0; -1 where it is about none' AFTER attempt
;

-- What few events are asked for by type: without such events a granule is passed by.
ALTER TABLE events
    ADD INDEX IF NOT EXISTS events_by_type type TYPE set(0) GRANULARITY 1

-- What is known of a run, in parts: one row where it starts, one where its status changes.
-- Every column is set by one of the parts only (`latest` by the newest), and unset ones have the
-- least value of their type: so parts may come twice and in any order, and max gives the run.
-- Sorted by start: merges touch neighbours only, and pages of the newest runs are found at once.
CREATE TABLE IF NOT EXISTS runs_log
(
    started_at DateTime64(3, 'UTC') CODEC(Delta, LZ4) COMMENT 'When the run started',
    run_id String COMMENT 'Id of the run',
    project LowCardinality(String) COMMENT 'Project of the run',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    nodes SimpleAggregateFunction(max, UInt32) COMMENT 'Nodes of the workflow',
    deadline SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the run times out',
    trigger_type SimpleAggregateFunction(max, LowCardinality(String)) COMMENT 'Type of the event that started it',
    trigger_source SimpleAggregateFunction(max, String) COMMENT 'Source of that event',
    trigger_id SimpleAggregateFunction(max, String) COMMENT 'Id of that event',
    trigger_subject SimpleAggregateFunction(max, String) COMMENT 'Subject of that event',
    trace_id SimpleAggregateFunction(max, String) COMMENT 'Trace of the run',
    latest SimpleAggregateFunction(max, Tuple(
        seq UInt32,
        status String,
        finished_at DateTime64(3, 'UTC'),
        error_kind String,
        error_node String,
        error_message String
    )) COMMENT 'The run after its last change of status',
    INDEX runs_by_id run_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PRIMARY KEY (started_at, run_id)
ORDER BY (started_at, run_id, project, workflow, version) -- the last three follow from the run
SETTINGS merge_selector_base = 20
COMMENT 'Parts of runs; read the view runs';

ALTER TABLE runs_log
    ADD COLUMN IF NOT EXISTS depth SimpleAggregateFunction(max, UInt32)
        COMMENT 'How many runs are above it: those that started it',
    ADD COLUMN IF NOT EXISTS parent_run SimpleAggregateFunction(max, String)
        COMMENT 'Run that it is a step of',
    ADD COLUMN IF NOT EXISTS origin_run SimpleAggregateFunction(max, String)
        COMMENT 'Run that it repeats',
    ADD COLUMN IF NOT EXISTS origin_kind SimpleAggregateFunction(max, LowCardinality(String))
        COMMENT 'How it repeats it',
    ADD COLUMN IF NOT EXISTS pause SimpleAggregateFunction(max, Tuple(seq UInt32, paused UInt8))
        COMMENT 'Whether it is paused, after the last event that said so';

CREATE OR REPLACE VIEW runs
(
    run_id String COMMENT 'Id of the run, derived from the workflow and the event that started it',
    project LowCardinality(String) COMMENT 'Project, the boundary between tenants',
    workflow LowCardinality(String) COMMENT 'Name of the workflow',
    version UInt32 COMMENT 'Version of the workflow that the run is pinned to',
    status LowCardinality(String) COMMENT 'PENDING RUNNING WAITING_APPROVAL SUCCESS FAILED CANCELLED or TIMED_OUT',
    started_at DateTime64(3, 'UTC') COMMENT 'When the run started',
    finished_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ended; NULL while it goes on',
    duration_ms Nullable(Int64) COMMENT 'Milliseconds from start to end; NULL while it goes on',
    paused Bool COMMENT 'Whether it begins nothing more until it is resumed',
    nodes UInt32 COMMENT 'How many nodes its workflow has',
    trigger_type LowCardinality(String) COMMENT 'Type of the event that started it',
    trigger_source String COMMENT 'Source of that event',
    trigger_id String COMMENT 'Id of that event',
    trigger_subject String COMMENT 'Subject of that event; empty if it has none',
    error_kind String COMMENT 'Why it did not succeed, one word; empty if it did',
    error_node String COMMENT 'Node that failed first; empty if none',
    error_message String COMMENT 'Why it did not succeed, a sentence; empty if it did',
    depth UInt32 COMMENT 'How many runs are above it: those that started it, as a step or by their end',
    parent_run String COMMENT 'Run that it is a step of; empty if it is none',
    origin_run String COMMENT 'Run that it repeats; empty if it repeats none',
    origin_kind LowCardinality(String) COMMENT 'How it repeats that: retry, rerun or compensation',
    deadline DateTime64(3, 'UTC') COMMENT 'When it times out',
    trace_id String COMMENT 'OpenTelemetry trace; empty if it has none',
    seq UInt32 COMMENT 'Sequence number of the event that gave it its status'
)
AS SELECT
    run_id,
    project,
    workflow,
    version,
    newest.status::LowCardinality(String) AS status,
    started_at,
    nullIf(newest.finished_at, toDateTime64(0, 3, 'UTC')) AS finished_at,
    dateDiff('millisecond', started_at, finished_at) AS duration_ms,
    (newest_pause.paused AND finished_at IS NULL)::Bool AS paused,
    nodes::UInt32 AS nodes,
    trigger_type::LowCardinality(String) AS trigger_type,
    trigger_source::String AS trigger_source,
    trigger_id::String AS trigger_id,
    trigger_subject::String AS trigger_subject,
    newest.error_kind AS error_kind,
    newest.error_node AS error_node,
    newest.error_message AS error_message,
    depth::UInt32 AS depth,
    parent_run::String AS parent_run,
    origin_run::String AS origin_run,
    origin_kind::LowCardinality(String) AS origin_kind,
    deadline::DateTime64(3, 'UTC') AS deadline,
    trace_id::String AS trace_id,
    newest.seq AS seq
-- materialize: a subcolumn of `latest` read on its own would come from any of the parts
FROM
(
    SELECT *, materialize(latest) AS newest, materialize(pause) AS newest_pause
    FROM runs_log FINAL
)
COMMENT 'One row per run, as it stands now';

-- Tags: a run has those of its workflow's version, from the event that started it. So they follow
-- from (project, workflow, version), which every cost has too: costs need no column of their own.
ALTER TABLE runs_log
    ADD COLUMN IF NOT EXISTS tags SimpleAggregateFunction(max, Array(String))
        COMMENT 'Tags of the workflow, in the version that the run is pinned to';

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
    tags Array(String) COMMENT 'Tags of the workflow, in the version that the run is pinned to',
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
    tags::Array(String) AS tags,
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

CREATE OR REPLACE VIEW workflow_tags
(
    project LowCardinality(String) COMMENT 'Project of the workflow',
    workflow LowCardinality(String) COMMENT 'Name of the workflow',
    version UInt32 COMMENT 'Version of the workflow',
    tags Array(String) COMMENT 'Its tags'
)
AS SELECT project, workflow, version, max(r.tags)::Array(String) AS tags
FROM runs_log AS r
WHERE notEmpty(r.tags)
GROUP BY project, workflow, version
COMMENT 'Tags of each version of a workflow that has tags and runs; costs join it by its three keys';

-- Costs are sorted by the start of their run, and asked for by the time of the work: near each other.
ALTER TABLE costs_log
    ADD INDEX IF NOT EXISTS costs_by_time at TYPE minmax GRANULARITY 1;

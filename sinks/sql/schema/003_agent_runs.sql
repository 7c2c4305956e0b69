-- What is known of an attempt at a node, in parts: its dispatch, its end, its cancellation. As with
-- runs_log every column is set by one part only, so parts may come twice and in any order. Without a
-- dispatch it was no attempt: nodes that sleep or wait, and fan-outs themselves, end like others.
CREATE TABLE IF NOT EXISTS agent_runs_log
(
    run_started_at DateTime64(3, 'UTC') CODEC(Delta, LZ4) COMMENT 'When the run started',
    run_id String COMMENT 'Run that the attempt belongs to',
    node LowCardinality(String) COMMENT 'Node of the workflow',
    attempt UInt32 COMMENT 'Attempt, from 1; 0: could not be dispatched',
    project LowCardinality(String) COMMENT 'Project of the run',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    task_id SimpleAggregateFunction(max, String) COMMENT 'Id of the task',
    agent SimpleAggregateFunction(max, LowCardinality(String)) COMMENT 'Agent asked',
    action SimpleAggregateFunction(max, LowCardinality(String)) COMMENT 'Its action',
    dispatched_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the task was sent',
    deadline SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When it counts as lost',
    started_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the work began',
    finished_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When it ended',
    retry_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the next attempt was due',
    cancelled_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the run ended without it',
    outcome SimpleAggregateFunction(max, LowCardinality(String)) COMMENT 'SUCCESS or FAILED',
    error_kind SimpleAggregateFunction(max, LowCardinality(String)) COMMENT 'Why it failed, one word',
    error_message SimpleAggregateFunction(max, String) COMMENT 'Why it failed, a sentence',
    worker SimpleAggregateFunction(max, LowCardinality(String)) COMMENT 'Worker that did it',
    inputs SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) COMMENT 'What the agent was given, JSON',
    output SimpleAggregateFunction(max, String) CODEC(ZSTD(1)) COMMENT 'What it answered, JSON',
    INDEX agent_runs_by_run run_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PRIMARY KEY (run_started_at, run_id, node, attempt)
ORDER BY (run_started_at, run_id, node, attempt, project, workflow, version) -- as in runs_log
SETTINGS merge_selector_base = 20
COMMENT 'Parts of attempts; read the view agent_runs';

-- A column can join the key of a table that has rows only if it has no default but 0.
ALTER TABLE agent_runs_log
    ADD COLUMN IF NOT EXISTS item_number UInt32
        COMMENT 'Item of the node, from 1; 0: the attempt is at the node itself' AFTER attempt,
    MODIFY ORDER BY
        (run_started_at, run_id, node, attempt, project, workflow, version, item_number);

ALTER TABLE agent_runs_log
    ADD COLUMN IF NOT EXISTS child_run SimpleAggregateFunction(max, String)
        COMMENT 'Run that was started as this attempt';

CREATE OR REPLACE VIEW agent_runs
(
    task_id String COMMENT 'Id of the task, the agent''s idempotency key',
    run_id String COMMENT 'Run that the attempt belongs to',
    node LowCardinality(String) COMMENT 'Node of the workflow; of what undoes it, with .compensate behind',
    item Int32 COMMENT 'Item of the node, from 0; -1 where it has none',
    attempt UInt32 COMMENT 'Attempt at the node or item, from 1',
    project LowCardinality(String) COMMENT 'Project of the run',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    agent LowCardinality(String) COMMENT 'Agent that was asked; empty where a run was started',
    action LowCardinality(String) COMMENT 'Its action',
    child_run String COMMENT 'Run that was started; empty where an agent was asked',
    status LowCardinality(String) COMMENT 'RUNNING SUCCESS FAILED or CANCELLED (the run ended without it)',
    dispatched_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the task was sent, or the run asked for',
    started_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the agent began; NULL until an answer came',
    finished_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the agent ended, or the attempt was given up',
    duration_ms Nullable(Int64) COMMENT 'Milliseconds that the agent worked; NULL if it never answered',
    retry_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the next attempt was due; NULL if there was none',
    error_kind LowCardinality(String) COMMENT 'Why it failed, one word; empty if it did not',
    error_message String COMMENT 'Why it failed, a sentence; empty if it did not',
    worker LowCardinality(String) COMMENT 'Worker that did it',
    inputs String COMMENT 'What the agent was given, JSON',
    output String COMMENT 'What it answered, JSON; empty if it did not',
    deadline Nullable(DateTime64(3, 'UTC')) COMMENT 'When the attempt counts as lost',
    run_started_at DateTime64(3, 'UTC') COMMENT 'When the run started'
)
AS WITH toDateTime64(0, 3, 'UTC') AS unset
SELECT
    task_id::String AS task_id,
    run_id,
    node,
    toInt32(item_number) - 1 AS item,
    attempt,
    project,
    workflow,
    version,
    agent::LowCardinality(String) AS agent,
    action::LowCardinality(String) AS action,
    child_run::String AS child_run,
    multiIf(outcome != '', outcome, cancelled_at != unset, 'CANCELLED', 'RUNNING')::LowCardinality(String) AS status,
    nullIf(a.dispatched_at, unset) AS dispatched_at,
    nullIf(a.started_at, unset) AS started_at,
    nullIf(if(outcome != '', a.finished_at, cancelled_at), unset) AS finished_at,
    if(started_at IS NULL, NULL, dateDiff('millisecond', started_at, finished_at)) AS duration_ms,
    nullIf(a.retry_at, unset) AS retry_at,
    error_kind::LowCardinality(String) AS error_kind,
    error_message::String AS error_message,
    worker::LowCardinality(String) AS worker,
    inputs::String AS inputs,
    output::String AS output,
    nullIf(a.deadline, unset) AS deadline,
    run_started_at
FROM agent_runs_log AS a FINAL
WHERE a.dispatched_at != unset
COMMENT 'One row per attempt at a node, as it stands now';

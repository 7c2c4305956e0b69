-- Which version of its agent did an attempt: the result says so. An agent's registration tells only
-- the newest one, and workers of two versions may serve it side by side.
ALTER TABLE agent_runs_log
    ADD COLUMN IF NOT EXISTS agent_version SimpleAggregateFunction(max, LowCardinality(String))
        COMMENT 'Version of the agent that did it';

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
    agent_version LowCardinality(String) COMMENT 'Version of the agent that did it; empty where it did not say',
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
    agent_version::LowCardinality(String) AS agent_version,
    inputs::String AS inputs,
    output::String AS output,
    nullIf(a.deadline, unset) AS deadline,
    run_started_at
FROM agent_runs_log AS a FINAL
WHERE a.dispatched_at != unset
COMMENT 'One row per attempt at a node, as it stands now';

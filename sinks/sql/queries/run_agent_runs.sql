-- Asked by GET /api/runs/{id}/agent-runs: attempts of a run, in the order of their dispatch, the page
-- after the key (after_at, after_node, after_item, after_attempt). As with runs_parts.sql the columns are
-- those of the parts, for `sinks.history`; without a dispatch it was no attempt: see the view.
SELECT
    task_id, run_id, node, item_number, attempt, project, workflow, version, agent, action,
    child_run, outcome, dispatched_at, started_at, finished_at, cancelled_at, retry_at, error_kind,
    error_message, worker, agent_version, inputs, output, deadline, run_started_at
FROM agent_runs_log FINAL
WHERE run_id = {run:String}
    AND run_started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))
    AND dispatched_at != toDateTime64(0, 3, 'UTC')
    AND (dispatched_at, node, toInt32(item_number) - 1, attempt) > (
        fromUnixTimestamp64Milli({after_at:Int64}, 'UTC'),
        {after_node:String}, {after_item:Int32}, {after_attempt:UInt32})
ORDER BY dispatched_at, node, item_number, attempt
LIMIT {limit:UInt32}

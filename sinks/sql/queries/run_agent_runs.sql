-- Asked by GET /api/runs/{id}/agent-runs: attempts of a run, in the order of their dispatch, the page
-- after the key (after_at, after_node, after_item, after_attempt).
SELECT *
FROM agent_runs
WHERE run_id = {run:String}
    AND (assumeNotNull(dispatched_at), node, item, attempt) > (
        fromUnixTimestamp64Milli({after_at:Int64}, 'UTC'),
        {after_node:String}, {after_item:Int32}, {after_attempt:UInt32})
ORDER BY dispatched_at, node, item, attempt
LIMIT {limit:UInt32}

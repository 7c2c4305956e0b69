-- Asked by GET /api/runs/{id}/agent-runs: every attempt of a run, in the order of its dispatch.
SELECT *
FROM agent_runs
WHERE run_id = {run:String}
ORDER BY dispatched_at, node, item, attempt

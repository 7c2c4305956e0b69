-- Asked by GET /api/runs, GET /api/workflows/{name}/runs and the live page, where a status is named: these
-- runs, newest first, as far as they have one of the statuses. As with runs_parts.sql the columns are those of the
-- parts; materialize: see the view runs.
SELECT
    run_id, project, workflow, version, started_at, nodes, tags, trigger_type, trigger_source,
    trigger_id, trigger_subject, depth, parent_run, origin_run, origin_kind, deadline, trace_id,
    latest, pause
FROM runs_log FINAL
PREWHERE started_at IN {times:Array(DateTime64(3, 'UTC'))} AND run_id IN {runs:Array(String)}
WHERE empty({statuses:Array(String)}) OR has({statuses:Array(String)}, materialize(latest).status)
ORDER BY started_at DESC, run_id DESC
LIMIT {limit:UInt32}

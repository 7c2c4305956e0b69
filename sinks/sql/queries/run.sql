-- Asked by GET /api/runs/{id}: one run, in the parts' columns: `sinks.history` makes of them what the
-- view runs has. To plan a query over that view takes three times as long as all of this.
SELECT
    run_id, project, workflow, version, started_at, nodes, tags, trigger_type, trigger_source,
    trigger_id, trigger_subject, depth, parent_run, origin_run, origin_kind, deadline, trace_id,
    latest, pause
FROM runs_log FINAL
WHERE run_id = {run:String} AND started_at IN (SELECT started_at FROM run_places WHERE run_hash = cityHash64({run:String}))

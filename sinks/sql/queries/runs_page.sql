-- Asked by GET /api/runs, GET /api/workflows/{name}/runs and the live page: runs, newest first, the
-- page after the key (before_at, before_run). Empty filters let everything through. As with run.sql
-- the columns are those of the parts; materialize: see the view runs.
SELECT
    run_id, project, workflow, version, started_at, nodes, tags, trigger_type, trigger_source,
    trigger_id, trigger_subject, depth, parent_run, origin_run, origin_kind, deadline, trace_id,
    latest, pause
FROM runs_log FINAL
WHERE started_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND started_at <= fromUnixTimestamp64Milli({before_at:Int64}, 'UTC')
    AND (started_at, run_id) < (fromUnixTimestamp64Milli({before_at:Int64}, 'UTC'), {before_run:String})
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
    AND ({trigger_type:String} = '' OR trigger_type = {trigger_type:String})
    AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, materialize(latest).status))
ORDER BY started_at DESC, run_id DESC
LIMIT {limit:UInt32}

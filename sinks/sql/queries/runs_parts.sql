-- Asked by GET /api/runs, GET /api/workflows/{name}/runs and the live page, where no status is named: parts
-- of runs, newest first, from the key (before_at, before_run) on. Those of one run follow each other:
-- `sinks.stored_rows` makes of them what the view runs has, which takes three times as long to plan. Two
-- questions, for the runs and then for their rows, take half as long again, and FINAL or max make all runs
-- before the first. Empty filters let everything through.
SELECT
    run_id, project, workflow, version, started_at, nodes, tags, trigger_type, trigger_source,
    trigger_id, trigger_subject, depth, parent_run, origin_run, origin_kind, deadline, trace_id,
    latest, pause
FROM runs_log
WHERE started_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND started_at <= fromUnixTimestamp64Milli({before_at:Int64}, 'UTC')
    AND (started_at, run_id) < (fromUnixTimestamp64Milli({before_at:Int64}, 'UTC'), {before_run:String})
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
ORDER BY started_at DESC, run_id DESC
LIMIT {parts:UInt32}

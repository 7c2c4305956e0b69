-- Asked before runs_page: which runs may be on it, newest first, from the key (before_at, before_run) on;
-- as often as they have parts: to make them distinct here would end the reading in order.
-- A run's parts say the same of project and workflow, one says what started it, and one of them has
-- the status that the run has now. Empty filters let everything through.
SELECT started_at, run_id
FROM runs_log
WHERE started_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND started_at <= fromUnixTimestamp64Milli({before_at:Int64}, 'UTC')
    AND (started_at, run_id) < (fromUnixTimestamp64Milli({before_at:Int64}, 'UTC'), {before_run:String})
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
    AND ({trigger_type:String} = '' OR trigger_type = {trigger_type:String})
    AND (empty({statuses:Array(String)}) OR has({statuses:Array(String)}, latest.status))
ORDER BY started_at DESC, run_id DESC
LIMIT {parts:UInt32}

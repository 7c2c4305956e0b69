-- Asked by GET /api/events: events, newest first, the page after the key (before_at, before_run,
-- before_seq). Empty filters let everything through.
SELECT *
FROM events
WHERE at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND at <= fromUnixTimestamp64Milli({before_at:Int64}, 'UTC')
    AND (at, run_id, seq)
        < (fromUnixTimestamp64Milli({before_at:Int64}, 'UTC'), {before_run:String}, {before_seq:UInt32})
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
    AND ({type:String} = '' OR type = {type:String})
    AND ({node:String} = '' OR node = {node:String})
ORDER BY at DESC, run_id DESC, seq DESC
LIMIT {limit:UInt32}

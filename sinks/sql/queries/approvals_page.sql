-- Asked by GET /api/approvals and the live page: what waits for people, the newest first, then what
-- was decided; the page after the key (before_waits, before_at, before_id). Empty filters let
-- everything through.
SELECT *
FROM approvals
WHERE (status = 'PENDING', requested_at, id)
        < ({before_waits:UInt8}, fromUnixTimestamp64Milli({before_at:Int64}, 'UTC'), {before_id:String})
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
    AND ({run:String} = '' OR run_id = {run:String})
    AND ({state:String} = '' OR ({state:String} = 'pending') = (status = 'PENDING'))
ORDER BY status = 'PENDING' DESC, requested_at DESC, id DESC
LIMIT {limit:UInt32}

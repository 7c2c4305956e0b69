-- Asked before events_page: are there {enough} events between two times? So that not all are sorted.
-- Empty filters let everything through.
SELECT count() >= {enough:UInt64} AS are_enough
FROM
(
    SELECT 1
    FROM events
    WHERE at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
        AND at < fromUnixTimestamp64Milli({before_at:Int64}, 'UTC')
        AND ({project:String} = '' OR project = {project:String})
        AND ({workflow:String} = '' OR workflow = {workflow:String})
        AND ({type:String} = '' OR type = {type:String})
        AND ({node:String} = '' OR node = {node:String})
    LIMIT {enough:UInt64}
)

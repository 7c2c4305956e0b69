-- Asked by the snapshot of GET /api/stream and the live page: how many runs stand where.
SELECT workflow, status, count() AS runs
FROM runs
WHERE started_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND ({project:String} = '' OR project = {project:String})
    AND ({workflow:String} = '' OR workflow = {workflow:String})
GROUP BY workflow, status
ORDER BY workflow, status

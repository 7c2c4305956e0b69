-- Asked before a run is repeated, or what it left is undone: the runs that repeat it already. They
-- began after it did.
SELECT DISTINCT run_id
FROM runs_log
WHERE started_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND origin_run = {run:String}
ORDER BY run_id

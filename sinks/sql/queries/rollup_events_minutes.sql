-- Asked by the rollups: count events anew, of these minutes.
INSERT INTO events_rollup (span, time, project, workflow, type, events, counted_at)
SELECT
    'minute',
    toDateTime64(intDiv(toUnixTimestamp64Milli(at), 60000) * 60, 0, 'UTC') AS minute,
    project,
    workflow,
    type,
    uniqExact(run_id, seq),
    now64(6)
FROM events
WHERE at >= fromUnixTimestamp64Milli({first:Int64} * 1000, 'UTC')
    AND at < fromUnixTimestamp64Milli(({last:Int64} + 60) * 1000, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Milli(at), 60000) * 60)
GROUP BY minute, project, workflow, type

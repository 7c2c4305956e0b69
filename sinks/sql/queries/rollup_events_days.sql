-- Asked by the rollups: count events anew, of these days.
INSERT INTO events_rollup (span, time, project, workflow, type, events, counted_at)
SELECT
    'day',
    toDateTime64(intDiv(toUnixTimestamp64Second(time), 86400) * 86400, 0, 'UTC') AS day,
    project,
    workflow,
    type,
    sum(m.events),
    now64(6)
FROM events_rollup AS m FINAL
WHERE span = 'minute'
    AND time >= toDateTime64({first:Int64}, 0, 'UTC') AND time < toDateTime64({last:Int64} + 86400, 0, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Second(time), 86400) * 86400)
GROUP BY day, project, workflow, type

-- Asked by the rollups: count runs anew, of these minutes.
INSERT INTO runs_rollup (span, time, project, workflow, version, runs, succeeded, failed, cancelled, timed_out, open, duration_ms, durations, counted_at)
SELECT
    'minute',
    toDateTime64(intDiv(toUnixTimestamp64Milli(started_at), 60000) * 60, 0, 'UTC') AS minute,
    project,
    workflow,
    version,
    count(),
    countIf(status = 'SUCCESS'),
    countIf(status = 'FAILED'),
    countIf(status = 'CANCELLED'),
    countIf(status = 'TIMED_OUT'),
    countIf(finished_at IS NULL),
    sum(greatest(ifNull(r.duration_ms, 0), 0)),
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(toFloat32(assumeNotNull(r.duration_ms)), r.duration_ms IS NOT NULL),
    now64(6)
FROM runs AS r
WHERE started_at >= fromUnixTimestamp64Milli({first:Int64} * 1000, 'UTC')
    AND started_at < fromUnixTimestamp64Milli(({last:Int64} + 60) * 1000, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Milli(started_at), 60000) * 60)
GROUP BY minute, project, workflow, version

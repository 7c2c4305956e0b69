-- Asked by the rollups: count steps anew, of these minutes.
INSERT INTO steps_rollup (span, time, project, workflow, version, node, agent, action, attempts, succeeded, failed, cancelled, open, retried, duration_ms, queued_ms, durations, counted_at)
SELECT
    'minute',
    toDateTime64(intDiv(toUnixTimestamp64Milli(run_started_at), 60000) * 60, 0, 'UTC') AS minute,
    project,
    workflow,
    version,
    node,
    agent,
    action,
    count(),
    countIf(status = 'SUCCESS'),
    countIf(status = 'FAILED'),
    countIf(status = 'CANCELLED'),
    countIf(status = 'RUNNING'),
    countIf(status = 'FAILED' AND retry_at IS NOT NULL),
    sum(greatest(ifNull(a.duration_ms, 0), 0)),
    sum(greatest(ifNull(dateDiff('millisecond', dispatched_at, a.started_at), 0), 0)),
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(toFloat32(assumeNotNull(a.duration_ms)), a.duration_ms IS NOT NULL),
    now64(6)
FROM agent_runs AS a
WHERE run_started_at >= fromUnixTimestamp64Milli({first:Int64} * 1000, 'UTC')
    AND run_started_at < fromUnixTimestamp64Milli(({last:Int64} + 60) * 1000, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Milli(run_started_at), 60000) * 60)
GROUP BY minute, project, workflow, version, node, agent, action

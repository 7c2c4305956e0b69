-- Asked by the rollups: count steps anew, of these days.
INSERT INTO steps_rollup (span, time, project, workflow, version, node, agent, action, attempts, succeeded, failed, cancelled, open, retried, duration_ms, queued_ms, durations, counted_at)
SELECT
    'day',
    toDateTime64(intDiv(toUnixTimestamp64Second(time), 86400) * 86400, 0, 'UTC') AS day,
    project,
    workflow,
    version,
    node,
    agent,
    action,
    sum(m.attempts),
    sum(m.succeeded),
    sum(m.failed),
    sum(m.cancelled),
    sum(m.open),
    sum(m.retried),
    sum(m.duration_ms),
    sum(m.queued_ms),
    quantilesTDigestMergeState(0.5, 0.95, 0.99)(m.durations),
    now64(6)
FROM steps_rollup AS m FINAL
WHERE span = 'minute'
    AND time >= toDateTime64({first:Int64}, 0, 'UTC') AND time < toDateTime64({last:Int64} + 86400, 0, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Second(time), 86400) * 86400)
GROUP BY day, project, workflow, version, node, agent, action

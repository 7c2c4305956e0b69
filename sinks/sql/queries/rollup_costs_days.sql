-- Asked by the rollups: count costs anew, of these days.
INSERT INTO costs_rollup (span, time, project, workflow, version, agent, kind, source, model, unit, currency, entries, quantity, amount, counted_at)
SELECT
    'day',
    toDateTime64(intDiv(toUnixTimestamp64Second(time), 86400) * 86400, 0, 'UTC') AS day,
    project,
    workflow,
    version,
    agent,
    kind,
    source,
    model,
    unit,
    currency,
    sum(m.entries),
    sum(m.quantity),
    sum(m.amount),
    now64(6)
FROM costs_rollup AS m FINAL
WHERE span = 'minute'
    AND time >= toDateTime64({first:Int64}, 0, 'UTC') AND time < toDateTime64({last:Int64} + 86400, 0, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Second(time), 86400) * 86400)
GROUP BY day, project, workflow, version, agent, kind, source, model, unit, currency

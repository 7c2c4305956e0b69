-- Asked by the rollups: count costs anew, of these minutes.
INSERT INTO costs_rollup (span, time, project, workflow, version, agent, kind, source, model, unit, currency, entries, quantity, amount, counted_at)
SELECT
    'minute',
    toDateTime64(intDiv(toUnixTimestamp64Milli(run_started_at), 60000) * 60, 0, 'UTC') AS minute,
    project,
    workflow,
    version,
    agent,
    kind,
    source,
    model,
    unit,
    currency,
    count(),
    sum(c.quantity),
    sum(c.amount),
    now64(6)
FROM costs AS c
WHERE run_started_at >= fromUnixTimestamp64Milli({first:Int64} * 1000, 'UTC')
    AND run_started_at < fromUnixTimestamp64Milli(({last:Int64} + 60) * 1000, 'UTC')
    AND has({times:Array(Int64)}, intDiv(toUnixTimestamp64Milli(run_started_at), 60000) * 60)
GROUP BY minute, project, workflow, version, agent, kind, source, model, unit, currency

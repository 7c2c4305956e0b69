-- Asked by the ledger about some runs: what do their attempts add up to?
SELECT
    run_id,
    countIf(status = 'SUCCESS') AS succeeded,
    countIf(status = 'FAILED') AS failed,
    countIf(status = 'CANCELLED') AS cancelled,
    countIf(status = 'RUNNING') AS running,
    sum(ifNull(toUnixTimestamp64Milli(finished_at), 0)) AS finished
FROM agent_runs
WHERE run_started_at BETWEEN fromUnixTimestamp64Milli({started_from:Int64}, 'UTC')
        AND fromUnixTimestamp64Milli({started_to:Int64}, 'UTC')
    AND run_id IN (
        SELECT run_id
        FROM events
        WHERE topic = {topic:String} AND partition = {partition:UInt32}
            AND offset BETWEEN {first:UInt64} AND {last:UInt64}
    )
GROUP BY run_id

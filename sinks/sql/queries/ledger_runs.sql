-- Asked by the ledger about some runs: how do they stand?
SELECT
    run_id,
    status,
    version,
    tags,
    toUnixTimestamp64Milli(started_at) AS started_ms,
    ifNull(toUnixTimestamp64Milli(finished_at), 0) AS finished_ms
FROM runs
WHERE started_at BETWEEN fromUnixTimestamp64Milli({started_from:Int64}, 'UTC')
        AND fromUnixTimestamp64Milli({started_to:Int64}, 'UTC')
    AND run_id IN (
        SELECT run_id
        FROM events
        WHERE topic = {topic:String} AND partition = {partition:UInt32}
            AND offset BETWEEN {first:UInt64} AND {last:UInt64}
    )

-- Asked by the ledger about some runs: what do their costs add up to?
SELECT
    run_id,
    currency,
    count() AS entries,
    toString(sum(amount)) AS amount
FROM costs
WHERE run_started_at BETWEEN fromUnixTimestamp64Milli({started_from:Int64}, 'UTC')
        AND fromUnixTimestamp64Milli({started_to:Int64}, 'UTC')
    AND run_id IN (
        SELECT run_id
        FROM events
        WHERE topic = {topic:String} AND partition = {partition:UInt32}
            AND offset BETWEEN {first:UInt64} AND {last:UInt64}
    )
GROUP BY run_id, currency

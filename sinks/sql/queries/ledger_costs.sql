-- Asked by the ledger about some runs: what do their costs add up to, and
-- what is all that they say?
SELECT
    run_id,
    currency,
    count() AS entries,
    toString(sum(c.amount)) AS amount,
    sum(halfMD5(concatWithSeparator('\x1f', toString(seq), toString(entry),
        toString(toUnixTimestamp64Milli(at)), project, workflow, toString(version), node,
        toString(item), toString(attempt), agent, kind, source, model, toString(quantity), unit,
        toString(unit_price), toString(c.amount), price_version))) AS digest
FROM costs AS c
WHERE run_started_at BETWEEN fromUnixTimestamp64Milli({started_from:Int64}, 'UTC')
        AND fromUnixTimestamp64Milli({started_to:Int64}, 'UTC')
    AND run_id IN (
        SELECT run_id
        FROM events
        WHERE topic = {topic:String} AND partition = {partition:UInt32}
            AND offset BETWEEN {first:UInt64} AND {last:UInt64}
    )
GROUP BY run_id, currency

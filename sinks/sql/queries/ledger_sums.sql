-- Asked by the ledger about a partition: what do its events add up to, some offsets at a time? Of runs
-- that began before `kept_from` retention may have removed them.
SELECT
    intDiv(offset, {width:UInt64}) AS bucket,
    count() AS events,
    sum(halfMD5(concatWithSeparator('\x1f', run_id, toString(seq), type, toString(toUnixTimestamp64Milli(at)),
        project, workflow, toString(version), status, previous_status, traceparent, payload))) AS digest
FROM events
WHERE topic = {topic:String} AND partition = {partition:UInt32}
    AND offset BETWEEN {first:UInt64} AND {last:UInt64}
    AND run_started_at >= fromUnixTimestamp64Milli({kept_from:Int64}, 'UTC')
GROUP BY bucket

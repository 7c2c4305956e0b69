-- Asked by the ledger where the sums differ: every event of a range of offsets, page by page.
-- As in ledger_sums.sql without those of runs that began before `kept_from`.
SELECT
    offset,
    seq,
    run_id,
    halfMD5(concatWithSeparator('\x1f', run_id, toString(seq), type, toString(toUnixTimestamp64Milli(at)),
        project, workflow, toString(version), status, previous_status, traceparent, payload)) AS digest
FROM events
WHERE topic = {topic:String} AND partition = {partition:UInt32}
    AND offset BETWEEN {first:UInt64} AND {last:UInt64}
    AND run_started_at >= fromUnixTimestamp64Milli({kept_from:Int64}, 'UTC')
ORDER BY offset, seq, digest
LIMIT {limit:UInt32} OFFSET {skip:UInt64}
